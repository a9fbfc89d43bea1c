"""Options of environments, maps and curricula: what agents notice in a fixed run, maps as drawn, tasks as played."""

from __future__ import annotations

from typing import Any

import numpy as np

from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, MapBuilderConfig, ObjectConfig
from metta.mettagrid.curriculum.base import Task
from metta.mettagrid.curriculum.learning_progress import LearningProgressConfig, LearningProgressCurriculum
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.map.config import (
    CylinderWorldConfig,
    MazeConfig,
    MeanDistanceConfig,
    RadialMazeConfig,
    RoomsConfig,
    SectorsConfig,
    VariedTerrainConfig,
)
from metta.mettagrid.vec import VecEnv
from option_schema import Kind, Probe, Refused, other

STOCKED = [
    ObjectConfig(type="wall", name="wall"),
    ObjectConfig(type="wall", name="block"),
    ObjectConfig(type="mine", name="mine_red", cooldown=1, initial_resource_count=40),
    ObjectConfig(type="generator", name="generator_red", cooldown=1, initial_resource_count=40),
    ObjectConfig(type="converter", name="altar", cooldown=1, initial_resource_count=40),
    ObjectConfig(type="converter", name="lasery", initial_resource_count=9),
    ObjectConfig(type="converter", name="armory", initial_resource_count=9),
]
CROWDED = MapBuilderConfig(
    type="Ascii",
    ascii_map="""
        #m1S2n#
        #o1.2_#
        ..1s2.n
        #_1.2o#
        #m1_2S#
    """,
)
GROUPS: dict[str, dict[str, Any]] = {"team_1": {}, "team_2": {}}
GAME: dict[str, Any] = {
    "groups": GROUPS,
    "max_steps": 60,
    "observation_width": 5,
    "observation_height": 5,
    "num_observation_tokens": 90,
}
CUSTOMARY = [
    ActionConfig(type=kind, key=kind)  # type: ignore[arg-type]
    for kind in ("noop", "move", "rotate", "put_items", "get_items", "attack", "swap")
]


def play(config: EnvConfig, steps: int = 180) -> list[Any]:
    """Everything that agents could notice in a fixed random run, and the final statistics."""
    env = VecEnv(config, 1, seed=3)
    rng = np.random.default_rng(7)
    seen: list[Any] = [env.spec.action_names, env.observations.shape, env.observations.tobytes()]
    legal = np.array(env.spec.legal_actions)
    for _ in range(steps):
        batch = env.step(legal[rng.integers(len(legal), size=env.num_agents)])
        seen += [batch.observations.tobytes(), batch.rewards.tobytes()]
        seen += [batch.terminals.tobytes(), batch.truncations.tobytes()]
        seen += [(episode.length, episode.stats) for episode in batch.episodes]
    return seen


def game_played(game: GameConfig) -> list[Any]:
    """A crowded drawn map of two groups, or an open field where the game states its size."""
    if {"num_agents", "width", "height"} & game.model_fields_set:
        return play(EnvConfig(game=game), steps=2)
    return play(EnvConfig(game=game, objects=STOCKED, map_builder=CROWDED))


def object_used(obj: ObjectConfig) -> list[Any]:
    """A small field on which six of the object lie."""
    game = GameConfig(num_agents=6, width=8, height=8, max_steps=60)
    objects = [ObjectConfig(type="wall", name="wall"), obj]
    return play(
        EnvConfig(
            game=game, objects=objects, map_builder=MapBuilderConfig(objects={obj.name: 6}, border_width=1)
        )
    )


def action_taken(action: ActionConfig) -> list[Any]:
    """The action beside two that make something of it."""
    helpers = [ActionConfig(type="rotate", key="r"), ActionConfig(type="get_items", key="z")]
    return play(
        EnvConfig(game=GameConfig(**GAME), objects=STOCKED, actions=[action, *helpers], map_builder=CROWDED)
    )


def map_drawn(config: Any) -> list[str]:
    """Two maps of one seed as a world shows them."""
    actions = [ActionConfig(type="noop", key="noop")]
    env = MettaGridEnv(EnvConfig(map_builder=config, actions=actions), seed=1)
    first = env.render()
    env.reset()
    return [str(first), str(env.render())]


def tasks_played(config: LearningProgressConfig) -> list[Any]:
    """How often a learner that gets better in five tasks at different speed plays each, and the weights in the end."""
    env = EnvConfig(game=GameConfig(num_agents=2, width=14, height=14))
    curriculum = LearningProgressCurriculum([Task(f"task_{i}", env) for i in range(5)], config)
    rng, times = np.random.default_rng(0), np.zeros(5, int)
    for _ in range(800):
        task = curriculum.sample(rng)
        curriculum.update(task, min(task / 5 + times[task] / 400, 1))
        times[task] += 1
    return [times.tolist(), curriculum.weights().tolist()]


SIZE = {"width": 32, "height": 33}
ONE_ALTAR = {"objects": {"altar": 3}}
FIELD = {
    "width": other(34),
    "height": other(34),
    "border_width": other(1),
    "seed": other(8),
    "objects": other({"altar": 1}),
}

PROBES: dict[Kind, Probe] = {
    GameConfig: Probe(
        (game_played,),
        {
            "max_steps": other(50),
            "time_punishment": other(-0.1),
            "episode_lifetime": other(30),
            "num_agents": other(5, num_agents=4, width=16, height=16, groups={"agent": {}}),
            "width": other(15, num_agents=4, width=16, height=16, groups={"agent": {}}),
            "height": other(15, num_agents=4, width=16, height=16, groups={"agent": {}}),
            "observation_width": other(7),
            "observation_height": other(3),
            "num_observation_tokens": other(20),
            "default_item_max": other(1),
            "heart_max": other(1),
            "item_max": other({"ore_red": 1}),
            "freeze_duration": other(1),
            "action_failure_penalty": other(0.5),
            "ore_red_reward": other(0.7),
            "battery_red_reward": other(0.7),
            "heart_reward": other(0.7),
            "ore_red_max": other(1, ore_red_reward=0.5),
            "battery_red_max": other(1, battery_red_reward=0.5),
            "heart_max_reward": other(1),
            "item_rewards": other({"laser": 0.5}, {"laser": 0.5, "laser_max": 1}),
            "stat_rewards": other({"ore_red.get": 1.0}, {"ore_red.get": 1.0, "ore_red.get_max": 2.0}),
            "inventory_item_names": other(["heart", "ore_red", "battery_red", "armor", "laser"]),
            "diversity_bonus_enabled": other(True),
            "similarity_coef": other(0.9, diversity_bonus_enabled=True),
            "diversity_coef": other(0.9, diversity_bonus_enabled=True),
            "groups": other(
                {"team_1": {}, "team_2": {"props": {"freeze_duration": 2}}},
                {"team_1": {}, "team_2": {"group_reward_pct": 0.5}},
                {"team_1": {"id": 1}, "team_2": {"id": 0}},
            ),
            "reward_sharing_groups": other({"team_1": 0.5}),
            "episode_truncates": other(True),
            "recipe_details_obs": other(True),
            "track_movement_metrics": other(True),
        },
        GAME,
    ),
    ObjectConfig: Probe(
        (object_used,),
        {
            "type": other("generator", Refused("converter", "no standard recipe"), "wall", name="x_red"),
            "name": other("mine_blue"),
            "color": other(9),
            "input_resources": other({"laser": 1}),
            "output_resources": other({"laser": 1}),
            "max_output": other(0),
            "max_conversions": other(1),
            "conversion_ticks": other(9),
            "cooldown": other(20),
            "initial_resource_count": other(3),
            "swappable": other(False, type="wall", name="block"),
        },
        {"type": "mine", "name": "mine_red"},
    ),
    ActionConfig: Probe(
        (action_taken,),
        {
            "type": other(
                *(
                    "noop",
                    "rotate",
                    "put_items",
                    "get_items",
                    "attack",
                    "swap",
                    "change_color",
                    "change_glyph",
                ),
                Refused("gift", "gift of nothing"),
                Refused("use", "uses nothing"),
            ),
            "key": other("zoom"),
            "delta": other(1, 2, type="rotate"),
            "item": other("heart", type="get_items"),
            "use": other("altar", type="get_items"),
            "required_resources": other({"heart": 1}),
            "consumed_resources": other({}, type="attack"),
            "defense_resources": other({"ore_red": 1}, type="attack", consumed_resources={}),
            "number_of_glyphs": other(9, type="change_glyph"),
        },
        {"type": "move", "key": "x"},
    ),
    EnvConfig: Probe(
        (play,),
        {
            "game": other(GameConfig(**{**GAME, "max_steps": 50})),
            "objects": other(
                [obj for obj in STOCKED if obj.name != "block"]
                + [ObjectConfig(type="wall", name="block", swappable=False)]
            ),
            "actions": other(CUSTOMARY[:3]),
            "map_builder": other(MapBuilderConfig(type="Ascii", ascii_map="m1.2n")),
        },
        {"game": GameConfig(**GAME), "objects": STOCKED, "map_builder": CROWDED, "actions": CUSTOMARY},
    ),
    MapBuilderConfig: Probe(
        (map_drawn,),
        {
            **FIELD,
            "agents": other(2, {"agent": 5}),
            "type": other(Refused("Random", "go together"), type="Ascii", ascii_map="@."),
            "ascii_map": other(".@", Refused(None, "go together"), type="Ascii", ascii_map="@."),
        },
    ),
    VariedTerrainConfig: Probe(
        (map_drawn,),
        {**FIELD, "agents": other(3), "style": other("sparse", "dense", "maze")},
        {**SIZE, "agents": 2, **ONE_ALTAR},
    ),
    CylinderWorldConfig: Probe(
        (map_drawn,), {**FIELD, "agents": other(3)}, {**SIZE, "agents": 2, **ONE_ALTAR}
    ),
    MeanDistanceConfig: Probe(
        (map_drawn,),
        {**FIELD, "mean_distance": other(4), "scattered": other({"block": 3})},
        {**SIZE, **ONE_ALTAR},
    ),
    SectorsConfig: Probe((map_drawn,), {**FIELD, "sectors": other(4)}, {**SIZE, **ONE_ALTAR}),
    MazeConfig: Probe(
        (map_drawn,),
        {
            **FIELD,
            "room_size": other(2),
            "wall_size": other(2),
            "centre_width": other(3),
            "centre_height": other(7),
        },
        {**SIZE, **ONE_ALTAR},
    ),
    RadialMazeConfig: Probe(
        (map_drawn,),
        {
            **FIELD,
            "arms": other(5),
            "arm_width": other(2),
            "arm_length": other(6),
            # Around the arms all is wall: a border only says how much of it there must be, and only ranges are drawn.
            "border_width": other(Refused(9, "need a field of 20x20 cells")),
            "seed": other(3, objects={"altar": (0, 4)}),
        },
        {**SIZE, **ONE_ALTAR},
    ),
    RoomsConfig: Probe(
        (map_drawn,),
        {
            "room": other(MapBuilderConfig(width=9, height=10, agents=1, objects={"altar": 2})),
            "num_rooms": other(3),
            "border_width": other(1),
            "gap": other(1),
            "seed": other(8),
        },
        {"room": MapBuilderConfig(width=9, height=9, agents=1, objects={"altar": 2})},
    ),
    LearningProgressConfig: Probe(
        (tasks_played,),
        {
            "ema_timescale": other(0.5),
            "progress_smoothing": other(0.4),
            "num_active_tasks": other(2),
            "rand_task_rate": other(0.9),
            "sample_threshold": other(5),
            "memory": other(2),
        },
        {"ema_timescale": 0.1},
    ),
}
