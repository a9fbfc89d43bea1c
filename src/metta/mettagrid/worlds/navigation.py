"""Navigation: find hearts in rooms full of walls. The training worlds and the generated evaluations.

Four rooms lie side by side, one agent in each. Every altar holds one heart, and for want of batteries it never makes another,
so an agent has to keep looking.
"""

from __future__ import annotations

from typing import Any

from metta.mettagrid.config import EnvConfig, ObjectConfig
from metta.mettagrid.map.config import (
    CylinderWorldConfig,
    MapConfig,
    MazeConfig,
    MeanDistanceConfig,
    RadialMazeConfig,
    RoomConfig,
    RoomsConfig,
    SectorsConfig,
    VariedTerrainConfig,
)
from metta.mettagrid.map.kinds import Count
from metta.mettagrid.worlds.basics import actions, base_game, converter

TRAINING = "/env/mettagrid/navigation/training"
EVALS = "/env/mettagrid/navigation/evals"

SIDES = {"large": 90, "medium": 70, "small": 40}
"""Cells along the side of a room's field: customarily less than 4000 cells count as small, less than 6000 as medium."""

ROOM_BORDER = 3
OUTER_BORDER = 6

NAVIGATION_ACTIONS = ("noop", "move", "rotate", "get_items")

ALTARS = (2, 17)
"""How many altars a training room has."""


def terrain_rooms() -> dict[str, RoomConfig]:
    """The rooms that agents are trained in, by name: four styles and cylinder worlds in three sizes, and one more.

    Customarily the maps are read from files. All but those of "terrain_maps_nohearts" are of the styles that are built here;
    for it stands balanced terrain, 55 cells along the side.
    """
    rooms: dict[str, RoomConfig] = {"terrain_maps_nohearts": VariedTerrainConfig(**_room(55))}
    for style in ("balanced", "sparse", "dense", "maze"):
        for size, side in SIDES.items():
            rooms[f"{style}_{size}"] = VariedTerrainConfig(style=style, **_room(side))
    for size, side in SIDES.items():
        rooms[f"cylinder-world_{size}"] = CylinderWorldConfig(**_room(side))
    return rooms


def _room(side: int) -> dict[str, Any]:
    whole = side + 2 * ROOM_BORDER
    return {
        "width": whole,
        "height": whole,
        "border_width": ROOM_BORDER,
        "agents": 1,
        "objects": {"altar": ALTARS},
    }


def training(room: RoomConfig) -> EnvConfig:
    """Four agents, each in a room of its own of this kind."""
    return EnvConfig(
        game=base_game(),
        objects=_objects(cooldown=1000),
        actions=actions(*NAVIGATION_ACTIONS),
        map_builder=RoomsConfig(room=room, num_rooms=4, border_width=OUTER_BORDER),
    )


def evaluation(name: str) -> EnvConfig:
    """One agent and three altars, on the map of that name; the first hearts of all three are together worth 1."""
    map_builder, max_steps = evaluation_maps()[name]
    return EnvConfig(
        game=base_game(heart_reward=0.333, max_steps=max_steps),
        objects=_objects(cooldown=10),
        actions=actions(*NAVIGATION_ACTIONS),
        map_builder=map_builder,
    )


def evaluation_maps() -> dict[str, tuple[MapConfig, int]]:
    """Map and longest episode, in steps, of every evaluation that is generated."""
    altars: dict[str, Count] = {"altar": 3}
    return {
        "emptyspace_withinsight": (_around(10, 12), 45),
        "emptyspace_outofsight": (_around(15, 25), 150),
        "emptyspace_sparse": (_around(30, 60), 300),
        "emptyspace_sparse_medium": (
            SectorsConfig(sectors=5, width=110, height=110, border_width=5, objects=altars),
            1000,
        ),
        "walls_withinsight": (_around(10, 12, walls=4), 75),
        "walls_outofsight": (_around(15, 25, walls=12), 120),
        "walls_sparse": (_around(25, 35, walls=12), 250),
        "labyrinth": (MazeConfig(width=35, height=35, border_width=2, objects=altars), 250),
        "radialmaze": (RadialMazeConfig(width=22, height=22, border_width=1, objects=altars), 200),
    }


def _around(mean_distance: float, side: int, walls: int = 0) -> MapConfig:
    """Altars around the agent, on a field with so many cells along the side."""
    return MeanDistanceConfig(
        mean_distance=mean_distance,
        width=side + 6,
        height=side + 6,
        border_width=3,
        objects={"altar": 3},
        scattered={"wall": walls},
    )


def _objects(cooldown: int) -> list[ObjectConfig]:
    return [
        converter("altar", initial_resource_count=1, cooldown=cooldown),
        ObjectConfig(type="wall", name="wall"),
        ObjectConfig(type="wall", name="block"),
    ]
