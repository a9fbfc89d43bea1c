"""Every option of the library, read from its schema, and what a probe of one is.

An option is a field of a configuration class that leaves a choice. The classes are those that `metta.api` exports and all
that their fields hold. A new class or a new field is an option by itself, and without a probe the suite fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest

import metta.api
from metta.common.config import Config

Kind = type[Config]


@dataclass(frozen=True)
class Refused:
    """A value that cannot hold here: the component says so, in a sentence that matches."""

    value: Any
    sentence: str


@dataclass(frozen=True)
class Other:
    """Values of a field that each make a difference, over a base in which they can.

    Args:
        values: none of them the base's. A choice has to be gone through: every literal, both truths, None and not None.
        base: fields that the probe's base needs besides.
        sees: in the place of the probe's.
    """

    values: tuple[Any, ...]
    base: Mapping[str, Any] = field(default_factory=dict)
    sees: tuple[Callable[[Any], Any], ...] = ()


def other(*values: Any, **base: Any) -> Other:
    return Other(values, base)


@dataclass(frozen=True)
class Probe:
    """How the fields of one class are shown to matter.

    Args:
        sees: each takes a configuration to the real component, lets it work, and gives what came of it, comparable with
            `==`. A field has to show in every one of them.
        base: fields that all probes of the class share.
        others: for every field other values, over which base.
    """

    sees: tuple[Callable[[Any], Any], ...]
    others: Mapping[str, Other]
    base: Mapping[str, Any] = field(default_factory=dict)


def parts(annotation: Any) -> Iterator[Any]:
    """A type and everything that it is made of."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for argument in get_args(annotation):
            yield from parts(argument)


def config_classes(exported: Any = metta.api) -> list[Kind]:
    """All configuration classes: those exported, and those found in their fields."""
    found: list[Kind] = []
    waiting = [
        thing
        for thing in vars(exported).values()
        if inspect.isclass(thing) and issubclass(thing, Config) and thing is not Config
    ]
    while waiting:
        kind = waiting.pop(0)
        if kind not in found:
            found.append(kind)
            for info in kind.model_fields.values():
                held = (part for part in parts(info.annotation) if inspect.isclass(part))
                waiting += [part for part in held if issubclass(part, Config)]
    return sorted(found, key=lambda kind: kind.__name__)


def choices(kind: Kind, name: str) -> set[Any] | None:
    """The values that a field can have, where they are few and known; None stands for any that is not None."""
    annotation = kind.model_fields[name].annotation
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    if annotation is bool:
        return {False, True}
    if get_origin(annotation) in (Union, UnionType):
        literals = [set(get_args(part)) for part in get_args(annotation) if get_origin(part) is Literal]
        if NoneType in get_args(annotation):
            literals.append({None})
        return set.union(*literals) if literals else None
    return None


def options(kinds: list[Kind]) -> list[tuple[Kind, str]]:
    """Every field that leaves a choice: a literal of one value, which tells kinds apart, leaves none."""
    return [
        (kind, name)
        for kind in kinds
        for name in kind.model_fields
        if (known := choices(kind, name)) is None or len(known) > 1 or None in known
    ]


def complaints(probes: Mapping[Kind, Probe], kinds: list[Kind]) -> list[str]:
    """What is missing among the probes, and what is there too much: one sentence each."""
    wanted = options(kinds)
    said = [
        f"{kind.__name__}.{name} has no probe: add to tests/options a value that changes what the component does."
        for kind, name in wanted
        if kind not in probes or name not in probes[kind].others
    ]
    for kind, probe in probes.items():
        for name in probe.others:
            if (kind, name) not in wanted:
                said.append(
                    f"{kind.__name__}.{name} is probed but is no option (any more): remove its probe."
                )
    return said


class Watch:
    """Remembers what was seen of a configuration, and looks a second time where that is asked for."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Any, ...], Any] = {}

    def look(self, see: Callable[[Any], Any], config: Config, time: int = 1) -> Any:
        key = see, type(config), config.model_dump_json(), time
        if key not in self._seen:
            self._seen[key] = see(config)
        return self._seen[key]


def check(kind: Kind, name: str, probe: Probe, watch: Watch) -> None:
    """Show that a field matters.

    Raises:
        AssertionError: it does not, or the probe shows nothing; the sentence says which.
    """
    title = f"{kind.__name__}.{name}"
    case = probe.others[name]
    base = {**probe.base, **case.base}
    plain = kind(**base)
    values = [getattr(plain, name), *(v.value if isinstance(v, Refused) else v for v in case.values)]
    known = choices(kind, name) or set()
    left = known - {value for value in values if value is None or isinstance(value, bool | int | str)}
    assert not left, f"{title} can also be {left}: probe every choice."
    assert None not in known or any(value is not None for value in values), f"{title} is only probed as None."
    for see in case.sees or probe.sees:
        seen = [watch.look(see, plain)]
        again = watch.look(see, plain, time=2)
        assert again == seen[0], f"{title}: the same twice is not the same, so a change proves nothing."
        for value in case.values:
            if isinstance(value, Refused):
                with pytest.raises(ValueError, match=value.sentence):
                    see(kind(**{**base, name: value.value}))
                continue
            now = watch.look(see, kind(**{**base, name: value}))
            assert now not in seen, f"{title} = {value!r} changes nothing that {see.__name__} can see."
            seen.append(now)
