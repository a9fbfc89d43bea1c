"""Random rules, maps and actions: everything that a world can be, from one seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.objects import STANDARD_ITEMS
from metta.mettagrid.rules import RuleTable, compile_rules
from metta.mettagrid.testing import Episode
from metta.mettagrid.world_config import WorldConfig

ACTIONS = (
    "noop",
    "move",
    "rotate",
    "put_items",
    "get_items",
    "attack",
    "swap",
    "change_color",
    "change_glyph",
)
STATS = ("ore_red.gained", "action.move.success", "action.invalid_arg.0.99", "heart.lost", "no.such.stat")
ODD_NUMBERS = (-(2**31), -5, -1, 0, 1, 2, 3, 7, 255, 256, 2**31 - 1)


def small_config(**changes: Any) -> dict[str, Any]:
    """A plain world for one agent, as a dict to be changed."""
    config: dict[str, Any] = {
        "inventory_item_names": ["ore_red", "battery_red", "heart", "laser", "armor"],
        "num_agents": 1,
        "max_steps": 0,
        "obs_width": 5,
        "obs_height": 5,
        "num_observation_tokens": 60,
        "agent": {"default_resource_limit": 10, "freeze_duration": 3},
        "groups": {"agent": {"id": 0}},
        "actions": {name: {"enabled": True} for name in ACTIONS if name != "change_glyph"},
        "objects": {"wall": {"type_id": 1}, "block": {"type_id": 2, "swappable": True}},
    }
    return {**config, **changes}


def converter(**changes: Any) -> dict[str, Any]:
    """A mine of red ore, as a dict to be changed."""
    return {
        "type_id": 5,
        "output_resources": {"ore_red": 1},
        "max_output": 5,
        "conversion_ticks": 1,
        "cooldown": 2,
        "initial_resource_count": 0,
        **changes,
    }


def random_config(rng: np.random.Generator) -> dict[str, Any]:
    """Rules of a random world."""
    items = [str(name) for name in rng.permutation(STANDARD_ITEMS)[: rng.integers(1, 8)]]
    groups = [str(name) for name in rng.permutation(["agent", "team_1", "prey"])[: rng.integers(1, 4)]]

    def amounts(most: int = 3) -> dict[str, int]:
        return {item: int(rng.integers(0, most + 1)) for item in items if rng.random() < 0.3}

    def agent() -> dict[str, Any]:
        inventory: dict[str, float] = {
            item: round(float(rng.normal()), 3) for item in items if rng.random() < 0.5
        }
        caps = {f"{item}_max": int(rng.integers(-1, 5)) for item in items if rng.random() < 0.3}
        stats = {name: round(float(rng.normal()), 3) for name in STATS if rng.random() < 0.3}
        return {
            "resource_limits": {
                item: int(rng.choice([0, 1, 5, 255])) for item in items if rng.random() < 0.5
            },
            "freeze_duration": int(rng.choice([0, 1, 4, 255])),
            "rewards": {"inventory": {**inventory, **caps}, "stats": stats},
            "action_failure_penalty": float(rng.choice([0, 0.1])),
        }

    def action(name: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"enabled": bool(rng.random() < 0.8)}
        if rng.random() < 0.3:
            entry["consumed_resources"] = amounts(1)
        if rng.random() < 0.2:
            consumed = entry.get("consumed_resources", {})
            entry["required_resources"] = {
                item: max(n, consumed.get(item, 0)) for item, n in amounts(2).items()
            }
        if name == "attack" and rng.random() < 0.5:
            entry["defense_resources"] = amounts(1)
        if name == "change_glyph":
            entry["number_of_glyphs"] = int(rng.integers(0, 256))
        return entry

    objects: dict[str, Any] = {"wall": {"type_id": 1}, "block": {"type_id": 2, "swappable": True}}
    for i in range(int(rng.integers(0, 4))):
        objects[f"machine_{i}"] = {
            "type_id": 10 + i,
            "input_resources": amounts(),
            "output_resources": amounts(),
            "max_output": int(rng.choice([-1, 0, 1, 5, 300])),
            "max_conversions": int(rng.choice([-1, -1, 0, 3])),
            "conversion_ticks": int(rng.choice([0, 1, 3])),
            "cooldown": int(rng.choice([1, 2, 10])),
            "initial_resource_count": int(rng.choice([0, 1, 40])),
            "color": int(rng.integers(0, 256)),
        }
    config = {
        "inventory_item_names": items,
        "num_agents": int(rng.integers(1, 9)),
        "max_steps": int(rng.choice([0, 3, 10, 1000])),
        "episode_truncates": bool(rng.random() < 0.5),
        "obs_width": int(rng.choice([3, 5, 7, 11, 15])),
        "obs_height": int(rng.choice([3, 5, 7, 11, 15])),
        "num_observation_tokens": int(rng.choice([2, 20, 90, 300])),
        "agent": {"default_resource_limit": int(rng.choice([1, 10, 255])), **agent()},
        "groups": {
            name: {
                "id": i,
                "group_reward_pct": float(rng.choice([0, 0.3, 1])),
                "props": agent() if rng.random() < 0.3 else {},
            }
            for i, name in enumerate(groups)
        },
        "actions": {name: action(name) for name in ACTIONS},
        "global_obs": {
            name: bool(rng.random() < 0.5)
            for name in ("episode_completion_pct", "last_action", "last_reward", "resource_rewards")
        },
        "recipe_details_obs": bool(rng.random() < 0.5),
        "objects": objects,
        "track_movement_metrics": bool(rng.random() < 0.5),
    }
    if rng.random() < 0.3:
        config["step_reward"] = round(float(rng.normal()), 2)
    if rng.random() < 0.3:
        config["lifetime"] = int(rng.integers(1, 20))
    if rng.random() < 0.3:
        config["diversity"] = {"similarity_coef": 0.5, "diversity_coef": -0.25}
    if rng.random() < 0.3:
        config["named_actions"] = {"turn_left": {"kind": "rotate", "delta": -1}, "wait": {"kind": "noop"}}
    return config


def random_rules(rng: np.random.Generator) -> RuleTable:
    """The compiled rules of a random world."""
    return compile_rules(WorldConfig.model_validate(random_config(rng)))


def random_grid(rules: RuleTable, rng: np.random.Generator) -> NDArray[np.str_]:
    """A crowded map of random size for these rules."""
    height, width = (int(n) for n in rng.integers(3, 14, size=2))
    while height * width < rules.num_agents:
        height += 1
    things = [f"agent.{rng.choice(rules.group_names)}" for _ in range(rules.num_agents)]
    names = list(rules.cell_names[1 + len(rules.group_names) :])
    while len(things) < height * width:
        things.append(str(rng.choice(names)) if rng.random() < 0.35 else str(rng.choice(["empty", ".", " "])))
    return rng.permutation(np.array(things)).reshape(height, width)


def random_actions(
    rules: RuleTable, rng: np.random.Generator, steps: int, odd: float = 0.1
) -> NDArray[np.int32]:
    """Mostly legal actions; a share of `odd` numbers is anything, the ends of int32 included."""
    legal = np.array(rules.spec.legal_actions or [(0, 0)], np.int32)
    actions = legal[rng.integers(len(legal), size=(steps, rules.num_agents))]
    strange = rng.random(actions.shape) < odd
    actions[strange] = rng.choice(ODD_NUMBERS, size=int(strange.sum()))
    return actions


def random_episode(rules: list[RuleTable], rng: np.random.Generator, steps: int) -> Episode:
    """An episode of one of these rule sets."""
    rule = int(rng.integers(len(rules)))
    return Episode(
        rule=rule,
        grid=random_grid(rules[rule], rng),
        seed=int(rng.integers(2**32)),
        actions=random_actions(rules[rule], rng, steps),
    )
