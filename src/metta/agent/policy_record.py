"""What is known of a saved policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PolicyRecord:
    """A policy on disk.

    Attributes:
        path: its file.
        epoch: batches it had been trained on when it was saved.
        metadata: what was saved with it.
    """

    path: Path
    epoch: int
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """The file's absolute address, `file:///...`."""
        return self.path.resolve().as_uri()

    @property
    def name(self) -> str:
        """The file's name without its ending, e.g. `checkpoint_000100`."""
        return self.path.stem

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of the metadata, by which policies can be compared: `score`, `epoch`, `agent_step`, ..."""
        return {
            name: float(value)
            for name, value in self.metadata.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
