"""Observations in an array of the caller's."""

from __future__ import annotations

import numpy as np
import pytest

from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.vec import VecEnv

WORLD = EnvConfig(game=GameConfig(num_agents=2, width=8, height=8, max_steps=6, num_observation_tokens=25))


def test_they_are_written_there_and_are_the_same() -> None:
    memory = np.zeros(7 + 6 * 25 * 3, dtype=np.uint8)
    mine = memory[7:].reshape(6, 25, 3)  # in one piece, and at no particular address
    env, plain = VecEnv(WORLD, 3, observations=mine), VecEnv(WORLD, 3)
    rng = np.random.default_rng(0)
    assert np.shares_memory(env.reset(), mine)
    plain.reset()
    for _ in range(20):
        actions = rng.integers(3, size=(6, 2))
        assert np.array_equal(env.step(actions).rewards, plain.step(actions).rewards)
        assert np.array_equal(mine, plain.observations)
    assert not memory[:7].any()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((6, 25, 4), np.uint8),
        np.zeros((3, 2, 25, 3), np.uint8),
        np.zeros((12, 25, 3), np.uint8)[::2],
        np.zeros((6, 25, 3), np.int8),
    ],
)
def test_an_array_that_does_not_fit_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"observations is .*int8"):
        VecEnv(WORLD, 3, observations=array)


def test_worker_processes_write_into_memory_of_their_own() -> None:
    with pytest.raises(ValueError, match="num_workers is 2"):
        VecEnv(WORLD, 3, num_workers=2, observations=np.zeros((6, 25, 3), np.uint8))
