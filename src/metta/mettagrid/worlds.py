"""Ready-made environments."""

from __future__ import annotations

from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, MapBuilderConfig, ObjectConfig


def simple() -> EnvConfig:
    """The newcomer's world: four agents, ore to batteries to hearts, learned within minutes on a CPU."""
    return EnvConfig(
        game=GameConfig(
            max_steps=200,
            num_agents=4,
            width=12,
            height=12,
            observation_width=9,
            observation_height=9,
            num_observation_tokens=64,
            default_item_max=2,
            time_punishment=0,
            ore_red_reward=0.02,
            battery_red_reward=0.05,
            heart_reward=1,
            inventory_item_names=["ore_red", "battery_red", "heart"],
        ),
        objects=[
            ObjectConfig(type="wall", name="wall"),
            ObjectConfig(type="mine", name="mine_red", cooldown=4, initial_resource_count=1),
            ObjectConfig(type="generator", name="generator_red", cooldown=2, initial_resource_count=1),
            ObjectConfig(
                type="converter",
                name="altar",
                input_resources={"battery_red": 1},
                cooldown=2,
                initial_resource_count=1,
            ),
        ],
        actions=[
            ActionConfig(type="noop", key="noop"),
            ActionConfig(type="move", key="move"),
            ActionConfig(type="rotate", key="rotate"),
            ActionConfig(type="put_items", key="put_items"),
            ActionConfig(type="get_items", key="get_items"),
        ],
        map_builder=MapBuilderConfig(
            border_width=1, objects={"mine_red": 4, "generator_red": 3, "altar": 3, "wall": 4}
        ),
    )
