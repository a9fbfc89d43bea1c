"""Replay files: what is recorded is what is read."""

from __future__ import annotations

import json
import zlib
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.replay import ReplayRecorder, read_replay
from metta.mettagrid.replay_format import LIST_FIELDS, decode_series
from metta.mettagrid.world_config import WorldConfig

TYPES = ["agent", "wall", "mine"]


def world_at(
    row: int, col: int, *, held: dict[int, int], stock: dict[int, int], facing: int, frozen: int
) -> Any:
    """One agent, one converter and one block, as the engine describes them."""
    return {
        3: {"id": 3, "type": 1, "r": 0, "c": 0, "layer": 1, "is_swappable": True},
        7: {
            "id": 7,
            "type": 0,
            "r": row,
            "c": col,
            "layer": 0,
            "agent_id": 0,
            "orientation": facing,
            "group_id": 0,
            "is_frozen": frozen > 0,
            "freeze_remaining": frozen,
            "freeze_duration": 9,
            "color": 0,
            "inventory": held,
            "resource_limits": {0: 10, 1: 255},
            "is_swappable": frozen > 0,
        },
        8: {
            "id": 8,
            "type": 2,
            "r": 4,
            "c": 5,
            "layer": 1,
            "inventory": stock,
            "is_converting": frozen % 2 == 0,
            "is_cooling_down": False,
            "conversion_duration": 3,
            "cooldown_duration": 0,
            "output_limit": -1,
            "color": 4,
            "input_resources": {},
            "output_resources": {1: 2},
            "is_swappable": False,
        },
    }


def recorder(**changes: Any) -> ReplayRecorder:
    given: dict[str, Any] = {
        "num_agents": 1,
        "map_size": (9, 8),
        "type_names": TYPES,
        "action_names": ["move", "noop"],
        "item_names": ["ore", "heart"],
    }
    return ReplayRecorder(**(given | changes))


def act(
    action: int = 0, argument: int = 0, *, success: bool = True, reward: float = 0.0
) -> tuple[Any, Any, Any]:
    return np.array([[action, argument]]), np.array([success]), np.array([reward], np.float32)


stocks = st.dictionaries(st.integers(0, 1), st.integers(0, 255), max_size=2)
states = st.fixed_dictionaries(
    {
        "row": st.integers(0, 7),
        "col": st.integers(0, 8),
        "held": stocks,
        "stock": stocks,
        "facing": st.integers(0, 3),
        "frozen": st.integers(0, 3),
    }
)
acts = st.tuples(
    st.integers(-3, 5),
    st.integers(-2, 9),
    st.booleans(),
    st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)


@given(states, st.lists(st.tuples(states, acts), max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reading_gives_back_every_recorded_value(tmp_path: Path, first: Any, later: list[Any]) -> None:
    writer = recorder()
    writer.record(0, world_at(**first))
    for step, (state, (action, argument, success, reward)) in enumerate(later, start=1):
        writer.record(step, world_at(**state), *act(action, argument, success=success, reward=reward))
    replay = read_replay(writer.save(tmp_path / "a.json.z"))

    block, agent, mine = replay.objects
    assert replay.num_steps == len(later)
    every_state = [first, *(state for state, _ in later)]
    assert replay.series(agent, "position") == [[s["col"], s["row"]] for s in every_state]
    assert replay.series(agent, "inventory") == [sorted(map(list, s["held"].items())) for s in every_state]
    assert replay.series(mine, "inventory") == [sorted(map(list, s["stock"].items())) for s in every_state]
    assert replay.series(agent, "rotation") == [s["facing"] for s in every_state]
    assert replay.series(agent, "frozen") == [s["frozen"] > 0 for s in every_state]
    assert replay.series(agent, "frozen_progress") == [s["frozen"] for s in every_state]
    assert replay.series(mine, "is_converting") == [s["frozen"] % 2 == 0 for s in every_state]
    assert replay.series(block, "position") == [[0, 0]] * len(every_state)
    every_act = [(-1, 0, False, 0.0), *(done for _, done in later)]
    assert replay.series(agent, "action_id") == [done[0] for done in every_act]
    assert replay.series(agent, "action_parameter") == [done[1] for done in every_act]
    assert replay.series(agent, "action_success") == [done[2] for done in every_act]
    rewards = np.array([done[3] for done in every_act], np.float32)
    np.testing.assert_array_equal(np.float32(replay.series(agent, "current_reward")), rewards)
    np.testing.assert_array_equal(np.float32(replay.series(agent, "total_reward")), np.cumsum(rewards))


def test_constants_are_stored_bare_and_changes_alone() -> None:
    writer = recorder()
    for step, col in enumerate([1, 1, 2, 2, 1]):
        state = world_at(3, col, held={0: 2}, stock={}, facing=0, frozen=0)
        writer.record(step, state, *(act() if step else ()))
    block, agent, mine = writer.to_dict()["objects"]
    assert agent["position"] == [[0, [1, 3]], [2, [2, 3]], [4, [1, 3]]]
    assert agent["inventory"] == [[0, 2]]
    assert agent["action_id"] == [[0, -1], [1, 0]]
    assert agent["inventory_limits"] == [[0, 10], [1, 255]]
    assert mine["inventory"] == []
    assert (mine["output_resources"], mine["is_converting"], mine["conversion_duration"]) == (
        [[1, 2]],
        True,
        3,
    )
    assert block == {
        "id": 3,
        "type_id": 1,
        "position": [0, 0],
        "layer": 1,
        "rotation": 0,
        "inventory": [],
        "color": 0,
        "is_swappable": True,
    }


@pytest.mark.parametrize(
    ("name", "stored", "values"),
    [
        ("inventory", [], [[], [], []]),
        ("inventory", [[0, 2]], [[[0, 2]]] * 3),
        ("inventory", [[0, []], [1, [[0, 2]]]], [[], [[0, 2]], [[0, 2]]]),
        ("position", [0, 2], [[0, 2]] * 3),
        ("position", [[0, [0, 2]], [2, [1, 2]]], [[0, 2], [0, 2], [1, 2]]),
        ("rotation", [[0, 2], [1, 3]], [2, 3, 3]),
    ],
)
def test_a_series_is_told_from_a_constant(name: str, stored: Any, values: list[Any]) -> None:
    assert decode_series(name, stored, 2) == values


def test_the_file_is_compressed_json_of_version_2_with_the_names(tmp_path: Path) -> None:
    writer = recorder(
        label="evening run", group_names=["cats"], episode_limit=50, view_size=(5, 3), reward_sharing=[0.1]
    )
    writer.record(0, world_at(1, 1, held={}, stock={}, facing=0, frozen=0))
    path = writer.save(tmp_path / "new" / "folder" / "a.json.z")
    data = json.loads(zlib.decompress(path.read_bytes()))
    del data["objects"]
    assert data == {
        "version": 2,
        "file_name": "evening run",
        "num_agents": 1,
        "max_steps": 0,
        "episode_limit": 50,
        "map_size": [9, 8],
        "view_size": [5, 3],
        "type_names": TYPES,
        "action_names": ["move", "noop"],
        "item_names": ["ore", "heart"],
        "group_names": ["cats"],
        "reward_sharing": [0.1],
    }


def test_recording_goes_on_after_saving(tmp_path: Path) -> None:
    writer = recorder()
    before = world_at(1, 1, held={}, stock={}, facing=0, frozen=0)
    writer.record(0, before)
    early = writer.to_dict()
    kept = deepcopy(early)
    writer.record(1, world_at(1, 2, held={}, stock={}, facing=0, frozen=0), *act())
    assert early == kept
    assert read_replay(writer.save(tmp_path / "a.json.z")).num_steps == 1


HERE = world_at(1, 1, held={}, stock={}, facing=0, frozen=0)


@pytest.mark.parametrize(
    ("step", "objects", "done", "message"),
    [
        (2, HERE, act(), "Step 2 was recorded.* the next is 1"),
        (0, HERE, act(), "Step 0 was recorded.* the next is 1"),
        (1, HERE, (), "actions of step 1 is None"),
        (1, HERE, (np.zeros((2, 2)), *act()[1:]), r"actions of step 1 is of shape \(2, 2\)"),
        (1, HERE, (*act()[:2], np.zeros(3)), r"rewards of step 1 is of shape \(3,\)"),
        (1, HERE, act(reward=float("nan")), "reward of agent 0 at step 1 is nan"),
        (1, {k: v for k, v in HERE.items() if k != 8}, act(), "Object 8 vanished at step 1"),
        (1, HERE | {9: HERE[3] | {"id": 9}}, act(), "Object 9 appeared at step 1"),
        (1, HERE | {8: HERE[3]}, act(), "Object 8 changed its kind at step 1"),
        (1, HERE | {7: {"agent_id": 0}}, act(), "Object 7 has no field 'type'"),
        (1, HERE | {7: HERE[7] | {"agent_id": 4}}, act(), "agent 4, but this replay is of 1 agents"),
    ],
)
def test_a_wrong_step_is_refused_and_leaves_no_trace(
    step: int, objects: Any, done: Any, message: str
) -> None:
    writer = recorder()
    writer.record(0, HERE)
    before = deepcopy(writer.to_dict())
    with pytest.raises(ValueError, match=message):
        writer.record(step, objects, *done)
    assert writer.to_dict() == before


def test_agents_must_be_those_announced() -> None:
    with pytest.raises(ValueError, match=r"hold the agents \[0\], but this replay is of 2 agents"):
        recorder(num_agents=2).record(0, HERE)


def test_an_empty_recorder_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The replay is empty"):
        recorder().save(tmp_path / "a.json.z")


def good_file() -> Any:
    writer = recorder()
    writer.record(0, HERE)
    writer.record(1, world_at(1, 2, held={}, stock={}, facing=0, frozen=0), *act())
    return writer.to_dict()


def changed(**changes: Any) -> Any:
    return good_file() | changes


def with_agent(**changes: Any) -> Any:
    data = good_file()
    data["objects"][1] |= changes
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "it has no version"),
        ({"objects": []}, "it has no version"),
        (changed(version=1), "its version is 1, and only 2 is known"),
        (changed(num_agents="one"), "num_agents should be a whole number but is 'one'"),
        (changed(item_names=None), "item_names should be a list but is None"),
        (changed(map_size=[9]), r"map_size should be \[width, height\] but is \[9\]"),
        (changed(map_size=[9, 0]), "map_size should be"),
        (changed(num_agents=2), r"names 2 agents but holds the agents \[0\]"),
        (changed(objects=[4]), "object number 0 is not a JSON object"),
        (with_agent(type_id=[[0, 1]]), "object number 1 has the type_id .* should be a whole number"),
        (with_agent(type_id=12), "object number 1 has the type id 12, but there are 3 type names"),
        (with_agent(rotation=[[1, 2]]), "object number 1 has a damaged series in rotation"),
        (with_agent(rotation=[[0, 2], [0, 3]]), "damaged series in rotation"),
        (with_agent(rotation=[[0, 2], [7, 3]]), "damaged series in rotation"),
        (with_agent(rotation=[2]), "damaged series in rotation"),
        (with_agent(position=[["a", [1, 2]]]), "damaged series in position"),
    ],
)
def test_a_damaged_file_is_told_in_one_sentence(tmp_path: Path, data: Any, message: str) -> None:
    path = tmp_path / "bad.json.z"
    path.write_bytes(zlib.compress(json.dumps(data).encode()))
    with pytest.raises(ValueError, match=message) as caught:
        read_replay(path)
    assert str(caught.value).startswith(f"{path} is no replay")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["position", "group_id", "total_reward", "frozen_time"])
def test_a_missing_field_is_named(tmp_path: Path, name: str) -> None:
    data = good_file()
    del data["objects"][1][name]
    path = tmp_path / "bad.json.z"
    path.write_bytes(zlib.compress(json.dumps(data).encode()))
    with pytest.raises(ValueError, match=f"object number 1 has no {name}"):
        read_replay(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "not zlib-compressed, or cut short"),
        (zlib.compress(json.dumps(list(range(999))).encode())[:-9], "not zlib-compressed, or cut short"),
        (zlib.compress(b"no json"), "does not hold JSON"),
        (zlib.compress(b"\xff\xfe\x00"), "does not hold JSON"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.json.z"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_replay(path)
    with pytest.raises(FileNotFoundError, match="There is no replay file"):
        read_replay(tmp_path / "none.json.z")


MAP = """
#########
#s.m.1.s#
#@...n.@#
#s.._..1#
#########
"""

CONFIG: dict[str, Any] = {
    "inventory_item_names": ["ore", "battery", "heart"],
    "num_agents": 4,
    "max_steps": 80,
    "obs_width": 5,
    "obs_height": 5,
    "num_observation_tokens": 60,
    "agent": {"default_resource_limit": 9, "freeze_duration": 3, "action_failure_penalty": 0.1},
    "groups": {"agent": {"id": 0, "group_reward_pct": 0.5}, "team_1": {"id": 1}},
    "actions": {
        name: {"enabled": True, **({"number_of_glyphs": 4} if name == "change_glyph" else {})}
        for name in ["noop", "move", "rotate", "put_items", "get_items", "attack", "swap", "change_glyph"]
    },
    "objects": {
        "wall": {"type_id": 1},
        "block": {"type_id": 9, "swappable": True},
        "mine": {
            "type_id": 2,
            "output_resources": {"ore": 1},
            "max_output": 5,
            "conversion_ticks": 1,
            "cooldown": 4,
            "initial_resource_count": 1,
        },
        "generator": {
            "type_id": 3,
            "input_resources": {"ore": 1},
            "output_resources": {"battery": 1},
            "max_output": 5,
            "conversion_ticks": 2,
            "cooldown": 3,
            "initial_resource_count": 1,
            "color": 7,
        },
        "altar": {
            "type_id": 4,
            "input_resources": {"battery": 1},
            "output_resources": {"heart": 1},
            "max_output": 5,
            "conversion_ticks": 1,
            "cooldown": 1,
            "initial_resource_count": 1,
        },
    },
}
CELLS = {
    "#": "wall",
    ".": ".",
    "@": "agent.agent",
    "1": "agent.team_1",
    "m": "mine",
    "n": "generator",
    "_": "altar",
    "s": "block",
}


@pytest.mark.parametrize("fixed", [True, False])
def test_an_episode_of_the_engine_is_recorded_exactly(tmp_path: Path, fixed: bool) -> None:
    """Random play; every field of every object at every step equals what the engine said then."""
    rows = MAP.strip().splitlines()
    engine = GridEngine([WorldConfig.model_validate(CONFIG)], 1, max_height=len(rows), max_width=len(rows[0]))
    engine.reset([0], [np.array([[CELLS[c] for c in row] for row in rows])], [5])
    rules = engine.rule_of(0)
    writer = ReplayRecorder.for_spec(
        rules.spec,
        num_agents=4,
        map_size=(len(rows[0]), len(rows)),
        group_names=rules.group_names,
        episode_limit=80,
        reward_sharing=[0.5, 0],
    )
    writer.record(0, engine.grid_objects(0))
    told = [deepcopy(engine.grid_objects(0))]
    rng = np.random.default_rng(0)
    legal = np.array([*rules.spec.legal_actions, (-1, 0), (99, 3)], np.int32)
    done = []
    while not engine.terminals[0].any():
        actions = legal[rng.integers(len(legal), size=4)]
        engine.step(actions[None])
        told.append(deepcopy(engine.grid_objects(0)))
        done.append((actions.copy(), engine.action_success[0].copy(), engine.rewards[0].copy()))
        described = engine.grid_objects(0, fixed=fixed)
        left_out = [told[-1][key] for key in told[-1].keys() - described.keys()]
        assert described == {key: told[-1][key] for key in described}
        assert bool(left_out) is not fixed
        assert all(rules.spec.object_type_names[thing["type"]] == "wall" for thing in left_out)
        writer.record(len(done), described, *done[-1])
    replay = read_replay(writer.save(tmp_path / "episode.json.z"))

    assert replay.num_steps == 80
    assert [o["id"] for o in replay.objects] == sorted(told[0])
    same = {"layer": "layer", "type_id": "type", "rotation": "orientation", "color": "color"}
    same |= {"frozen": "is_frozen", "frozen_progress": "freeze_remaining", "frozen_time": "freeze_duration"}
    same |= {
        "agent_id": "agent_id",
        "group_id": "group_id",
        "glyph": "agent:glyph",
        "output_limit": "output_limit",
    }
    same |= {
        name: name
        for name in ("is_converting", "is_cooling_down", "conversion_duration", "cooldown_duration")
    }
    for entry in replay.objects:
        key = entry["id"]
        for name in entry.keys() & same.keys():
            assert replay.series(entry, name) == [state[key].get(same[name], 0) for state in told], (
                key,
                name,
            )
        assert replay.series(entry, "position") == [[state[key]["c"], state[key]["r"]] for state in told]
        stocks = [sorted(map(list, state[key].get("inventory", {}).items())) for state in told]
        assert replay.series(entry, "inventory") == stocks
    for agent in replay.agents:
        index = agent["agent_id"]
        pairs = list(
            zip(replay.series(agent, "action_id"), replay.series(agent, "action_parameter"), strict=True)
        )
        assert pairs[1:] == [tuple(actions[index].tolist()) for actions, _, _ in done]
        assert replay.series(agent, "action_success")[1:] == [bool(success[index]) for _, success, _ in done]
        assert np.float32(replay.series(agent, "current_reward"))[1:].tolist() == [
            r[index] for _, _, r in done
        ]
    # The play must have touched what the test is about.
    moved = {
        name
        for entry in replay.objects
        for name in entry
        if isinstance(entry[name], list) and name not in LIST_FIELDS
    }
    assert moved >= {
        "rotation",
        "frozen",
        "frozen_progress",
        "current_reward",
        "is_converting",
        "is_cooling_down",
        "glyph",
    }
    blocks = [entry for entry in replay.objects if entry.get("is_swappable")]
    assert any(isinstance(block["position"][0], list) for block in blocks)
