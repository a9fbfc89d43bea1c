"""Which statistic each counter of the engine is.

The engine counts in columns; this is the only place that knows how they are called. A counter may go by several
names, and several counters may share one (an item and an object of the same name, say): then it is their sum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from metta.mettagrid.engine import state as cols
from metta.mettagrid.resolve import Resolved

StatNames = tuple[tuple[str, ...], ...]
"""Statistic names by column."""

_DIRECTIONS = ("up", "down", "left", "right")
_INVALID = re.compile(r"action\.invalid_(type|arg)\.(0|-?[1-9]\d*)\.(0|-?[1-9]\d*)")


def stat_starts(actions: int, items: int, groups: int, objects: int) -> dict[str, int]:
    """Where each family of agent statistics begins."""
    sizes = {
        "items": 4 * items,
        "blocked": groups,
        "hit": groups,
        "hit_by": groups,
        "stolen": groups * items,
        "swapped": 1 + objects,
        "tracked": 0,
    }
    starts = {}
    column = cols.STAT_ACTIONS + 2 * actions
    for family, size in sizes.items():
        starts[family] = column
        column += size
    return starts


def agent_stat_names(
    resolved: Resolved,
    groups: Sequence[Resolved],
    objects: Sequence[Resolved],
    row: int,
    starts: Mapping[str, int],
    tracked: Sequence[tuple[int, int, int]],
) -> StatNames:
    """Names of the counters of an agent of the group in this row."""
    own = groups[row]["group_name"]
    names = [group["group_name"] for group in groups]
    items = resolved["inventory_item_names"]
    table: list[tuple[str, ...]] = [
        ("action.invalid_type",),
        ("action.invalid_arg",),
        ("action.failure_penalty",),
        ("status.frozen.ticks", f"status.frozen.ticks.{own}"),
        *((f"movement.direction.{direction}",) for direction in _DIRECTIONS),
        *((f"movement.rotation.to_{direction}",) for direction in _DIRECTIONS),
        ("movement.sequential_rotations",),
        (f"action.attack.{own}.friendly_fire",),
        (f"action.attack.{own}.wasted_on_frozen",),
    ]
    for action in resolved["actions"]:
        table += [(f"action.{action}.success",), (f"action.{action}.failed",)]
    for item in items:
        table += [(f"{item}.{change}",) for change in ("gained", "lost", "get", "put")]
    table += [(f"action.attack.{own}.blocked_by.{other}",) for other in names]
    table += [(f"action.attack.{own}.hit.{other}",) for other in names]
    table += [(f"action.attack.{own}.hit_by.{other}",) for other in names]
    table += [(f"action.attack.{own}.steals.{item}.from.{other}",) for other in names for item in items]
    table += [("action.swap.agent",), *((f"action.swap.{entry['type_name']}",) for entry in objects)]
    assert len(table) == starts["tracked"], "the families of agent statistics are out of step"
    table += [(invalid_name(wrong, action, arg),) for wrong, action, arg in tracked]
    return tuple(table)


def invalid_name(wrong: int, action: int, arg: int) -> str:
    """Statistic name of one particular invalid action."""
    return f"action.invalid_{'arg' if wrong else 'type'}.{action}.{arg}"


def converter_stat_names(entry: Resolved, items: Sequence[str]) -> StatNames:
    """Names of the counters of a converter of this kind."""
    table: list[tuple[str, ...]] = [
        ("conversions.started",),
        ("conversions.completed",),
        ("conversions.permanent_stop",),
        ("blocked.output_full",),
        ("blocked.insufficient_input",),
        ("cooldown.started",),
        ("cooldown.completed",),
        (f"{entry['type_name']}.produced",),
        ("[unknown -- stats tracker not initialized].consumed",),
    ]
    for item in items:
        table += [(f"{item}.{change}",) for change in ("added", "removed", "consumed", "produced")]
    return tuple(table)


def game_stat_names(objects: Sequence[Resolved]) -> StatNames:
    """Names of the counters of the world."""
    counts = [(f"objects.{entry['type_name']}",) for entry in objects]
    return (("tokens_written",), ("tokens_dropped",), ("tokens_free_space",), *counts)


def rewardable_names(resolved: Resolved) -> set[str]:
    """Every statistic of some agent of a world that `stat_rewards` can pay for."""
    entries = resolved["objects"].values()
    groups = [entry for entry in entries if entry["kind"] == "Agent"]
    objects = [entry for entry in entries if entry["kind"] != "Agent"]
    counts = len(resolved["actions"]), len(resolved["inventory_item_names"]), len(groups), len(objects)
    tracked, starts = tracked_invalid(groups), stat_starts(*counts)
    tables = [agent_stat_names(resolved, groups, objects, row, starts, tracked) for row in range(len(groups))]
    return {name for table in tables for aliases in table for name in aliases}


def tracked_invalid(groups: Sequence[Resolved]) -> list[tuple[int, int, int]]:
    """The particular invalid actions that some group's rewards name."""
    found = set()
    for name in (name for group in groups for name in group["stat_rewards"]):
        match = _INVALID.fullmatch(name)
        if match:
            action, arg = int(match[2]), int(match[3])
            if all(-(2**31) <= value < 2**31 for value in (action, arg)):
                found.add((int(match[1] == "arg"), action, arg))
    return sorted(found)
