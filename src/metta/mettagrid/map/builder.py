"""From an environment's configuration to the maps of its episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.map.ascii import parse_ascii
from metta.mettagrid.map.config import (
    CylinderWorldConfig,
    MapBuilderConfig,
    MapConfig,
    MazeConfig,
    MeanDistanceConfig,
    RadialMazeConfig,
    RoomsConfig,
    SectorsConfig,
    VariedTerrainConfig,
)
from metta.mettagrid.map.kinds import draw_counts
from metta.mettagrid.map.mazes import build_maze, build_radial_maze
from metta.mettagrid.map.open_field import build_mean_distance, build_sectors
from metta.mettagrid.map.random import build_random
from metta.mettagrid.map.terrain import build_terrain
from metta.mettagrid.objects import EMPTY_NAMES

CellCodes = npt.NDArray[np.int16]
MapBuilder = Callable[[np.random.Generator], CellCodes]
"""Builds the map of one episode: int16 `[height, width]` of cell codes."""


def make_map_builder(config: EnvConfig, cell_codes: dict[str, int]) -> MapBuilder:
    """The map builder of an environment.

    Args:
        config: the environment.
        cell_codes: cell name to the code that the engine knows it by.

    Raises:
        ValueError: the map has cells that the environment does not know. Said here, before any episode starts.
    """
    builder = config.map_builder
    drawn = builder.room if isinstance(builder, RoomsConfig) else builder
    if isinstance(drawn, MapBuilderConfig) and drawn.ascii_map is not None:
        for name in np.unique(parse_ascii(drawn.ascii_map)):
            if name not in cell_codes:
                known = ", ".join(cell for cell in cell_codes if cell not in EMPTY_NAMES)
                raise ValueError(
                    f"the ASCII map has a cell '{name}', which is no object or group of this environment; add it, or draw "
                    f"one of {known}."
                )
    if builder.has_walls and "wall" not in cell_codes:
        raise ValueError(
            "the map has walls of its own, but no object is called 'wall'; add one, or use a Random map with border_width=0."
        )
    agents = [cell_codes[f"agent.{group}"] for group in agent_order(config)]
    if isinstance(drawn, MapBuilderConfig) and drawn.ascii_map is not None:
        same = build_map(builder, cell_codes, agents, np.random.default_rng(0))
        return lambda _rng: same  # a drawing is read once, not for every episode
    return lambda rng: build_map(builder, cell_codes, agents, rng)


def build_map(
    config: MapConfig, codes: Mapping[str, int], agents: Sequence[int], rng: np.random.Generator
) -> CellCodes:
    """Build the map of an episode.

    Args:
        config: what to build.
        codes: cell name to code.
        agents: code of each agent.
        rng: source of randomness; the map is a function of its state. Not used if the map has a seed.

    Returns:
        int16 `[config.height, config.width]` of cell codes; 0 is an empty cell.
    """
    if config.seed is not None:
        rng = np.random.default_rng(config.seed)
    match config:
        case RoomsConfig():
            return _build_rooms(config, codes, agents, rng)
        case VariedTerrainConfig() | CylinderWorldConfig():
            return build_terrain(config, codes, agents, rng)
        case MeanDistanceConfig():
            return build_mean_distance(config, codes, agents, rng)
        case SectorsConfig():
            return build_sectors(config, codes, agents, rng)
        case MazeConfig():
            return build_maze(config, codes, agents, rng)
        case RadialMazeConfig():
            return build_radial_maze(config, codes, agents, rng)
        case MapBuilderConfig(ascii_map=str(text)):
            return np.array([[codes[name] for name in row] for row in parse_ascii(text)], np.int16)
        case MapBuilderConfig():
            counts = [(codes[name], count) for name, count in draw_counts(config.objects, rng).items()]
            return build_random(
                height=config.height,
                width=config.width,
                border_width=config.border_width,
                objects=[*counts, *Counter(agents).items()],
                wall=codes.get("wall", 0),
                rng=rng,
            )


def _build_rooms(
    config: RoomsConfig, codes: Mapping[str, int], agents: Sequence[int], rng: np.random.Generator
) -> CellCodes:
    """Rooms in rows and columns, each with its part of the agents."""
    room, share = config.room, config.room.num_agents
    grid = np.full((config.height, config.width), codes.get("wall", 0), np.int16)
    for place in range(config.num_rooms):
        row, col = divmod(place, config.columns)
        top = config.border_width + row * (room.height + config.gap)
        left = config.border_width + col * (room.width + config.gap)
        grid[top : top + room.height, left : left + room.width] = build_map(
            room, codes, agents[place * share : (place + 1) * share], rng
        )
    return grid


def agent_order(config: EnvConfig) -> list[str]:
    """The group of every agent that the map places: as stated, or one group after the other in turn."""
    builder = config.map_builder
    stated = [group for group, count in builder.agent_groups.items() for _ in range(count)]
    if stated:
        return stated * (builder.num_agents // len(stated))
    groups = list(config.game.groups)
    return [groups[place % len(groups)] for place in range(builder.num_agents)]
