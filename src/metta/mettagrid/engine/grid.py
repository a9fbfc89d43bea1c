"""The grid: where cells are, what they hold, and how things change place."""

from __future__ import annotations

from metta.mettagrid.engine.compile import hot_rule, rule
from metta.mettagrid.engine.state import (
    COL,
    DOWN,
    HEIGHT,
    LEFT,
    MARGIN,
    NUM_AGENTS,
    NUM_CONVERTERS,
    RIGHT,
    ROW,
    STRIDE,
    UP,
    WIDTH,
    State,
)


@hot_rule
def cell_at(state: State, w: int, row: int, col: int) -> int:
    """The position of a map cell in the grid of a world."""
    margin = int(state.worlds[w, MARGIN])
    return (row + margin) * int(state.worlds[w, STRIDE]) + col + margin


@hot_rule
def agent_cell(state: State, w: int, a: int) -> int:
    """The cell in which an agent stands."""
    return cell_at(state, w, int(state.agents[w, a, ROW]), int(state.agents[w, a, COL]))


@hot_rule
def row_of_step(direction: int) -> int:
    """Rows that one step in a direction covers."""
    if direction == UP:
        return -1
    return 1 if direction == DOWN else 0


@hot_rule
def col_of_step(direction: int) -> int:
    """Columns that one step in a direction covers."""
    if direction == LEFT:
        return -1
    return 1 if direction == RIGHT else 0


@hot_rule
def clamped_row(state: State, w: int, row: int) -> int:
    """The nearest row of the map."""
    return min(max(row, 0), int(state.worlds[w, HEIGHT]) - 1)


@hot_rule
def clamped_col(state: State, w: int, col: int) -> int:
    """The nearest column of the map."""
    return min(max(col, 0), int(state.worlds[w, WIDTH]) - 1)


@hot_rule
def cell_ahead(state: State, w: int, a: int, direction: int) -> int:
    """The cell next to an agent, or its own where the map ends."""
    row = clamped_row(state, w, int(state.agents[w, a, ROW]) + row_of_step(direction))
    col = clamped_col(state, w, int(state.agents[w, a, COL]) + col_of_step(direction))
    return cell_at(state, w, row, col)


@hot_rule
def agent_in(state: State, w: int, cell: int) -> int:
    """The agent in a cell, or -1."""
    code = int(state.cells[w, cell])
    return code - 1 if code <= state.worlds[w, NUM_AGENTS] else -1


@hot_rule
def converter_in(state: State, w: int, cell: int) -> int:
    """The converter in a cell, or -1."""
    c = int(state.cells[w, cell]) - int(state.worlds[w, NUM_AGENTS]) - 1
    return c if 0 <= c < state.worlds[w, NUM_CONVERTERS] else -1


@hot_rule
def wall_in(state: State, w: int, cell: int) -> int:
    """The kind of the wall in a cell, or -1."""
    kind = (
        int(state.cells[w, cell])
        - int(state.worlds[w, NUM_AGENTS])
        - int(state.worlds[w, NUM_CONVERTERS])
        - 1
    )
    return kind if kind >= 0 else -1


@rule
def flip_occupied(state: State, w: int, row: int, col: int) -> None:
    """Note that a map cell which held nothing holds something now, or the reverse."""
    row += int(state.worlds[w, MARGIN])
    col += int(state.worlds[w, MARGIN])
    state.occupied[w, row, (col >> 4) + 1] ^= 1 << (col & 15)
    state.occupied[w, row, col >> 4] ^= 1 << (col & 15) + 16


@rule
def exchange(state: State, w: int, a: int, cell: int) -> None:
    """Let an agent change places with whatever is in a cell, also nothing; walls and agents may be moved."""
    own = agent_cell(state, w, a)
    other = agent_in(state, w, cell)
    code = state.cells[w, cell]
    state.cells[w, cell] = state.cells[w, own]
    state.cells[w, own] = code
    number = state.object_ids[w, cell]
    state.object_ids[w, cell] = state.object_ids[w, own]
    state.object_ids[w, own] = number
    if other >= 0:
        state.agents[w, other, ROW] = state.agents[w, a, ROW]
        state.agents[w, other, COL] = state.agents[w, a, COL]
    margin = int(state.worlds[w, MARGIN])
    stride = int(state.worlds[w, STRIDE])
    row = cell // stride - margin
    col = cell % stride - margin
    if code == 0:
        flip_occupied(state, w, int(state.agents[w, a, ROW]), int(state.agents[w, a, COL]))
        flip_occupied(state, w, row, col)
    state.agents[w, a, ROW] = row
    state.agents[w, a, COL] = col
