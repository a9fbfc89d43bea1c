"""Single values of an environment by dotted path, for buckets of a curriculum and for files."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import BaseModel, ValidationError

from metta.mettagrid.config import SHARED_FIELDS, EnvConfig
from metta.mettagrid.world_config import explain

DOTTED_KEYS = "stat_rewards"
"""The one mapping whose keys may have dots in them."""


def with_values(config: EnvConfig, values: Mapping[str, Any]) -> EnvConfig:
    """A copy of an environment with some values replaced.

    Args:
        config: the environment.
        values: dotted path to value, set in this order, for instance `{"game.max_steps": 50, "objects.altar.cooldown": 3,
            "map_builder.room.objects.altar": (2, 5)}`. Objects go by their `name`, actions by their `key`. Where a path changes
            the size of the map or its agents, the game follows, and the other way round.

    Raises:
        ValueError: a path leads nowhere, or the result is no valid environment.
    """
    stated, complete = config.model_dump(exclude_unset=True), config.model_dump()
    for path, value in values.items():
        _set(stated, complete, path, value)
        for in_game, in_builder in SHARED_FIELDS:
            if path == f"game.{in_game}":
                builder = stated.get("map_builder", {})
                (builder.get("room", builder) if in_game == "num_agents" else builder).pop(in_builder, None)
    try:
        if any(path.startswith("map_builder") for path in values):
            explicit = [in_game for in_game, _ in SHARED_FIELDS if f"game.{in_game}" in values]
            config.follow(stated.setdefault("game", {}), stated["map_builder"], explicit)
        return EnvConfig.model_validate(stated)
    except ValidationError as error:
        raise ValueError(explain(error, "the changed environment")) from None


def _set(stated: Any, complete: Any, path: str, value: Any) -> None:
    """Set one value, both where the environment states things and where its defaults are filled in."""
    parts = _parts(path)
    for place, part in enumerate(parts[:-1]):
        key = _key(complete, part, parts[:place])
        if isinstance(stated, dict) and key not in stated:
            # Game and map fill themselves up; a list or a mapping of values is taken over as it is.
            stated[key] = {} if key in ("game", "map_builder") else deepcopy(complete[key])
        stated, complete = stated[key], complete[key]
        if not isinstance(complete, dict | list):
            where = ".".join(parts[: place + 1])
            raise ValueError(
                f"{where} is {complete!r} and has no '{parts[place + 1]}'; set {where} as a whole."
            )
    last = _key(complete, parts[-1], parts[:-1]) if isinstance(complete, list) else parts[-1]
    typed = isinstance(value, BaseModel)
    stated[last] = value.model_dump(exclude_unset=True) if typed else deepcopy(value)
    complete[last] = value.model_dump() if typed else deepcopy(value)


def _parts(path: str) -> list[str]:
    parts = path.split(".")
    if DOTTED_KEYS not in parts[:-1]:
        return parts
    end = parts.index(DOTTED_KEYS) + 1
    return [*parts[:end], ".".join(parts[end:])]


def _key(entries: Any, part: str, above: list[str]) -> Any:
    """The key of a part of a path; in a list, the place of the entry of that name."""
    where = ".".join(above) or "an environment"
    names = (
        [entry.get("name", entry.get("key")) for entry in entries]
        if isinstance(entries, list)
        else [*entries]
    )
    if part not in names:
        raise ValueError(f"{where} has no '{part}'; it has {', '.join(map(str, names))}.")
    return names.index(part) if isinstance(entries, list) else part
