"""Some worlds of a batch begin their next episode, the others notice nothing."""

from __future__ import annotations

import numpy as np
import pytest

from metta.mettagrid.async_vec import AsyncVecEnv
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.vec import VecEnv

WORLD = EnvConfig(game=GameConfig(num_agents=2, width=8, height=8, max_steps=50))


def actions(env: VecEnv, steps: int) -> np.ndarray:
    pairs = np.array(env.spec.legal_actions)
    return pairs[np.random.default_rng(1).integers(len(pairs), size=(steps, env.num_agents))]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_it_begins_the_next_episode_of_these_worlds_alone(num_workers: int) -> None:
    env, others, fresh = (VecEnv(WORLD, 3, num_workers=n, zero_copy=False) for n in (num_workers, 0, 0))
    try:
        fresh.reset()
        fresh.reset()  # its worlds play their second episodes
        for step in actions(env, 10):
            env.step(step)
            others.step(step)
        env.restart([1])
        assert env.starts.tolist() == [False, False, True, True, False, False]
        assert np.array_equal(env.observations[2:4], fresh.observations[2:4])
        assert np.array_equal(env.observations[[0, 1, 4, 5]], others.observations[[0, 1, 4, 5]])
        for step in actions(env, 20):
            batch, other, new = env.step(step), others.step(step), fresh.step(step)
            assert np.array_equal(batch.observations[2:4], new.observations[2:4])
            assert np.array_equal(batch.rewards[[0, 1, 4, 5]], other.rewards[[0, 1, 4, 5]])
            assert not batch.final_rows.size
        ends = [env.step(step).episodes for step in actions(env, 20)]
        assert [outcome.world for episodes in ends for outcome in episodes] == [0, 2]
    finally:
        env.close()


def test_a_restart_right_after_the_start_is_not_undone_by_the_first_reset() -> None:
    env, fresh = VecEnv(WORLD, 2), VecEnv(WORLD, 2)
    env.restart([0])
    env.restart([])
    fresh.reset()
    fresh.reset()
    assert np.array_equal(env.observations[:2], fresh.observations[:2])
    assert not np.array_equal(env.observations[2:], fresh.observations[2:])


@pytest.mark.parametrize("worlds", [[2], [-1], [0, 0]])
def test_worlds_that_are_not_there_are_refused(worlds: list[int]) -> None:
    env = VecEnv(WORLD, 2)
    with pytest.raises(ValueError, match="state different worlds from 0 to 1"):
        env.restart(worlds)


def test_worlds_under_way_are_not_restarted() -> None:
    env = AsyncVecEnv(WORLD, 2, batch_size=1)
    env.async_reset()
    with pytest.raises(RuntimeError, match=r"restart\(\) while 2 groups"):
        env.restart([0])
