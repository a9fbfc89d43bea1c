"""Maps as the engine takes them: cell names or codes, checked against the rules of a world."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.objects import EMPTY
from metta.mettagrid.rules import RuleTable

Grid = np.ndarray[Any, Any] | Sequence[Sequence[str]]
"""A map `[height, width]`: cell names, or integer codes as in `RuleTable.cell_codes`."""

_EMPTY_NAMES = (EMPTY, ".", " ")
"""Names of the empty cell; a map keeps which of them it used, as codes 0, -1 and -2."""


def as_codes(grid: Grid, rules: RuleTable, what: str) -> NDArray[np.int16]:
    """A map as int16 codes; empty cells that are not called "empty" get codes below 0.

    Rows that are longer than the first are cut.

    Raises:
        ValueError: the map is no rectangle, or has a cell that the rules do not know.
    """
    if not isinstance(grid, np.ndarray):
        grid = np.array(_rectangle(grid, what), dtype=np.str_)
    if grid.ndim != 2:
        raise ValueError(f"{what} has {grid.ndim} dimensions, but a map has rows and columns.")
    if np.issubdtype(grid.dtype, np.integer):
        known = len(rules.cell_names)
        bad = (grid < 0) | (grid >= known)
        if bad.any():
            row, col = np.argwhere(bad)[0]
            raise ValueError(
                f"{what} has code {grid[row, col]} at row {row}, column {col}, but its rules have codes 0 to {known - 1}."
            )
        return grid.astype(np.int16)
    if grid.dtype.kind != "U":
        raise ValueError(f"{what} is a grid of {grid.dtype}, but a map holds cell names or integer codes.")
    names, inverse = np.unique(grid, return_inverse=True)
    codes = np.zeros(len(names), np.int16)
    for i, name in enumerate(names.tolist()):
        if name in _EMPTY_NAMES:
            codes[i] = -_EMPTY_NAMES.index(name)
        elif name in rules.cell_codes:
            codes[i] = rules.cell_codes[name]
        else:
            row, col = np.argwhere(grid == name)[0]
            known_names = ", ".join(rules.cell_names)
            raise ValueError(
                f"Unknown object type: {name} in {what} at row {row}, column {col}; its rules know {known_names}."
            )
    return codes[inverse].reshape(grid.shape)


def _rectangle(rows: Iterable[Sequence[str]], what: str) -> list[list[str]]:
    cells = [list(row) for row in rows]
    width = len(cells[0]) if cells else 0
    for r, row in enumerate(cells):
        if len(row) < width:
            raise ValueError(
                f"{what} has {len(row)} cells in row {r}, but {width} in row 0: fill the row up."
            )
    return [row[:width] for row in cells]


def as_names(codes: NDArray[np.int16], rules: RuleTable) -> NDArray[np.str_]:
    """The cell names of a map from `as_codes`."""
    names = (*rules.cell_names, *reversed(_EMPTY_NAMES[1:]))
    return np.array(names)[codes]


def count_agents(codes: NDArray[np.int16], rules: RuleTable) -> int:
    """Agents on a map."""
    return int(np.count_nonzero((codes > 0) & (codes <= len(rules.group_names))))


def count_converters(codes: NDArray[np.int16], rules: RuleTable) -> int:
    """Converters on a map."""
    converts = np.zeros(len(rules.cell_names) + len(_EMPTY_NAMES) - 1, np.bool_)
    for row, entry in enumerate(rules.objects):
        converts[1 + len(rules.group_names) + row] = entry["kind"] == "Converter"
    return int(np.count_nonzero(converts[codes]))
