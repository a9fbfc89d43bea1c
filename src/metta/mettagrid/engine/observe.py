"""What agents see: tokens of (location, feature, value).

Which cells of a window hold something is read from the grid's bits, a row of the window at a time. Tables turn the bits
of a row into bits in the order in which cells are shown, nearest first, so that empty cells cost nothing. What a thing
looks like is kept ready without its location, which is added while the tokens are copied, several at once.
"""

from __future__ import annotations

import numpy as np

from metta.mettagrid.engine.compile import rule
from metta.mettagrid.engine.exact import times
from metta.mettagrid.engine.looks import pack_token, show_agent
from metta.mettagrid.engine.state import (
    CHANGED,
    COL,
    F_COMPLETION,
    F_LAST_ACTION,
    F_LAST_ARG,
    F_LAST_REWARD,
    F_RESOURCES,
    GROUP,
    LOOK_HEAD,
    MARGIN,
    NUM_AGENTS,
    PADDING,
    RANK_BITS,
    RESOURCE_BYTE,
    REWARD,
    ROW,
    RULE,
    S_CENTER,
    S_MAX_STEPS,
    S_NUM_TOKENS,
    S_SHOW_ACTION,
    S_SHOW_COMPLETION,
    S_SHOW_RESOURCES,
    S_SHOW_REWARD,
    S_WINDOW,
    S_WINDOW_COLS,
    S_WINDOW_PARTS,
    S_WINDOW_ROWS,
    SHORT_LOOK,
    SHORT_LOOK_BYTES,
    STEP,
    STRIDE,
    TOKENS_DROPPED,
    TOKENS_FREE,
    TOKENS_USED,
    TOKENS_WRITTEN,
    Ints,
    Rules,
    State,
)
from metta.mettagrid.engine.words import copy_words, lowest_bit, write_word


@rule
def observe(rules: Rules, state: State, actions: Ints, w: int) -> None:
    """Write the observations of all agents of a world."""
    show_changed(rules, state, w)
    for a in range(state.worlds[w, NUM_AGENTS]):
        wanted = observe_agent(rules, state, w, a, int(actions[w, a, 0]), int(actions[w, a, 1]))
        count_tokens(rules, state, w, wanted)


@rule
def show_changed(rules: Rules, state: State, w: int) -> None:
    """Renew the looks of the agents that changed."""
    for a in range(state.worlds[w, NUM_AGENTS]):
        if state.agents[w, a, CHANGED]:
            show_agent(rules, state, w, a)


@rule
def observe_agent(rules: Rules, state: State, w: int, a: int, action: int, arg: int) -> int:
    """Write one agent's observation; returns how many tokens it wants, of which those that do not fit are dropped.

    It writes to nothing that another agent reads, so agents may be observed side by side.
    """
    r = int(state.worlds[w, RULE])
    view = int(rules.scalars[r, S_WINDOW])
    capacity = int(rules.scalars[r, S_NUM_TOKENS])
    row = int(state.agents[w, a, ROW]) + int(state.worlds[w, MARGIN])
    col = int(state.agents[w, a, COL]) + int(state.worlds[w, MARGIN])
    cell = row * int(state.worlds[w, STRIDE]) + col
    wanted = observe_self(rules, state, w, a, capacity, action, arg)
    padded = 0
    for part in range(rules.scalars[r, S_WINDOW_PARTS]):
        near, far = things_in_view(rules, state, w, r, view, part, row, col)
        for half in range(2):
            things = near if half == 0 else far
            first = RANK_BITS * (2 * part + half)
            while things != 0:
                rank = first + lowest_bit(things)
                things &= things - 1
                code = int(state.cells[w, cell + rules.window[view, rank, 0]])
                length = int(state.looks[w, code, 0])
                if length <= SHORT_LOOK and 3 * wanted + SHORT_LOOK_BYTES <= 3 * capacity:
                    copy_words(
                        state.looks,
                        w,
                        code,
                        LOOK_HEAD,
                        rules.locations,
                        view,
                        rank,
                        state.observations,
                        w,
                        a,
                        3 * wanted,
                    )
                    padded = 3 * wanted + SHORT_LOOK_BYTES
                else:
                    copy_look(
                        rules, state, w, a, 3 * wanted, code, view, rank, 3 * min(length, capacity - wanted)
                    )
                wanted += length
    written = min(wanted, capacity)
    # Beyond the tokens of the last observation everything is padding already.
    pad(state, w, a, max(padded, 3 * written), 3 * int(state.agents[w, a, TOKENS_USED]))
    state.agents[w, a, TOKENS_USED] = written
    return wanted


@rule
def count_tokens(rules: Rules, state: State, w: int, wanted: int) -> None:
    """Count the tokens of one observation."""
    capacity = int(rules.scalars[state.worlds[w, RULE], S_NUM_TOKENS])
    written = min(wanted, capacity)
    state.game_stats[w, TOKENS_WRITTEN] += np.float32(written)
    state.game_stats[w, TOKENS_DROPPED] += np.float32(wanted - written)
    state.game_stats[w, TOKENS_FREE] += np.float32(capacity - written)


@rule
def things_in_view(
    rules: Rules, state: State, w: int, r: int, view: int, part: int, row: int, col: int
) -> tuple[int, int]:
    """Which cells of a window hold something: two words with a bit for each, nearest first.

    Args:
        view: row in the tables of windows.
        part: larger windows take more than two words; which two.
        row, col: the observer's place in the grid.
    """
    rows = int(rules.scalars[r, S_WINDOW_ROWS])
    cols = int(rules.scalars[r, S_WINDOW_COLS])
    top = row - rows // 2
    left = col - cols // 2
    word = (left >> 4) + 1
    shift = left & 15
    low = (cols + 1) // 2
    low_bits = (1 << low) - 1
    high_bits = (1 << (cols - low)) - 1
    near = 0
    far = 0
    for i in range(rows):
        bits = int(state.occupied[w, top + i, word]) >> shift
        side = bits & low_bits
        other = 1 + low_bits + (bits >> low & high_bits)
        near |= rules.ranks[view, rows * part + i, side, 0] | rules.ranks[view, rows * part + i, other, 0]
        far |= rules.ranks[view, rows * part + i, side, 1] | rules.ranks[view, rows * part + i, other, 1]
    return near, far


@rule
def copy_look(
    rules: Rules, state: State, w: int, a: int, at: int, code: int, view: int, rank: int, size: int
) -> None:
    """Copy `size` bytes of a look, and no more, to byte `at` of an observation."""
    location = int(rules.window[view, rank, 1])
    for byte in range(0, size, 3):
        state.observations[w, a, at + byte] = location
        state.observations[w, a, at + byte + 1] = state.looks[w, code, LOOK_HEAD + byte + 1]
        state.observations[w, a, at + byte + 2] = state.looks[w, code, LOOK_HEAD + byte + 2]


@rule
def pad(state: State, w: int, a: int, start: int, stop: int) -> None:
    """Write padding over the bytes from `start` to `stop` of an observation, and perhaps a few that are padding anyway."""
    size = state.observations.shape[2]
    while start < stop and start + 8 <= size:
        write_word(state.observations, w, a, start, -1)
        start += 8
    for byte in range(start, stop):
        state.observations[w, a, byte] = PADDING


@rule
def write_token(state: State, w: int, a: int, place: int, token: int) -> None:
    """Write one token byte by byte, so that it touches no other."""
    state.observations[w, a, 3 * place] = token & 255
    state.observations[w, a, 3 * place + 1] = token >> 8 & 255
    state.observations[w, a, 3 * place + 2] = token >> 16 & 255


@rule
def observe_self(rules: Rules, state: State, w: int, a: int, capacity: int, action: int, arg: int) -> int:
    """Write what an agent knows about itself; returns how many tokens that takes."""
    r = state.worlds[w, RULE]
    scalars = rules.scalars
    count = 0
    if scalars[r, S_SHOW_COMPLETION]:
        value = completion_byte(int(state.worlds[w, STEP]), int(scalars[r, S_MAX_STEPS]))
        count = tell(rules, state, w, a, capacity, count, F_COMPLETION, value)
    if scalars[r, S_SHOW_ACTION]:
        count = tell(rules, state, w, a, capacity, count, F_LAST_ACTION, action)
        count = tell(rules, state, w, a, capacity, count, F_LAST_ARG, arg)
    if scalars[r, S_SHOW_REWARD]:
        value = reward_byte(state.values[REWARD, w, a])
        count = tell(rules, state, w, a, capacity, count, F_LAST_REWARD, value)
    if scalars[r, S_SHOW_RESOURCES]:
        value = int(rules.groups[r, state.agents[w, a, GROUP], RESOURCE_BYTE])
        count = tell(rules, state, w, a, capacity, count, F_RESOURCES, value)
    return count


@rule
def tell(
    rules: Rules, state: State, w: int, a: int, capacity: int, count: int, feature: int, value: int
) -> int:
    """Write a token at the observer's own cell if it fits; returns the new count."""
    if count < capacity:
        center = int(rules.scalars[state.worlds[w, RULE], S_CENTER])
        write_token(state, w, a, count, pack_token(feature, value) | center)
    return count + 1


@rule
def completion_byte(step: int, max_steps: int) -> int:
    """How much of the episode is over, in 255ths; 0 if it has no end."""
    if max_steps == 0:
        return 0
    part = times(np.float32(step) / np.float32(max_steps), np.float32(255))
    return int(float(part) + 0.5) & 255


@rule
def reward_byte(reward: np.float32) -> int:
    """The low byte of the reward in hundredths, rounded, halves away from zero; 0 if beyond 32 bits."""
    hundredths = float(times(reward, np.float32(100)))
    if not abs(hundredths) < 2147483648.0:
        return 0
    size = int(abs(hundredths) + 0.5)
    return (size if hundredths >= 0 else -size) & 255
