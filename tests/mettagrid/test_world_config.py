"""Configs and maps that are refused, each with one sentence that names the culprit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.rules import compile_rules, window_table
from metta.mettagrid.world_config import WorldConfig, error_fields, explain
from random_worlds import converter, small_config


def rules_for(**changes: Any) -> Any:
    return compile_rules(WorldConfig.model_validate(small_config(**changes)))


def refusal(**changes: Any) -> ValidationError:
    with pytest.raises(ValidationError) as info:
        WorldConfig.model_validate(small_config(**changes))
    return info.value


def test_a_broken_converter_is_not_also_called_a_broken_wall() -> None:
    error = refusal(objects={"wall": converter(cooldown=-1)})
    assert error_fields(error) == ["objects.wall.cooldown:greater_than_equal"]
    assert explain(error) == (
        "the world's config has a wrong entry at objects.wall.cooldown: Input should be greater than or equal to 0, "
        "got -1."
    )


def test_further_problems_are_counted() -> None:
    error = refusal(num_agents=0, obs_width=4)
    assert explain(error, "world.yaml").startswith("world.yaml has a wrong entry at num_agents: ")
    assert explain(error).endswith(" (1 more problems follow).")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inventory_item_names": ["ore", "ore"]}, "inventory_item_names has 'ore' twice"),
        (
            {"inventory_item_names": [str(i) for i in range(243)]},
            "has 243 items, but an observation can tell only 242",
        ),
        (
            {"inventory_item_names": [str(i) for i in range(81)], "recipe_details_obs": True},
            "can tell only 80 apart while recipe_details_obs is on",
        ),
        ({"num_agents": 40_000}, "num_agents is 40000, but the engine takes 1 to 32767"),
        ({"agent": {"freeze_duration": 256}}, "agent: freeze_duration is 256, but the engine takes 0 to 255"),
        ({"agent": {"resource_limits": {"heart": 256}}}, "agent: the resource limit of heart is 256"),
        ({"groups": {"a": {"id": 0}, "b": {"id": 2}}}, r"groups have the ids \[0, 2\] and none has id 1"),
        ({"groups": {"a": {"id": 1}}}, r"groups have the ids \[1\] and none has id 0"),
        (
            {"groups": {"a": {"id": 0, "props": {"default_resource_limit": 11}}}},
            "groups.a.props.default_resource_limit is 11, but .* agent.default_resource_limit, 10: name the items",
        ),
        (
            {"objects": {"rock": {"type_id": 256}}},
            "objects.rock.type_id is 256, but the engine takes 0 to 255",
        ),
        (
            {"objects": {"agent.agent": {"type_id": 1}}},
            "objects has 'agent.agent', which is the cell name of a group",
        ),
        (
            {"objects": {"b": {"type_id": 3}, "a": {"type_id": 3}}},
            "Object type_id 3 already exists with type_name a. Trying to add b.",
        ),
        (
            {"objects": {"mine": converter(output_resources={"heart": 256})}},
            "mine.output_resources.heart is 256",
        ),
        (
            {"objects": {"mine": converter(cooldown=65536)}},
            "objects.mine.cooldown is 65536, but the engine takes 0 to 65535",
        ),
        (
            {"actions": {"noop": {"enabled": True, "consumed_resources": {"gold": 1}}}},
            r"Action 'noop' has consumed_resources \['gold'\] that are not in inventory_item_names",
        ),
        (
            {
                "actions": {
                    "noop": {
                        "enabled": True,
                        "consumed_resources": {"heart": 2},
                        "required_resources": {"heart": 1},
                    }
                }
            },
            "Required resources must be greater than or equal to consumed resources: action 'noop' requires 1 heart",
        ),
    ],
)
def test_configs_that_contradict_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rules_for(**changes)


INSTANT = {"conversion_ticks": 0, "cooldown": 0}


@pytest.mark.parametrize(
    ("changes", "endless"),
    [
        ({"max_output": -1}, True),
        ({"max_output": 256}, True),
        ({"max_output": 255}, False),
        ({"max_output": -1, "max_conversions": 4}, False),
        ({"max_output": -1, "cooldown": 1}, False),
        ({"max_output": -1, "conversion_ticks": 1}, False),
        ({"max_output": -1, "input_resources": {"heart": 1}}, False),
        ({"max_output": -1, "input_resources": {"ore_red": 1}}, True),
        ({"max_output": 2, "input_resources": {"ore_red": 1}}, True),
        ({"max_output": 1, "input_resources": {"ore_red": 1}}, False),
        ({"max_output": 5, "output_resources": {}}, True),
        ({"max_output": 0, "output_resources": {}}, False),
    ],
)
def test_a_converter_that_would_never_rest_is_refused(changes: dict[str, Any], endless: bool) -> None:
    objects = {"wall": {"type_id": 1}, "spring": converter(**{**INSTANT, **changes})}
    if endless:
        with pytest.raises(
            ValueError, match=r"objects\.spring converts without taking time and can go on for ever"
        ):
            rules_for(objects=objects)
        return
    engine = GridEngine([rules_for(objects=objects)], 1, max_height=3, max_width=1)
    engine.reset([0], [[["spring"], ["agent.agent"], ["wall"]]], [0])
    engine.step(np.zeros((1, 1, 2), np.int32))
    assert engine.current_step[0] == 1


def test_a_groups_limit_that_says_the_same_is_taken() -> None:
    rules = rules_for(groups={"a": {"id": 0, "props": {"default_resource_limit": 10}}})
    assert set(rules.resolved["objects"]["agent.a"]["resource_limits"].values()) == {10}


def test_groups_may_share_an_id_and_the_last_name_sets_the_share() -> None:
    rules = rules_for(
        groups={"z": {"id": 0, "group_reward_pct": 0.5}, "b": {"id": 0, "group_reward_pct": 0.25}}
    )
    assert rules.group_names == ["b", "z"]
    assert rules.tables["group_reals"][:, 1].tolist() == [0.5, 0.5]


def test_windows_are_scanned_nearest_first() -> None:
    assert window_table(3, 3)[:, :2].tolist() == [
        [0, 0],
        [-1, 0],
        [0, -1],
        [0, 1],
        [1, 0],
        [-1, -1],
        [-1, 1],
        [1, -1],
        [1, 1],
    ]
    assert window_table(3, 5)[:, 2].tolist()[:5] == [0x12, 0x02, 0x11, 0x13, 0x22]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (
            [["agent.agent", "lamp"]],
            "Unknown object type: lamp in the map of world 0 at row 0, column 1; its rules know",
        ),
        ([["agent"]], "Unknown object type: agent in"),
        (
            [["empty"]],
            r"has 0 agents where its rules say num_agents 1: observations has shape \[1, 60, 3\] but expected \[0",
        ),
        ([["agent.agent", "empty"], ["wall"]], "the map of world 0 has 1 cells in row 1, but 2 in row 0"),
        (
            [["agent.agent"] + ["empty"] * 9],
            "has 1 rows and 10 columns, but this engine was made for 1 to 4 rows and 1 to 5",
        ),
        ([], "the map of world 0 has 1 dimensions"),
        (np.array([[1, 9]]), "has code 9 at row 0, column 1, but its rules have codes 0 to 3"),
        (np.array([[1, -1]]), "has code -1 at row 0, column 1"),
        (np.zeros((2, 2, 2), np.int16), "has 3 dimensions, but a map has rows and columns"),
        (np.array([[0.5]]), "is a grid of float64, but a map holds cell names or integer codes"),
    ],
)
def test_maps_that_are_refused_change_nothing(grid: Any, message: str) -> None:
    engine = GridEngine([rules_for()], 2, max_height=4, max_width=5)
    engine.reset([0, 1], [[["agent.agent"]], [["wall", "agent.agent"]]], [1, 2])
    engine.step(np.zeros((2, 1, 2), np.int32))
    before = engine.snapshot()
    with pytest.raises(ValueError, match=message):
        engine.reset([1, 0], [[["agent.agent"]], grid], [1, 2])
    assert all(np.array_equal(array, before[name]) for name, array in engine.snapshot().items())


def test_longer_rows_are_cut() -> None:
    engine = GridEngine([rules_for()], 1, max_height=2, max_width=1)
    engine.reset([0], [[["agent.agent"], ["empty", "wall"]]], [0])
    assert engine.initial_grid(0).tolist() == [["agent.agent"], ["empty"]]


def test_codes_and_names_make_the_same_world() -> None:
    rules = rules_for()
    names = np.array([["wall", ".", "agent.agent"], [" ", "block", "empty"]])
    codes = np.array([[rules.cell_codes[name] for name in row] for row in names.tolist()], np.int16)
    engine = GridEngine([rules], 2, max_height=2, max_width=3)
    engine.reset([0, 1], [names, codes], [5, 5])
    assert engine.grid_objects(0) == engine.grid_objects(1)
    assert engine.initial_grid(0).tolist() == names.tolist()
    assert engine.initial_grid(1).tolist() == [["wall", "empty", "agent.agent"], ["empty", "block", "empty"]]
    assert engine.initial_grid_hash(0) != engine.initial_grid_hash(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([2], [[["agent.agent"]]], [0], None), "world 2 does not exist: this engine has worlds 0 to 1"),
        (([-1], [[["agent.agent"]]], [0], None), "world -1 does not exist"),
        (([0], [[["agent.agent"]]], [-1], None), "the seed of world 0 is -1, but seeds are 0 to 4294967295"),
        (([0], [[["agent.agent"]]], [2**32], None), "the seed of world 0 is 4294967296"),
        (([0], [[["agent.agent"]]], [0], [1]), "rule set 1 of world 0 does not exist: there are 1"),
        (([0, 1], [[["agent.agent"]]], [0], None), "reset got 2 worlds, 1 grids, 1 seeds and 2 rules"),
        (
            ([0, 0], [[["agent.agent"]]] * 2, [0, 1], None),
            r"reset got worlds \[0, 0\]: name each world only once",
        ),
    ],
)
def test_resets_that_are_refused(arguments: Any, message: str) -> None:
    engine = GridEngine([rules_for()], 2, max_height=2, max_width=2)
    with pytest.raises(ValueError, match=message):
        engine.reset(*arguments)


def test_engines_that_are_refused() -> None:
    rules = rules_for()
    with pytest.raises(ValueError, match="rules is empty"):
        GridEngine([], 1, max_height=2, max_width=2)
    with pytest.raises(ValueError, match="num_worlds is 0"):
        GridEngine([rules], 0, max_height=2, max_width=2)
    with pytest.raises(ValueError, match="num_threads is 0"):
        GridEngine([rules], 1, max_height=2, max_width=2, num_threads=0)
    engine = GridEngine([rules], 2, max_height=2, max_width=2)
    engine.reset([0], [[["agent.agent"]]], [0])
    with pytest.raises(ValueError, match="world 1 has no map yet: reset it before stepping"):
        engine.step(np.zeros((2, 1, 2), np.int32))
    with pytest.raises(ValueError, match="steps are done for a contiguous part"):
        engine.step(np.zeros((2, 1, 2), np.int32), slice(0, 2, 2))


def test_flat_rewards_are_item_rewards() -> None:
    flat = rules_for(agent={"rewards": {"heart": 1, "heart_max": 3, "stats": {"a": 1, "b": None}}})
    nested = rules_for(agent={"rewards": {"inventory": {"heart": 1, "heart_max": 3}, "stats": {"a": 1}}})
    assert flat.resolved == nested.resolved
    assert rules_for(agent={"rewards": None}).resolved["objects"]["agent.agent"]["resource_rewards"] == {}
