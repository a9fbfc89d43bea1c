"""Fields with walls of some style: varied terrain and cylinder worlds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from metta.mettagrid.map.config import CylinderWorldConfig, TerrainStyle, VariedTerrainConfig
from metta.mettagrid.map.kernels import FREE, NICHE, WALL, Field, raise_cylinders, raise_terrain
from metta.mettagrid.map.kinds import draw_counts

TREASURE = "altar"
"""What lies in hiding places."""

COMMON_AREA = 3600
"""Cells of the field that the numbers below are for; they grow with the area."""

# Of labyrinths, large obstacles, small obstacles, crosses, single walls and blocks: how many at least, and how many at most.
STYLES: dict[TerrainStyle, tuple[tuple[int, int], ...]] = {
    "sparse": ((0, 1),) * 6,
    "balanced": ((3, 6),) * 6,
    "dense": ((6, 14), (8, 14), (8, 14), (7, 14), (40, 59), (5, 14)),
    "maze": ((10, 19), (0, 1), (0, 1), (0, 1), (0, 1), (0, 1)),
}
MEAN_SIZES = np.array([72, 17.5, 4.5, 9, 1, 64])
"""Wall cells of one of each, about."""

MOST_OF_AREA = 0.3
"""No kind is to take more than this share of the field."""


def terrain_counts(style: TerrainStyle, area: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How many of each part a field of this many cells gets.

    Returns:
        int64 `[6]`: labyrinths, large and small obstacles, crosses, single walls, blocks.
    """
    low, high = np.array(STYLES[style]).T
    scaled = rng.integers(low, high + 1) * area // COMMON_AREA
    counts: npt.NDArray[np.int64] = np.minimum(scaled, (MOST_OF_AREA * area / MEAN_SIZES).astype(np.int64))
    return counts


def build_terrain(
    config: VariedTerrainConfig | CylinderWorldConfig,
    codes: Mapping[str, int],
    agents: Sequence[int],
    rng: np.random.Generator,
) -> npt.NDArray[np.int16]:
    """Draw the walls, then set agents and objects down on cells that can be reached from a side.

    Args:
        config: a map that `check_fit` has accepted.
        codes: cell name to code.
        agents: code of each agent.
        rng: source of randomness.

    Returns:
        int16 `[height, width]` of cell codes; 0 is an empty cell.
    """
    counts = draw_counts(config.objects, rng)
    shape = config.inner_height, config.inner_width
    drawn = terrain_counts(config.style, shape[0] * shape[1], rng) if config.type == "VariedTerrain" else None
    thinning = 0
    while True:
        field: Field = np.zeros(shape, np.int8)
        if drawn is not None:
            raise_terrain(field, drawn >> thinning, rng)
        elif thinning == 0:
            raise_cylinders(field, rng)
        niches = np.flatnonzero(field == NICHE)
        hidden = min(counts.get(TREASURE, 0), len(niches))
        things = [*agents]
        for name, count in counts.items():
            things += [codes[name]] * (count - hidden if name == TREASURE else count)
        cells = standing_cells(field)
        if len(cells) >= len(things):
            break
        thinning += 1  # an empty field holds them, says check_fit

    inner = np.where(field == WALL, codes["wall"], 0).astype(np.int16)
    if hidden:
        inner.flat[rng.choice(niches, hidden, replace=False)] = codes[TREASURE]
    inner.flat[rng.choice(cells, len(things), replace=False)] = things
    return np.pad(inner, config.border_width, constant_values=codes["wall"])


def standing_cells(field: Field) -> npt.NDArray[np.int64]:
    """Flat indices of the free cells with a free neighbour that do not lie on the field's outermost ring."""
    free = field == FREE
    near = np.zeros_like(free)
    near[1:] |= free[:-1]
    near[:-1] |= free[1:]
    near[:, 1:] |= free[:, :-1]
    near[:, :-1] |= free[:, 1:]
    free[[0, -1]] = False
    free[:, [0, -1]] = False
    return np.flatnonzero(free & near)
