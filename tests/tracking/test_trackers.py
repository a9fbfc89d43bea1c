"""Several trackers as one: a broken one is switched off with one warning, and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from metta.tracking.tracker import Trackers


class Notebook:
    """A tracker that notes what it is told, and raises in the methods named in `broken`."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.heard: list[tuple[Any, ...]] = []

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.note("log", dict(metrics), step)

    def log_policy(self, path: Any, metadata: Mapping[str, Any]) -> None:
        self.note("log_policy", path, dict(metadata))

    def close(self) -> None:
        self.note("close")

    def note(self, *what: Any) -> None:
        self.heard.append(what)
        if what[0] in self.broken:
            raise ConnectionError(f"{what[0]} is broken")


def tell_everything(trackers: Trackers) -> None:
    trackers.log({"score": 1.0}, 10)
    trackers.log({"score": 2.0}, 20)
    trackers.log_policy("a.pt", {"epoch": 1})
    trackers.close()
    trackers.close()


EVERYTHING = [
    ("log", {"score": 1.0}, 10),
    ("log", {"score": 2.0}, 20),
    ("log_policy", "a.pt", {"epoch": 1}),
    ("close",),
]


@pytest.mark.parametrize("broken", ["log", "log_policy", "close"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_broken_tracker_is_switched_off_and_the_others_go_on(
    broken: str, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    notebooks = [Notebook(), Notebook()]
    notebooks.insert(place, Notebook(broken))
    with caplog.at_level(logging.WARNING):
        tell_everything(Trackers(notebooks))
    for number, notebook in enumerate(notebooks):
        if number != place:
            assert notebook.heard == EVERYTHING
    heard = notebooks[place].heard
    first = next(i for i, what in enumerate(heard) if what[0] == broken)
    assert heard[: first + 1] == EVERYTHING[: first + 1]
    assert heard[first + 1 :] == [("close",)], "after its failure it is only closed"
    (warning,) = caplog.records
    assert warning.getMessage() == (
        f"Notebook failed and is switched off, the run goes on: ConnectionError: {broken} is broken"
    )


def test_a_tracker_that_cannot_even_be_closed_gives_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    trackers = Trackers([Notebook("log", "close")])
    with caplog.at_level(logging.WARNING):
        tell_everything(trackers)
    assert len(caplog.records) == 1
    assert len(trackers) == 0


def test_an_interrupt_is_no_failure() -> None:
    class Interrupted(Notebook):
        def log(self, metrics: Mapping[str, float], step: int) -> None:
            raise KeyboardInterrupt

    trackers = Trackers([Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        trackers.log({}, 0)
    assert len(trackers) == 1


def test_trackers_nest() -> None:
    inner, outer = Notebook("log"), Notebook()
    tell_everything(Trackers([Trackers([inner]), outer]))
    assert outer.heard == EVERYTHING
    assert [what[0] for what in inner.heard] == ["log", "close"]


def test_none_at_all_is_a_tracker_that_does_nothing() -> None:
    tell_everything(Trackers())
