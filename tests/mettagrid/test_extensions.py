"""Our additions to the rules: time rewards, lifetimes, the diversity bonus, named actions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.rules import compile_rules
from metta.mettagrid.world_config import WorldConfig
from random_worlds import converter, random_actions, random_config, random_grid, small_config


def engine_for(config: dict[str, Any], grid: Any) -> GridEngine:
    rules = compile_rules(WorldConfig.model_validate(config))
    engine = GridEngine([rules], 1, max_height=len(grid), max_width=len(grid[0]))
    engine.reset([0], [grid], [0])
    return engine


def do(engine: GridEngine, *names: str, arg: int = 0) -> np.ndarray:
    """One step in which agent i does the i-th of these actions; returns the rewards."""
    known = engine.rules[0].spec.action_names
    engine.step(np.array([[[known.index(name), arg] for name in names]], np.int32))
    return engine.rewards[0].copy()


def test_every_step_is_rewarded_last_of_all() -> None:
    config = small_config(step_reward=-0.25, agent={"action_failure_penalty": 1}, obs_width=3, obs_height=3)
    config["groups"] = {"agent": {"id": 0, "group_reward_pct": 0.5}}
    config["num_agents"] = 2
    engine = engine_for(config, [["agent.agent", "agent.agent", "wall"]])
    assert do(engine, "move", "noop").tolist() == [-1 + 0.25 - 0.25, -0.25 - 0.25]
    assert engine.episode_rewards[0].tolist() == [-1, 0]
    token = engine.observations[0, 1, 3].tolist()
    assert token == [0x11, 11, 0], "an agent does not see the reward of the step"


@pytest.mark.parametrize(
    ("lifetime", "max_steps", "truncates", "expected"),
    [
        (3, 0, False, [(False, False), (False, False), (False, True), (False, True)]),
        (2, 3, False, [(False, False), (False, True), (True, True), (True, True)]),
        (3, 3, False, [(False, False), (False, False), (True, False), (True, False)]),
        (3, 2, True, [(False, False), (False, True), (False, True), (False, True)]),
        (3, 2, False, [(False, False), (True, False), (True, False), (True, False)]),
        (0, 0, False, [(False, False)] * 4),
    ],
)
def test_a_lifetime_truncates_unless_the_steps_are_over(
    lifetime: int, max_steps: int, truncates: bool, expected: list[tuple[bool, bool]]
) -> None:
    config = small_config(lifetime=lifetime, max_steps=max_steps, episode_truncates=truncates)
    engine = engine_for(config, [["agent.agent"]])
    flags = []
    for _ in expected:
        do(engine, "noop")
        flags.append((bool(engine.terminals[0, 0]), bool(engine.truncations[0, 0])))
    assert flags == expected


def bonus(x: list[float], groups: list[int], similarity: float, diversity: float) -> list[float]:
    """The bonus from its definition."""
    scale = float(np.std(x))
    means = {g: float(np.mean([v for v, h in zip(x, groups, strict=True) if h == g])) for g in set(groups)}
    result = []
    for value, group in zip(x, groups, strict=True):
        s, d = 1.0, 0.0
        if scale > 0:
            s = math.exp(-abs(value - means[group]) / scale)
            others = [abs(value - mean) for g, mean in means.items() if g != group]
            d = 1 - math.exp(-float(np.mean(others)) / scale) if others else 0.0
        result.append(value * (similarity * s + diversity * d))
    return result


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_diversity_bonus_is_its_definition_and_paid_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    config = random_config(rng)
    config.update(diversity={"similarity_coef": 0.75, "diversity_coef": -0.5}, max_steps=12, lifetime=0)
    with_bonus = WorldConfig.model_validate(config)
    without = with_bonus.model_copy(update={"diversity": None})
    rules = [compile_rules(with_bonus), compile_rules(without)]
    engine = GridEngine(rules, 2, max_height=14, max_width=14)
    grid = random_grid(rules[0], rng)
    engine.reset([0, 1], [grid, grid], [seed, seed], [0, 1])
    groups = [thing["group_id"] for _, thing in sorted(engine.grid_objects(0).items()) if "agent_id" in thing]
    for step, actions in enumerate(random_actions(rules[0], rng, 15), start=1):
        engine.step(np.stack([actions, actions]))
        assert np.array_equal(engine.episode_rewards[0], engine.episode_rewards[1])
        got = engine.rewards[0] - engine.rewards[1]
        if step != 12:
            assert not got.any()
        else:
            expected = bonus([float(v) for v in engine.episode_rewards[0]], groups, 0.75, -0.5)
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_the_bonus_of_equal_agents_is_similarity_alone() -> None:
    config = small_config(num_agents=2, max_steps=1, diversity={"similarity_coef": 0.5, "diversity_coef": 9})
    config["agent"] = {"action_failure_penalty": 2}
    config["groups"] = {"a": {"id": 0}, "b": {"id": 1}}
    engine = engine_for(config, [["agent.a", "agent.b"]])
    assert do(engine, "move", "move").tolist() == [-3, -3]


def test_named_actions_are_sorted_in_and_named_in_statistics() -> None:
    config = small_config(named_actions={"left": {"kind": "rotate", "delta": -1}, "zap": {"kind": "attack"}})
    engine = engine_for(config, [["agent.agent"]])
    names = engine.rules[0].spec.action_names
    assert list(names) == sorted(names)
    args = engine.rules[0].spec.max_action_args
    assert args[names.index("left")] == 0
    assert args[names.index("rotate")] == 3
    assert args[names.index("zap")] == 8
    facings = []
    for _ in range(5):
        do(engine, "left")
        facings.append(int(engine.agent_state(0)[0, 2]))
    assert facings == [2, 1, 3, 0, 2]  # up, then left, down, right, up, left
    do(engine, "left", arg=1)
    do(engine, "zap")
    stats = engine.episode_stats(0)["agent"][0]
    assert stats["action.left.success"] == 5
    assert stats["action.invalid_arg"] == 1
    assert stats["action.zap.success"] == 1  # on an open map of one cell it hits itself


@pytest.mark.parametrize(("delta", "facing"), [(0, 0), (1, 3), (2, 1), (3, 2), (-1, 2), (5, 3)])
def test_deltas_are_quarter_turns_clockwise(delta: int, facing: int) -> None:
    engine = engine_for(
        small_config(named_actions={"turn": {"kind": "rotate", "delta": delta}}), [["agent.agent"]]
    )
    do(engine, "turn")
    assert engine.agent_state(0)[0, 2] == facing


def test_a_named_attack_acts_before_everything_else() -> None:
    config = small_config(num_agents=2, named_actions={"zap": {"kind": "attack"}})
    config["actions"]["attack"]["enabled"] = False
    grid = [["agent.agent"], ["agent.agent"]]
    for _ in range(8):
        engine = engine_for(config, grid)
        do(engine, "change_color", "zap")
        assert engine.action_success[0].tolist() == [False, True]


def test_an_item_and_a_use_narrow_what_is_moved() -> None:
    mixer = converter(
        input_resources={"ore_red": 1, "battery_red": 1},
        output_resources={"heart": 1, "laser": 1},
        initial_resource_count=2,
        max_output=0,
    )
    config = small_config(
        objects={"mixer": mixer, "other": {**mixer, "type_id": 6}},
        named_actions={
            "take_heart": {"kind": "get_items", "item": "heart"},
            "take_other": {"kind": "get_items", "use": "other"},
            "give_heart": {"kind": "put_items", "item": "heart"},
        },
    )
    engine = engine_for(config, [["mixer"], ["agent.agent"]])
    do(engine, "take_other")
    assert not engine.action_success[0, 0]
    do(engine, "take_heart")
    assert engine.agent_inventory(0)[0].tolist() == [-1, -1, 2, -1, -1]
    do(engine, "take_heart")
    do(engine, "give_heart")  # no input of the mixer
    assert not engine.action_success[0, 0]
    do(engine, "get_items")
    assert engine.agent_inventory(0)[0].tolist() == [-1, -1, 2, 2, -1]
    other = engine_for(config, [["other"], ["agent.agent"]])
    do(other, "take_other")
    assert other.agent_inventory(0)[0].tolist() == [-1, -1, 2, 2, -1]


def test_a_put_of_one_item_leaves_the_others() -> None:
    source = converter(
        output_resources={"ore_red": 1, "battery_red": 1}, initial_resource_count=3, max_output=0
    )
    sink = converter(
        type_id=6, input_resources={"ore_red": 2, "battery_red": 2}, output_resources={"heart": 1}
    )
    config = small_config(
        objects={"source": source, "sink": sink},
        named_actions={"give_ore": {"kind": "put_items", "item": "ore_red", "use": "sink"}},
    )
    engine = engine_for(config, [["source"], ["agent.agent"], ["sink"]])
    do(engine, "get_items")
    do(engine, "give_ore")
    assert not engine.action_success[0, 0], "it faces the source"
    do(engine, "rotate", arg=1)
    do(engine, "give_ore")
    assert engine.agent_inventory(0)[0].tolist() == [1, 3, -1, -1, -1]
    do(engine, "put_items")
    assert engine.agent_inventory(0)[0].tolist() == [-1, 1, -1, -1, -1]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"move": {"kind": "move"}}, "named_actions has 'move', which is already an action"),
        (
            {"x": {"kind": "move", "delta": 1}},
            "named_actions.x.delta means nothing for an action of kind 'move'",
        ),
        ({"x": {"kind": "swap", "item": "heart"}}, "named_actions.x.item means nothing"),
        (
            {"x": {"kind": "get_items", "item": "gold"}},
            "named_actions.x.item is 'gold', which is not in inventory",
        ),
        ({"x": {"kind": "put_items", "use": "wall"}}, "named_actions.x.use is 'wall', which is no converter"),
        ({"x": {"kind": "noop", "consumed_resources": {"gold": 1}}}, "Action 'x' has consumed_resources"),
    ],
)
def test_named_actions_that_make_no_sense_are_refused(named: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_rules(WorldConfig.model_validate(small_config(named_actions=named)))
