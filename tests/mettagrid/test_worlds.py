"""The ready-made worlds: their names, what they are made of, and that each can be played."""

import time

import numpy as np
import pytest

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import MultiTaskCurriculum, make_curriculum
from metta.mettagrid.curriculum.bucketed import BucketedCurriculum
from metta.mettagrid.curriculum.learning_progress import LearningProgressCurriculum
from metta.mettagrid.map.builder import make_map_builder
from metta.mettagrid.map.random import build_random
from metta.mettagrid.registry import curriculum_paths, env_paths, get_env_config
from metta.mettagrid.rules import compile_rules
from metta.mettagrid.vec import VecEnv

ARENA = [
    *("basic", "basic_easy", "basic_easy_shaped", "basic_poor"),
    *("combat", "combat_easy", "combat_easy_shaped", "combat_poor"),
    *("advanced", "advanced_easy", "advanced_easy_shaped", "advanced_poor"),
    *("tag", "tag_easy", "tag_easy_shaped"),
]
EVALS = {
    "emptyspace_withinsight": (18, 45),
    "emptyspace_outofsight": (31, 150),
    "emptyspace_sparse": (66, 300),
    "emptyspace_sparse_medium": (110, 1000),
    "walls_withinsight": (18, 75),
    "walls_outofsight": (31, 120),
    "walls_sparse": (41, 250),
    "labyrinth": (35, 250),
    "radialmaze": (22, 200),
}
TERRAINS = [
    "terrain_maps_nohearts",
    *(
        f"{style}_{size}"
        for style in ("balanced", "sparse", "dense", "maze", "cylinder-world")
        for size in ("large", "medium", "small")
    ),
]


def count(config: EnvConfig) -> dict[str, int]:
    """What lies on a map, by name."""
    env = VecEnv(config)
    names = [env.spec.object_type_names[thing["type"]] for thing in env.engine.grid_objects(0).values()]
    return {name: names.count(name) for name in set(names)}


def recipe(config: EnvConfig, name: str) -> dict[str, int]:
    return next(obj for obj in config.objects if obj.name == name).recipe().input_resources


def arena(name: str) -> EnvConfig:
    return get_env_config(f"/env/mettagrid/arena/{name}")


def test_the_names_are_all_there() -> None:
    assert set(env_paths()) >= {
        "/env/mettagrid/simple",
        "/env/mettagrid/puffer",
        *(f"/env/mettagrid/arena/{name}" for name in ARENA),
        *(f"/env/mettagrid/navigation/evals/{name}" for name in EVALS),
        *(f"/env/mettagrid/navigation/training/{name}" for name in TERRAINS),
    }
    assert set(curriculum_paths()) >= {
        "/env/mettagrid/curriculum/simple",
        "/env/mettagrid/curriculum/navigation/bucketed",
        "/env/mettagrid/curriculum/arena/random",
        "/env/mettagrid/curriculum/arena/learning_progress",
    }


@pytest.mark.parametrize("path", env_paths())
def test_every_environment_plays_and_survives_a_file(path: str) -> None:
    config = get_env_config(path)
    assert EnvConfig.model_validate_json(config.model_dump_json()) == config
    assert EnvConfig.model_validate(config.model_dump(exclude_unset=True)) == config
    env = VecEnv(config, 1, seed=1)
    assert tuple(env.engine.map_size(0)) == (config.game.height, config.game.width)
    rng = np.random.default_rng(0)
    legal = np.array(env.spec.legal_actions)
    for _ in range(5):
        env.step(legal[rng.integers(len(legal), size=env.num_agents)])


def test_the_newcomers_world_is_what_its_figures_were_measured_on() -> None:
    config = get_env_config("/env/mettagrid/simple")
    codes = compile_rules(config.to_world_config()).cell_codes
    counts = {"mine_red": 4, "generator_red": 3, "altar": 2, "wall": 4, "agent.agent": 4}
    by_hand = build_random(
        height=12,
        width=12,
        border_width=1,
        objects=[(codes[name], number) for name, number in counts.items()],
        wall=codes["wall"],
        rng=np.random.default_rng(9),
    )
    assert np.array_equal(make_map_builder(config, codes)(np.random.default_rng(9)), by_hand)


@pytest.mark.parametrize("name", ARENA)
def test_arena_maps(name: str) -> None:
    border = 5 if name.startswith("tag") else 6
    poor = name.endswith("poor")
    side = 50 + 2 * border
    expected = {
        "agent": 24,
        "wall": 4 * 20 + side**2 - 50**2,
        "block": 80,
        "mine_red": 12 if poor else 40,
        "generator_red": 8 if poor else 20,
        "altar": 8 if name.startswith("tag") else 20,
    }
    if not name.startswith("basic"):
        expected |= dict.fromkeys(("lasery", "armory"), 8 if name.startswith("tag") else 4)
    if name.startswith("advanced"):
        expected |= dict.fromkeys(("lab", "factory", "temple"), 4)
    assert count(arena(name)) == expected
    game = arena(name).game
    shaped = name.endswith("shaped")
    assert (game.heart_reward, game.ore_red_reward, game.battery_red_reward) == (
        1,
        *((0.1, 0.8) if shaped else (0, 0)),
    )
    assert bool(game.item_rewards) == shaped
    assert (game.max_steps, game.time_punishment, game.default_item_max) == (1000, 0, 50)


def test_arena_walls_are_as_many_as_customary() -> None:
    assert count(arena("basic"))["wall"] == 1424


def test_arena_recipes() -> None:
    full = {"battery_red": 3}
    assert recipe(arena("basic"), "altar") == full
    assert (
        recipe(arena("basic_easy"), "altar")
        == recipe(arena("basic_easy_shaped"), "altar")
        == {"battery_red": 1}
    )
    for name in ("combat_easy", "combat_easy_shaped"):
        assert recipe(arena(name), "altar") == full
        assert recipe(arena(name), "armory") == recipe(arena(name), "lasery") == {"ore_red": 1}
    for name in ("advanced_easy", "advanced_easy_shaped"):
        assert recipe(arena(name), "altar") == full
        assert recipe(arena(name), "armory") == {"ore_red": 3}
        assert recipe(arena(name), "lasery") == {"ore_red": 1, "battery_red": 2}
        assert recipe(arena(name), "lab") == {"ore_red": 1, "battery_red": 1}
        assert recipe(arena(name), "factory") == {"blueprint": 1, "ore_red": 1, "battery_red": 1}
    for name, lasers in (("tag", 20), ("tag_easy", 1), ("tag_easy_shaped", 1)):
        objects = {obj.name: obj for obj in arena(name).objects}
        assert recipe(arena(name), "altar") == {"battery_red": 3, "laser": 100}
        assert recipe(arena(name), "lasery") == {"ore_red": 1, "battery_red": 2}
        assert (objects["altar"].initial_resource_count, objects["altar"].cooldown) == (1, 1)
        assert (objects["lasery"].initial_resource_count, objects["lasery"].cooldown) == (lasers, 1)


def test_puffer() -> None:
    config = get_env_config("/env/mettagrid/puffer")
    counts = count(config)
    assert (config.game.width, counts["mine_red"], counts["generator_red"]) == (60, 40, 8)
    assert all(counts[name] == 4 for name in ("altar", "armory", "lasery", "lab", "factory", "temple"))


@pytest.mark.parametrize("name", EVALS)
def test_navigation_evaluations(name: str) -> None:
    side, steps = EVALS[name]
    config = get_env_config(f"/env/mettagrid/navigation/evals/{name}")
    assert (config.game.width, config.game.height, config.game.max_steps) == (side, side, steps)
    assert (config.game.num_agents, config.game.heart_reward) == (1, 0.333)
    altar = next(obj for obj in config.objects if obj.name == "altar")
    assert (altar.initial_resource_count, altar.cooldown) == (1, 10)
    assert count(config)["altar"] == 3


@pytest.mark.parametrize("name", TERRAINS)
def test_navigation_training(name: str) -> None:
    config = get_env_config(f"/env/mettagrid/navigation/training/{name}")
    room = config.map_builder.room
    area = room.inner_width * room.inner_height
    size = "small" if area < 4000 else "medium" if area < 6000 else "large"
    assert name.endswith(size) or name == "terrain_maps_nohearts"
    assert (config.game.width, config.game.num_agents) == (2 * room.width + 12, 4)
    assert room.border_width == 3
    assert 4 * 2 <= count(config)["altar"] <= 4 * 17
    altar = next(obj for obj in config.objects if obj.name == "altar")
    assert (altar.initial_resource_count, altar.cooldown) == (1, 1000)
    assert [action.key for action in config.actions] == ["noop", "move", "rotate", "get_items"]


def test_bucketed_navigation() -> None:
    curriculum = make_curriculum("/env/mettagrid/curriculum/navigation/bucketed")
    assert isinstance(curriculum, BucketedCurriculum)
    assert [task.name for task in curriculum.tasks] == [
        f"room={room};altar={altars}" for room in TERRAINS for altars in ("2-5", "6-9", "10-13", "14-17")
    ]
    assert all(
        task.config.map_builder.room.objects["altar"][0] in (2, 6, 10, 14) for task in curriculum.tasks
    )
    env = VecEnv(curriculum, 8)
    assert len(env.engine.rules) == 1  # the tasks differ in their maps alone
    assert (env.num_agents, env.agents_per_world) == (32, 4)


def test_arena_curricula() -> None:
    names = [f"/env/mettagrid/arena/{name}" for name in ARENA]
    for path, kind in (("random", MultiTaskCurriculum), ("learning_progress", LearningProgressCurriculum)):
        curriculum = make_curriculum(f"/env/mettagrid/curriculum/arena/{path}")
        assert type(curriculum) is kind
        assert [task.name for task in curriculum.tasks] == names
        assert VecEnv(curriculum, 2).num_agents == 48


def test_curricula_begin_anew_each_time() -> None:
    path = "/env/mettagrid/curriculum/arena/learning_progress"
    one = make_curriculum(path)
    one.update(0, 1.0)
    assert make_curriculum(path).state_dict() != one.state_dict()


def test_maps_of_large_rooms_are_quick_to_build() -> None:
    """Many worlds begin an episode at once in the training loop. About 3 ms each; the bound only catches uncompiled loops."""
    config = get_env_config("/env/mettagrid/navigation/training/dense_large")
    build = make_map_builder(config, compile_rules(config.to_world_config()).cell_codes)
    rng = np.random.default_rng(0)
    build(rng)
    start = time.perf_counter()
    for _ in range(5):
        build(rng)
    assert (time.perf_counter() - start) / 5 < 0.15
