"""What the standard converters take and give."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from metta.common.config import Config


class Recipe(Config):
    """A conversion: inputs, outputs, and their timing in steps."""

    input_resources: dict[str, int] = Field(default_factory=dict)
    output_resources: dict[str, int] = Field(default_factory=dict)
    max_output: int = 5
    max_conversions: int = -1
    conversion_ticks: int = 1
    cooldown: int = 10
    initial_resource_count: int = 0


def _recipe(inputs: dict[str, int], outputs: dict[str, int], **fields: Any) -> Recipe:
    return Recipe(input_resources=inputs, output_resources=outputs, **fields)


STANDARD_RECIPES: dict[str, Recipe] = {
    "mine_red": _recipe({}, {"ore_red": 1}, cooldown=50),
    "mine_blue": _recipe({}, {"ore_blue": 1}, cooldown=50),
    "mine_green": _recipe({}, {"ore_green": 1}, cooldown=50),
    "generator_red": _recipe({"ore_red": 1}, {"battery_red": 1}, cooldown=25),
    "generator_blue": _recipe({"ore_blue": 1}, {"battery_blue": 1}, cooldown=25),
    "generator_green": _recipe({"ore_green": 1}, {"battery_green": 1}, cooldown=25),
    "altar": _recipe({"battery_red": 3}, {"heart": 1}, cooldown=10),
    "armory": _recipe({"ore_red": 3}, {"armor": 1}, cooldown=10),
    "lasery": _recipe({"ore_red": 1, "battery_red": 2}, {"laser": 1}, cooldown=10),
    "lab": _recipe({"ore_red": 3, "battery_red": 3}, {"blueprint": 1}, cooldown=5),
    "factory": _recipe(
        {"blueprint": 1, "ore_red": 5, "battery_red": 5}, {"armor": 5, "laser": 5}, cooldown=5
    ),
    "temple": _recipe({"heart": 1, "blueprint": 1}, {"heart": 5}, cooldown=5),
}
