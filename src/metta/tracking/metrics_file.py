"""The metrics of a run in a file of its own: one JSON object a line, readable by everything."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metta.common.files import StrPath, atomic_write_bytes

RESERVED = frozenset({"step", "time"})
"""What every line has besides the metrics."""


class MetricsFile:
    """A JSONL file that metrics are added to: `{"step": 8192, "time": 1767225600.0, "score": 0.5, ...}`.

    `time` is the wall clock in seconds since 1970. A metric that is not a finite number is written as null. Each line reaches
    the operating system in one piece, so a killed process loses none of the earlier ones; half a line at the end, as a crash of
    the machine may leave it, is taken away when the file is opened again.

    Args:
        path: the file; missing folders are made, and an existing file is added to.
        resume_step: the agent step from which a run goes on. Lines of later steps, from a run that got further than what it
            saved, are taken away, so that no step counts twice. None: every line stays.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(self, path: StrPath, *, resume_step: int | None = None) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._mend(resume_step)
        self._file: int | None = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a line.

        Raises:
            ValueError: a metric is called `step` or `time`, or the file is closed.
            OSError: the disk takes no more.
        """
        if self._file is None:
            raise ValueError(f"{self.path} is closed; log before close().")
        if clash := RESERVED & metrics.keys():
            raise ValueError(f"a metric is called '{min(clash)}', as is a field of every line; rename it.")
        numbers = {name: _finite(float(value)) for name, value in metrics.items()}
        line = json.dumps({"step": int(step), "time": round(time.time(), 3), **numbers}, allow_nan=False)
        data = (line + "\n").encode()
        size = os.fstat(self._file).st_size
        if os.write(self._file, data) < len(data):
            os.ftruncate(self._file, size)
            raise OSError(f"{self.path} took only a part of a line; make room on its disk.")

    def log_policy(self, path: StrPath, metadata: Mapping[str, Any]) -> None:
        """Policies stay where they are."""

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _mend(self, resume_step: int | None) -> None:
        content = self.path.read_bytes()
        lines = _lines(content, self.path)
        kept = [line for line, entry in lines if resume_step is None or entry["step"] <= resume_step]
        mended = b"".join(kept)
        if mended != content:
            atomic_write_bytes(self.path, mended)


def read_metrics(path: StrPath) -> list[dict[str, Any]]:
    """Every line of a metrics file, as `{"step": ..., "time": ..., name: value, ...}`; null is read as nan.

    Half a line at the end, as a crash may leave it, is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is damaged; the sentence says which.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no metrics file {path}.")
    entries = [entry for _, entry in _lines(path.read_bytes(), path)]
    return [
        {name: math.nan if value is None else value for name, value in entry.items()} for entry in entries
    ]


def _lines(content: bytes, path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Each whole line and what it says."""
    found = []
    *whole, _ = content.split(b"\n")  # what follows the last line break is not a whole line
    for number, line in enumerate(whole, start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
            raise ValueError(
                f"line {number} of {path} is no line of metrics: {line[:40]!r}; mend or move the file."
            )
        found.append((line + b"\n", entry))
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
