"""Replay files: what happened in one episode, step by step, as zlib-compressed JSON (`.json.z`).

Format, version 2. The file is one JSON object:

    version          2
    file_name        a label for people
    num_agents       agents in the world
    max_steps        the last recorded step; states exist for the steps 0 (after reset) .. max_steps
    episode_limit    the step at which the rules end the episode, 0 = never
    map_size         [width, height] in cells
    view_size        [width, height] of an agent's observation window, absent when unknown
    type_names, action_names, item_names, group_names    name by id, "" where an id is unused
    reward_sharing   share of its reward that an agent of each group gives to its group, by group id
    objects          one entry per object, ordered by id

Every field of an object is a constant, or, if it changes, a series `[[step, value], ...]` that starts at
step 0 and lists the steps at which it takes a new value. Fields in `LIST_FIELDS` hold lists as values
(`[a, b]` pairs or a list of them), so theirs is a series exactly if the second part of each entry is a list.

    every object     id, type_id, position [column, row], layer, rotation (0 up, 1 down, 2 left, 3 right),
                     inventory [[item id, count], ...] (zero entries included), color
    agents           agent_id, group_id, action_id (-1 at step 0), action_parameter, action_success,
                     current_reward, total_reward, frozen, frozen_progress (steps still to wait),
                     frozen_time (steps that an attack freezes it for), glyph,
                     inventory_limits [[item, most], ...]
    converters       is_converting, is_cooling_down, conversion_duration and cooldown_duration (steps),
                     input_resources and output_resources [[item, amount], ...], output_limit (-1 = none)
    swappable walls  is_swappable

The action at step t is the one that led to the state at step t, and so are its success and reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metta.common.reading import inflate, one_line, parse_json, read_bytes

REPLAY_VERSION = 2

MOST_BYTES = 2**28
"""Bytes that a replay may have, packed or not: an hour of it takes a fraction of that."""

MOST_STEPS = 10**6
"""Steps that a replay may have."""

LIST_FIELDS = frozenset({"position", "inventory", "inventory_limits", "input_resources", "output_resources"})
"""Object fields whose values are lists."""

_CONSTANTS: dict[str, type] = {
    "num_agents": int,
    "max_steps": int,
    "map_size": list,
    "type_names": list,
    "action_names": list,
    "item_names": list,
    "group_names": list,
    "objects": list,
}


def collapse(changes: Sequence[list[Any]]) -> Any:
    """The stored form of change points `[step, value]`: the value itself where there is only the first."""
    return changes[0][1] if len(changes) == 1 else list(changes)


def is_series(name: str, stored: Any) -> bool:
    """Whether the stored form of the field `name` is a list of change points rather than a constant."""
    if not isinstance(stored, list) or not stored:
        return False
    if name not in LIST_FIELDS:
        return True
    return all(isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], list) for entry in stored)


def decode_series(name: str, stored: Any, num_steps: int) -> list[Any]:
    """The values of a field at steps 0 .. num_steps.

    Args:
        name: the field's name, which says whether its values are lists.
        stored: a constant or change points.
        num_steps: the last step wanted.
    """
    if not is_series(name, stored):
        return [stored] * (num_steps + 1)
    values: list[Any] = []
    for (_, value), (following, _) in zip(stored, [*stored[1:], [num_steps + 1, None]], strict=True):
        values.extend([value] * (following - len(values)))
    return values[: num_steps + 1]


@dataclass
class Replay:
    """A replay in memory.

    Attributes:
        data: the JSON object that the file holds, as the module's description lists it.
    """

    data: dict[str, Any]

    @property
    def num_agents(self) -> int:
        """Agents in the world."""
        return int(self.data["num_agents"])

    @property
    def num_steps(self) -> int:
        """The last recorded step."""
        return int(self.data["max_steps"])

    @property
    def map_size(self) -> tuple[int, int]:
        """Width and height in cells."""
        width, height = self.data["map_size"]
        return int(width), int(height)

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The stored objects, ordered by id."""
        objects: list[dict[str, Any]] = self.data["objects"]
        return objects

    @property
    def agents(self) -> list[dict[str, Any]]:
        """The stored objects that are agents, ordered by agent id."""
        return sorted((o for o in self.objects if "agent_id" in o), key=lambda o: int(o["agent_id"]))

    def series(self, entry: Mapping[str, Any], name: str) -> list[Any]:
        """The values of one object's field at steps 0 .. num_steps.

        Args:
            entry: one of `objects`.
            name: a field that this object has.
        """
        return decode_series(name, entry[name], self.num_steps)


def read_replay(path: str | Path) -> Replay:
    """Read a replay file and check that it is one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another kind; the sentence says what is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no replay file {path}.")
    try:
        data = parse_json(inflate(read_bytes(path, MOST_BYTES), MOST_BYTES), deepest=None)
    except ValueError as error:
        raise ValueError(f"{path} is no replay: {error}.") from None
    problem = find_problem(data)
    if problem is not None:
        raise ValueError(f"{path} is no replay that can be read: {problem}.")
    return Replay(data)


def find_problem(data: Any) -> str | None:
    """What is wrong with the content of a replay file, None if nothing is.

    Args:
        data: decoded JSON.
    """
    if not isinstance(data, dict) or "version" not in data:
        return "it has no version"
    if data["version"] != REPLAY_VERSION:
        return f"its version is {data['version']!r:.40}, and only {REPLAY_VERSION} is known"
    for name, kind in _CONSTANTS.items():
        if not isinstance(data.get(name), kind):
            return f"{name} should be {_KIND_NAMES[kind]} but is {data.get(name)!r:.40}"
    if not 0 <= data["max_steps"] <= MOST_STEPS:
        return f"max_steps is {one_line(data['max_steps'])}, and a replay has 0 to {MOST_STEPS} steps"
    size = data["map_size"]
    if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        return f"map_size should be [width, height] but is {one_line(size)}"
    for index, entry in enumerate(data["objects"]):
        problem = _find_object_problem(entry, data)
        if problem is not None:
            return f"object number {index} {problem}"
    found = sorted(entry["agent_id"] for entry in data["objects"] if "agent_id" in entry)
    if len(found) != data["num_agents"] or found != list(range(len(found))):
        return f"it names {data['num_agents']} agents but holds the agents {one_line(found)}"
    return None


_KIND_NAMES: dict[type, str] = {int: "a whole number", list: "a list"}

_REQUIRED = ("id", "type_id", "position", "layer", "rotation", "inventory", "color")
_REQUIRED_OF_AGENTS = (
    "group_id",
    "action_id",
    "action_parameter",
    "action_success",
    "current_reward",
    "total_reward",
    "frozen",
    "frozen_progress",
    "frozen_time",
)
_NEVER_CHANGE = ("id", "type_id", "layer", "agent_id", "group_id")


def _find_object_problem(entry: Any, data: Mapping[str, Any]) -> str | None:
    if not isinstance(entry, dict):
        return "is not a JSON object"
    for name in (*_REQUIRED, *(_REQUIRED_OF_AGENTS if "agent_id" in entry else ())):
        if name not in entry:
            return f"has no {name}"
    for name in _NEVER_CHANGE:
        if name in entry and not isinstance(entry[name], int):
            return f"has the {name} {entry[name]!r:.40}, which should be a whole number"
    if not 0 <= entry["type_id"] < len(data["type_names"]):
        return f"has the type id {entry['type_id']}, but there are {len(data['type_names'])} type names"
    for name, stored in entry.items():
        if not is_series(name, stored):
            continue
        points = all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], int) for p in stored)
        steps = [p[0] for p in stored] if points else []
        if not points or steps[0] != 0 or steps != sorted(set(steps)) or steps[-1] > data["max_steps"]:
            return f"has a damaged series in {name}"
    return None
