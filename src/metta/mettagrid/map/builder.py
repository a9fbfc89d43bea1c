"""From an environment's configuration to the maps of its episodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.map.ascii import parse_ascii
from metta.mettagrid.map.random import build_random
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
        ValueError: the map cannot be built; the sentence says why. Said here, before any episode starts.
    """
    builder = config.map_builder
    if builder.type == "Ascii":
        assert builder.ascii_map is not None  # MapBuilderConfig sees to it
        names = parse_ascii(builder.ascii_map)
        for name in np.unique(names):
            if name not in cell_codes:
                known = ", ".join(cell for cell in cell_codes if cell not in EMPTY_NAMES)
                raise ValueError(
                    f"the ASCII map has a cell '{name}', which is no object or group of this environment; add it, or draw "
                    f"one of {known}."
                )
        drawn = np.array([[cell_codes[name] for name in row] for row in names], dtype=np.int16)
        return lambda _rng: drawn

    placed = [(cell_codes[name], count) for name, count in builder.objects.items() if count]
    placed += [
        (cell_codes[f"agent.{group}"], count) for group, count in agents_per_group(config).items() if count
    ]
    if builder.border_width and "wall" not in cell_codes:
        raise ValueError(
            "the map has a border, but no object is called 'wall'; add one or set border_width=0."
        )

    def build(rng: np.random.Generator) -> CellCodes:
        source = rng if builder.seed is None else np.random.default_rng(builder.seed)
        return build_random(
            height=builder.height,
            width=builder.width,
            border_width=builder.border_width,
            objects=placed,
            wall=cell_codes.get("wall", 0),
            rng=source,
        )

    build(np.random.default_rng(0))
    return build


def agents_per_group(config: EnvConfig) -> dict[str, int]:
    """How many agents of each group a random map gets: as stated, or shared out evenly, first groups first."""
    agents = config.map_builder.agents
    if isinstance(agents, dict):
        return dict(agents)
    groups = list(config.game.groups)
    share, rest = divmod(agents, len(groups))
    return {name: share + (place < rest) for place, name in enumerate(groups)}
