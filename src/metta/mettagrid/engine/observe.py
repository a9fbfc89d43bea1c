"""What agents see: tokens of (location, feature, value).

The window is scanned in the order in which its cells are shown, nearest first. The first pass only notes
the cells that hold something, which needs no branch; the second writes the tokens of those. These two loops are
where most of the time goes. They count in unsigned numbers, which spares the question at every access whether an
index is negative.
"""

from __future__ import annotations

import numpy as np

from metta.mettagrid.engine.compile import rule
from metta.mettagrid.engine.exact import times
from metta.mettagrid.engine.grid import agent_cell
from metta.mettagrid.engine.looks import pack_token, show_agent
from metta.mettagrid.engine.state import (
    CHANGED,
    F_COMPLETION,
    F_LAST_ACTION,
    F_LAST_ARG,
    F_LAST_REWARD,
    F_RESOURCES,
    GROUP,
    NUM_AGENTS,
    PADDING,
    RESOURCE_BYTE,
    REWARD,
    RULE,
    S_CENTER,
    S_MAX_STEPS,
    S_NUM_CELLS,
    S_NUM_TOKENS,
    S_SHOW_ACTION,
    S_SHOW_COMPLETION,
    S_SHOW_RESOURCES,
    S_SHOW_REWARD,
    SHORT_LOOK,
    STEP,
    TOKENS_DROPPED,
    TOKENS_FREE,
    TOKENS_USED,
    TOKENS_WRITTEN,
    Ints,
    Rules,
    State,
)

MAX_WINDOW_CELLS = 15 * 15


@rule
def observe(rules: Rules, state: State, actions: Ints, seen: Ints, w: int) -> None:
    """Write the observations of all agents of a world."""
    show_changed(rules, state, w)
    for a in range(state.worlds[w, NUM_AGENTS]):
        wanted = observe_agent(rules, state, seen, w, a, int(actions[w, a, 0]), int(actions[w, a, 1]))
        count_tokens(rules, state, w, wanted)


@rule
def show_changed(rules: Rules, state: State, w: int) -> None:
    """Renew the looks of the agents that changed."""
    for a in range(state.worlds[w, NUM_AGENTS]):
        if state.agents[w, a, CHANGED]:
            show_agent(rules, state, w, a)


@rule
def observe_agent(rules: Rules, state: State, seen: Ints, w: int, a: int, action: int, arg: int) -> int:
    """Write one agent's observation; returns how many tokens it wants, of which those that do not fit are dropped.

    It writes to nothing that another agent reads, so agents may be observed side by side.
    """
    r = state.worlds[w, RULE]
    capacity = int(rules.scalars[r, S_NUM_TOKENS])
    wanted = observe_self(rules, state, w, a, capacity, action, arg)
    found = find_things(rules, state, seen, w, a)
    looks = state.looks
    tokens = state.tokens
    window = rules.window
    world = np.uint64(w)
    agent = np.uint64(a)
    for i in range(np.uint64(found)):
        location = window[np.uint64(r), np.uint64(seen[0, i]), 1]
        code = np.uint64(seen[1, i])
        length = int(looks[world, code, 0])
        if wanted + max(length, SHORT_LOOK) < capacity:
            at = np.uint64(3 * wanted)
            # Most looks are short. Writing a fixed number of tokens costs less than asking how many there are; those
            # that a look does not have are padding, and what comes next is written over them.
            for j in range(SHORT_LOOK):
                tokens[world, agent, at + np.uint64(3 * j)] = looks[world, code, np.uint64(1 + j)] | location
            for j in range(SHORT_LOOK, length):
                tokens[world, agent, at + np.uint64(3 * j)] = looks[world, code, np.uint64(1 + j)] | location
        else:
            for j in range(min(length, capacity - wanted)):
                write_token(state, w, a, wanted + j, looks[w, code, 1 + j] | location)
        wanted += length
    written = min(wanted, capacity)
    # Beyond the tokens of the last observation everything is padding already.
    for byte in range(3 * written, 3 * int(state.agents[w, a, TOKENS_USED])):
        state.observations[w, a, byte] = PADDING
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
def write_token(state: State, w: int, a: int, place: int, token: int) -> None:
    """Write one token byte by byte, so that it touches no other."""
    state.observations[w, a, 3 * place] = token & 255
    state.observations[w, a, 3 * place + 1] = token >> 8 & 255
    state.observations[w, a, 3 * place + 2] = token >> 16 & 255


@rule
def find_things(rules: Rules, state: State, seen: Ints, w: int, a: int) -> int:
    """Note window cell and code of everything in an agent's window, nearest first; returns how many."""
    r = state.worlds[w, RULE]
    center = agent_cell(state, w, a)
    cells = state.cells
    window = rules.window
    world = np.uint64(w)
    found = np.uint64(0)
    for cell in range(np.uint64(rules.scalars[r, S_NUM_CELLS])):
        code = cells[world, np.uint64(center + window[np.uint64(r), cell, 0])]
        seen[0, found] = cell
        seen[1, found] = code
        found += np.uint64(code != 0)
    return int(found)


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
