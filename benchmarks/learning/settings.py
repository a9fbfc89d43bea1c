"""Settings by dotted name: stated on the command line, compared, told apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from metta.common.config import Config

Changes = dict[str, Any]
"""Value by dotted name: `{"ppo.gamma": 0.99}`."""

AnyConfig = TypeVar("AnyConfig", bound=Config)

UNUSED = ("checkpoint", "simulation", "profiler", "total_timesteps")
"""Settings of a `TrainerConfig` that a run of this harness does not have; its steps are stated apart."""


def parse(statements: Iterable[str]) -> Changes:
    """`["ppo.gamma=0.99"]` to `{"ppo.gamma": 0.99}`: values are JSON, and plain text where they are not.

    Raises:
        ValueError: a statement without `=`.
    """
    changes: Changes = {}
    for statement in statements:
        name, equals, text = statement.partition("=")
        if not equals or not name:
            raise ValueError(
                f"--set {statement} states no value; write NAME=VALUE, for instance ppo.gamma=0.99."
            )
        try:
            changes[name] = json.loads(text)
        except json.JSONDecodeError:
            changes[name] = text
    return changes


def changed(config: AnyConfig, changes: Mapping[str, Any], source: str) -> AnyConfig:
    """A copy of some settings with other values, which is validated.

    Args:
        config: the settings.
        changes: value by dotted name; what is None (as `vtrace` can be) comes to life when a part of it is stated.
        source: whose settings they are, for messages.

    Raises:
        ValueError: an unknown name, or values that do not fit.
    """
    values = config.model_dump()
    for name, value in changes.items():
        *above, last = name.split(".")
        if name.split(".")[0] in UNUSED:
            raise ValueError(
                f"the benchmark does not use {name}: leave it out (--steps states the steps of a run)."
            )
        place: Any = values
        for number, part in enumerate(above):
            if not isinstance(place, dict) or (part not in place and number == 0):
                raise ValueError(
                    f"the settings of {source} have no '{name}'; they have {', '.join(config.model_dump())}."
                )
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        if not isinstance(place, dict):
            raise ValueError(f"the settings of {source} have no '{name}': {'.'.join(above)} is {place!r}.")
        place[last] = value
    try:
        return type(config).model_validate(values)
    except ValidationError as error:
        raise ValueError(f"the settings of {source}: {sentence(error)}") from None


def sentence(error: ValidationError) -> str:
    """The first complaint: where, what, and the value."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}".removeprefix(": ")
    if first["type"] == "extra_forbidden":
        return f"there is no '{where}'."
    return f"{where} is {first['input']!r}: {first['msg']}."


def flat(values: Mapping[str, Any], above: str = "") -> Changes:
    """Nested settings to value by dotted name; what is empty stays a value."""
    result: Changes = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{above}{name}.")
        else:
            result[above + name] = value
    return result


def differences(base: Mapping[str, Any], other: Mapping[str, Any]) -> Changes:
    """What of `other`, a dump of settings, differs from `base`: value by dotted name, None where it is missing."""
    before, after = flat(base), flat(other)
    return {
        name: after.get(name)
        for name in sorted(before.keys() | after.keys())
        if name.split(".")[0] not in UNUSED and before.get(name) != after.get(name)
    }


def fingerprint(values: Mapping[str, Any]) -> str:
    """Eight hex digits that tell settings apart."""
    known = {name: value for name, value in flat(values).items() if name.split(".")[0] not in UNUSED}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:8]
