"""Worlds so small that learning in them is a matter of seconds."""

from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, MapBuilderConfig, ObjectConfig

CARRYING_ORE = EnvConfig(
    game=GameConfig(
        max_steps=40,
        time_punishment=0,
        observation_width=3,
        observation_height=3,
        num_observation_tokens=40,
        default_item_max=1,
        ore_red_reward=0,
        battery_red_reward=0,
        stat_rewards={"ore_red.put": 1.0},
        inventory_item_names=["ore_red", "battery_red"],
    ),
    objects=[
        ObjectConfig(type="wall", name="wall"),
        ObjectConfig(type="mine", name="mine_red", cooldown=0, initial_resource_count=1),
        ObjectConfig(type="generator", name="generator_red", cooldown=0, max_output=-1),
    ],
    actions=[
        ActionConfig(type="rotate", key="turn_left", delta=-1),
        ActionConfig(type="rotate", key="turn_right", delta=1),
        ActionConfig(type="put_items", key="put_items"),
        ActionConfig(type="get_items", key="get_items"),
    ],
    map_builder=MapBuilderConfig(type="Ascii", ascii_map="#m###m#\n#@###@#\n#n###n#"),
)
"""An agent stands between a mine and a generator; the best there is earns 7, chance less than 1."""
