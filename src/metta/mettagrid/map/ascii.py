"""Maps drawn in text, one character a cell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from metta.mettagrid.objects import MAP_CHARACTERS

MOST_CELLS = 2**22
"""Cells of the largest map."""


def parse_ascii(text: str) -> npt.NDArray[np.str_]:
    """Read a drawn map.

    Args:
        text: rows separated by line breaks; empty lines at the start and end are dropped, and so is the
            indentation that all rows share. Characters are those of `metta.mettagrid.objects.MAP_CHARACTERS`.

    Returns:
        Unicode `[height, width]` of cell names.

    Raises:
        ValueError: no rows, rows of different lengths, or an unknown character; the sentence says where.
    """
    if len(text) > MOST_CELLS:
        raise ValueError(
            f"the ASCII map has {len(text):,} characters; a map has at most {MOST_CELLS:,} cells."
        )
    rows = text.expandtabs().split("\n")
    while rows and not rows[0].strip():
        rows.pop(0)
    while rows and not rows[-1].strip():
        rows.pop()
    if not rows:
        raise ValueError("the ASCII map has no rows; draw at least one.")
    indent = min(len(row) - len(row.lstrip(" ")) for row in rows)
    rows = [row[indent:].rstrip("\r") for row in rows]
    width = len(rows[0])
    for number, row in enumerate(rows):
        if len(row) != width:
            raise ValueError(
                f"row {number} of the ASCII map has {len(row)} cells but row 0 has {width}; make them equally long "
                "('.' is an empty cell)."
            )
        for column, character in enumerate(row):
            if character not in MAP_CHARACTERS:
                shown = character if character.isprintable() else repr(character)
                raise ValueError(
                    f"Unknown character: {shown} in row {number}, column {column} of the ASCII map; "
                    f"known are {''.join(MAP_CHARACTERS)}."
                )
    return np.array([[MAP_CHARACTERS[character] for character in row] for row in rows])
