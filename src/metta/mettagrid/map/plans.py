"""Which maps the engine can draw by itself, and how: tables for `engine.maps`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.engine.maps import PLAN_COLUMNS, ROOM_COLUMNS, THING_COLUMNS, Plans
from metta.mettagrid.map.config import MapBuilderConfig, MapConfig, RoomsConfig
from metta.mettagrid.map.kinds import most

Plan = dict[str, NDArray[np.int32]]
"""Tables of one map, without the leading index; see `Plans`."""


def no_plans() -> Plans:
    """Tables of no maps."""
    return stack_plans([])


def make_plan(config: MapConfig, codes: Mapping[str, int], agents: Sequence[int]) -> Plan | None:
    """How to draw a map as `build_map` would, number for number.

    Args:
        config: the map.
        codes: cell name to code.
        agents: code of each agent.

    Returns:
        its tables; None if it is not scattered, or not drawn anew for every episode, or too small for its things.
    """
    if isinstance(config, RoomsConfig):
        room = config.room
        corners = [
            (
                config.border_width + place // config.columns * (room.height + config.gap),
                config.border_width + place % config.columns * (room.width + config.gap),
            )
            for place in range(config.num_rooms)
        ]
    else:
        room, corners = config, [(0, 0)]
    if not isinstance(room, MapBuilderConfig) or room.type != "Random":
        return None
    if config.seed is not None or room.seed is not None:
        return None
    share, border = room.num_agents, room.border_width
    if most(room.objects) + share > room.inner_width * room.inner_height:
        return None
    wall = codes.get("wall", 0)
    rooms: list[tuple[int, ...]] = []
    things: list[tuple[int, int, int]] = []
    for place, (top, left) in enumerate(corners):
        first = len(things)
        for name, count in room.objects.items():
            least, largest = (count, count) if isinstance(count, int) else count
            things.append((codes[name], least, largest))
        there = Counter(agents[place * share : (place + 1) * share])
        things += [(code, count, count) for code, count in there.items()]
        inside = (top + border, left + border, room.inner_height, room.inner_width)
        rooms.append((*inside, first, len(things) - first))
    return {
        "sizes": np.array([config.height, config.width, wall, len(rooms)], np.int32),
        "rooms": np.array(rooms, np.int32).reshape(-1, ROOM_COLUMNS),
        "things": np.array(things, np.int32).reshape(-1, THING_COLUMNS),
    }


def stack_plans(plans: Sequence[Plan]) -> Plans:
    """Tables of several maps in one, smaller ones padded."""
    tables: dict[str, Any] = {"sizes": np.zeros((max(len(plans), 1), PLAN_COLUMNS), np.int32)}
    for name, columns in (("rooms", ROOM_COLUMNS), ("things", THING_COLUMNS)):
        rows = max((len(plan[name]) for plan in plans), default=0)
        tables[name] = np.zeros((max(len(plans), 1), max(rows, 1), columns), np.int32)
    for place, plan in enumerate(plans):
        tables["sizes"][place] = plan["sizes"]
        for name in ("rooms", "things"):
            tables[name][place, : len(plan[name])] = plan[name]
    return Plans(**tables)


def most_of_codes(plan: Plan, codes: Sequence[int]) -> int:
    """The most things with these codes that a map can have."""
    things = plan["things"]
    return int(things[np.isin(things[:, 0], codes), 2].sum())
