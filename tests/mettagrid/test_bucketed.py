"""Buckets: their values, the tasks that they make, and dotted paths into an environment."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metta.mettagrid.config import EnvConfig, GameConfig, MapBuilderConfig
from metta.mettagrid.curriculum.bucketed import (
    BucketedCurriculum,
    RangeBucket,
    bucketed_tasks,
)
from metta.mettagrid.curriculum.learning_progress import LearningProgressConfig, LearningProgressCurriculum
from metta.mettagrid.dotted import with_values
from metta.mettagrid.map.config import MazeConfig, RoomsConfig, VariedTerrainConfig
from metta.mettagrid.registry import env_paths, get_env_config
from metta.mettagrid.vec import VecEnv

BASE = get_env_config("/env/mettagrid/arena/basic")
ALTARS = "map_builder.room.objects.altar"


def test_bins_of_a_range() -> None:
    assert RangeBucket(range=(2, 18), bins=4).counts() == [(2, 5), (6, 9), (10, 13), (14, 17)]
    assert RangeBucket(range=(3, 50)).counts() == [(3, 49)]
    assert RangeBucket(range=(1, 10), bins=4).counts() == [(1, 3), (3, 5), (5, 7), (7, 9)]


@given(low=st.integers(0, 30), width=st.integers(1, 40), data=st.data())
def test_bins_hold_what_rounding_down_can_give(low: int, width: int, data: st.DataObject) -> None:
    bins = data.draw(st.integers(1, width))
    counts = RangeBucket(range=(low, low + width), bins=bins).counts()
    for place, (first, last) in enumerate(counts):
        at, to = low + width * place / bins, low + width * (place + 1) / bins
        inside = np.floor(at + (to - at) * np.linspace(1e-7, 1 - 1e-7, 2001))
        assert (first, last) == (inside.min(), inside.max())


def test_tasks_are_every_combination_in_order() -> None:
    tasks = bucketed_tasks(
        BASE,
        {
            "game.max_steps": [100, 200],
            ALTARS: {"range": [2, 6], "bins": 2},
            "objects.altar.cooldown": {"values": {"short": 1, "long": 90}},
        },
    )
    names = ["100", "200"], ["2-3", "4-5"], ["short", "long"]
    assert [task.name for task in tasks] == [
        f"max_steps={steps};altar={altar};cooldown={cooldown}"
        for steps, altar, cooldown in itertools.product(*names)
    ]
    config = tasks[5].config
    assert config.game.max_steps == 200
    assert config.map_builder.room.objects["altar"] == (2, 3)
    assert next(obj for obj in config.objects if obj.name == "altar").cooldown == 90
    assert config.map_builder.room.objects["mine_red"] == BASE.map_builder.room.objects["mine_red"]


def test_names_tell_equal_last_parts_apart() -> None:
    tasks = bucketed_tasks(BASE, {"objects.altar.cooldown": [1], "objects.lab.cooldown": [2]})
    assert tasks[0].name == "altar.cooldown=1;lab.cooldown=2"


def test_counts_are_drawn_anew_for_every_episode() -> None:
    rooms = RoomsConfig(
        room=MapBuilderConfig(width=12, height=12, agents=1, objects={"altar": 1}), num_rooms=1
    )
    base = EnvConfig(game=GameConfig(max_steps=2), map_builder=rooms)
    curriculum = BucketedCurriculum(base, {ALTARS: RangeBucket(range=(2, 8), bins=2)})
    env = VecEnv(curriculum, 1)
    seen: dict[str, set[int]] = {}
    for _ in range(150):
        altars = sum(
            env.spec.object_type_names[thing["type"]] == "altar"
            for thing in env.engine.grid_objects(0).values()
        )
        seen.setdefault(env.task_name(0), set()).add(altars)
        env.reset()
    assert seen == {"altar=2-4": {2, 3, 4}, "altar=5-7": {5, 6, 7}}


def test_bucketed_tasks_are_drawn_by_learning_progress() -> None:
    config = LearningProgressConfig(memory=3)
    curriculum = BucketedCurriculum(BASE, {"game.max_steps": [1, 2, 3]}, config)
    assert isinstance(curriculum, LearningProgressCurriculum)
    assert curriculum.config == config


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "has no buckets"),
    "empty": ({"game.max_steps": []}, "the bucket of 'game.max_steps' is \\[\\]"),
    "text": ({"game.max_steps": "12"}, "list at least one value"),
    "range of steps": ({"game.max_steps": {"range": [1, 9]}}, "list the values instead"),
    "range of an object": ({"objects.altar.cooldown": {"range": [1, 9]}}, "list the values instead"),
    "no bins": ({ALTARS: {"range": [1, 3], "bins": 3}}, "range from 1 up to 3.* has no 3 bins"),
    "half a range": (
        {ALTARS: {"range": [1]}},
        "the bucket of 'map_builder.room.objects.altar' has a wrong entry",
    ),
    "fraction": ({ALTARS: {"range": [0.5, 3]}}, "range"),
    "misspelt": ({ALTARS: {"range": [1, 5], "bin": 3}}, "bin: Extra inputs"),
    "no such part": ({"gaem.max_steps": [1]}, "an environment has no 'gaem'; it has game, objects, actions"),
    "no such object": ({"objects.alter.cooldown": [1]}, "objects has no 'alter'; it has wall, block"),
    "no such field": ({"game.hight": [1]}, "game.hight: Extra inputs"),
    "no mapping": ({"game.max_steps.x": [1]}, "game.max_steps is 1000 and has no 'x'"),
    "wrong value": ({"game.max_steps": [-1]}, "task 'max_steps=-1' of a bucketed curriculum: .*max_steps"),
    "too many": ({ALTARS: [5000]}, "objects and agents do not fit"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str) -> None:
    buckets, sentence = MISTAKES[name]
    with pytest.raises(ValueError, match=sentence):
        BucketedCurriculum(BASE, buckets)


def test_values_by_dotted_path() -> None:
    config = with_values(
        BASE,
        {
            "game.stat_rewards.ore_red.get": 0.5,
            "game.item_max.heart": 3,
            "actions.attack.consumed_resources": {"laser": 2},
            "objects.altar.input_resources": {"battery_red": 2},
            "objects.altar.input_resources.ore_red": 1,
        },
    )
    assert config.game.stat_rewards == {"ore_red.get": 0.5}
    assert config.game.item_max == {"heart": 3}
    assert next(a for a in config.actions if a.key == "attack").consumed_resources == {"laser": 2}
    altar = next(obj for obj in config.objects if obj.name == "altar")
    assert altar.input_resources == {"battery_red": 2, "ore_red": 1}
    assert get_env_config("/env/mettagrid/arena/basic") == BASE


def test_defaults_stay_where_one_count_of_several_is_set() -> None:
    config = with_values(EnvConfig(), {"map_builder.objects.altar": 7})
    assert config.map_builder.objects == {**EnvConfig().map_builder.objects, "altar": 7}


def test_paths_into_the_map_take_the_game_along_and_back() -> None:
    config = with_values(BASE, {"map_builder.room.width": 10, "map_builder.room.agents": 2})
    assert (config.game.width, config.game.num_agents) == (32, 8)
    config = with_values(BASE, {"map_builder.room": MazeConfig(objects={"altar": 2})})
    assert (config.game.num_agents, config.game.width) == (4, 140)
    config = with_values(BASE, {"game.num_agents": 8})
    assert config.map_builder.room.agents == 2
    simple = with_values(get_env_config("/env/mettagrid/simple"), {"map_builder.width": 30})
    assert (simple.game.width, simple.game.height) == (30, 12)
    terrain = EnvConfig(map_builder=VariedTerrainConfig(width=40, height=40, agents=2))
    assert with_values(terrain, {"game.width": 50, "game.num_agents": 3}).map_builder.agents == 3


@pytest.mark.parametrize("path", env_paths())
def test_no_values_change_nothing(path: str) -> None:
    config = get_env_config(path)
    assert with_values(config, {}) == config
