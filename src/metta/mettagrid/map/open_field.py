"""Open fields on which distance is what matters: things around one agent, and things in sectors of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from metta.mettagrid.map.config import MeanDistanceConfig, SectorsConfig
from metta.mettagrid.map.kinds import draw_counts

DRAWS = 4096
"""Places drawn for an object before it lands anywhere."""


def build_mean_distance(
    config: MeanDistanceConfig, codes: Mapping[str, int], agents: Sequence[int], rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """One agent in the middle, each object at a Poisson distance and a uniform angle from it.

    A place outside the field or on something else is drawn again; should thousands in a row be, any free cell serves.

    Args:
        config: a map that `check_fit` has accepted.
        codes: cell name to code.
        agents: code of the agent.
        rng: source of randomness.

    Returns:
        int16 `[height, width]` of cell codes; 0 is an empty cell.
    """
    height, width = config.inner_height, config.inner_width
    inner = np.zeros((height, width), np.int16)
    inner[height // 2, width // 2] = agents[0]
    for name, count in draw_counts(config.objects, rng).items():
        for _ in range(count):
            distance = np.maximum(rng.poisson(config.mean_distance, DRAWS), 1)
            angle = rng.random(DRAWS) * 2 * np.pi
            rows = np.rint(height // 2 + distance * np.sin(angle)).astype(np.int64)
            cols = np.rint(width // 2 + distance * np.cos(angle)).astype(np.int64)
            inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
            cells = rows[inside] * width + cols[inside]
            cells = cells[inner.flat[cells] == 0]
            cell = cells[0] if cells.size else rng.choice(np.flatnonzero(inner == 0))
            inner.flat[cell] = codes[name]
    for name, count in draw_counts(config.scattered, rng).items():
        inner.flat[rng.choice(np.flatnonzero(inner == 0), count, replace=False)] = codes[name]
    return np.pad(inner, config.border_width, constant_values=codes.get("wall", 0))


def build_sectors(
    config: SectorsConfig, codes: Mapping[str, int], agents: Sequence[int], rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """The agent and every object on a random cell of an inner sector of its own.

    Args:
        config: a map that `check_fit` has accepted.
        codes: cell name to code.
        agents: code of the agent.
        rng: source of randomness.

    Returns:
        int16 `[height, width]` of cell codes; 0 is an empty cell.
    """
    inner = np.zeros((config.inner_height, config.inner_width), np.int16)
    things = [*agents]
    for name, count in draw_counts(config.objects, rng).items():
        things += [codes[name]] * count
    across = config.sectors - 2
    for thing, sector in zip(things, rng.choice(across * across, len(things), replace=False), strict=True):
        row, col = 1 + sector // across, 1 + sector % across
        rows = [config.inner_height * edge // config.sectors for edge in (row, row + 1)]
        cols = [config.inner_width * edge // config.sectors for edge in (col, col + 1)]
        inner[rng.integers(*rows), rng.integers(*cols)] = thing
    return np.pad(inner, config.border_width, constant_values=codes.get("wall", 0))
