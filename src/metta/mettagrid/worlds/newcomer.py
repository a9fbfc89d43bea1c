"""The newcomer's world."""

from __future__ import annotations

from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, MapBuilderConfig, ObjectConfig


def simple() -> EnvConfig:
    """The newcomer's world: a small field in which four agents turn ore into batteries and batteries into hearts.

    A heart is worth 1. Two choices make the chain learnable within minutes, where a world of the same kind with the
    customary rewards and directions is not (`benchmarks/ablation.py` takes them back one at a time):

    - Each step of the chain is rewarded when it happens (`stat_rewards`), not while its product is held, so that
      handing something over never costs. The caps stop paying after a few repetitions: what remains is hearts.
    - Agents turn left and right instead of naming a direction, which fits what they see: a policy with
      `egocentric` input has its own facing always up.

    An agent carries two of an item at most, which keeps the replay easy to follow: it fetches, delivers, comes again.
    """
    return EnvConfig(
        game=GameConfig(
            max_steps=200,
            time_punishment=0,
            num_agents=4,
            width=12,
            height=12,
            observation_width=9,
            observation_height=9,
            num_observation_tokens=64,
            default_item_max=2,
            ore_red_reward=0,
            battery_red_reward=0,
            heart_reward=1,
            stat_rewards={
                "ore_red.get": 0.1,
                "ore_red.get_max": 0.5,
                "ore_red.put": 0.3,
                "ore_red.put_max": 1.5,
                "battery_red.get": 0.3,
                "battery_red.get_max": 1.5,
                "battery_red.put": 0.3,
                "battery_red.put_max": 1.5,
            },
            inventory_item_names=["ore_red", "battery_red", "heart"],
        ),
        objects=[
            ObjectConfig(type="wall", name="wall"),
            ObjectConfig(type="mine", name="mine_red", cooldown=4, initial_resource_count=1),
            ObjectConfig(type="generator", name="generator_red", cooldown=2),
            ObjectConfig(type="converter", name="altar", input_resources={"battery_red": 1}, cooldown=2),
        ],
        actions=[
            ActionConfig(type="noop", key="noop"),
            ActionConfig(type="move", key="move"),
            ActionConfig(type="rotate", key="turn_left", delta=-1),
            ActionConfig(type="rotate", key="turn_right", delta=1),
            ActionConfig(type="put_items", key="put_items"),
            ActionConfig(type="get_items", key="get_items"),
        ],
        map_builder=MapBuilderConfig(
            border_width=1, objects={"mine_red": 4, "generator_red": 3, "altar": 2, "wall": 4}
        ),
    )
