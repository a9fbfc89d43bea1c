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
    CHANGED,
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
    LAST_KIND,
    MARGIN,
    NEVER,
    NEXT_DUE,
    NUM_AGENTS,
    NUM_CONVERTERS,
    OBJECT,
    OUTPUT,
    PADDING,
    PHASE,
    ROW,
    RULE,
    S_NUM_AGENTS,
    S_NUM_GROUPS,
    S_NUM_ITEMS,
    S_NUM_OBJECTS,
    STEP,
    WIDTH,
    Ints,
    Rules,
    State,
    open_state,
)
from metta.mettagrid.engine.step import count_invalid


@rule
def reset_world(
    rules: Rules, state: State, actions: Ints, maps: NDArray[np.int16], w: int, seed: int
) -> None:
    """Begin a new episode in a world whose rule set, map size, margin and columns of the grid are written down.

    Args:
        rules: the rule tables.
        state: the batch; the world's part is changed in place.
        actions: int32 `[B, A, 2]`, zero in the rows of this world.
        maps: int16 `[B, height, width]`, a cell code of the rule set per cell: 0 or less empty, then groups, then
            objects.
        w: the world.
        seed: of the agents' order, an unsigned 32-bit number.
    """
    clear_world(state, w)
    seed_random(state, w, seed)
    place_things(rules, state, maps, w)
    observe(rules, state, actions, w)


@rule
def clear_world(state: State, w: int) -> None:
    """Forget everything about a world but its rule set and size."""
    for column in range(STEP, MARGIN):
        state.worlds[w, column] = 0
    state.worlds[w, NEXT_DUE] = NEVER
    fill_row(state.cells, w, 0)
    fill_rows(state.occupied, w, 0)
    fill_row(state.object_ids, w, 0)
    fill_rows(state.agents, w, 0)
    for a in range(state.agents.shape[1]):
        state.agents[w, a, LAST_KIND] = -1
        state.agents[w, a, CHANGED] = 1
        for row in range(state.values.shape[0]):
            state.values[row, w, a] = 0
            state.flags[row, w, a] = False
    fill_rows(state.agent_items, w, -1)
    fill_rows(state.converters, w, 0)
    fill_rows(state.converter_items, w, 0)
    fill_rows(state.looks, w, 0)
    fill_row(state.group_sizes, w, 0)
    fill_row(state.group_sums, w, 0)
    fill_rows(state.agent_stats, w, 0)
    fill_rows(state.converter_stats, w, 0)
    fill_row(state.game_stats, w, 0)
    fill_rows(state.invalid, w, 0)
    fill_rows(state.observations, w, PADDING)


@rule
def fill_row(table: Any, w: int, value: int) -> None:
    """Write a number into all of `table[w]`, a row."""
    for i in range(table.shape[1]):
        table[w, i] = value


@rule
def fill_rows(table: Any, w: int, value: int) -> None:
    """Write a number into all of `table[w]`, which has rows and columns."""
    for i in range(table.shape[1]):
        for k in range(table.shape[2]):
            table[w, i, k] = value


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
