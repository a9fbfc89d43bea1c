"""Mazes: one of square rooms around a cleared middle, and one of corridors like the spokes of a wheel."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from metta.mettagrid.map.config import MazeConfig, RadialMazeConfig
from metta.mettagrid.map.kernels import connect_rooms
from metta.mettagrid.map.kinds import draw_counts


def build_maze(
    config: MazeConfig, codes: Mapping[str, int], agents: Sequence[int], rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """A depth-first maze; the agent in the middle of the top left room, the objects in a cleared middle.

    As many rooms as fit lie side by side; what is left over on the right and below is wall.

    Args:
        config: a map that `check_fit` has accepted.
        codes: cell name to code.
        agents: code of the agent.
        rng: source of randomness.

    Returns:
        int16 `[height, width]` of cell codes; 0 is an empty cell.
    """
    height, width = config.inner_height, config.inner_width
    room, pitch = config.room_size, config.room_size + config.wall_size
    rows, cols = (height + config.wall_size) // pitch, (width + config.wall_size) // pitch
    right, down = np.zeros((2, rows, cols), np.int8)
    connect_rooms(right, down, rng)
    inner = np.full((height, width), codes["wall"], np.int16)
    for row in range(rows):
        for col in range(cols):
            top, left = row * pitch, col * pitch
            # As Python's integers: those of 8 bits would overflow beyond cell 127.
            across, below = int(right[row, col]) * config.wall_size, int(down[row, col]) * config.wall_size
            inner[top : top + room, left : left + room + across] = 0
            inner[top : top + room + below, left : left + room] = 0
    top, left = (height - config.centre_height) // 2, (width - config.centre_width) // 2
    middle = inner[top : top + config.centre_height, left : left + config.centre_width]
    things: list[int] = []
    for name, count in draw_counts(config.objects, rng).items():
        things += [codes[name]] * count
    places = rng.choice(middle.size, len(things), replace=False)
    middle[:] = 0
    middle[np.unravel_index(places, middle.shape)] = things
    inner[room // 2, room // 2] = agents[0]
    return np.pad(inner, config.border_width, constant_values=codes["wall"])


def build_radial_maze(
    config: RadialMazeConfig, codes: Mapping[str, int], agents: Sequence[int], rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """Corridors from the agent outwards, with objects at the ends of the first ones.

    Args:
        config: a map that `check_fit` has accepted.
        codes: cell name to code.
        agents: code of the agent.
        rng: source of randomness; only ranges of objects use it.

    Returns:
        int16 `[height, width]` of cell codes; 0 is an empty cell.
    """
    inner = np.full((config.inner_height, config.inner_width), codes["wall"], np.int16)
    before, after = config.arm_width // 2, (config.arm_width + 1) // 2
    middle = np.array([config.inner_height // 2, config.inner_width // 2])
    angles = 2 * np.pi * np.arange(config.arms) / config.arms
    ways = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    for way in ways:
        cells = np.rint(middle + way * np.arange(config.arm_length + 1)[:, None]).astype(np.int64)
        # From each cell to the next one all between them is free: agents do not move diagonally.
        for near, far in itertools.pairwise(cells):
            (top, left), (bottom, right) = np.minimum(near, far) - before, np.maximum(near, far) + after
            inner[max(top, 0) : bottom, max(left, 0) : right] = 0
    things: list[int] = []
    for name, count in draw_counts(config.objects, rng).items():
        things += [codes[name]] * count
    for way, thing in zip(ways, things, strict=False):
        row, col = np.rint(middle + way * config.arm_length).astype(np.int64)
        inner[row, col] = thing
    inner[tuple(middle)] = agents[0]
    return np.pad(inner, config.border_width, constant_values=codes["wall"])
