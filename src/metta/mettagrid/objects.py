"""The one table of object kinds and items: type ids, names and map characters.

Everything that must agree on what a cell holds reads it from here: map builders, configs, the
replay page, and users through `metta.api` (the `TYPE_*` constants).
"""

from __future__ import annotations

TYPE_AGENT = 0
TYPE_WALL = 1
TYPE_MINE_RED = 2
TYPE_MINE_BLUE = 3
TYPE_MINE_GREEN = 4
TYPE_GENERATOR_RED = 5
TYPE_GENERATOR_BLUE = 6
TYPE_GENERATOR_GREEN = 7
TYPE_ALTAR = 8
TYPE_ARMORY = 9
TYPE_LASERY = 10
TYPE_LAB = 11
TYPE_FACTORY = 12
TYPE_TEMPLE = 13
TYPE_GENERIC_CONVERTER = 14
TYPE_BLOCK = 15
"""The customary id of a block was 14 too; two object types of one world cannot share an id."""

FIRST_CUSTOM_TYPE = 16
"""Objects whose name is not in `OBJECT_TYPE_IDS` get ids from here on, in the order of their config."""

OBJECT_TYPE_IDS: dict[str, int] = {
    "agent": TYPE_AGENT,
    "wall": TYPE_WALL,
    "mine_red": TYPE_MINE_RED,
    "mine_blue": TYPE_MINE_BLUE,
    "mine_green": TYPE_MINE_GREEN,
    "generator_red": TYPE_GENERATOR_RED,
    "generator_blue": TYPE_GENERATOR_BLUE,
    "generator_green": TYPE_GENERATOR_GREEN,
    "altar": TYPE_ALTAR,
    "armory": TYPE_ARMORY,
    "lasery": TYPE_LASERY,
    "lab": TYPE_LAB,
    "factory": TYPE_FACTORY,
    "temple": TYPE_TEMPLE,
    "converter": TYPE_GENERIC_CONVERTER,
    "block": TYPE_BLOCK,
}

STANDARD_ITEMS: tuple[str, ...] = (
    "ore_red",
    "ore_blue",
    "ore_green",
    "battery_red",
    "battery_blue",
    "battery_green",
    "heart",
    "armor",
    "laser",
    "blueprint",
)

EMPTY = "empty"
EMPTY_NAMES: frozenset[str] = frozenset({EMPTY, ".", " "})
"""Names that mean an empty cell in a map."""

MAP_CHARACTERS: dict[str, str] = {
    "@": "agent.agent",
    "A": "agent.agent",
    "1": "agent.team_1",
    "2": "agent.team_2",
    "3": "agent.team_3",
    "4": "agent.team_4",
    "p": "agent.prey",
    "P": "agent.predator",
    "#": "wall",
    "W": "wall",
    ".": EMPTY,
    " ": EMPTY,
    "s": "block",
    "m": "mine_red",
    "r": "mine_red",
    "b": "mine_blue",
    "g": "mine_green",
    "n": "generator_red",
    "R": "generator_red",
    "B": "generator_blue",
    "G": "generator_green",
    "_": "altar",
    "a": "altar",
    "o": "armory",
    "S": "lasery",
    "L": "lab",
    "F": "factory",
    "T": "temple",
    "c": "converter",
}
"""ASCII map character to cell name; the first character of a name is the canonical one."""
