"""How a world begins: a map becomes things, and everything is observed once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.engine.compile import kernel, rule
from metta.mettagrid.engine.converters import start_conversion
from metta.mettagrid.engine.grid import cell_at, flip_occupied
from metta.mettagrid.engine.looks import show_converter, show_wall
from metta.mettagrid.engine.observe import observe
from metta.mettagrid.engine.random import seed_random
from metta.mettagrid.engine.state import (
    AGENT_OBJECT_ID,
    COL,
    CONVERTER_COL,
    CONVERTER_OBJECT_ID,
    CONVERTER_ROW,
    GAME_OBJECTS,
    GROUP,
    GROUP_ID,
    HEIGHT,
    IDLE,
    INITIAL,
    INVALID_KEY,
    INVALID_USED,
    IS_CONVERTER,
    MARGIN,
    NUM_AGENTS,
    NUM_CONVERTERS,
    OBJECT,
    OUTPUT,
    PHASE,
    ROW,
    RULE,
    S_NUM_AGENTS,
    S_NUM_GROUPS,
    S_NUM_ITEMS,
    S_NUM_OBJECTS,
    STRIDE,
    WIDTH,
    Ints,
    Rules,
    State,
    open_rules,
    open_state,
)
from metta.mettagrid.engine.step import count_invalid


@kernel
def reset_worlds(
    rule_table: Any,
    state_table: Any,
    actions: Ints,
    maps: NDArray[np.int16],
    starts: NDArray[np.int64],
) -> None:
    """Begin new episodes in worlds that were cleared.

    Args:
        rule_table: the rule tables, from `describe`.
        state_table: the batch, from `describe`; changed in place.
        actions: int32 `[B, A, 2]`, zero in the rows of these worlds.
        maps: int16 `[B, height, width]`, a cell code of the rule set per cell: 0 or less empty, then groups, then
            objects.
        starts: int64 `[n, 7]`: world, rule set, seed, height, width, margin, columns of the grid.
    """
    rules = open_rules(rule_table)
    state = open_state(state_table)
    for i in range(starts.shape[0]):
        w = int(starts[i, 0])
        state.worlds[w, RULE] = starts[i, 1]
        state.worlds[w, HEIGHT] = starts[i, 3]
        state.worlds[w, WIDTH] = starts[i, 4]
        state.worlds[w, MARGIN] = starts[i, 5]
        state.worlds[w, STRIDE] = starts[i, 6]
        seed_random(state, w, int(starts[i, 2]))
        place_things(rules, state, maps, w)
        observe(rules, state, actions, w)


@rule
def place_things(rules: Rules, state: State, maps: NDArray[np.int16], w: int) -> None:
    """Make the things of a map, row by row; walls are coded last because codes of converters come first."""
    r = state.worlds[w, RULE]
    groups = rules.scalars[r, S_NUM_GROUPS]
    agents = int(rules.scalars[r, S_NUM_AGENTS])
    converters = 0
    for row in range(state.worlds[w, HEIGHT]):
        for col in range(state.worlds[w, WIDTH]):
            kind = int(maps[w, row, col]) - 1 - groups
            if kind >= 0 and rules.objects[r, kind, IS_CONVERTER]:
                converters += 1
    state.worlds[w, NUM_AGENTS] = agents
    state.worlds[w, NUM_CONVERTERS] = converters
    for kind in range(rules.scalars[r, S_NUM_OBJECTS]):
        if not rules.objects[r, kind, IS_CONVERTER]:
            show_wall(rules, state, w, kind)
    number = 0
    a = 0
    c = 0
    for row in range(state.worlds[w, HEIGHT]):
        for col in range(state.worlds[w, WIDTH]):
            code = int(maps[w, row, col])
            if code <= 0:
                continue
            number += 1
            cell = cell_at(state, w, row, col)
            flip_occupied(state, w, row, col)
            state.object_ids[w, cell] = number
            kind = code - 1 - groups
            if kind < 0:
                place_agent(rules, state, w, a, row, col, code - 1, number)
                state.cells[w, cell] = 1 + a
                a += 1
                continue
            state.game_stats[w, GAME_OBJECTS + kind] += np.float32(1)
            if rules.objects[r, kind, IS_CONVERTER]:
                place_converter(rules, state, w, c, row, col, kind, number)
                state.cells[w, cell] = 1 + agents + c
                c += 1
            else:
                state.cells[w, cell] = 1 + agents + converters + kind


@rule
def place_agent(
    rules: Rules, state: State, w: int, a: int, row: int, col: int, group: int, number: int
) -> None:
    """Begin an agent: facing up, holding nothing."""
    state.agents[w, a, ROW] = row
    state.agents[w, a, COL] = col
    state.agents[w, a, GROUP] = group
    state.agents[w, a, AGENT_OBJECT_ID] = number
    state.group_sizes[w, rules.groups[state.worlds[w, RULE], group, GROUP_ID]] += 1


@rule
def place_converter(
    rules: Rules, state: State, w: int, c: int, row: int, col: int, kind: int, number: int
) -> None:
    """Begin a converter with its first stock; it may start converting at once."""
    r = state.worlds[w, RULE]
    state.converters[w, c, CONVERTER_ROW] = row
    state.converters[w, c, CONVERTER_COL] = col
    state.converters[w, c, OBJECT] = kind
    state.converters[w, c, PHASE] = IDLE
    state.converters[w, c, CONVERTER_OBJECT_ID] = number
    for item in range(rules.scalars[r, S_NUM_ITEMS]):
        if rules.recipes[r, kind, item, OUTPUT] > 0:
            state.converter_items[w, c, item] = rules.objects[r, kind, INITIAL]
    start_conversion(rules, state, w, c)
    show_converter(rules, state, w, c)


@kernel
def move_invalid_counts(state_table: Any, old: Ints) -> None:
    """Fill `State.invalid`, which is new and larger, from the table that it replaces."""
    state = open_state(state_table)
    for w in range(old.shape[0]):
        state.worlds[w, INVALID_USED] = 0
        for row in range(old.shape[1]):
            if old[w, row, INVALID_KEY] != 0:
                count_invalid(
                    state,
                    w,
                    int(old[w, row, 0]),
                    int(old[w, row, 1]),
                    int(old[w, row, 2]),
                    int(old[w, row, 3]),
                )
