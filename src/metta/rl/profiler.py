"""What a run spends its time on, operation by operation."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile

from metta.common.files import atomic_write_bytes
from metta.rl.distributed import get_rank
from metta.rl.trainer_config import TorchProfilerConfig, due


class TorchProfiler:
    """Writes torch's profile of every n-th epoch.

        profiler = TorchProfiler(config.profiler, device)
        while ...:
            with profiler.epoch(epoch):
                ...

    Args:
        config: which epochs, and the folder; it is made with the first profile.
        device: the agent's; what runs on an accelerator is profiled too.
    """

    def __init__(self, config: TorchProfilerConfig, device: torch.device | str) -> None:
        self.config = config
        self._activities = [ProfilerActivity.CPU]
        if torch.device(str(device)).type == "cuda":
            self._activities.append(ProfilerActivity.CUDA)

    @contextmanager
    def epoch(self, epoch: int) -> Iterator[None]:
        """Profile the block, if it is time.

        The profile is `trace_000010.json.gz` for epoch 10, which chrome://tracing and ui.perfetto.dev show. Of several
        processes each but the master adds its rank: `trace_000010_rank_1.json.gz`. None is written where the block raises
        an error.

        Args:
            epoch: batches trained on so far.

        Raises:
            OSError: the folder cannot be written.
        """
        if not due(epoch, self.config.interval_epochs):
            yield
            return
        with profile(activities=self._activities) as record:
            yield
        with TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json"
            record.export_chrome_trace(str(trace))
            data = gzip.compress(trace.read_bytes())
        whose = f"_rank_{get_rank()}" if get_rank() else ""
        atomic_write_bytes(Path(self.config.profile_dir) / f"trace_{epoch:06d}{whose}.json.gz", data)
