"""Metrics for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metta.common.files import StrPath


class TensorBoardTracker:
    """Writes an event file that `tensorboard --logdir FOLDER` shows.

    Args:
        folder: of the event files; it is made. A run that goes on adds a file.
        resume_step: the agent step from which a run goes on; TensorBoard then hides what an earlier part of it noted at
            later steps. None: it hides nothing.

    Raises:
        ImportError: the package is not installed.
    """

    def __init__(self, folder: StrPath, *, resume_step: int | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("TensorBoard is not installed; say pip install 'metta[tracking]'.") from error
        self._closed = False
        purge = None if resume_step is None else resume_step + 1
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a point to the curve of each metric.

        Raises:
            ValueError: the tracker is closed.
        """
        if self._closed:
            raise ValueError("the TensorBoard writer is closed; log before close().")
        for name, value in metrics.items():
            self._writer.add_scalar(name, float(value), step)

    def log_policy(self, path: StrPath, metadata: Mapping[str, Any]) -> None:
        """TensorBoard keeps no files."""

    def close(self) -> None:
        """Write what is left; more than once does no harm."""
        self._closed = True
        self._writer.close()
