"""Compiled loops that draw the walls of terrain and mazes.

Fields are int8 `[height, width]` of `FREE`, `WALL` and `NICHE` (a free cell that may hide something). All randomness comes
from `numpy.random.Generator.random`, whose numbers are the same compiled and interpreted. Everything lies in one file
because numba looks at the file of the outermost function alone to see whether a compiled copy is current.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from metta.mettagrid.engine.compile import kernel, rule

Field = npt.NDArray[np.int8]
Array = npt.NDArray[Any]
Rng = np.random.Generator

FREE, WALL, NICHE = 0, 1, 2

LABYRINTH, LARGE, SMALL, CROSS, SINGLE, BLOCK = range(6)
"""What varied terrain is made of, in the order in which it is placed."""

GUESSES = 24
"""Places to try before looking at all of them."""

NICHE_CHANCE = 0.03
"""Share of a labyrinth's cells that may hide something."""

LARGEST = 32
"""No pattern is larger than this, in either direction."""


@rule
def below(rng: Rng, number: int) -> int:
    """A uniform integer from 0 to number - 1."""
    return int(rng.random() * number)


@rule
def between(rng: Rng, low: int, high: int) -> int:
    """A uniform integer from low to high."""
    return low + below(rng, high - low + 1)


@rule
def is_free(field: Field, top: int, left: int, rows: int, cols: int) -> bool:
    """Whether a window is completely free."""
    for row in range(top, top + rows):
        for col in range(left, left + cols):
            if field[row, col] != FREE:
                return False
    return True


@rule
def find_window(field: Field, rows: int, cols: int, sums: Array, rng: Rng) -> int:
    """A uniformly chosen free window, as row * width + column of its corner; -1 if there is none.

    A few guesses usually hit one. After that all windows are counted, by sums over rectangles (`sums`: int32
    `[height + 1, width + 1]`, overwritten).
    """
    height, width = field.shape
    down, across = height - rows + 1, width - cols + 1
    if down < 1 or across < 1:
        return -1
    for _ in range(GUESSES):
        top, left = below(rng, down), below(rng, across)
        if is_free(field, top, left, rows, cols):
            return int(top * width + left)
    sums[0, :] = 0
    for row in range(height):
        line = 0
        sums[row + 1, 0] = 0
        for col in range(width):
            line += field[row, col] != FREE
            sums[row + 1, col + 1] = sums[row, col + 1] + line
    found = 0
    for top in range(down):
        for left in range(across):
            found += taken(sums, top, left, rows, cols) == 0
    if found == 0:
        return -1
    skip = below(rng, found)
    for top in range(down):
        for left in range(across):
            if taken(sums, top, left, rows, cols) == 0:
                if skip == 0:
                    return int(top * width + left)
                skip -= 1
    return -1


@rule
def taken(sums: Array, top: int, left: int, rows: int, cols: int) -> int:
    """Cells of a window that are not free."""
    return int(
        sums[top + rows, left + cols] - sums[top, left + cols] - sums[top + rows, left] + sums[top, left]
    )


@rule
def place(field: Field, pattern: Field, rows: int, cols: int, clearance: int, sums: Array, rng: Rng) -> bool:
    """Write the first rows and columns of a pattern somewhere with so many free cells around it.

    Only what is not free in the pattern takes a cell: its corridors may be built in later.

    Returns:
        whether there was a place.
    """
    spot = find_window(field, rows + 2 * clearance, cols + 2 * clearance, sums, rng)
    if spot < 0:
        return False
    top, left = spot // field.shape[1] + clearance, spot % field.shape[1] + clearance
    for row in range(rows):
        for col in range(cols):
            if pattern[row, col] != FREE:
                field[top + row, left + col] = pattern[row, col]
    return True


@rule
def draw_obstacle(pattern: Field, low: int, high: int, rng: Rng) -> tuple[int, int]:
    """A connected clump of low to high wall cells, grown from one of them; returns its rows and columns."""
    size = between(rng, low, high)
    canvas = np.zeros((2 * LARGEST, 2 * LARGEST), np.int8)
    cells = np.empty((size, 2), np.int64)
    top = bottom = left = right = LARGEST
    canvas[LARGEST, LARGEST] = WALL
    cells[0, 0] = cells[0, 1] = LARGEST
    grown = 1
    while grown < size:
        start = below(rng, grown)
        row, col = cells[start, 0], cells[start, 1]
        side = below(rng, 4)
        if side < 2:
            row += 2 * side - 1
        else:
            col += 2 * side - 5
        if canvas[row, col] == FREE:
            canvas[row, col] = WALL
            cells[grown, 0], cells[grown, 1] = row, col
            top, bottom = min(top, row), max(bottom, row)
            left, right = min(left, col), max(right, col)
            grown += 1
    rows, cols = bottom - top + 1, right - left + 1
    for row in range(rows):
        for col in range(cols):
            pattern[row, col] = canvas[top + row, left + col]
    return rows, cols


@rule
def draw_cross(pattern: Field, rng: Rng) -> tuple[int, int]:
    """A row and a column of walls through the middle of 1 to 8 rows and columns; returns how many."""
    rows, cols = between(rng, 1, 8), between(rng, 1, 8)
    pattern[:rows, :cols] = FREE
    pattern[rows // 2, :cols] = WALL
    pattern[:rows, cols // 2] = WALL
    return rows, cols


@rule
def draw_block(pattern: Field, rng: Rng) -> tuple[int, int]:
    """2 to 14 rows and columns of wall; returns how many."""
    rows, cols = between(rng, 2, 14), between(rng, 2, 14)
    pattern[:rows, :cols] = WALL
    return rows, cols


@rule
def draw_cylinder(pattern: Field, rng: Rng) -> tuple[int, int]:
    """Two parallel walls, 2 to 29 long, 1 to 3 apart, with a niche in the middle; returns rows and columns."""
    length, gap = between(rng, 2, 29), between(rng, 1, 3)
    lies = below(rng, 2) == 0
    rows, cols = (gap + 2, length) if lies else (length, gap + 2)
    pattern[:rows, :cols] = FREE
    if lies:
        pattern[0, :cols] = WALL
        pattern[rows - 1, :cols] = WALL
    else:
        pattern[:rows, 0] = WALL
        pattern[:rows, cols - 1] = WALL
    pattern[rows // 2, cols // 2] = NICHE
    return rows, cols


@rule
def open_passages(right: Array, down: Array, rng: Rng) -> None:
    """A maze without loops over a grid of rooms, by a random depth-first walk.

    Args:
        right: int8 `[rooms down, rooms across]`, all 0; becomes 1 where a room is open to the next one in its row.
        down: likewise, to the next one in its column.
        rng: source of randomness.
    """
    rows, cols = right.shape
    seen = np.zeros((rows, cols), np.int8)
    path = np.empty(rows * cols, np.int64)
    ways = np.empty(4, np.int64)
    path[0] = below(rng, rows * cols)
    seen[path[0] // cols, path[0] % cols] = 1
    length = 1
    while length:
        room = path[length - 1]
        row, col = room // cols, room % cols
        found = 0
        if row > 0 and not seen[row - 1, col]:
            ways[found] = room - cols
            found += 1
        if row < rows - 1 and not seen[row + 1, col]:
            ways[found] = room + cols
            found += 1
        if col > 0 and not seen[row, col - 1]:
            ways[found] = room - 1
            found += 1
        if col < cols - 1 and not seen[row, col + 1]:
            ways[found] = room + 1
            found += 1
        if found == 0:
            length -= 1
            continue
        other = ways[below(rng, found)]
        first = min(room, other)
        if abs(room - other) == 1 and cols > 1:
            right[first // cols, first % cols] = 1
        else:
            down[first // cols, first % cols] = 1
        seen[other // cols, other % cols] = 1
        path[length] = other
        length += 1


@rule
def draw_labyrinth(pattern: Field, rng: Rng) -> tuple[int, int]:
    """A walled maze with an odd side of 11 to 25 cells, entered through two cells in every side.

    Some of its cells are niches. Then it is thinned, by a random share of up to 0.7: so many of its free cells make their
    right and lower neighbours free, the outer walls excepted.

    Returns:
        its rows and columns.
    """
    rows, cols = 11 + 2 * below(rng, 8), 11 + 2 * below(rng, 8)
    right = np.zeros((rows // 2, cols // 2), np.int8)
    down = np.zeros((rows // 2, cols // 2), np.int8)
    open_passages(right, down, rng)
    pattern[:rows, :cols] = WALL
    for row in range(rows // 2):
        for col in range(cols // 2):
            pattern[2 * row + 1, 2 * col + 1] = FREE
            if right[row, col]:
                pattern[2 * row + 1, 2 * col + 2] = FREE
            if down[row, col]:
                pattern[2 * row + 2, 2 * col + 1] = FREE
    # Of two neighbouring cells of a side, one always lies before a corridor.
    for side in (0, rows - 1):
        gap = between(rng, 1, cols - 3)
        pattern[side, gap : gap + 2] = FREE
    for side in (0, cols - 1):
        gap = between(rng, 1, rows - 3)
        pattern[gap : gap + 2, side] = FREE
    for row in range(rows):
        for col in range(cols):
            if pattern[row, col] == FREE and rng.random() < NICHE_CHANCE:
                pattern[row, col] = NICHE
    share = 0.7 * rng.random()
    # From the far corner on, so that a cell that was just freed does not free others.
    for row in range(rows - 2, 0, -1):
        for col in range(cols - 2, 0, -1):
            if pattern[row, col] != WALL and rng.random() < share:
                if col < cols - 2 and pattern[row, col + 1] == WALL:
                    pattern[row, col + 1] = FREE
                if row < rows - 2 and pattern[row + 1, col] == WALL:
                    pattern[row + 1, col] = FREE
    return rows, cols


@kernel
def raise_terrain(field: Field, counts: Array, rng: Rng) -> None:
    """Build varied terrain on a free field.

    Args:
        field: int8 `[height, width]`, all free; written in place.
        counts: int64 `[6]`: how many labyrinths, large and small obstacles, crosses, single walls and blocks to try to place;
            one for which there is no place is left out.
        rng: source of randomness.
    """
    pattern = np.zeros((LARGEST, LARGEST), np.int8)
    sums = np.zeros((field.shape[0] + 1, field.shape[1] + 1), np.int32)
    for kind in range(counts.size):
        for _ in range(counts[kind]):
            clearance = 1
            if kind == LABYRINTH:
                rows, cols = draw_labyrinth(pattern, rng)
            elif kind == LARGE:
                rows, cols = draw_obstacle(pattern, 10, 25, rng)
            elif kind == SMALL:
                rows, cols = draw_obstacle(pattern, 3, 6, rng)
            elif kind == CROSS:
                rows, cols = draw_cross(pattern, rng)
                clearance = 0
            elif kind == SINGLE:
                rows = cols = 1
                pattern[0, 0] = WALL
                clearance = 0
            else:
                rows, cols = draw_block(pattern, rng)
            place(field, pattern, rows, cols, clearance, sums, rng)


@kernel
def raise_cylinders(field: Field, rng: Rng) -> None:
    """Place cylinders on a free field, int8 `[height, width]`, until two in a row find no place."""
    pattern = np.zeros((LARGEST, LARGEST), np.int8)
    sums = np.zeros((field.shape[0] + 1, field.shape[1] + 1), np.int32)
    misses = 0
    while misses < 2:
        rows, cols = draw_cylinder(pattern, rng)
        misses = 0 if place(field, pattern, rows, cols, 1, sums, rng) else misses + 1


@kernel
def connect_rooms(right: Array, down: Array, rng: Rng) -> None:
    """`open_passages`, for Python to call."""
    open_passages(right, down, rng)
