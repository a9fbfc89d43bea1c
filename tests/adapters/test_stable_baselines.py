"""Stable-Baselines3: its learner gets what `VecEnv` gives, and bootstraps where an episode was cut off."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from adapter_cases import MIXED_TEAM, SEED, Played, mixed, play
from metta.mettagrid.vec import StepBatch, VecEnv

pytestmark = pytest.mark.peers


def make(*args: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what importing the library says is its own affair
        from metta.adapters.stable_baselines_vec_env import StableBaselinesVecEnv

    return StableBaselinesVecEnv(*args, **options)


@pytest.fixture
def played() -> Played:
    played = play(MIXED_TEAM, 4, 60)
    assert {bool(step.truncations.any()) for step in played.steps if step.final_rows.size} == {True, False}
    return played


def follow(played: Played, **options: Any) -> None:
    env = make(MIXED_TEAM, 12, seed=SEED, **options)
    assert np.array_equal(env.reset(), played.first)
    for numbers, step in zip(played.numbers, played.steps, strict=True):
        observations, rewards, dones, infos = env.step(numbers)
        assert np.array_equal(observations, step.observations)
        assert np.array_equal(rewards, step.rewards)
        assert np.array_equal(dones, step.terminals | step.truncations)
        assert [info["TimeLimit.truncated"] for info in infos] == step.truncations.tolist()
        ended = [row for row, info in enumerate(infos) if "terminal_observation" in info]
        assert ended == step.final_rows.tolist()
        for place, row in enumerate(ended):
            outcome = step.episodes[place // 3]
            assert np.array_equal(infos[row]["terminal_observation"], step.final_observations[place])
            told = infos[row]["episode"]
            assert (told["r"], told["l"]) == (float(outcome.returns[row % 3]), outcome.length)
    env.close()


def test_rows_are_those_of_vec_env(played: Played) -> None:
    follow(played)


def _flags_swapped(batch: StepBatch) -> StepBatch:
    return dataclasses.replace(batch, terminals=batch.truncations, truncations=batch.terminals)


def _stale_final(batch: StepBatch) -> StepBatch:
    return dataclasses.replace(batch, final_observations=batch.observations[batch.final_rows])


@pytest.mark.parametrize("fault", [_flags_swapped, _stale_final])
def test_a_broken_step_is_noticed(
    fault: Callable[[StepBatch], StepBatch], played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = VecEnv.step
    monkeypatch.setattr(VecEnv, "step", lambda self, actions: fault(plain(self, actions)))
    with pytest.raises(AssertionError):
        follow(played)


def test_its_learner_bootstraps_where_an_episode_was_cut_off_and_nowhere_else() -> None:
    """The rewards that PPO stores are those of the worlds, plus the discounted value of a cut episode's last observation."""
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", make(MIXED_TEAM, 12), n_steps=30, batch_size=60, n_epochs=1, seed=0)
    asked: list[np.ndarray] = []
    plain = model.policy.predict_values
    model.policy.predict_values = lambda tokens: (asked.append(tokens[0].numpy()), plain(tokens))[1]
    model.learn(30 * 12)
    buffer = model.rollout_buffer
    env = VecEnv(mixed(3), 4, seed=0, zero_copy=False)
    pairs = np.array(env.spec.legal_actions)
    env.reset()
    lasts = []
    for t, numbers in enumerate(buffer.actions.astype(int).reshape(12, 30).T):
        step = env.step(pairs[numbers])
        cut = np.flatnonzero(step.truncations)
        changed = np.flatnonzero(buffer.rewards[t] != step.rewards)
        assert set(changed) <= set(cut)
        lasts += [step.final_observations[step.final_rows.tolist().index(row)] for row in cut]
    # The last question is for the value after the whole batch.
    assert len(asked) - 1 == len(lasts) > 0
    for value_of, last in zip(asked[:-1], lasts, strict=True):
        assert np.array_equal(value_of, last.astype(value_of.dtype))


def test_seeds_decide() -> None:
    env, other = make(MIXED_TEAM, 12, seed=SEED), make(MIXED_TEAM, 12, seed=1)
    first = env.reset()
    assert not np.array_equal(first, other.reset())
    other.seed(SEED)
    assert np.array_equal(first, other.reset())
    assert not np.array_equal(first, other.reset())


def test_rows_have_no_environment_of_their_own() -> None:
    env = make(MIXED_TEAM, 6)
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import VecMonitor

    assert env.get_attr("num_envs", [0, 3]) == [6, 6]
    assert env.env_is_wrapped(Monitor) == [True] * 6
    assert env.env_is_wrapped(dict, 0) == [False]
    with pytest.raises(NotImplementedError, match="shared worlds"):
        env.set_attr("x", 1)
    with pytest.raises(NotImplementedError, match="shared worlds"):
        env.env_method("reset")
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        VecMonitor(env)


def test_pictures() -> None:
    env = make(MIXED_TEAM, 6, render_mode="rgb_array")
    env.reset()
    images = env.get_images()
    assert len(images) == 6
    assert images[0].shape == (64, 80, 3)
    assert make(MIXED_TEAM, 6).get_images() == [None] * 6
