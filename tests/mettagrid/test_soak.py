"""Memory stays flat over many episodes; `python -m benchmarks.soak` plays a million of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.soak import Sample, growth, play, tasks
from metta.mettagrid.vec import StepBatch, VecEnv

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def soak(env: VecEnv, episodes: int) -> list[str]:
    with env:
        return growth(play(env, episodes, [int(share * episodes) for share in (0.05, 0.1, 0.5, 1.0)]))


def test_memory_is_flat_over_twenty_thousand_episodes() -> None:
    assert not soak(VecEnv(tasks(), 256), 20_000)


def test_memory_is_flat_with_threads() -> None:
    assert not soak(VecEnv(tasks(), 64, num_threads=2), 4_000)


def test_memory_is_flat_in_worker_processes() -> None:
    assert not soak(VecEnv(tasks(), 64, num_workers=2), 4_000)


class Hoarder(VecEnv):
    """Keeps something of every episode."""

    def __init__(self, *arguments: Any, keep: Callable[[StepBatch], list[Any]]) -> None:
        super().__init__(*arguments)
        self.keep = keep
        self.kept: list[Any] = []

    def step(self, *arguments: Any) -> StepBatch:
        batch = super().step(*arguments)
        self.kept += self.keep(batch)
        return batch


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        (lambda batch: [outcome.score for outcome in batch.episodes], "Python's blocks grew"),
        (lambda batch: [outcome.returns for outcome in batch.episodes], "Python's blocks grew"),
        (lambda batch: [np.ones(2**16)] if batch.episodes else [], "RSS grew"),
    ],
    ids=["a number", "an array", "large arrays"],
)
def test_a_leak_is_found(keep: Callable[[StepBatch], list[Any]], sentence: str) -> None:
    found = soak(Hoarder(tasks(), 256, keep=keep), 8_000)
    assert any(line.startswith(sentence) for line in found), found


def test_growth_is_told_from_the_settled_state_on() -> None:
    def sample(episodes: int, **changes: int) -> Sample:
        return Sample(
            **{"episodes": episodes, "seconds": 0, "rss": 2**28, "blocks": 10**6, "traced": 0, **changes}
        )

    assert growth([sample(10, rss=0), sample(1000), sample(10_000)]) == []
    assert growth([sample(1000), sample(10_000, rss=2**28 + 2**23)]) == ["RSS grew from 256.0 to 264.0 MiB"]
    assert growth([sample(1000), sample(10_000, traced=2**20)]) == [
        "traced memory grew from 0 to 1048576 bytes"
    ]
