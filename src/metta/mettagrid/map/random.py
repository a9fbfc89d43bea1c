"""A walled field with objects and agents scattered over it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def build_random(
    *,
    height: int,
    width: int,
    border_width: int,
    objects: Sequence[tuple[int, int]],
    wall: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.int16]:
    """Scatter objects over the field inside the border, each on a cell of its own.

    Args:
        height: rows, the border included.
        width: columns, the border included.
        border_width: thickness of the wall around the field.
        objects: (cell code, how many) of everything to place, agents too.
        wall: cell code of the border.
        rng: source of randomness; the map is a function of its state.

    Returns:
        int16 `[height, width]` of cell codes; 0 is an empty cell.

    Raises:
        ValueError: the field is too small for what is to lie on it.
    """
    inner_height, inner_width = height - 2 * border_width, width - 2 * border_width
    cells = max(inner_height, 0) * max(inner_width, 0)
    wanted = sum(count for _, count in objects)
    if wanted > cells:
        raise ValueError(
            f"{wanted} objects and agents do not fit on the {cells} cells inside the border of a {width}x{height} map; "
            "make the map larger, the border thinner or the objects fewer."
        )
    field = np.zeros(cells, dtype=np.int16)
    field[:wanted] = np.repeat([code for code, _ in objects], [count for _, count in objects])
    rng.shuffle(field)
    grid = np.full((height, width), wall, dtype=np.int16)
    if cells:
        inside = slice(border_width, height - border_width), slice(border_width, width - border_width)
        grid[inside] = field.reshape(inner_height, inner_width)
    return grid
