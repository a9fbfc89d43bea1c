"""What agents see: tokens of (location, feature, value).

Which cells of a window hold something is read from the grid's bits, a row of the window at a time. Tables turn the bits
of a row into bits in the order in which cells are shown, nearest first, so that empty cells cost nothing. What a thing
looks like is kept ready without its location, which is added while the tokens are copied, several at once.
"""

from __future__ import annotations

import numpy as np

from metta.mettagrid.engine.compile import hot_rule, rule
from metta.mettagrid.engine.exact import times
from metta.mettagrid.engine.looks import pack_token, show_agent
from metta.mettagrid.engine.state import (
    CHANGED,
    COL,
    DISTANCE,
    F_COMPLETION,
    F_LAST_ACTION,
    F_LAST_ARG,
    F_LAST_REWARD,
    F_RESOURCES,
    GROUP,
    LOCATIONS,
    LONG_LOOK_BYTES,
    LOOK_HEAD,
    MARGIN,
    NUM_AGENTS,
    PADDING,
    PADDING_WORD,
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
    Bytes,
    Ints,
    Longs,
    Rules,
    State,
)
from metta.mettagrid.engine.words import copy_words, lowest_bit, write_word


@hot_rule
def observe(rules: Rules, state: State, actions: Ints, w: int) -> None:
    """Write the observations of all agents of a world."""
    show_changed(rules, state, w)
    for a in range(state.worlds[w, NUM_AGENTS]):
        wanted = observe_agent(rules, state, w, a, int(actions[w, a, 0]), int(actions[w, a, 1]))
        count_tokens(rules, state, w, wanted)


@hot_rule
def show_changed(rules: Rules, state: State, w: int) -> None:
    """Renew the looks of the agents that changed."""
    for a in range(state.worlds[w, NUM_AGENTS]):
        if state.agents[w, a, CHANGED]:
            show_agent(rules, state, w, a)


@hot_rule
def observe_agent(rules: Rules, state: State, w: int, a: int, action: int, arg: int) -> int:
    """Write one agent's observation; returns how many tokens it wants, of which those that do not fit are dropped.

    It writes to nothing that another agent reads, so agents may be observed side by side.
    """
    r = int(state.worlds[w, RULE])
    view = int(rules.scalars[r, S_WINDOW])
    capacity = int(rules.scalars[r, S_NUM_TOKENS])
    wanted = observe_self(rules, state, w, a, capacity, action, arg)
    row = int(state.agents[w, a, ROW]) + int(state.worlds[w, MARGIN])
    col = int(state.agents[w, a, COL]) + int(state.worlds[w, MARGIN])
    center = row * int(state.worlds[w, STRIDE]) + col
    for part in range(rules.scalars[r, S_WINDOW_PARTS]):
        near, far = things_in_view(rules, state, w, r, view, part, row, col)
        wanted = observe_things(
            rules, state, w, a, view, center, near, 2 * part * RANK_BITS, wanted, capacity
        )
        wanted = observe_things(
            rules, state, w, a, view, center, far, (2 * part + 1) * RANK_BITS, wanted, capacity
        )
    written = min(wanted, capacity)
    # Beyond the tokens of the last observation everything is padding already.
    pad(state.observations[w, a], 3 * written, 3 * int(state.agents[w, a, TOKENS_USED]))
    state.agents[w, a, TOKENS_USED] = written
    return wanted


@hot_rule
def count_tokens(rules: Rules, state: State, w: int, wanted: int) -> None:
    """Count the tokens of one observation."""
    capacity = int(rules.scalars[state.worlds[w, RULE], S_NUM_TOKENS])
    written = min(wanted, capacity)
    state.game_stats[w, TOKENS_WRITTEN] += np.float32(written)
    state.game_stats[w, TOKENS_DROPPED] += np.float32(wanted - written)
    state.game_stats[w, TOKENS_FREE] += np.float32(capacity - written)


@hot_rule
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
    occupied = state.occupied[w]
    near = 0
    far = 0
    for i in range(rows):
        bits = int(occupied[top + i, word]) >> shift
        side = bits & low_bits
        other = 1 + low_bits + (bits >> low & high_bits)
        near |= rules.ranks[view, rows * part + i, side, 0] | rules.ranks[view, rows * part + i, other, 0]
        far |= rules.ranks[view, rows * part + i, side, 1] | rules.ranks[view, rows * part + i, other, 1]
    return near, far


@hot_rule
def observe_things(
    rules: Rules,
    state: State,
    w: int,
    a: int,
    view: int,
    center: int,
    things: int,
    first: int,
    wanted: int,
    capacity: int,
) -> int:
    """Write the tokens of things in a window, nearest first; returns how many tokens there are now.

    Args:
        view: row in the tables of windows.
        center: the observer's cell.
        things: a bit for every cell that holds something.
        first: the cell of the lowest bit.
        wanted: tokens so far.
        capacity: tokens that fit.
    """
    cells = state.cells[w]
    looks = state.looks[w]
    window = rules.window[view]
    observation = state.observations[w, a]
    last = 3 * capacity - SHORT_LOOK_BYTES
    at = 3 * wanted
    while things != 0:
        # This loop is where most of the time of a step goes: one round per thing, without a call.
        while things != 0:
            rank = first + lowest_bit(things)
            code = int(cells[center + window[rank, DISTANCE]])
            length = int(looks[code, 0])
            if length > SHORT_LOOK or at > last:
                break
            copy_words(looks, code, LOOK_HEAD, window, rank, LOCATIONS, observation, at)
            at += 3 * length
            things &= things - 1
        if things != 0:
            rank = first + lowest_bit(things)
            at += copy_look(
                looks, int(cells[center + window[rank, DISTANCE]]), window, rank, observation, at, last
            )
            things &= things - 1
    return at // 3


@rule
def copy_look(
    looks: Bytes, code: int, window: Longs, rank: int, observation: Bytes, at: int, last: int
) -> int:
    """Copy what fits of a look of any length to byte `at` of an observation; returns the bytes of all of it.

    Args:
        looks: those of the world.
        window: the tables of the window.
        rank: the cell in the window.
        last: bytes from which `SHORT_LOOK_BYTES` still fit.
    """
    size = 3 * int(looks[code, 0])
    done = 0
    while done < size and at + done <= last:
        copy_words(looks, code, LOOK_HEAD + done, window, rank, LOCATIONS, observation, at + done)
        done += LONG_LOOK_BYTES
    location = window[rank, LOCATIONS] & 255
    for byte in range(done, min(size, last + SHORT_LOOK_BYTES - at), 3):
        observation[at + byte] = location
        observation[at + byte + 1] = looks[code, LOOK_HEAD + byte + 1]
        observation[at + byte + 2] = looks[code, LOOK_HEAD + byte + 2]
    return size


@hot_rule
def pad(observation: Bytes, start: int, stop: int) -> None:
    """Write padding over the bytes from `start` to `stop` of an observation, and over a few that are padding anyway."""
    while start < stop and start + 8 <= observation.shape[0]:
        write_word(observation, start, -1)
        start += 8
    for byte in range(start, stop):
        observation[byte] = PADDING


@hot_rule
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


@hot_rule
def tell(
    rules: Rules, state: State, w: int, a: int, capacity: int, count: int, feature: int, value: int
) -> int:
    """Write a token at the observer's own cell if it fits; returns the new count."""
    token = pack_token(feature, value) | int(rules.scalars[state.worlds[w, RULE], S_CENTER])
    if 3 * count + 8 <= 3 * capacity:
        write_word(state.observations[w, a], 3 * count, token | PADDING_WORD)
    elif count < capacity:
        for byte in range(3):
            state.observations[w, a, 3 * count + byte] = token >> 8 * byte & 255
    return count + 1


@hot_rule
def completion_byte(step: int, max_steps: int) -> int:
    """How much of the episode is over, in 255ths; 0 if it has no end."""
    if max_steps == 0:
        return 0
    part = times(np.float32(step) / np.float32(max_steps), np.float32(255))
    return int(float(part) + 0.5) & 255


@hot_rule
def reward_byte(reward: np.float32) -> int:
    """The low byte of the reward in hundredths, rounded, halves away from zero; 0 if beyond 32 bits."""
    hundredths = float(times(reward, np.float32(100)))
    if not abs(hundredths) < 2147483648.0:
        return 0
    size = int(abs(hundredths) + 0.5)
    return (size if hundredths >= 0 else -size) & 255
