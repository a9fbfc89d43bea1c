"""Typed configuration: defaults of the document, agreement of game and map, one sentence for each mistake."""

import pytest
from pydantic import ValidationError

from metta.interface.environment import make_environment
from metta.mettagrid.config import (
    ActionConfig,
    EnvConfig,
    GameConfig,
    MapBuilderConfig,
    ObjectConfig,
    default_actions,
)
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.registry import get_env_config

DOCUMENTED_GAME = {
    "max_steps": 1000,
    "time_punishment": -0.0001,
    "episode_lifetime": 10000,
    "num_agents": 64,
    "width": 64,
    "height": 64,
    "observation_width": 11,
    "observation_height": 11,
    "num_observation_tokens": 200,
    "default_item_max": 50,
    "heart_max": 255,
    "freeze_duration": 10,
    "action_failure_penalty": 0,
    "ore_red_reward": 0.01,
    "battery_red_reward": 0.02,
    "heart_reward": 1,
    "ore_red_max": 10,
    "battery_red_max": 10,
    "heart_max_reward": 1000,
    "diversity_bonus_enabled": False,
    "similarity_coef": 0.5,
    "diversity_coef": 0.5,
}


def test_game_defaults_are_the_documented_ones() -> None:
    game = GameConfig()
    assert {name: getattr(game, name) for name in DOCUMENTED_GAME} == DOCUMENTED_GAME


def test_map_builder_defaults_are_the_documented_ones() -> None:
    builder = MapBuilderConfig()
    assert (builder.type, builder.width, builder.height, builder.border_width, builder.agents) == (
        "Random",
        64,
        64,
        2,
        64,
    )
    assert builder.objects == {"mine_red": 2, "generator_red": 1, "altar": 1, "wall": 5, "block": 3}


def test_config_is_a_value() -> None:
    assert GameConfig(num_agents=4) == GameConfig(num_agents=4) != GameConfig(num_agents=5)
    config = EnvConfig(game={"num_agents": 2, "width": 15, "height": 10, "max_steps": 1000})
    assert EnvConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="frozen"):
        config.game.num_agents = 3


def test_map_follows_the_game_and_the_game_follows_the_map() -> None:
    config = EnvConfig(game=GameConfig(num_agents=4, width=32, height=30))
    assert (config.map_builder.width, config.map_builder.height, config.map_builder.agents) == (32, 30, 4)
    config = EnvConfig(map_builder=MapBuilderConfig(width=20, height=18, agents=3))
    assert (config.game.width, config.game.height, config.game.num_agents) == (20, 18, 3)
    config = EnvConfig(game=GameConfig(width=20), map_builder=MapBuilderConfig(height=18, agents=3))
    assert (config.map_builder.width, config.game.height, config.game.num_agents) == (20, 18, 3)


def test_overrides_reach_game_and_map() -> None:
    config = EnvConfig(game=GameConfig(num_agents=8)).with_overrides(
        num_agents=2, width=16, height=14, border_width=1
    )
    assert (config.game.num_agents, config.map_builder.agents) == (2, 2)
    assert (config.map_builder.width, config.game.height, config.map_builder.border_width) == (16, 14, 1)
    assert EnvConfig().with_overrides(map_objects={"altar": 1}).map_builder.objects == {"altar": 1}


MISTAKES = {
    "game and map disagree": (
        lambda: EnvConfig(game=GameConfig(width=20), map_builder=MapBuilderConfig(width=30)),
        "game.width is 20 but map_builder.width gives 30",
    ),
    "unknown override": (lambda: EnvConfig().with_overrides(hight=3), "'hight' is no setting"),
    "unknown field": (lambda: GameConfig(agents=3), "agents"),
    "even window": (lambda: GameConfig(observation_width=10), "window of 10 cells"),
    "item twice": (lambda: GameConfig(inventory_item_names=["heart", "heart"]), "heart more than once"),
    "share of an unknown group": (lambda: GameConfig(reward_sharing_groups={"blue": 0.5}), "names blue"),
    "share out of range": (
        lambda: EnvConfig(game=GameConfig(reward_sharing_groups={"agent": 2})).to_world_config(),
        "reward_sharing_groups\\['agent'\\] is 2",
    ),
    "object on the map that does not exist": (
        lambda: EnvConfig(map_builder=MapBuilderConfig(objects={"lamp": 1})),
        "places lamp",
    ),
    "attack without lasers": (
        lambda: EnvConfig(
            game=GameConfig(inventory_item_names=["heart"]),
            actions=default_actions(),
        ),
        "action 'attack' needs laser",
    ),
    "defense with an unknown item": (
        lambda: EnvConfig(
            actions=[ActionConfig(type="attack", key="a", defense_resources={"shield": 1})],
        ),
        "action 'a' needs shield, not in game.inventory_item_names",
    ),
    "reward for a statistic that nobody has": (
        lambda: EnvConfig(game=GameConfig(stat_rewards={"ore_red.gte": 0.1})),
        "stat_rewards names 'ore_red.gte', but no agent has .* did you mean ore_red.get",
    ),
    "cap on a statistic that is not rewarded": (
        lambda: EnvConfig(game=GameConfig(stat_rewards={"ore_red.get_max": 2.0})),
        "stat_rewards caps 'ore_red.get' without paying for it",
    ),
    "reward of an item of one's own": (
        lambda: GameConfig(inventory_item_names=["gold"], item_rewards={"gold": 1}),
        "item_rewards names gold, which is no standard item .* stat_rewards={'gold.gained'",
    ),
    "recipe of unknown items": (
        lambda: EnvConfig(
            game=GameConfig(inventory_item_names=["laser", "armor"]),
            objects=[ObjectConfig(type="mine", name="mine_red")],
            map_builder={"objects": {}},
        ),
        "object 'mine_red' works with ore_red",
    ),
    "converter without a recipe": (
        lambda: ObjectConfig(type="converter", name="forge").recipe(),
        "no standard recipe",
    ),
    "wall with a recipe": (lambda: ObjectConfig(type="wall", name="wall", cooldown=3), "has no cooldown"),
    "swappable mine": (lambda: ObjectConfig(type="mine", name="mine_red", swappable=True), "only walls"),
    "delta of a move": (lambda: ActionConfig(type="move", key="m", delta=1), "delta is for rotations"),
    "no actions": (lambda: EnvConfig(actions=[]), "actions is empty"),
    "gift of nothing": (lambda: ActionConfig(type="gift", key="g"), "gift of nothing"),
    "use of an unknown object": (
        lambda: EnvConfig(actions=[ActionConfig(type="use", key="u", use="lamp")]),
        "uses 'lamp'",
    ),
    "ascii type without a map": (lambda: MapBuilderConfig(type="Ascii"), "go together"),
    "ascii without agents": (lambda: MapBuilderConfig(type="Ascii", ascii_map="m."), "has no agent"),
    "ascii with objects": (
        lambda: MapBuilderConfig(type="Ascii", ascii_map="@.", objects={"altar": 5}),
        "objects=.* is given with a drawn map",
    ),
    "gap in group ids": (
        lambda: EnvConfig(game=GameConfig(groups={"a": {"id": 0}, "b": {"id": 2}})),
        "ids",
    ),
    "unknown group key": (lambda: EnvConfig(game=GameConfig(groups={"a": {"bogus": 1}})), "groups.a.bogus"),
    "endless converter": (
        lambda: EnvConfig(
            objects=[
                ObjectConfig(type="wall", name="wall"),
                ObjectConfig(type="mine", name="mine_red", cooldown=0, conversion_ticks=0, max_output=-1),
            ],
            map_builder={"objects": {"mine_red": 1}},
        ),
        "mine_red",
    ),
    "ascii with a wrong size": (
        lambda: MapBuilderConfig(type="Ascii", ascii_map="@.", width=3),
        "has width 2",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str) -> None:
    make, sentence = MISTAKES[name]
    with pytest.raises(ValueError, match=sentence):
        make()


def test_recipes_follow_kind_and_colour() -> None:
    assert ObjectConfig(type="mine", name="big_mine_blue").recipe().output_resources == {"ore_blue": 1}
    generator = ObjectConfig(type="generator", name="generator_red", cooldown=3).recipe()
    assert (generator.input_resources, generator.output_resources, generator.cooldown) == (
        {"ore_red": 1},
        {"battery_red": 1},
        3,
    )
    forge = ObjectConfig(type="converter", name="forge", output_resources={"laser": 2}).recipe()
    assert (forge.input_resources, forge.output_resources) == ({}, {"laser": 2})


def test_overrides_of_whole_parts_come_before_single_values() -> None:
    config = EnvConfig().with_overrides(game=GameConfig(num_agents=4, max_steps=9, width=20), num_agents=8)
    assert (config.game.num_agents, config.game.max_steps, config.map_builder.width) == (8, 9, 20)
    config = EnvConfig().with_overrides(map_builder=MapBuilderConfig(width=20), border_width=0)
    assert (config.game.width, config.map_builder.border_width) == (20, 0)


def test_make_environment_takes_names_and_mappings() -> None:
    assert make_environment("/env/mettagrid/simple").config == get_env_config("/env/mettagrid/simple")
    assert make_environment({"game": {"num_agents": 3, "width": 15, "height": 15}}).num_agents == 3
    assert make_environment("/env/mettagrid/simple", num_agents=2).num_agents == 2


def test_defaults_give_way_to_what_is_stated() -> None:
    few_items = EnvConfig(game=GameConfig(inventory_item_names=["ore_red", "battery_red", "heart"]))
    assert [o.name for o in few_items.objects] == ["wall", "block", "mine_red", "generator_red", "altar"]
    assert "attack" not in [a.key for a in few_items.actions]
    assert few_items.map_builder == EnvConfig().map_builder
    one_mine = EnvConfig(objects=[ObjectConfig(type="mine", name="mine_red", color=2)])
    assert (one_mine.map_builder.objects, one_mine.map_builder.border_width) == ({"mine_red": 2}, 0)
    for config in (few_items, one_mine, EnvConfig().with_overrides(inventory_item_names=["heart"])):
        assert MettaGridEnv(config).num_agents == 64
        assert EnvConfig.model_validate_json(config.model_dump_json()) == config
