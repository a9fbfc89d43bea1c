"""How long a GPU works on something, which is not how long the host takes to ask for it."""

from __future__ import annotations

from collections import defaultdict

import torch

from metta.common.stopwatch import Stopwatch


class DeviceStopwatch(Stopwatch):
    """A stopwatch of what a GPU does between starts and stops: it marks both in the GPU's own queue, and waits for nothing.

    Reading a clock waits until the GPU has reached its last stop. A stop gives the host's seconds: the GPU's are not
    known yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self._started: dict[str, torch.cuda.Event] = {}
        self._stretches: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = defaultdict(list)

    def start(self, name: str) -> None:
        """Let a clock run; see `Stopwatch`."""
        super().start(name)
        self._started[name] = _mark()

    def stop(self, name: str) -> float:
        """Halt a clock; see `Stopwatch`."""
        seconds = super().stop(name)
        self._stretches[name].append((self._started.pop(name), _mark()))
        return seconds

    def get_elapsed(self, name: str) -> float:
        """Seconds that the GPU spent in all stretches that were stopped; 0 for a clock that never ran."""
        stretches = self._stretches.get(name, [])
        if stretches:
            stretches[-1][1].synchronize()
        return float(sum(begin.elapsed_time(end) for begin, end in stretches)) / 1000  # from milliseconds


def _mark() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event
