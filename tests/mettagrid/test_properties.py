"""What must hold of every world, held against accounts that are kept without the engine's own."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ledger import Ledger
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.rules import RuleTable, compile_rules
from metta.mettagrid.spec import PADDING
from metta.mettagrid.testing import observable
from metta.mettagrid.testing.tokens import find_problem, values_of
from metta.mettagrid.world_config import WorldConfig
from random_worlds import random_actions, random_config, random_grid, random_rules

SEEDS = st.integers(0, 2**32 - 1)


def begun(rules: RuleTable, rng: np.random.Generator, seed: int = 0) -> GridEngine:
    grid = random_grid(rules, rng)
    engine = GridEngine([rules], 1, max_height=len(grid), max_width=len(grid[0]))
    engine.reset([0], [grid], [seed])
    return engine


def busy_rules(rng: np.random.Generator) -> RuleTable:
    """Rules under which much changes hands: full machines, small costs, many agents with room for what they find."""
    config = random_config(rng)
    items = config["inventory_item_names"]

    def some(most: int, share: float = 0.6) -> dict[str, int]:
        return {item: int(rng.integers(1, most + 1)) for item in items if rng.random() < share}

    config["num_agents"] = 8
    config["agent"] |= {
        "default_resource_limit": int(rng.choice([3, 20, 255])),
        "resource_limits": {},
        "freeze_duration": 1,
    }
    for group in config["groups"].values():
        group["props"] = {}
    for name in ("get_items", "put_items", "attack", "move", "rotate", "swap"):
        config["actions"][name] = {"enabled": True}
    config["actions"]["rotate"]["consumed_resources"] = some(2, 0.2)
    config["actions"]["attack"]["defense_resources"] = some(1, 0.3)
    for place in range(3):
        config["objects"][f"machine_{place}"] = {
            "type_id": 10 + place,
            "input_resources": some(3, 0.3),
            "output_resources": some(30),
            "max_output": int(rng.choice([-1, 5, 100])),
            "conversion_ticks": int(rng.choice([0, 1, 3])),
            "cooldown": int(rng.choice([1, 2])),
            "initial_resource_count": int(rng.choice([1, 40, 250])),
        }
    return compile_rules(WorldConfig.model_validate(config))


def busy_actions(rules: RuleTable, rng: np.random.Generator, steps: int) -> np.ndarray:
    """Each action as often as any other, whatever the number of its arguments."""
    most = np.array(rules.spec.max_action_args)
    actions = rng.integers(len(most), size=(steps, rules.num_agents))
    args = rng.integers(0, most[actions] + 1)
    return np.stack([actions, args], axis=2).astype(np.int32)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.booleans())
def test_every_item_is_accounted_for(seed: int, busy: bool) -> None:
    rng = np.random.default_rng(seed)
    rules = busy_rules(rng) if busy else random_rules(rng)
    engine = begun(rules, rng, seed)
    ledger = Ledger(engine, 0)
    plan = busy_actions(rules, rng, 60) if busy else random_actions(rules, rng, 60, odd=0.02)
    for actions in plan:
        engine.step(actions[None])
        ledger.check(actions)


def test_busy_worlds_are_busy() -> None:
    seen: set[str] = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rules = busy_rules(rng)
        engine = begun(rules, rng, seed)
        for actions in busy_actions(rules, rng, 60):
            engine.step(actions[None])
        stats = engine.episode_stats(0)
        seen |= {
            name for entry in [*stats["agent"], *stats["converter"]] for name, count in entry.items() if count
        }
        seen |= {"full"} if (engine.converter_inventory(0) == 255).any() else set()
    for part in (
        ".steals.",
        ".blocked_by.",
        ".put",
        ".get",
        ".consumed",
        ".produced",
        "full",
        "action.swap.agent",
    ):
        assert any(part in name for name in seen), f"nothing of {part} happened"


def assert_cells(engine: GridEngine, world: int) -> None:
    """Agents know their cells, cells know their agents, and what an agent sees of itself is in the middle."""
    height, width = engine.map_size(world)
    state = engine.agent_state(world)
    things = engine.grid_objects(world)
    by_cell: dict[tuple[int, int], list[int]] = {}
    for i, thing in things.items():
        assert thing["id"] == i
        assert tuple(thing["location"][:2]) == (thing["r"], thing["c"])
        assert 0 <= thing["r"] < height
        assert 0 <= thing["c"] < width
        by_cell.setdefault((thing["r"], thing["c"]), []).append(i)
    assert all(len(found) == 1 for found in by_cell.values()), "a cell holds two things"
    assert len({tuple(place) for place in state[:, :2].tolist()}) == len(state), "two agents share a cell"
    ids = engine.agent_object_ids(world).tolist()
    assert len(set(ids)) == len(ids)
    for a, (row, col) in enumerate(state[:, :2].tolist()):
        assert by_cell.get((row, col)) == [ids[a]], f"agent {a} says ({row}, {col}), which does not know it"
        assert things[ids[a]]["agent_id"] == a
    assert sum("agent_id" in thing for thing in things.values()) == len(state), (
        "a cell knows an agent too many"
    )
    spec = engine.rule_of(world).spec
    seen = engine.observations[world, : len(state), : spec.num_tokens]
    assert find_problem(seen, spec) is None


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_agents_and_cells_know_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rules = [random_rules(rng) for _ in range(2)]
    engine = GridEngine(rules, 3, max_height=14, max_width=14)
    engine.reset([0, 1, 2], [random_grid(rules[w % 2], rng) for w in range(3)], [seed] * 3, [0, 1, 0])
    for step in range(25):
        if step == 12:
            engine.reset([1], [random_grid(rules[0], rng)], [seed], [0])
        actions = np.zeros((3, engine.max_agents, 2), np.int32)
        for world in range(3):
            rule = engine.rule_of(world)
            actions[world, : rule.num_agents] = random_actions(rule, rng, 1)[0]
        engine.step(actions)
        for world in range(3):
            assert_cells(engine, world)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_the_last_reward_is_shown_as_it_was_paid(seed: int) -> None:
    """Where nothing is shared, paid for statistics or for time, the reward that is shown is the one that is handed out."""
    rng = np.random.default_rng(seed)
    config = random_config(rng)
    for group in config["groups"].values():
        group["group_reward_pct"] = 0
        group.get("props", {}).get("rewards", {}).pop("stats", None)
    config["agent"]["rewards"].pop("stats", None)
    config["agent"]["action_failure_penalty"] = 0.375  # a half of a hundredth, to be rounded
    config["global_obs"]["last_reward"] = True
    config["num_observation_tokens"] = 60
    for name in ("step_reward", "diversity"):
        config.pop(name, None)
    rules = compile_rules(WorldConfig.model_validate(config))
    engine = begun(rules, rng, seed)
    paid = 0
    for actions in random_actions(rules, rng, 30):
        engine.step(actions[None])
        for reward, shown in zip(
            engine.rewards[0].tolist(),
            values_of(engine.observations[0], rules.spec, "last_reward"),
            strict=True,
        ):
            hundredths = float(np.float32(reward) * np.float32(100))
            size = int(abs(hundredths) + 0.5)
            assert shown == (size if hundredths >= 0 else -size) % 256
            paid += reward != 0
    assume(paid > 0)  # or nothing was shown
    assert engine.observations[0, 0, 0, 0] != PADDING


def fate(engine: GridEngine, world: int) -> dict[str, Any]:
    shown: dict[str, Any] = dict(observable(engine, world))
    return shown | {"stats": engine.episode_stats(world), "objects": engine.grid_objects(world)}


def assert_same(one: dict[str, Any], other: dict[str, Any], where: str) -> None:
    for name, value in one.items():
        same = np.array_equal(value, other[name]) if isinstance(value, np.ndarray) else value == other[name]
        assert same, f"{where}: {name} differ"


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 4), st.permutations(range(5)), st.booleans())
def test_a_world_is_a_function_of_rules_map_seed_and_actions(
    seed: int, num_threads: int, order: list[int], one_by_one: bool
) -> None:
    """Whatever its place, its neighbours, the threads, the order and the number of resets before."""
    rng = np.random.default_rng(seed)
    rules = [random_rules(rng) for _ in range(3)]
    which = [int(n) for n in rng.integers(3, size=5)]
    grids = [random_grid(rules[r], rng) for r in which]
    plans = [random_actions(rules[r], rng, 20) for r in which]
    batch = GridEngine(rules, 5, max_height=14, max_width=14, num_threads=num_threads)
    # Some other life before, which has to leave no trace.
    batch.reset(range(5), [grids[which.index(which[0])]] * 5, [7] * 5, [which[0]] * 5)
    noise = np.full((5, batch.max_agents, 2), 2**31 - 1, np.int32)
    for _ in range(3):
        batch.step(noise)
    places = {world: place for place, world in enumerate(order)}
    if one_by_one:
        for world in order:
            batch.reset([places[world]], [grids[world]], [seed], [which[world]])
    else:
        batch.reset([places[w] for w in range(5)], grids, [seed] * 5, which)
    alone = []
    for world in range(5):
        height, width = grids[world].shape
        engine = GridEngine([rules[which[world]]], 1, max_height=height, max_width=width)
        engine.reset([0], [grids[world]], [seed])
        alone.append(engine)
    for step in range(20):
        actions = np.zeros((5, batch.max_agents, 2), np.int32)
        for world, plan in enumerate(plans):
            actions[places[world], : plan.shape[1]] = plan[step]
            alone[world].step(plan[step][None])
        batch.step(actions)
        for world in range(5):
            assert_same(fate(alone[world], 0), fate(batch, places[world]), f"world {world} at step {step}")


PLAY = """
import hashlib, sys
import numpy as np
from metta.mettagrid.grid_engine import GridEngine
from random_worlds import random_actions, random_grid, random_rules
from test_properties import fate
digest = hashlib.sha256()
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    rng = np.random.default_rng(seed)
    rules = [random_rules(rng) for _ in range(2)]
    grids = [random_grid(rule, rng) for rule in rules]
    engine = GridEngine(rules, 2, max_height=14, max_width=14)
    engine.reset([0, 1], grids, [seed, seed], [0, 1])
    for step in range(8):
        actions = np.zeros((2, engine.max_agents, 2), np.int32)
        for world in range(2):
            actions[world, : rules[world].num_agents] = random_actions(rules[world], rng, 1)[0]
        engine.step(actions)
        for world in range(2):
            for name, value in sorted(fate(engine, world).items()):
                digest.update(name.encode())
                digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
print(digest.hexdigest())
"""


def digest(*, interpreted: bool, seeds: tuple[int, int]) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    if interpreted:
        environment["NUMBA_DISABLE_JIT"] = "1"
    command = [sys.executable, "-W", "error", "-c", PLAY, *map(str, seeds)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_interpreted_worlds_are_the_compiled_ones() -> None:
    compiled = digest(interpreted=False, seeds=(0, 6))
    assert digest(interpreted=True, seeds=(0, 6)) == compiled
    assert digest(interpreted=False, seeds=(1, 7)) != compiled


@pytest.mark.parametrize(
    ("name", "delta", "sentence"),
    [
        ("agent", 1, "is accounted for"),
        ("converter", 1, "is accounted for"),
        ("agent", -1, "is accounted for"),
    ],
)
def test_the_ledger_misses_what_is_made_or_lost(name: str, delta: int, sentence: str) -> None:
    config = random_config(np.random.default_rng(3))
    config |= {"num_agents": 4, "inventory_item_names": ["ore_red"], "agent": {"default_resource_limit": 9}}
    config["groups"] = {"agent": {"id": 0}}
    config["actions"] = {"noop": {"enabled": True}, "get_items": {"enabled": True}}
    config.pop("named_actions", None)
    machine = {
        "type_id": 9,
        "output_resources": {"ore_red": 1},
        "max_output": 3,
        "conversion_ticks": 1,
        "cooldown": 5,
    }
    config["objects"] = {"mine": {**machine, "initial_resource_count": 2}}
    rules = compile_rules(WorldConfig.model_validate(config))
    engine = GridEngine([rules], 1, max_height=2, max_width=4)
    engine.reset([0], [[["mine"] * 4, ["agent.agent"] * 4]], [0])
    ledger = Ledger(engine, 0)
    get = rules.spec.action_names.index("get_items")
    actions = np.full((4, 2), (get, 0), np.int32)
    for _ in range(10):
        engine.step(actions[None])
        ledger.check(actions)
    spoiled = copy.copy(engine)
    read = getattr(engine, f"{name}_inventory")
    engine.step(actions[None])

    def off(world: int) -> np.ndarray:
        held = read(world).copy()
        held[-1, 0] = max(held[-1, 0], 0) + delta
        return held  # type: ignore[no-any-return]

    setattr(engine, f"{name}_inventory", off)
    assert spoiled is not engine
    with pytest.raises(AssertionError, match=sentence):
        ledger.check(actions)
