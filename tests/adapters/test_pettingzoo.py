"""PettingZoo: its own tests are content, also of its conversion to turns, and every number is that of `VecEnv`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from adapter_cases import MIXED_TEAM, SEED, play, small_world
from metta.adapters.actions import LegalActions
from metta.mettagrid.vec import StepBatch, VecEnv

pytestmark = pytest.mark.peers


def make(*args: Any, **options: Any) -> Any:
    from metta.adapters.pettingzoo_env import PettingZooEnv

    return PettingZooEnv(*args, **options)


@pytest.mark.parametrize("render_mode", [None, "rgb_array", "ansi"])
@pytest.mark.parametrize("world", [MIXED_TEAM, small_world(1), small_world(4, max_steps=0, lifetime=9)])
def test_pettingzoo_s_own_test_is_content(world: Any, render_mode: str | None) -> None:
    from pettingzoo.test import parallel_api_test

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(make(world, render_mode=render_mode), num_cycles=50)


def test_taking_turns_by_pettingzoo_s_conversion_is_fine_too() -> None:
    from pettingzoo.test import api_test, seed_test
    from pettingzoo.utils.conversions import parallel_to_aec

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        api_test(parallel_to_aec(make(MIXED_TEAM)), num_cycles=60)
        seed_test(lambda: parallel_to_aec(make(MIXED_TEAM)), num_cycles=60)


def test_seeds_decide() -> None:
    from pettingzoo.test import parallel_seed_test

    parallel_seed_test(lambda: make(MIXED_TEAM), num_cycles=50)
    one, other = make(MIXED_TEAM, seed=1), make(MIXED_TEAM, seed=2)
    assert not np.array_equal(one.reset()[0]["agent_0"], other.reset()[0]["agent_0"])
    assert not np.array_equal(make(MIXED_TEAM).reset()[0]["agent_0"], make(MIXED_TEAM).reset()[0]["agent_0"])
    assert np.array_equal(one.reset(seed=2)[0]["agent_0"], other.reset(seed=2)[0]["agent_0"])


def test_pictures_are_those_of_the_world() -> None:
    env, text = make(MIXED_TEAM, render_mode="rgb_array"), make(MIXED_TEAM, render_mode="ansi")
    env.reset()
    text.reset()
    rows = text.render().splitlines()
    assert sum(row.count("@") for row in rows) == 3
    assert env.render().shape == (8 * len(rows), 8 * len(rows[0]), 3)
    assert make(MIXED_TEAM).render() is None


def stacked(by_agent: dict[str, Any]) -> np.ndarray:
    return np.stack([by_agent[f"agent_{agent}"] for agent in range(3)])


def follow() -> None:
    """Play the same as `VecEnv`, and compare everything."""
    env = make(MIXED_TEAM, seed=SEED)
    observations, _ = env.reset()
    played = play(MIXED_TEAM, 1, 60)
    assert {step.truncations.any() for step in played.steps if step.final_rows.size} == {True, False}
    assert np.array_equal(stacked(observations), played.first)
    for numbers, step in zip(played.numbers, played.steps, strict=True):
        assert env.agents == env.possible_agents
        actions = dict(zip(env.agents, numbers, strict=True))
        observations, rewards, terminations, truncations, infos = env.step(actions)
        assert np.array_equal(stacked(rewards).astype(np.float32), step.rewards)
        assert np.array_equal(stacked(terminations), step.terminals)
        assert np.array_equal(stacked(truncations), step.truncations)
        assert np.array_equal(env.state(), stacked(observations))
        if not step.final_rows.size:
            assert np.array_equal(stacked(observations), step.observations)
            assert not any(infos.values())
            continue
        outcome = step.episodes[0]
        assert env.agents == []
        assert np.array_equal(stacked(observations), step.final_observations)
        for agent, info in enumerate(infos.values()):
            assert info["episode_return"] == float(outcome.returns[agent])
            assert info["stats"] == outcome.stats["agent"][agent]
            assert (info["episode_length"], info["task"]) == (outcome.length, outcome.task)
        observations, infos = env.reset()
        assert np.array_equal(stacked(observations), step.observations)
        assert set(infos) == set(env.possible_agents)


def test_agents_see_what_vec_env_shows() -> None:
    follow()


def _flags_swapped(batch: StepBatch) -> StepBatch:
    return dataclasses.replace(batch, terminals=batch.truncations, truncations=batch.terminals)


def _stale_final(batch: StepBatch) -> StepBatch:
    return dataclasses.replace(batch, final_observations=batch.observations[batch.final_rows])


def _rewards_rotated(batch: StepBatch) -> StepBatch:
    return dataclasses.replace(batch, rewards=np.roll(batch.rewards, 1))


@pytest.mark.parametrize("fault", [_flags_swapped, _stale_final, _rewards_rotated])
def test_a_broken_step_is_noticed(
    fault: Callable[[StepBatch], StepBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = play(MIXED_TEAM, 1, 60)
    plain = VecEnv.step
    monkeypatch.setattr(VecEnv, "step", lambda self, actions: fault(plain(self, actions)))
    monkeypatch.setattr("test_pettingzoo.play", lambda *args: played)
    with pytest.raises(AssertionError):
        follow()


def test_actions_of_other_agents_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(MIXED_TEAM, 1, 60)
    plain = LegalActions.pairs_of
    monkeypatch.setattr(LegalActions, "pairs_of", lambda self, *args: np.roll(plain(self, *args), 1, axis=0))
    monkeypatch.setattr("test_pettingzoo.play", lambda *args: played)
    with pytest.raises(AssertionError):
        follow()


def test_actions_that_do_not_fit_are_refused() -> None:
    env = make(small_world(max_steps=1))
    with pytest.raises(RuntimeError, match="no agent lives"):
        env.step({})
    env.reset()
    with pytest.raises(ValueError, match="agent_2; give one for each"):
        env.step({"agent_0": 0, "agent_1": 0})
    with pytest.raises(ValueError, match="agent_7; give one for each"):
        env.step(dict.fromkeys([*env.agents, "agent_7"], 0))
    with pytest.raises(ValueError, match="has a -1"):
        env.step(dict.fromkeys(env.agents, -1))
    env.step(dict.fromkeys(env.agents, 0))
    with pytest.raises(RuntimeError, match="no agent lives"):
        env.step({})


def test_what_is_handed_out_stays_as_it_was() -> None:
    env = make(small_world())
    first, _ = env.reset()
    before = stacked(first)
    state = env.state()
    for number in range(3):
        env.step(dict.fromkeys(env.agents, number))
    assert np.array_equal(stacked(first), before)
    assert np.array_equal(state, before)
