"""Recorded episodes: reading them, and replaying them on this engine up to the first difference."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from metta.common.reading import one_line, parse_json
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.resolve import Resolved
from metta.mettagrid.rules import RuleTable, compile_rules
from metta.mettagrid.world_config import WorldConfig, explain

JSON_ENTRIES = (
    "config",
    "action_names",
    "object_type_names",
    "inventory_item_names",
    "feature_spec",
    "grid_objects_initial",
    "grid_objects_final",
    "stats",
    "resolved_config",
)


_JSON_KINDS = {"config": dict, "action_names": list, "inventory_item_names": list}

MOST_BYTES = 2**30
"""Bytes that the arrays of a trace may take."""


class BrokenTraceError(Exception):
    """A file of the folder is not what it should be; the text says how."""


@dataclass(frozen=True)
class Difference:
    """Where an engine first departs from a trace. `step` -1 is the reset."""

    step: int | None
    agent: int | None
    field: str
    expected: Any
    got: Any

    def __str__(self) -> str:
        place = [] if self.step is None else ["at the reset" if self.step < 0 else f"step {self.step}"]
        place += [] if self.agent is None else [f"agent {self.agent}"]
        return f"{', '.join([*place, self.field])}: expected {self.expected}, got {self.got}"


class Trace:
    """One recorded episode, checked for completeness."""

    def __init__(self, path: Path) -> None:
        self.arrays = _read_arrays(path)
        self.json: dict[str, Any] = {}
        for name in JSON_ENTRIES:
            try:
                self.json[name] = parse_json(str(self[name]))
            except ValueError as error:
                raise BrokenTraceError(f"{name} is not JSON: {error}") from error
        for name, kind in _JSON_KINDS.items():
            if not isinstance(self.json[name], kind):
                raise BrokenTraceError(f"{name} is {one_line(repr(self.json[name]))}, not a {kind.__name__}")
        steps, agents = self._sizes()
        self.steps = steps
        converters = self["converter_ids"].size
        items = len(self.json["inventory_item_names"])
        tokens = self["observations"].shape[2]
        for name, shape in {
            "observations": (steps + 1, agents, tokens, 3),
            **dict.fromkeys(("rewards", "episode_rewards", "terminals", "truncations"), (steps, agents)),
            **dict.fromkeys(("action_success", "agent_order"), (steps, agents)),
            "agent_state": (steps + 1, agents, 6),
            "agent_inventory": (steps + 1, agents, items),
            "converter_state": (steps + 1, converters, 2),
            "converter_inventory": (steps + 1, converters, items),
            "agent_object_ids": (agents,),
            "converter_ids": (converters,),
            "max_action_args": (len(self.json["action_names"]),),
            "seed": (),
            "initial_grid_hash": (),
        }.items():
            if self[name].shape != shape:
                raise BrokenTraceError(
                    f"{name} has shape {self[name].shape} where {shape} would fit the other entries"
                )
        if self["map"].ndim != 2 or self["map"].dtype.kind != "U":
            raise BrokenTraceError(
                f"map is {self['map'].dtype} {self['map'].shape}, not cell names in rows and columns"
            )

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self.arrays:
            raise BrokenTraceError(f"entry {name} is missing")
        return self.arrays[name]

    def _sizes(self) -> tuple[int, int]:
        actions = self["actions"]
        if actions.ndim != 3 or actions.shape[2] != 2 or actions.dtype.kind not in "iu":
            raise BrokenTraceError(
                f"actions is {actions.dtype} {actions.shape}, not integers [steps, agents, 2]"
            )
        if self["observations"].ndim != 4:
            raise BrokenTraceError(f"observations has shape {self['observations'].shape}, not 4 dimensions")
        return actions.shape[0], actions.shape[1]


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file, of which any may be anything."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MOST_BYTES:
            raise BrokenTraceError(f"the file unpacks to {size:,} bytes, and at most {MOST_BYTES:,} are read")
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except BrokenTraceError:
        raise
    # An archive can be broken in as many ways as its reader has errors.
    except Exception as error:
        raise BrokenTraceError(f"the file cannot be read as npz: {one_line(error)}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise BrokenTraceError(f"entry {name} is no array")
        if array.dtype.kind == "U":
            letters = np.frombuffer(array.tobytes(), np.uint32)
            if letters.size and letters.max() > sys.maxunicode:
                raise BrokenTraceError(f"entry {name} holds letters that there are not")
    return arrays


def replay(trace: Trace) -> Difference | None:
    """Run this engine on a trace's config, map, seed and actions; returns the first difference.

    Raises:
        BrokenTraceError: this engine refuses the config or the map, or they do not fit the recorded arrays.
    """
    try:
        rules = compile_rules(WorldConfig.model_validate(as_ours(trace.json["config"])))
    except ValidationError as error:
        raise BrokenTraceError(
            f"the config or the map is refused: {one_line(explain(error, 'it'))}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BrokenTraceError(f"the config or the map is refused: {one_line(error)}") from error
    shape = (rules.num_agents, rules.num_tokens, 3)
    if shape != trace["observations"].shape[1:]:
        raise BrokenTraceError(
            f"observations of {trace['observations'].shape[1:]} were recorded, config says {shape}"
        )
    try:
        height, width = trace["map"].shape
        engine = GridEngine([rules], 1, max_height=max(height, 1), max_width=max(width, 1))
        engine.reset([0], [trace["map"]], [int(trace["seed"])])
        return next(_differences(trace, rules, engine), None)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BrokenTraceError(f"the config or the map is refused: {one_line(error)}") from error


def _differences(trace: Trace, rules: RuleTable, engine: GridEngine) -> Iterator[Difference]:
    yield from _compare_facts(trace, rules, engine)
    yield from _compare_tree(
        "grid_objects_initial", trace.json["grid_objects_initial"], engine.grid_objects(0), -1
    )
    yield from _compare_arrays(trace, -1, _state_arrays(engine))
    actions = trace["actions"].astype(np.int32)
    for step in range(trace.steps):
        engine.step(actions[step : step + 1])
        yield from _compare_arrays(trace, step, _step_arrays(engine))
    yield from _compare_tree(
        "grid_objects_final", trace.json["grid_objects_final"], engine.grid_objects(0), trace.steps - 1
    )
    yield from _compare_tree(
        "stats", trace.json["stats"], engine.episode_stats(0), trace.steps - 1, convert=_as_float32
    )


def _compare_facts(trace: Trace, rules: RuleTable, engine: GridEngine) -> Iterator[Difference]:
    spec = rules.spec
    features = {f.name: {"id": f.id, "normalization": f.normalization} for f in spec.features}
    for name, got in (
        ("action_names", list(spec.action_names)),
        ("object_type_names", list(spec.object_type_names)),
        ("inventory_item_names", list(spec.item_names)),
        ("feature_spec", features),
        ("resolved_config", recorded_form(rules.resolved)),
    ):
        yield from _compare_tree(name, trace.json[name], got, None)
    for name, array in (
        ("max_action_args", np.array(spec.max_action_args, np.int32)),
        ("agent_object_ids", engine.agent_object_ids(0)),
        ("converter_ids", engine.converter_ids(0)),
    ):
        yield from _compare_tree(name, trace[name].tolist(), array.tolist(), None)
    yield from _compare_tree(
        "initial_grid_hash", int(trace["initial_grid_hash"]), engine.initial_grid_hash(0), None
    )


def _state_arrays(engine: GridEngine) -> dict[str, NDArray[Any]]:
    """What is there after the reset and after every step."""
    return {
        "agent_state": engine.agent_state(0),
        "agent_inventory": engine.agent_inventory(0),
        "converter_state": engine.converter_state(0),
        "converter_inventory": engine.converter_inventory(0),
        "observations": engine.observations[0],
    }


def _step_arrays(engine: GridEngine) -> dict[str, NDArray[Any]]:
    """What a step yields and leaves, causes before effects."""
    state = _state_arrays(engine)
    observations = state.pop("observations")
    return {
        "agent_order": engine.agent_order(0),
        "action_success": engine.action_success[0],
        **state,
        "rewards": engine.rewards[0],
        "episode_rewards": engine.episode_rewards[0],
        "terminals": engine.terminals[0],
        "truncations": engine.truncations[0],
        "observations": observations,
    }


_ONE_PER_STATE = ("agent_state", "agent_inventory", "converter_state", "converter_inventory", "observations")


def _compare_arrays(trace: Trace, step: int, arrays: Mapping[str, NDArray[Any]]) -> Iterator[Difference]:
    for name, got in arrays.items():
        expected = trace[name][step + 1 if name in _ONE_PER_STATE else step]
        if got.shape != expected.shape:
            yield Difference(step, None, f"shape of {name}", expected.shape, got.shape)
            return
        if np.array_equal(got, expected):
            continue
        where = tuple(int(i) for i in np.argwhere(got != expected)[0])
        agent = None if name.startswith("converter") or name == "agent_order" else where[0]
        if name == "observations":
            token = where[:2]
            yield Difference(step, agent, f"token {where[1]}", expected[token].tolist(), got[token].tolist())
        else:
            index = where if agent is None else where[1:]
            field = name + (str(list(index)) if index else "")
            yield Difference(step, agent, field, expected[where].item(), got[where].item())


def _compare_tree(
    field: str, expected: Any, got: Any, step: int | None, convert: Callable[[Any], Any] = lambda value: value
) -> Iterator[Difference]:
    """Compare JSON-like values; keys of dicts as text, tuples as lists."""
    if isinstance(expected, dict) and isinstance(got, dict):
        named = {str(key): value for key, value in got.items()}
        for key in sorted(expected.keys() | named.keys()):
            if key not in named or key not in expected:
                there, here = ("nothing", named[key]) if key in named else (expected[key], "nothing")
                yield Difference(step, None, f"{field}.{key}", there, here)
            else:
                yield from _compare_tree(f"{field}.{key}", expected[key], named[key], step, convert)
    elif isinstance(expected, list) and isinstance(got, (list, tuple)):
        if len(expected) != len(got):
            yield Difference(step, None, f"length of {field}", len(expected), len(got))
        for i, (there, here) in enumerate(zip(expected, got, strict=False)):
            yield from _compare_tree(f"{field}[{i}]", there, here, step, convert)
    elif convert(expected) != convert(got):
        yield Difference(step, None, field, expected, got)


def _as_float32(value: Any) -> Any:
    return np.float32(value) if isinstance(value, (int, float)) else value


def recorded_form(resolved: Resolved) -> Resolved:
    """A resolved config without what only this engine keeps."""
    objects = {
        name: {key: value for key, value in entry.items() if key != "share"}
        for name, entry in resolved["objects"].items()
    }
    return {**resolved, "objects": objects}


def as_ours(config: Any) -> Any:
    """A recorded config without what we refuse and the recorded engine ignores."""
    if not isinstance(config, dict) or not isinstance(config.get("groups"), dict):
        return config
    groups = {}
    for name, group in config["groups"].items():
        if isinstance(group, dict) and isinstance(group.get("props"), dict):
            limit = group["props"].get("default_resource_limit")
            if isinstance(limit, int) and limit >= 0:
                props = {
                    key: value for key, value in group["props"].items() if key != "default_resource_limit"
                }
                group = {**group, "props": props}
        groups[name] = group
    return {**config, "groups": groups}
