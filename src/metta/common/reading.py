"""Reading files that may hold anything: bounded in size and time, and refused in one sentence."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DEEPEST = 64
"""Levels of a nested value in a file."""

SHORT = 200
"""Characters of a foreign text that a sentence of ours quotes."""


def one_line(text: object, most: int = SHORT) -> str:
    """A text on one line, cut off if it is long."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[:most]}..."


def repeated(names: Iterable[Any]) -> list[Any]:
    """What occurs more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file.

    Raises:
        ValueError: it is larger than `most` bytes.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} has more than {most:,} bytes, the most that is read; it is something else.")
    return content


def parse_json(text: str | bytes, *, deepest: int | None = DEEPEST) -> Any:
    """What a JSON text says.

    Args:
        text: the text.
        deepest: how many levels it may have, since much that looks at a value goes down level by level; None: as many as JSON's
            own reader takes.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or has a number that is too long; the end of a sentence.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it does not hold JSON ({one_line(error)})") from None
    if deepest is not None and _depth_exceeds(value, deepest):
        raise ValueError("it is nested too deeply")
    return value


def _depth_exceeds(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            part
            for entry in level
            if isinstance(entry, dict | list)
            for part in (entry.values() if isinstance(entry, dict) else entry)
        ]
        if not level:
            return False
    return True


def inflate(data: bytes, most: int) -> bytes:
    """What zlib-compressed bytes hold.

    Raises:
        ValueError: they are not compressed, cut short, or hold more than `most` bytes; the end of a sentence.
    """
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, most)
    except zlib.error:
        raise ValueError("it is not zlib-compressed, or cut short") from None
    if stream.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {most:,} bytes, the most that is read")
    if not stream.eof:
        raise ValueError("it is not zlib-compressed, or cut short")
    return content
