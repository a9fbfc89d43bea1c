"""The arena: four teams' worth of mines and altars in one field, where 24 agents trade, arm and rob each other.

Four fields of 25 by 25 cells lie side by side without walls between them, six agents in each. In every task all of the
arena's kinds of objects exist, even where the map has none of them, so that one policy plays all tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from metta.mettagrid.config import EnvConfig, MapBuilderConfig, ObjectConfig
from metta.mettagrid.map.config import RoomsConfig
from metta.mettagrid.worlds.basics import EASY_INPUTS, SHAPED, actions, base_game, converter

ARENA = "/env/mettagrid/arena"

BASIC = {"mine_red": 10, "generator_red": 5, "altar": 5, "block": 20, "wall": 20}
POOR = {**BASIC, "mine_red": 3, "generator_red": 2}
ARMS = {"lasery": 1, "armory": 1}
SCIENCE = {"lab": 1, "factory": 1, "temple": 1}
TAG = {**BASIC, "altar": 2, "lasery": 2, "armory": 2}

PUFFER = {**BASIC, "generator_red": 2, "altar": 1, **ARMS, **SCIENCE}

ARENA_ACTIONS = ("noop", "move", "rotate", "put_items", "get_items", "attack", "swap")


def arena(
    counts: dict[str, int],
    *,
    border_width: int = 6,
    easy: tuple[str, ...] = (),
    shaped: bool = False,
    changes: dict[str, dict[str, Any]] | None = None,
) -> EnvConfig:
    """An arena.

    Args:
        counts: objects in each of the four fields.
        border_width: thickness of the wall around all of them.
        easy: converters that take less.
        shaped: whether things on the way to hearts are rewarded while they are held.
        changes: fields of single converters that differ.
    """
    fields: dict[str, dict[str, Any]] = {name: {"input_resources": EASY_INPUTS[name]} for name in easy}
    for name, change in (changes or {}).items():
        fields[name] = {**fields.get(name, {}), **change}
    return EnvConfig(
        game=base_game(**(SHAPED if shaped else {})),
        objects=[
            ObjectConfig(type="wall", name="wall"),
            ObjectConfig(type="wall", name="block"),
            ObjectConfig(type="mine", name="mine_red"),
            ObjectConfig(type="generator", name="generator_red"),
            *(
                converter(name, **fields.get(name, {}))
                for name in ("altar", "armory", "lasery", "lab", "factory", "temple")
            ),
        ],
        actions=actions(*ARENA_ACTIONS),
        map_builder=RoomsConfig(
            room=MapBuilderConfig(width=25, height=25, border_width=0, agents=6, objects=dict(counts)),
            num_rooms=4,
            border_width=border_width,
        ),
    )


def tag(*, lasers: int = 20, shaped: bool = False) -> EnvConfig:
    """The arena in which a heart lies ready in every altar, and no altar ever makes another: it would take 100 lasers."""
    return arena(
        TAG,
        border_width=5,
        shaped=shaped,
        changes={
            "altar": {
                "input_resources": {"battery_red": 3, "laser": 100},
                "initial_resource_count": 1,
                "cooldown": 1,
            },
            "lasery": {"initial_resource_count": lasers, "cooldown": 1},
        },
    )


def puffer() -> EnvConfig:
    """The arena with one of every converter in each field."""
    return arena(PUFFER, border_width=5)


ARENA_TASKS: dict[str, Callable[[], EnvConfig]] = {
    "basic": partial(arena, BASIC),
    "basic_easy": partial(arena, BASIC, easy=("altar",)),
    "basic_easy_shaped": partial(arena, BASIC, easy=("altar",), shaped=True),
    "basic_poor": partial(arena, POOR),
    "combat": partial(arena, BASIC | ARMS),
    "combat_easy": partial(arena, BASIC | ARMS, easy=("armory", "lasery")),
    "combat_easy_shaped": partial(arena, BASIC | ARMS, easy=("armory", "lasery"), shaped=True),
    "combat_poor": partial(arena, POOR | ARMS),
    "advanced": partial(arena, BASIC | ARMS | SCIENCE),
    "advanced_easy": partial(arena, BASIC | ARMS | SCIENCE, easy=("lab", "factory")),
    "advanced_easy_shaped": partial(arena, BASIC | ARMS | SCIENCE, easy=("lab", "factory"), shaped=True),
    "advanced_poor": partial(arena, POOR | ARMS | SCIENCE),
    "tag": tag,
    # Like the customary ones, these keep the full recipes: only fewer lasers lie ready.
    "tag_easy": partial(tag, lasers=1),
    "tag_easy_shaped": partial(tag, lasers=1, shaped=True),
}
"""The tasks by the last part of their names."""
