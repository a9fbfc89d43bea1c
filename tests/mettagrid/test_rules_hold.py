"""What must hold in every world, whatever its rules, map and actions; and a second opinion on observations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.rules import RuleTable, compile_rules
from metta.mettagrid.testing import check_world
from metta.mettagrid.world_config import WorldConfig
from random_worlds import converter, random_actions, random_grid, random_rules, small_config

SEEDS = st.integers(0, 2**32 - 1)


def engine_for(rules: RuleTable, grid: Any, seed: int = 0) -> GridEngine:
    engine = GridEngine([rules], 1, max_height=len(grid), max_width=len(grid[0]))
    engine.reset([0], [grid], [seed])
    return engine


def total(stats: list[dict[str, float]], name: str) -> float:
    return sum(entry.get(name, 0.0) for entry in stats)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_worlds_stay_sound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rules = random_rules(rng)
    engine = engine_for(rules, random_grid(rules, rng), seed)
    for actions in random_actions(rules, rng, 40):
        engine.step(actions[None])
        check_world(engine, 0)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_items_are_neither_made_nor_lost_on_the_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rules = random_rules(rng)
    engine = engine_for(rules, random_grid(rules, rng), seed)
    start = np.maximum(engine.converter_inventory(0), 0)
    for actions in random_actions(rules, rng, 60, odd=0.02):
        engine.step(actions[None])
    stats = engine.episode_stats(0)
    held = np.maximum(engine.converter_inventory(0), 0)
    for item, name in enumerate(rules.item_names):
        assert total(stats["agent"], f"{name}.get") == total(stats["converter"], f"{name}.removed")
        assert total(stats["agent"], f"{name}.put") == total(stats["converter"], f"{name}.added")
        for c, entry in enumerate(stats["converter"]):
            balance = start[c, item] + entry.get(f"{name}.added", 0) - entry.get(f"{name}.removed", 0)
            balance += entry.get(f"{name}.produced", 0) - entry.get(f"{name}.consumed", 0)
            # A full converter throws away what it makes; what it used before the first step is in `start`.
            assert held[c, item] == balance or (held[c, item] < balance and balance > 255), (name, c)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_observations_show_what_is_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rules = random_rules(rng)
    engine = engine_for(rules, random_grid(rules, rng), seed)
    actions = random_actions(rules, rng, 12)
    assert_observations(engine, rules, np.zeros_like(actions[0]), rewards=None)
    for step_actions in actions:
        engine.step(step_actions[None])
        assert_observations(engine, rules, step_actions, rewards=engine.rewards[0])


def assert_observations(
    engine: GridEngine, rules: RuleTable, actions: np.ndarray, rewards: np.ndarray | None
) -> None:
    """Compare with tokens that are collected from `grid_objects`, cell by cell, nearest first."""
    things = engine.grid_objects(0)
    places = {(thing["r"], thing["c"]): thing for thing in things.values()}
    ids = {feature.name: feature.id for feature in rules.spec.features}
    shown = rules.resolved["global_obs"]
    glyphs = engine.agent_state(0)[:, 5].tolist()
    height, width = rules.spec.obs_height, rules.spec.obs_width
    for a, (row, col) in enumerate(engine.agent_state(0)[:, :2].tolist()):
        center = 16 * (height // 2) + width // 2
        tokens: list[tuple[int, int, int]] = []
        unknown = set()
        if shown["episode_completion_pct"]:
            most = rules.resolved["max_steps"]
            part = np.float32(engine.current_step[0]) / np.float32(most) * np.float32(255) if most else 0
            tokens.append((center, ids["episode_completion_pct"], int(float(part) + 0.5) % 256))
        if shown["last_action"]:
            tokens.append((center, ids["last_action"], int(actions[a, 0]) % 256))
            tokens.append((center, ids["last_action_arg"], int(actions[a, 1]) % 256))
        if shown["last_reward"]:
            unknown.add(len(tokens))  # the reward before sharing is not shown anywhere else
            tokens.append((center, ids["last_reward"], 0))
        if shown["resource_rewards"]:
            group = rules.resolved["objects"][f"agent.{rules.group_names[_group_row(things, rules, a)]}"]
            rewarded = [
                group["resource_rewards"].get(str(item), 0) > 0
                for item in range(min(8, len(rules.item_names)))
            ]
            tokens.append(
                (center, ids["resource_rewards"], sum(128 >> i for i, yes in enumerate(rewarded) if yes))
            )
        window = [
            (abs(dr) + abs(dc), dr, dc)
            for dr in range(-(height // 2), height // 2 + 1)
            for dc in range(-(width // 2), width // 2 + 1)
        ]
        for _, dr, dc in sorted(window):
            thing = places.get((row + dr, col + dc))
            if thing is not None:
                location = 16 * (dr + height // 2) + dc + width // 2
                tokens += [(location, feature, value) for feature, value in thing_tokens(thing, ids, glyphs)]
        got = engine.observations[0, a, : rules.num_tokens].tolist()
        for i, token in enumerate(got):
            expected = list(tokens[i]) if i < len(tokens) else [255, 255, 255]
            if i in unknown:
                assert token[:2] == expected[:2], f"agent {a}, token {i}"
                if rewards is None:
                    assert token[2] == 0
            else:
                assert token == expected, f"agent {a}, token {i}"


def _group_row(things: dict[int, dict[str, Any]], rules: RuleTable, a: int) -> int:
    group_id = next(thing["group_id"] for thing in things.values() if thing.get("agent_id") == a)
    ids = [rules.resolved["objects"][f"agent.{name}"]["group_id"] for name in rules.group_names]
    return ids.index(group_id)


def thing_tokens(thing: dict[str, Any], ids: dict[str, int], glyphs: list[int]) -> list[tuple[int, int]]:
    """(feature, value) of a thing, from what `grid_objects` says apart from its look."""
    items = [name.removeprefix("inv:") for name in ids if name.startswith("inv:")]
    tokens = [("type_id", thing["type"])]
    if "agent_id" in thing:
        tokens += [("agent:group", thing["group_id"]), ("agent:frozen", int(thing["is_frozen"]))]
        tokens += [("agent:orientation", thing["orientation"]), ("agent:color", thing["color"])]
        tokens += [("agent:glyph", glyphs[thing["agent_id"]])] if glyphs[thing["agent_id"]] else []
    elif "is_converting" in thing:
        busy = thing["is_converting"] or thing["is_cooling_down"]
        tokens += [("agent:color", thing["color"]), ("converting", int(busy))]
    elif thing["is_swappable"]:
        tokens += [("swappable", 1)]
    tokens += [(f"inv:{items[item]}", count) for item, count in sorted(thing.get("inventory", {}).items())]
    for side in ("input", "output"):
        if f"{side}:{items[0]}" in ids:
            amounts = sorted(thing.get(f"{side}_resources", {}).items())
            tokens += [(f"{side}:{items[item]}", amount) for item, amount in amounts]
    return [(ids[name], value % 256) for name, value in tokens]


@pytest.mark.parametrize("action", [-(2**31), -1, 8, 300, 2**31 - 1])
@pytest.mark.parametrize("arg", [-(2**31), 0, 2**31 - 1])
def test_wrong_action_types_are_counted_twice_beside_an_attack(action: int, arg: int) -> None:
    config = small_config(agent={"action_failure_penalty": 0.25})
    engine = engine_for(compile_rules(WorldConfig.model_validate(config)), [["agent.agent"]])
    engine.step(np.array([[[action, arg]]], np.int32))
    assert engine.rewards[0, 0] == -0.5
    stats = engine.episode_stats(0)["agent"][0]
    assert stats == {"action.invalid_type": 2.0, f"action.invalid_type.{action}.{arg}": 2.0}
    assert not engine.action_success[0, 0]


def test_a_negative_direction_is_a_wrong_argument() -> None:
    engine = engine_for(compile_rules(WorldConfig.model_validate(small_config())), [["agent.agent"]])
    rotate = engine.rules[0].spec.action_names.index("rotate")
    engine.step(np.array([[[rotate, -1]]], np.int32))
    assert engine.episode_stats(0)["agent"][0]["action.invalid_arg"] == 1
    assert engine.agent_state(0)[0, 2] == 0


def test_a_statistic_of_one_wrong_action_can_be_rewarded() -> None:
    rewards = {"stats": {"action.invalid_arg.3.9": 0.5, "action.invalid_arg.3.9_max": 1}}
    config = small_config(agent={"rewards": rewards})
    engine = engine_for(compile_rules(WorldConfig.model_validate(config)), [["agent.agent"]])
    paid = []
    for arg in (9, 8, 9, 9):
        engine.step(np.array([[[3, arg]]], np.int32))
        paid.append(float(engine.rewards[0, 0]))
    assert paid == [0.5, 0, 0.5, 0]
    assert engine.episode_stats(0)["agent"][0]["action.invalid_arg.3.9"] == 3


def test_an_item_and_an_object_of_one_name_share_their_statistic() -> None:
    machine = converter(output_resources={"ore_red": 2}, cooldown=100)
    config = small_config(objects={"ore_red": machine})
    engine = engine_for(compile_rules(WorldConfig.model_validate(config)), [["agent.agent", "ore_red"]])
    engine.step(np.zeros((1, 1, 2), np.int32))
    assert engine.episode_stats(0)["converter"][0]["ore_red.produced"] == 3  # two items and one batch


def test_actions_are_checked_before_anything_happens() -> None:
    engine = engine_for(compile_rules(WorldConfig.model_validate(small_config())), [["agent.agent"]])
    with pytest.raises(ValueError, match=r"actions have shape \(1, 2\), but this engine takes \(1, 1, 2\)"):
        engine.step(np.zeros((1, 2), np.int32))
    with pytest.raises(ValueError, match="actions have dtype float64"):
        engine.step(np.zeros((1, 1, 2)))
    with pytest.raises(ValueError, match="actions hold 4294967298, which is no 32-bit number"):
        engine.step(np.full((1, 1, 2), 2**32 + 2))
    assert engine.current_step[0] == 0
    engine.step(np.zeros((1, 1, 2), np.int64))
    assert engine.current_step[0] == 1


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_sharing_is_the_sum_of_equal_parts_in_single_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    agents = int(rng.integers(2, 12))
    names = ["a", "b", "c"][: rng.integers(1, 4)]
    shares = {name: float(rng.random()) for name in names}
    config = small_config(num_agents=agents, agent={"action_failure_penalty": 0.1})
    config["groups"] = {
        name: {
            "id": i,
            "group_reward_pct": shares[name],
            "props": {"action_failure_penalty": float(rng.random())},
        }
        for i, name in enumerate(names)
    }
    members = [str(name) for name in rng.choice(names, size=agents)]
    rules = compile_rules(WorldConfig.model_validate(config))
    engine = engine_for(rules, [[f"agent.{name}" for name in members]], seed)
    engine.step(random_actions(rules, rng, 1, odd=0.3))
    # In the first step the episode's sums are the rewards before sharing.
    rewards = [np.float32(reward) for reward in engine.episode_rewards[0]]
    pots = dict.fromkeys(names, np.float32(0))
    for a, name in enumerate(members):
        part = rewards[a] * np.float32(shares[name])
        rewards[a] = rewards[a] - part
        pots[name] = pots[name] + part / np.float32(members.count(name))
    assert engine.rewards[0].tolist() == [rewards[a] + pots[name] for a, name in enumerate(members)]
