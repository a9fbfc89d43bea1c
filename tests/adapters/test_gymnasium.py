"""Gymnasium: its own checker is content, and every number is that of `VecEnv`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics

from adapter_cases import MIXED_ALONE, MIXED_TEAM, SEED, play, small_world
from metta.adapters.actions import LegalActions
from metta.adapters.gymnasium_env import GymnasiumEnv
from metta.adapters.gymnasium_ids import ANY_WORLD, id_of, register_envs
from metta.adapters.gymnasium_vector import GymnasiumVectorEnv
from metta.adapters.picture import AGENTS, CELL, NOSE
from metta.mettagrid.vec import StepBatch, VecEnv

ALONE = "metta/adapter_tests.mixed_alone-v0"


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_envs()


@pytest.mark.parametrize("name", [ALONE, "metta/navigation.evals.walls_withinsight-v0"])
@pytest.mark.parametrize("render_mode", [None, "rgb_array", "ansi"])
def test_gymnasium_s_own_check_is_content(name: str, render_mode: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(name, render_mode=render_mode).unwrapped)


def follow(env: gymnasium.Env[Any, Any], played: Any) -> None:
    """Play the same again, and compare everything."""
    observation, _ = env.reset()
    assert np.array_equal(observation, played.first[0])
    for number, step in zip(played.numbers[:, 0], played.steps, strict=True):
        observation, reward, terminated, truncated, infos = env.step(number)
        assert (reward, terminated, truncated) == (
            float(step.rewards[0]),
            bool(step.terminals[0]),
            bool(step.truncations[0]),
        )
        if not (terminated or truncated):
            assert np.array_equal(observation, step.observations[0])
            assert infos == {}
            continue
        outcome = step.episodes[0]
        assert np.array_equal(observation, step.final_observations[0])
        assert infos["episode_return"] == float(outcome.returns[0])
        assert (infos["episode_length"], infos["task"]) == (outcome.length, outcome.task)
        assert infos["stats"] == outcome.stats["agent"][0]
        observation, infos = env.reset()
        assert np.array_equal(observation, step.observations[0])


def test_an_agent_alone_sees_what_vec_env_shows() -> None:
    played = play(MIXED_ALONE, 1, 60)
    assert {step.truncations.any() for step in played.steps if step.final_rows.size} == {True, False}
    follow(GymnasiumEnv(MIXED_ALONE, seed=SEED), played)


def test_a_seed_at_reset_is_that_of_the_constructor() -> None:
    played = play(MIXED_ALONE, 1, 30)
    env = GymnasiumEnv(MIXED_ALONE, seed=SEED + 1)
    assert not np.array_equal(env.reset()[0], played.first[0])
    env.reset(seed=SEED)
    env.step(0)
    assert np.array_equal(env.reset(seed=SEED)[0], played.first[0])


@pytest.mark.parametrize("make", [GymnasiumEnv, GymnasiumVectorEnv])
def test_environments_that_were_given_no_seed_play_different_episodes(make: Callable[..., Any]) -> None:
    one, other = make(small_world(1)), make(small_world(1))
    assert not np.array_equal(one.reset()[0], other.reset()[0])
    assert np.array_equal(one.reset(seed=1)[0], other.reset(seed=1)[0])


def _stale_final(patch: pytest.MonkeyPatch) -> None:
    """The first observation of the next episode in place of the last of the old one."""
    plain = VecEnv.step

    def step(self: VecEnv, *args: Any) -> StepBatch:
        batch = plain(self, *args)
        return dataclasses.replace(batch, final_observations=batch.observations[batch.final_rows])

    patch.setattr(VecEnv, "step", step)


def _flags_swapped(patch: pytest.MonkeyPatch) -> None:
    plain = VecEnv.step

    def step(self: VecEnv, *args: Any) -> StepBatch:
        batch = plain(self, *args)
        return dataclasses.replace(batch, terminals=batch.truncations, truncations=batch.terminals)

    patch.setattr(VecEnv, "step", step)


def _rows_off_by_one(patch: pytest.MonkeyPatch) -> None:
    plain = VecEnv.step

    def step(self: VecEnv, *args: Any) -> StepBatch:
        batch = plain(self, *args)
        return dataclasses.replace(batch, rewards=np.roll(batch.rewards, 1))

    patch.setattr(VecEnv, "step", step)


def _action_shifted(patch: pytest.MonkeyPatch) -> None:
    plain = LegalActions.pairs_of
    patch.setattr(LegalActions, "pairs_of", lambda self, *args: np.roll(plain(self, *args), 1, axis=0))


@pytest.mark.parametrize("fault", [_stale_final, _flags_swapped])
def test_a_broken_step_is_noticed(fault: Callable[[pytest.MonkeyPatch], None]) -> None:
    played = play(MIXED_ALONE, 1, 60)
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        with pytest.raises(AssertionError):
            follow(GymnasiumEnv(MIXED_ALONE, seed=SEED), played)


def test_every_number_is_a_legal_action_and_every_legal_action_has_a_number() -> None:
    env = GymnasiumEnv(small_world(1))
    pairs = [tuple(pair) for pair in env.action_pairs.tolist()]
    assert pairs == list(env.observation_space.spec.legal_actions)
    assert env.action_space == gymnasium.spaces.Discrete(len(pairs))
    env.action_pairs[:] = 0
    assert [tuple(pair) for pair in env.action_pairs.tolist()] == pairs


@pytest.mark.parametrize("wrong", [-1, 10_000, 1.5, [0], True])
def test_what_is_no_action_is_refused(wrong: Any) -> None:
    env = GymnasiumEnv(small_world(1))
    env.reset()
    with pytest.raises(ValueError, match=r"actions (is|has)"):
        env.step(wrong)


def test_a_step_after_the_end_is_refused() -> None:
    env = GymnasiumEnv(small_world(1, max_steps=1))
    env.reset()
    assert env.step(0)[2]
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)


def test_a_team_is_referred_to_the_vector_environment() -> None:
    with pytest.raises(ValueError, match=r"has 3 agents.*GymnasiumVectorEnv"):
        GymnasiumEnv(small_world(3))


def test_gymnasium_s_wrappers_fit() -> None:
    env = RecordEpisodeStatistics(gymnasium.make(ALONE))
    env.reset(seed=SEED)
    ended, infos = False, {}
    while not ended:
        _, _, terminated, truncated, infos = env.step(env.action_space.sample())
        ended = terminated or truncated
    assert infos["episode"]["r"] == pytest.approx(infos["episode_return"])
    assert infos["episode"]["l"] == infos["episode_length"]


def test_every_registered_world_has_an_id() -> None:
    names = register_envs()
    assert register_envs() == names
    assert {ANY_WORLD, "metta/simple-v0", "metta/arena.basic-v0", "metta/curriculum.arena.random-v0"} <= set(
        names
    )
    assert all(gymnasium.spec(name).id == name for name in names)
    assert gymnasium.make(ANY_WORLD, env_config=small_world(1)).observation_space.shape == (30, 3)


def test_two_names_for_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "metta.adapters.gymnasium_ids.env_paths", lambda: ["/env/simple", "/env/mettagrid/simple"]
    )
    assert id_of("/env/simple") == id_of("/env/mettagrid/simple")
    with pytest.raises(ValueError, match="'/env/simple' and '/env/mettagrid/simple' both become"):
        register_envs()


def test_an_unknown_render_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"render_mode is 'human'; it is None, rgb_array or ansi"):
        GymnasiumEnv(small_world(1), render_mode="human")


def test_a_picture_shows_what_the_text_shows() -> None:
    picture = GymnasiumEnv(small_world(1), render_mode="rgb_array")
    text = GymnasiumEnv(small_world(1), render_mode="ansi")
    for env in (picture, text):
        env.reset(seed=3)
    image, rows = picture.render(), str(text.render()).splitlines()
    assert isinstance(image, np.ndarray)
    assert image.shape == (8 * len(rows), 8 * len(rows[0]), 3)
    looks: dict[str, set[bytes]] = {}
    for r, row in enumerate(rows):
        for c, character in enumerate(row):
            looks.setdefault(character, set()).add(image[r * 8 : r * 8 + 8, c * 8 : c * 8 + 8].tobytes())
    assert all(len(cells) == 1 for cells in looks.values())
    assert len(set.union(*looks.values())) == len(looks) > 3


def test_agents_look_where_they_face() -> None:
    env = GymnasiumEnv(small_world(1, max_steps=50), render_mode="rgb_array")
    env.reset(seed=3)
    names = env.observation_space.spec.action_names
    pairs = [tuple(pair) for pair in env.action_pairs.tolist()]
    for facing, (down, right) in enumerate([(-1, 0), (1, 0), (0, -1), (0, 1)]):  # up, down, left, right
        env.step(pairs.index((names.index("rotate"), facing)))
        image = env.render()
        assert isinstance(image, np.ndarray)
        nose = np.argwhere((image == NOSE).all(-1))
        r, c = np.argwhere((image == AGENTS[0]).all(-1)).mean(0) // CELL * CELL + (CELL - 1) / 2
        assert np.sign(nose.mean(0).round(3) - (r, c)).tolist() == [down, right], facing


# The vector environment.


def assert_batch(env: GymnasiumVectorEnv, played: Any) -> None:
    """Play the same again, and compare everything."""
    observations, infos = env.reset()
    assert np.array_equal(observations, played.first)
    assert infos["_task"].all()
    tasks = infos["task"]
    for numbers, step in zip(played.numbers, played.steps, strict=True):
        observations, rewards, terminations, truncations, infos = env.step(numbers)
        assert np.array_equal(observations, step.observations)
        assert np.array_equal(rewards, step.rewards)
        assert np.array_equal(terminations, step.terminals)
        assert np.array_equal(truncations, step.truncations)
        ended = terminations | truncations
        assert np.array_equal(np.flatnonzero(ended), step.final_rows)
        if not ended.any():
            assert infos == {}
            continue
        assert np.array_equal(infos["_final_obs"], ended)
        assert np.array_equal(infos["_final_info"], ended)
        assert [last is None for last in infos["final_obs"]] == (~ended).tolist()
        assert np.array_equal(np.stack(infos["final_obs"][ended]), step.final_observations)
        assert infos["final_info"]["task"][ended].tolist() == tasks[ended].tolist()
        assert np.array_equal(infos["_task"], ended)
        tasks = np.where(ended, infos["task"], tasks)
        returns = np.concatenate([outcome.returns for outcome in step.episodes])
        assert np.array_equal(infos["final_info"]["episode_return"][ended], returns)


@pytest.mark.parametrize("copy", [True, False])
def test_rows_are_those_of_vec_env(copy: bool) -> None:
    assert_batch(GymnasiumVectorEnv(MIXED_TEAM, 12, seed=SEED, copy=copy), play(MIXED_TEAM, 4, 60))


@pytest.mark.parametrize("fault", [_stale_final, _flags_swapped, _rows_off_by_one, _action_shifted])
def test_broken_rows_are_noticed(fault: Callable[[pytest.MonkeyPatch], None]) -> None:
    played = play(MIXED_TEAM, 4, 60)
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        with pytest.raises(AssertionError):
            assert_batch(GymnasiumVectorEnv(MIXED_TEAM, 12, seed=SEED), played)


def both_ways() -> Iterator[tuple[Any, Any]]:
    """Our vector environment and Gymnasium's own around a single one, step by step."""
    ours = GymnasiumVectorEnv(MIXED_ALONE, 1, seed=SEED, collect_stats=True)
    theirs = SyncVectorEnv(
        [lambda: GymnasiumEnv(MIXED_ALONE, seed=SEED)], autoreset_mode=AutoresetMode.SAME_STEP
    )
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    assert ours.action_space == theirs.action_space
    assert ours.observation_space == theirs.observation_space
    yield ours.reset(), theirs.reset()
    for number in play(MIXED_ALONE, 1, 40).numbers:
        mine = ours.step(number)
        rewards = mine[1].astype(np.float64)
        yield (mine[0], rewards, *mine[2:]), theirs.step(number)


def test_one_row_is_what_gymnasium_makes_of_a_single_environment() -> None:
    told: set[str] = set()
    for ours, theirs in both_ways():
        assert data_equivalence(ours, theirs, exact=True)
        told |= set(ours[-1])
    assert told == {"task", "_task", "final_obs", "_final_obs", "final_info", "_final_info"}


def test_what_is_handed_out_stays_as_it_was() -> None:
    env = GymnasiumVectorEnv(small_world(), 3)
    first, _ = env.reset()
    before = first.copy()
    second, *_ = env.step(np.ones(3, dtype=np.int64))
    assert np.array_equal(first, before)
    assert not np.shares_memory(first, second)


def test_make_vec_makes_as_many_rows_as_it_is_asked_for() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make_vec("metta/simple-v0", num_envs=8, vectorization_mode="vector_entry_point")
    observations, _ = env.reset(seed=1)
    assert env.num_envs == len(observations) == 8
    assert isinstance(env, GymnasiumVectorEnv)
    assert env.vec.num_worlds == 2
    assert env.observation_space.contains(env.step(env.action_space.sample())[0])
    env.close()


@pytest.mark.parametrize("num_envs", [0, 4, -3])
def test_rows_that_are_no_whole_worlds_are_refused(num_envs: int) -> None:
    with pytest.raises(ValueError, match=f"num_envs is {num_envs}; .*give a multiple of 3"):
        GymnasiumVectorEnv(small_world(), num_envs)


def test_what_reset_cannot_do_is_said() -> None:
    env = GymnasiumVectorEnv(small_world(), 3)
    with pytest.raises(ValueError, match="seed is a list of 3"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="reset_mask"):
        env.reset(options={"reset_mask": np.ones(3, dtype=np.bool_)})


def test_rows_of_a_world_share_its_picture() -> None:
    env = GymnasiumVectorEnv(small_world(), 6, render_mode="rgb_array")
    env.reset()
    frames = env.render()
    assert frames is not None
    assert len(frames) == 6
    same = [[np.array_equal(one, other) for other in frames] for one in frames]
    assert same == np.kron(np.eye(2), np.ones((3, 3))).astype(bool).tolist()
    assert GymnasiumVectorEnv(small_world(), 6).render() is None


def test_worker_processes_give_the_same() -> None:
    with_workers = GymnasiumVectorEnv(MIXED_TEAM, 12, seed=SEED, num_workers=2)
    try:
        assert_batch(with_workers, play(MIXED_TEAM, 4, 20))
    finally:
        with_workers.close()
