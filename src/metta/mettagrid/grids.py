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

MAX_CODES = 2**16 - 1
"""Things that the cells of a map can tell apart."""

_AGENT, _CONVERTER = 1, 2

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


class MapCheck:
    """What maps have to be like for the rules of a batch.

    Args:
        rules: the rule sets.
        height, width: of the largest map.
        objects: kinds of objects that the tables of the batch have room for.
    """

    def __init__(self, rules: Sequence[RuleTable], height: int, width: int, objects: int) -> None:
        self._rules = rules
        self._size = height, width
        self._agents = np.array([table.num_agents for table in rules])
        self._others = int(self._agents.max()) + objects
        # By rule set and code what stands there; codes below 0 count from the end.
        codes = max(len(table.cell_names) for table in rules) + len(_EMPTY_NAMES) - 1
        self._kinds = np.zeros((len(rules), codes), np.int8)
        for row, table in enumerate(rules):
            groups = len(table.group_names)
            self._kinds[row, 1 : 1 + groups] = _AGENT
            for place, entry in enumerate(table.objects):
                if entry["kind"] == "Converter":
                    self._kinds[row, 1 + groups + place] = _CONVERTER

    def read(
        self, worlds: Sequence[int], grids: Sequence[Grid], rules: Sequence[int]
    ) -> tuple[NDArray[np.int16], NDArray[np.int64], int]:
        """The maps of some worlds, one behind the other.

        Args:
            worlds: the worlds, for messages.
            grids: a map for each.
            rules: a rule set for each.

        Returns:
            int16 `[n, height, width]`, filled up with empty cells; int64 `[n, 2]`, rows and columns of each; and the
            most converters that one of them has.

        Raises:
            ValueError: a map that its rules do not allow; one sentence that names the world.
        """
        maps = np.zeros((len(grids), *self._size), np.int16)
        sizes = np.zeros((len(grids), 2), np.int64)
        for i, (world, grid, rule) in enumerate(zip(worlds, grids, rules, strict=True)):
            if not 0 <= rule < len(self._rules):
                raise ValueError(
                    f"rule set {rule} of world {world} does not exist: there are {len(self._rules)}."
                )
            codes = as_codes(grid, self._rules[rule], f"the map of world {world}")
            height, width = sizes[i] = codes.shape
            if not (1 <= height <= self._size[0] and 1 <= width <= self._size[1]):
                raise ValueError(
                    f"the map of world {world} has {height} rows and {width} columns, but this engine was made for 1 to "
                    f"{self._size[0]} rows and 1 to {self._size[1]} columns."
                )
            maps[i, :height, :width] = codes
        kinds = self._kinds[np.asarray(rules, np.int64)[:, None, None], maps]
        agents = np.count_nonzero(kinds == _AGENT, axis=(1, 2))
        wrong = np.flatnonzero(agents != self._agents[list(rules)])
        if wrong.size:
            table, count = self._rules[rules[wrong[0]]], agents[wrong[0]]
            raise ValueError(
                f"the map of world {worlds[wrong[0]]} has {count} agents where its rules say num_agents "
                f"{table.num_agents}: observations has shape [{table.num_agents}, {table.num_tokens}, 3] but expected "
                f"[{count}, [something], 3]."
            )
        converters = np.count_nonzero(kinds == _CONVERTER, axis=(1, 2))
        fullest = int(converters.argmax())
        things = self._others + int(converters[fullest])
        if things > MAX_CODES:
            raise ValueError(
                f"the map of world {worlds[fullest]} has too many converters: agents, converters and kinds of objects "
                f"together are {things}, and the engine can tell {MAX_CODES} apart."
            )
        return maps, sizes, int(converters[fullest])
