"""A world as a picture, for the render modes of other libraries. The page of `write_replay_page` shows far more."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from metta.mettagrid.grid_engine import GridEngine

CELL = 8
"""Pixels along the side of a cell."""

Colour = tuple[int, int, int]

FLOOR: Colour = (24, 28, 34)
UNKNOWN: Colour = (139, 148, 163)
NOSE: Colour = (16, 18, 22)
HUES: dict[str, Colour] = {"red": (229, 83, 75), "blue": (74, 141, 240), "green": (63, 174, 90)}
KINDS: dict[str, Colour] = {
    "wall": (89, 97, 111),
    "block": (185, 133, 79),
    "altar": (240, 72, 127),
    "armory": (143, 166, 191),
    "lasery": (179, 123, 242),
    "lab": (53, 184, 201),
    "factory": (217, 138, 61),
    "temple": (216, 178, 74),
}
AGENTS: tuple[Colour, ...] = (
    (240, 163, 58),
    (73, 182, 232),
    (143, 206, 76),
    (232, 121, 192),
    (169, 139, 245),
    (242, 224, 90),
)
FACING = ((0, 3), (6, 3), (3, 0), (3, 6))
"""Where in its cell the nose of an agent is, by orientation: up, down, left, right."""


def draw(engine: GridEngine, world: int) -> npt.NDArray[np.uint8]:
    """A picture of a world.

    Args:
        engine: that steps it.
        world: its place in the batch.

    Returns:
        uint8 `[height * CELL, width * CELL, 3]`: things in the colours of their kind, mines filled to the brim and what
        they feed smaller; agents by number, round-cornered, with a nose where they face.
    """
    height, width = engine.map_size(world)
    names = engine.rule_of(world).spec.object_type_names
    picture = np.empty((height * CELL, width * CELL, 3), dtype=np.uint8)
    picture[:] = FLOOR
    for thing in engine.grid_objects(world).values():
        cell = picture[
            thing["r"] * CELL : (thing["r"] + 1) * CELL, thing["c"] * CELL : (thing["c"] + 1) * CELL
        ]
        if "agent_id" in thing:
            _draw_agent(cell, thing)
        else:
            _draw_object(cell, names[thing["type"]])
    return picture


def _draw_object(cell: npt.NDArray[np.uint8], name: str) -> None:
    rim = 0 if name in ("wall", "block") else 1
    cell[rim : CELL - rim, rim : CELL - rim] = KINDS.get(name) or HUES.get(name.rsplit("_", 1)[-1], UNKNOWN)
    if name.startswith("mine"):
        cell[3:5, 3:5] = FLOOR


def _draw_agent(cell: npt.NDArray[np.uint8], thing: dict[str, Any]) -> None:
    cell[1:-1] = cell[:, 1:-1] = AGENTS[thing["agent_id"] % len(AGENTS)]
    top, left = FACING[thing["orientation"]]
    cell[top : top + 2, left : left + 2] = NOSE
