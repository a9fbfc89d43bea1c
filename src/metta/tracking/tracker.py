"""What a tracker is, and several of them as one that cannot stop a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from metta.common.files import StrPath

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes the numbers of a run as they arise."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Note some numbers, by name, at agent step `step`."""
        ...

    def log_policy(self, path: StrPath, metadata: Mapping[str, Any]) -> None:
        """Keep a copy of a saved policy, where this tracker keeps files."""
        ...

    def close(self) -> None:
        """Write what is left and let go; more than once does no harm."""
        ...


class Trackers:
    """Several trackers as one, none of which can stop a run.

    A tracker that raises is closed and left out from then on; one warning, in the log, says which and why.
    With no trackers at all it is one that does nothing.

    Args:
        trackers: the trackers; the order is that in which they are called.
    """

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = list(trackers)

    def __len__(self) -> int:
        return len(self._trackers)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Note some numbers, by name, at agent step `step`."""
        self._each(lambda tracker: tracker.log(metrics, step))

    def log_policy(self, path: StrPath, metadata: Mapping[str, Any]) -> None:
        """Hand a saved policy to the trackers that keep files."""
        self._each(lambda tracker: tracker.log_policy(path, metadata))

    def close(self) -> None:
        """Close all of them; more than once does no harm."""
        self._each(lambda tracker: tracker.close())
        self._trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                call(tracker)
            except Exception as error:  # whatever a service may do, the run goes on
                self._trackers.remove(tracker)
                logger.warning(
                    "%s failed and is switched off, the run goes on: %s: %s",
                    type(tracker).__name__,
                    type(error).__name__,
                    error,
                )
                _close_quietly(tracker)


def _close_quietly(tracker: Tracker) -> None:
    try:
        tracker.close()
    except Exception as error:
        logger.debug("%s could not be closed either: %s", type(tracker).__name__, error)
