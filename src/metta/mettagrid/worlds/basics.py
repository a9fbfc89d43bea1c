"""What the arena and the navigation worlds have in common: the customary game, recipes and their easy variants."""

from __future__ import annotations

from typing import Any

from metta.mettagrid.config import ActionConfig, GameConfig, ObjectConfig

EASY_INPUTS: dict[str, dict[str, int]] = {
    "altar": {"battery_red": 1},
    "armory": {"ore_red": 1},
    "lasery": {"ore_red": 1},
    "lab": {"ore_red": 1, "battery_red": 1},
    "factory": {"blueprint": 1, "ore_red": 1, "battery_red": 1},
}
"""What the converters take in the easy variants of a world; by default they take more (`STANDARD_RECIPES`)."""

SHAPED: dict[str, Any] = {
    "ore_red_reward": 0.1,
    "ore_red_max": 1,
    "battery_red_reward": 0.8,
    "battery_red_max": 1,
    "item_rewards": {
        "laser": 0.5,
        "laser_max": 1,
        "armor": 0.5,
        "armor_max": 1,
        "blueprint": 0.5,
        "blueprint_max": 1,
    },
}
"""Game settings of the shaped variants: whatever leads to hearts is worth something while it is held."""


def base_game(**settings: Any) -> GameConfig:
    """The customary game: ten items, hearts worth 1, a window of 11 by 11, 1000 steps.

    Args:
        **settings: fields of `GameConfig` that differ.
    """
    common: dict[str, Any] = {
        "max_steps": 1000,
        "time_punishment": 0,
        "ore_red_reward": 0,
        "battery_red_reward": 0,
        "track_movement_metrics": True,
    }
    return GameConfig(**{**common, **settings})


def actions(*names: str) -> list[ActionConfig]:
    """Customary actions under their own names."""
    return [ActionConfig.model_validate({"type": name, "key": name}) for name in names]


def converter(name: str, **fields: Any) -> ObjectConfig:
    """A converter with its standard recipe, but for the fields given."""
    return ObjectConfig(type="converter", name=name, **fields)
