"""What agents see, worked out cell by cell from what is on the map, without any of the engine's tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.grid_engine import GridEngine

Token = tuple[int, int, int]

LAST_REWARD, RESOURCES = 11, 13
"""Features whose values are not worked out here."""


def observe(engine: GridEngine, world: int, actions: NDArray[np.int32]) -> list[list[Token]]:
    """All that the agents of a world could see if observations had no end; values of two features are -1.

    Args:
        engine: that holds the world.
        world: its index.
        actions: int32 `[agents, 2]`, of the last step; zero after a reset.
    """
    rules = engine.rule_of(world)
    config = rules.resolved
    height, width = config["obs_height"], config["obs_width"]
    center = 16 * (height // 2) + width // 2
    looks = looks_of(engine, world)
    step = int(engine.current_step[world])
    shown = config["global_obs"]
    everything = []
    for a, (top, left, *_) in enumerate(engine.agent_state(world).tolist()):
        tokens: list[Token] = []
        if shown["episode_completion_pct"]:
            limit = config["max_steps"]
            part = float(np.float32(step) / np.float32(limit) * np.float32(255)) if limit else 0.0
            tokens.append((center, 8, int(part + 0.5) % 256))
        if shown["last_action"]:
            tokens += [(center, 9, int(actions[a, 0]) % 256), (center, 10, int(actions[a, 1]) % 256)]
        if shown["last_reward"]:
            tokens.append((center, LAST_REWARD, -1))
        if shown["resource_rewards"]:
            tokens.append((center, RESOURCES, -1))
        cells = [
            (abs(row) + abs(col), row, col)
            for row in range(-(height // 2), height // 2 + 1)
            for col in range(-(width // 2), width // 2 + 1)
        ]
        for _, row, col in sorted(cells):
            location = 16 * (row + height // 2) + col + width // 2
            look = looks.get((top + row, left + col), [])
            tokens += [(location, feature, value % 256) for feature, value in look]
        everything.append(tokens)
    return everything


def looks_of(engine: GridEngine, world: int) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Features and values of whatever stands in a cell, by row and column."""
    rules = engine.rule_of(world)
    items = range(len(rules.item_names))
    names = [name for name in engine.initial_grid(world).flat if name not in ("empty", ".", " ")]
    things = engine.grid_objects(world)
    agents, holding = engine.agent_state(world), engine.agent_inventory(world)
    converters = {number: c for c, number in enumerate(engine.converter_ids(world).tolist())}
    phases, stocks = engine.converter_state(world), engine.converter_inventory(world)
    looks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, name in enumerate(names, 1):
        thing: dict[str, Any] = things[number]
        entry = rules.resolved["objects"][name]
        if "agent_id" in thing:
            a = thing["agent_id"]
            _, _, facing, frozen, color, glyph = agents[a].tolist()
            look = [(0, 0), (1, entry["group_id"]), (3, int(frozen > 0)), (4, facing), (5, color)]
            look += [(12, glyph)] if glyph else []
            look += [(14 + item, int(holding[a, item])) for item in items if holding[a, item] >= 0]
        elif number in converters:
            c = converters[number]
            look = [(0, entry["type_id"]), (5, entry["color"]), (6, int(phases[c].any()))]
            look += [(14 + item, int(stocks[c, item])) for item in items if stocks[c, item] > 0]
            if rules.resolved["recipe_details_obs"]:
                for place, side in enumerate(("input_resources", "output_resources"), 1):
                    amounts = {int(item): amount for item, amount in entry[side].items()}
                    first = 14 + place * len(items)
                    look += [(first + item, amounts[item]) for item in items if amounts.get(item, 0) > 0]
        else:
            look = [(0, entry["type_id"])] + ([(7, 1)] if entry["swappable"] else [])
        looks[thing["r"], thing["c"]] = look
    return looks


def assert_seen(engine: GridEngine, world: int, actions: NDArray[np.int32]) -> None:
    """Hold the observations of a world, and the count of their tokens, against `observe`."""
    size = engine.rule_of(world).num_tokens
    for a, tokens in enumerate(observe(engine, world, actions)):
        seen = engine.observations[world, a].tolist()
        wanted = [list(token) for token in tokens[:size]]
        for place, (_, feature, _) in enumerate(tokens[:size]):
            if feature in (LAST_REWARD, RESOURCES):
                wanted[place][2] = seen[place][2]
        wanted += [[255] * 3] * (engine.num_tokens - len(wanted))
        assert seen == wanted, f"agent {a} of world {world}"
