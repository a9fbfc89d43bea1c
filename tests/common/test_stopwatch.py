"""Named clocks, on a clock that only the test moves."""

import json

import pytest

import metta.common.stopwatch
from metta.common.stopwatch import NullStopwatch, Stopwatch


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(metta.common.stopwatch, "perf_counter", clock)
    return clock


def test_stretches_add_up_and_clocks_nest(clock: Clock) -> None:
    timer = Stopwatch()
    with timer("rollout"):
        clock.now += 1
        for _ in range(2):
            with timer("env"):
                clock.now += 2
        assert timer.get_elapsed("rollout") == 5
    clock.now += 50
    timer.start("env")
    clock.now += 3
    assert timer.get_elapsed("env") == 7
    assert timer.stop("env") == 3
    assert timer.get_all_elapsed() == {"rollout": 5, "env": 7}
    assert timer.get_elapsed("never") == 0


def test_an_exception_stops_the_clock(clock: Clock) -> None:
    timer = Stopwatch()

    def fail() -> None:
        with timer("env"):
            clock.now += 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    clock.now += 9
    assert timer.get_elapsed("env") == 1


def test_misuse_is_named() -> None:
    timer = Stopwatch()
    with pytest.raises(ValueError, match="'env' does not run"):
        timer.stop("env")
    timer.start("env")
    with pytest.raises(ValueError, match="'env' is running already"):
        timer.start("env")
    with pytest.raises(ValueError, match=r"no clocks, but \['env'\]"):
        timer.load_state({"env": 3.0})


def test_a_resumed_run_keeps_its_clock(clock: Clock) -> None:
    first = Stopwatch()
    first.start("run")
    with first("train"):
        clock.now += 4
    saved = json.loads(json.dumps(first.save_state()))
    clock.now += 1000
    second = Stopwatch()
    second.start("run")
    clock.now += 20  # before the load: not of the run that is resumed
    second.load_state(saved)
    clock.now += 2
    assert second.get_all_elapsed() == {"run": 6, "train": 4}
    assert second.stop("run") == 2


def test_the_null_stopwatch_measures_nothing(clock: Clock) -> None:
    timer = NullStopwatch()
    with timer("env"), timer("env"):
        clock.now += 1
    assert timer.stop("never started") == 0
    assert timer.get_all_elapsed() == {}
