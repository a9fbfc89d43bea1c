"""Names for what the engine counts and holds: statistics and objects of one world as dicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metta.mettagrid.engine import state as cols
from metta.mettagrid.engine.state import Floats, State
from metta.mettagrid.rules import RuleTable
from metta.mettagrid.stat_names import StatNames, invalid_name


def episode_stats(rules: RuleTable, state: State, world: int) -> dict[str, Any]:
    """Statistics of a world's episode.

    Returns:
        `game`: value by name; `agent`: such a dict by agent; `converter`: such a dict by object id. Values are
        float32 sums as Python floats; a name is there once it was counted.
    """
    row = state.worlds[world]
    num_agents, num_converters = int(row[cols.NUM_AGENTS]), int(row[cols.NUM_CONVERTERS])
    game = _named([rules.game_stats], state.game_stats[world : world + 1], always=cols.GAME_OBJECTS)[0]
    groups = state.agents[world, :num_agents, cols.GROUP].tolist()
    agents = _named([rules.agent_stats[group] for group in groups], state.agent_stats[world, :num_agents])
    for key, action, arg, count in state.invalid[world][
        state.invalid[world, :, cols.INVALID_KEY] != 0
    ].tolist():
        agents[(key - 1) // 2][invalid_name((key - 1) % 2, action, arg)] = float(
            np.float32(min(count, 2**24))
        )
    facts = state.converters[world, :num_converters].tolist()
    names = [rules.converter_stats[of_one[cols.OBJECT]] for of_one in facts]
    converters = _named(names, state.converter_stats[world, :num_converters])
    type_ids = [float(entry["type_id"]) for entry in rules.objects]
    for stats, of_one in zip(converters, facts, strict=True):
        stats["type_id"] = type_ids[of_one[cols.OBJECT]]
        stats["location.r"] = float(of_one[cols.CONVERTER_ROW])
        stats["location.c"] = float(of_one[cols.CONVERTER_COL])
    return {"game": game, "agent": agents, "converter": converters}


def grid_objects(
    rules: RuleTable, state: State, world: int, *, fixed: bool = True
) -> dict[int, dict[str, Any]]:
    """Everything on a world's map by object id, as JSON-ready facts.

    Args:
        rules: the world's rule set.
        state: of the batch.
        world: its index.
        fixed: whether to include what never changes, walls that cannot be swapped: most of what there is on many maps.
    """
    row = state.worlds[world]
    stride, margin = int(row[cols.STRIDE]), int(row[cols.MARGIN])
    num_agents = int(row[cols.NUM_AGENTS])
    first_wall = 1 + num_agents + int(row[cols.NUM_CONVERTERS])
    kinds = rules.objects
    numbers = state.object_ids[world]
    objects = {}
    cells = np.flatnonzero(numbers)
    if not fixed:
        kind = state.cells[world, cells].astype(np.int64) - first_wall
        swappable = np.array([entry.get("swappable", False) for entry in kinds])
        cells = cells[(kind < 0) | swappable[np.maximum(kind, 0)]]
    for cell in cells[np.argsort(numbers[cells])].tolist():
        number, code = int(numbers[cell]), int(state.cells[world, cell])
        r, c = cell // stride - margin, cell % stride - margin
        layer = 0 if code <= num_agents else 1
        facts: dict[str, Any] = {"id": number, "location": (r, c, layer), "r": r, "c": c, "layer": layer}
        look = state.looks[world, code]
        tokens = look[cols.LOOK_HEAD :][: 3 * int(look[0])].reshape(-1, 3)
        for _, feature, value in tokens.tolist():
            facts[rules.spec.features[feature].name] = value
        facts["type"] = facts["type_id"]
        facts["is_swappable"] = False
        if layer == 0:
            facts |= _agent_facts(rules, state, world, code - 1)
        elif code < first_wall:
            facts |= _converter_facts(rules, state, world, code - 1 - num_agents)
        else:
            facts["is_swappable"] = bool(kinds[code - first_wall]["swappable"])
        objects[number] = facts
    return objects


def _agent_facts(rules: RuleTable, state: State, world: int, a: int) -> dict[str, Any]:
    agent = state.agents[world, a].tolist()
    group = rules.resolved["objects"][f"agent.{rules.group_names[agent[cols.GROUP]]}"]
    held = state.agent_items[world, a, : len(rules.item_names)].tolist()
    return {
        "is_swappable": agent[cols.FROZEN] != 0,
        "agent_id": a,
        "orientation": agent[cols.FACING],
        "group_id": group["group_id"],
        "is_frozen": agent[cols.FROZEN] > 0,
        "freeze_remaining": agent[cols.FROZEN],
        "freeze_duration": group["freeze_duration"],
        "color": agent[cols.COLOR],
        "inventory": {item: count for item, count in enumerate(held) if count >= 0},
        "resource_limits": {int(item): limit for item, limit in group["resource_limits"].items()},
    }


def _converter_facts(rules: RuleTable, state: State, world: int, c: int) -> dict[str, Any]:
    facts = state.converters[world, c].tolist()
    entry = rules.objects[facts[cols.OBJECT]]
    held = state.converter_items[world, c, : len(rules.item_names)].tolist()
    return {
        "inventory": {item: count for item, count in enumerate(held) if count > 0},
        "is_converting": facts[cols.PHASE] == cols.CONVERTING,
        "is_cooling_down": facts[cols.PHASE] == cols.COOLING,
        "conversion_duration": entry["conversion_ticks"],
        "cooldown_duration": entry["cooldown"],
        "output_limit": entry["max_output"],
        "color": entry["color"],
        "input_resources": {int(item): amount for item, amount in entry["input_resources"].items()},
        "output_resources": {int(item): amount for item, amount in entry["output_resources"].items()},
    }


def _named(names: Sequence[StatNames], values: Floats, always: int = 0) -> list[dict[str, float]]:
    """Values by name, row by row; columns that share a name are summed, zeros beyond the first `always` are left out.

    Args:
        names: of the columns of each row.
        values: float32 `[rows, columns]`.
        always: columns that are there even if they are 0.
    """
    counted = values != 0
    counted[:, :always] = True
    rows, columns = np.nonzero(counted)
    named: list[dict[str, float]] = [{} for _ in names]
    for row, column, value in zip(
        rows.tolist(), columns.tolist(), values[rows, columns].tolist(), strict=True
    ):
        stats = named[row]
        for name in names[row][column]:
            stats[name] = float(np.float32(stats[name] + value)) if name in stats else value
    return named
