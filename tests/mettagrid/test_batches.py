"""Neighbours do not matter: a world in any batch, on any number of threads, is the world alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.testing import check_batch_independence, observable
from metta.mettagrid.world_config import WorldConfig
from random_worlds import random_actions, random_episode, random_grid, random_rules, small_config


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]), st.integers(2, 5))
def test_a_world_in_a_mixed_batch_is_the_world_alone(seed: int, num_threads: int, num_worlds: int) -> None:
    rng = np.random.default_rng(seed)
    rules = [random_rules(rng) for _ in range(3)]
    episodes = [random_episode(rules, rng, int(rng.integers(5, 40))) for _ in range(7)]
    check_batch_independence(rules, episodes, num_worlds=num_worlds, num_threads=num_threads)


def batch(seed: int, num_threads: int = 1, num_worlds: int = 6) -> tuple[GridEngine, np.random.Generator]:
    rng = np.random.default_rng(seed)
    rules = [random_rules(rng) for _ in range(2)]
    engine = GridEngine(rules, num_worlds, max_height=14, max_width=14, num_threads=num_threads)
    which = [int(n) for n in rng.integers(2, size=num_worlds)]
    engine.reset(range(num_worlds), [random_grid(rules[r], rng) for r in which], range(num_worlds), which)
    return engine, rng


def some_actions(engine: GridEngine, rng: np.random.Generator) -> np.ndarray:
    actions = np.zeros((engine.num_worlds, engine.max_agents, 2), np.int32)
    for world in range(engine.num_worlds):
        rule = engine.rule_of(world)
        actions[world, : rule.num_agents] = random_actions(rule, rng, 1)[0]
    return actions


def assert_same(one: GridEngine, other: GridEngine) -> None:
    for world in range(one.num_worlds):
        mine, theirs = observable(one, world), observable(other, world)
        for name in mine:
            assert np.array_equal(mine[name], theirs[name]), f"world {world}: {name}"
        assert one.episode_stats(world) == other.episode_stats(world)
        assert one.grid_objects(world) == other.grid_objects(world)


def test_threads_may_change_between_steps() -> None:
    one, rng = batch(5)
    other, _ = batch(5)
    for step in range(30):
        actions = some_actions(one, rng)
        other.num_threads = 1 + step % 4
        one.step(actions)
        other.step(actions)
    assert_same(one, other)


def test_a_part_of_the_batch_is_stepped_alone() -> None:
    whole, rng = batch(6)
    parts, _ = batch(6, num_threads=2)
    for _ in range(20):
        actions = some_actions(whole, rng)
        whole.step(actions)
        before = observable(parts, 5)
        parts.step(actions, slice(0, 4))
        assert all(np.array_equal(observable(parts, 5)[name], array) for name, array in before.items())
        parts.step(actions, slice(4, None))
    assert_same(whole, parts)
    parts.step(actions, slice(3, 3))
    assert_same(whole, parts)


def test_a_reset_world_forgets_everything() -> None:
    used, rng = batch(7)
    for _ in range(25):
        used.step(some_actions(used, rng))
    fresh = GridEngine(used.rules, 6, max_height=14, max_width=14)
    grids = [random_grid(used.rules[1], rng) for _ in range(6)]
    for engine in (used, fresh):
        engine.reset(range(6), grids, [9] * 6, [1] * 6)
    assert_same(used, fresh)
    for _ in range(10):
        actions = some_actions(used, rng)
        used.step(actions)
        fresh.step(actions)
    assert_same(used, fresh)


@pytest.mark.parametrize("steps", [0, 17])
def test_a_snapshot_continues_exactly(steps: int) -> None:
    engine, rng = batch(8)
    for _ in range(steps):
        engine.step(some_actions(engine, rng))
    saved = engine.snapshot()
    plan = [some_actions(engine, rng) for _ in range(60)]
    for actions in plan:
        engine.step(actions)
    resumed, _ = batch(8)
    shown = resumed.observations
    resumed.restore(saved)
    for actions in plan:
        resumed.step(actions)
    assert_same(engine, resumed)
    assert resumed.observations is shown
    saved_again = resumed.snapshot()
    assert all(np.array_equal(array, engine.snapshot()[name]) for name, array in saved_again.items())


def test_a_snapshot_of_another_engine_is_refused() -> None:
    engine, _ = batch(9)
    other, _ = batch(10)
    smaller, _ = batch(9, num_worlds=5)
    before = engine.snapshot()
    with pytest.raises(ValueError, match="snapshot was taken of an engine with other rules"):
        engine.restore(other.snapshot())
    with pytest.raises(
        ValueError, match=r"snapshot's worlds is int32 \(5, 12\), but this engine has int32 \(6, 12\)"
    ):
        engine.restore(smaller.snapshot())
    with pytest.raises(ValueError, match=r"does not hold the arrays of this engine: \['cells'\] are missing"):
        engine.restore({name: array for name, array in before.items() if name != "cells"})
    assert all(np.array_equal(array, before[name]) for name, array in engine.snapshot().items())


def test_the_arrays_stay_where_they_are() -> None:
    engine, rng = batch(11)
    names = (
        "observations",
        "rewards",
        "episode_rewards",
        "terminals",
        "truncations",
        "action_success",
        "current_step",
    )
    before = {name: getattr(engine, name) for name in names}
    for _ in range(40):
        engine.step(some_actions(engine, rng))
        engine.reset([2], [random_grid(engine.rules[0], rng)], [1], [0])
    for name, array in before.items():
        assert getattr(engine, name) is array
        assert (
            np.shares_memory(array, engine.snapshot()[name]) is False if name in engine.snapshot() else True
        )
    assert (engine.current_step[[0, 1, 3, 4, 5]] == 40).all()
    assert engine.current_step[2] == 0


def test_padding_rows_are_marked_and_left_alone() -> None:
    engine, rng = batch(12)
    for _ in range(20):
        actions = some_actions(engine, rng)
        actions[~engine.agent_mask] = 99
        engine.step(actions)
    for world in range(engine.num_worlds):
        assert engine.agent_mask[world].sum() == engine.rule_of(world).num_agents
    assert (engine.observations[~engine.agent_mask] == 255).all()
    assert not engine.rewards[~engine.agent_mask].any()
    assert not engine.terminals[~engine.agent_mask].any()


def test_many_different_invalid_actions_are_all_counted() -> None:
    engine, _ = batch(13, num_worlds=2)
    rng = np.random.default_rng(0)
    expected: dict[str, int] = {}
    actions_known = len(engine.rule_of(1).spec.action_names)
    twice = 2 if "attack" in engine.rule_of(1).spec.action_names else 1
    for _ in range(3000):
        actions = rng.integers(-(2**31), 2**31, size=(2, engine.max_agents, 2)).astype(np.int32)
        actions[:, 0, 0] = np.where(np.abs(actions[:, 0, 0]) < actions_known, 2**30, actions[:, 0, 0])
        name = f"action.invalid_type.{actions[1, 0, 0]}.{actions[1, 0, 1]}"
        expected[name] = expected.get(name, 0) + twice
        engine.step(actions)
    counted = engine.episode_stats(1)["agent"][0]
    assert {name: value for name, value in counted.items() if name in expected} == expected
    assert counted["action.invalid_type"] == 3000 * twice


def test_a_crowd_may_do_nothing_but_wrong_from_the_first_step() -> None:
    config = small_config(num_agents=150, obs_width=3, obs_height=3, num_observation_tokens=5)
    engine = GridEngine([WorldConfig.model_validate(config)], 1, max_height=10, max_width=15)
    engine.reset([0], [[["agent.agent"] * 15] * 10], [0])
    for _ in range(3):
        engine.step(np.stack([np.full(150, 99), np.arange(150)], axis=1).astype(np.int32)[None])
    for a, counted in enumerate(engine.episode_stats(0)["agent"]):
        assert counted == {"action.invalid_type": 6, f"action.invalid_type.99.{a}": 6}
