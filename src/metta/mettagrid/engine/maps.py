"""Maps of rooms in which things are scattered, drawn straight into the arrays of the engine."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.engine.bundle import Array, opener
from metta.mettagrid.engine.compile import rule
from metta.mettagrid.engine.state import Int2, Int3
from metta.mettagrid.engine.streams import Longs, draw_below, shuffle

Codes = NDArray[np.int16]
Cells2 = Annotated[Codes, Array("int16", 2)]
Cells3 = Annotated[Codes, Array("int16", 3)]

# Columns of Plans.sizes.
PLAN_HEIGHT, PLAN_WIDTH, PLAN_WALL, PLAN_ROOMS = range(4)
PLAN_COLUMNS = 4

# Columns of Plans.rooms.
TOP, LEFT, ROWS, COLS, FIRST_THING, NUM_THINGS = range(6)
ROOM_COLUMNS = 6

# Columns of Plans.things.
CODE, LEAST, MOST = range(3)
THING_COLUMNS = 3


class Plans(NamedTuple):
    """How maps are drawn; the first index is the plan."""

    sizes: Int2  # [P, PLAN_COLUMNS] height, width, code of the walls that fill everything at first, rooms
    rooms: Int3  # [P, rooms, ROOM_COLUMNS] the free field of each room, and its rows of `things`
    things: Int3  # [P, things, THING_COLUMNS] code, and how many at least and at most


open_plans = opener(Plans)


@rule
def draw_map(
    plans: Plans, plan: int, streams: Longs, i: int, maps: Codes, w: int, fields: Codes, thread: int
) -> None:
    """Draw the map of world `w`.

    Args:
        plans: the plans.
        plan: which one.
        streams: int64, whose row `i` is the source of randomness.
        i: see there.
        maps: int16 `[B, height, width]`; that of the world is written.
        w: the world.
        fields: scratch, int16 `[threads, cells]`.
        thread: which row of it.
    """
    height, width = int(plans.sizes[plan, PLAN_HEIGHT]), int(plans.sizes[plan, PLAN_WIDTH])
    wall = plans.sizes[plan, PLAN_WALL]
    grid = maps[w]
    field = fields[thread]
    for row in range(grid.shape[0]):
        for col in range(grid.shape[1]):
            grid[row, col] = wall if row < height and col < width else 0
    for room in range(plans.sizes[plan, PLAN_ROOMS]):
        rows, cols = int(plans.rooms[plan, room, ROWS]), int(plans.rooms[plan, room, COLS])
        first = int(plans.rooms[plan, room, FIRST_THING])
        at = 0
        for k in range(first, first + plans.rooms[plan, room, NUM_THINGS]):
            least = int(plans.things[plan, k, LEAST])
            count = least + draw_below(streams, i, int(plans.things[plan, k, MOST]) - least + 1)
            for _ in range(count):
                field[at] = plans.things[plan, k, CODE]
                at += 1
        for k in range(at, rows * cols):
            field[k] = 0
        shuffle(streams, i, field, rows * cols)
        top, left = int(plans.rooms[plan, room, TOP]), int(plans.rooms[plan, room, LEFT])
        at = 0
        for row in range(top, top + rows):
            for col in range(left, left + cols):
                grid[row, col] = field[at]
                at += 1
