"""Where the time goes: named clocks that add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any


class Stopwatch:
    """Named clocks, each the sum of the stretches between its starts and stops.

        timer = Stopwatch()
        with timer("rollout"):
            with timer("env"):
                ...

    Clocks of different names may run at the same time, so they nest; `rollout` above includes `env`. A stopwatch
    belongs to one thread: starts and stops from several would be mixed up. What a worker thread does is timed by
    whoever waits for it.
    """

    def __init__(self) -> None:
        self._elapsed: dict[str, float] = {}
        self._since: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Let a clock run for the length of a `with` block, an exception included."""
        self.start(name)
        try:
            yield
        finally:
            self.stop(name)

    def start(self, name: str) -> None:
        """Let a clock run.

        Raises:
            ValueError: it runs already.
        """
        if name in self._since:
            raise ValueError(f"the clock '{name}' is running already: stop it first, or use another name.")
        self._elapsed.setdefault(name, 0.0)
        self._since[name] = perf_counter()

    def stop(self, name: str) -> float:
        """Halt a clock.

        Returns:
            Seconds since its start.

        Raises:
            ValueError: it does not run.
        """
        if name not in self._since:
            raise ValueError(f"the clock '{name}' does not run: start it before stopping it.")
        seconds = perf_counter() - self._since.pop(name)
        self._elapsed[name] += seconds
        return seconds

    def get_elapsed(self, name: str) -> float:
        """Seconds that a clock has run, up to now if it is running; 0 for one that never ran."""
        running = perf_counter() - self._since[name] if name in self._since else 0.0
        return self._elapsed.get(name, 0.0) + running

    def get_all_elapsed(self) -> dict[str, float]:
        """Seconds of every clock, by name, in the order of their first start."""
        return {name: self.get_elapsed(name) for name in self._elapsed}

    def save_state(self) -> dict[str, Any]:
        """What `load_state` goes on from; JSON can hold it. Clocks that are running are saved as of now."""
        return {"elapsed": self.get_all_elapsed()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `save_state` gave; clocks that are running begin a new stretch now.

        Raises:
            ValueError: it is not such a state.
        """
        elapsed = state.get("elapsed")
        if not isinstance(elapsed, Mapping):
            raise ValueError(
                f"the saved stopwatch has no clocks, but {sorted(state)}: pass what save_state gave."
            )
        now = perf_counter()
        self._since = dict.fromkeys(self._since, now)
        self._elapsed = dict.fromkeys(self._since, 0.0) | {
            str(name): float(seconds) for name, seconds in elapsed.items()
        }


class NullStopwatch(Stopwatch):
    """A stopwatch that measures nothing, for those who do not want to know."""

    def start(self, name: str) -> None:
        """Do nothing."""

    def stop(self, name: str) -> float:
        """Do nothing; 0."""
        del name
        return 0.0
