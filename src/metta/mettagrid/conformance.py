"""Recorded episodes against this engine, as a command.

    python -m metta.mettagrid.conformance FOLDER [--interpreted]

The folder holds one `.npz` file per scenario (config, map, seed, actions, and everything that the recorded engine
then showed), `errors.json` with configs and maps that are to be refused or taken, and `index.json` that lists the
scenarios. Every scenario gets one line, with the first difference if there is one. Exit status: 0 if everything
matches, 1 if something differs, 2 if there is nothing to compare.

What is compared otherwise than bit for bit, because we differ on purpose:

* A group's own `default_resource_limit`, which the recorded engine ignores and we refuse, is taken out first.
* Of a refusal we compare that there is one; its message, where the recorded one is stable, has to be a part of ours;
  the wrong fields that we name have to be among the recorded ones. Where the recorded engine fails with an
  IndexError (a row of the map is too short) its message says less than ours and is not compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.resolve import Resolved
from metta.mettagrid.rules import RuleTable, compile_rules
from metta.mettagrid.world_config import WorldConfig, error_fields

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
_UNION_NAMES = (".PyConverterConfig", ".PyWallConfig")


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


@dataclass(frozen=True)
class Result:
    """The outcome of one scenario; `problem` is empty if it matches."""

    name: str
    summary: str
    problem: str = ""

    def __str__(self) -> str:
        return f"FAIL {self.name}: {self.problem}" if self.problem else f"ok   {self.name}: {self.summary}"


class Trace:
    """One recorded episode, checked for completeness."""

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as data:
                self.arrays: dict[str, NDArray[Any]] = {name: data[name] for name in data.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise BrokenTraceError(f"the file cannot be read as npz: {error}") from error
        self.json: dict[str, Any] = {}
        for name in JSON_ENTRIES:
            try:
                self.json[name] = json.loads(str(self[name]))
            except json.JSONDecodeError as error:
                raise BrokenTraceError(f"{name} is not JSON: {error}") from error
        steps, agents = self._sizes()
        self.steps = steps
        converters = len(self["converter_ids"])
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


def replay(trace: Trace) -> Difference | None:
    """Run this engine on a trace's config, map, seed and actions; returns the first difference.

    Raises:
        BrokenTraceError: this engine refuses the config or the map, or they do not fit the recorded arrays.
    """
    try:
        rules = compile_rules(WorldConfig.model_validate(as_ours(trace.json["config"])))
        height, width = trace["map"].shape
        engine = GridEngine([rules], 1, max_height=max(height, 1), max_width=max(width, 1))
        engine.reset([0], [trace["map"]], [int(trace["seed"])])
    except ValueError as error:
        raise BrokenTraceError(f"the config or the map is refused: {error}") from error
    shape = engine.observations.shape[1:]
    if shape != trace["observations"].shape[1:]:
        raise BrokenTraceError(
            f"observations of {trace['observations'].shape[1:]} were recorded, config says {shape}"
        )
    differences = _differences(trace, rules, engine)
    return next(differences, None)


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
        yield from _compare_arrays(trace, step, _state_arrays(engine))
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


def _step_arrays(engine: GridEngine) -> dict[str, NDArray[Any]]:
    """What a step yields, first causes first."""
    return {
        "agent_order": engine.agent_order(0),
        "action_success": engine.action_success[0],
        "rewards": engine.rewards[0],
        "episode_rewards": engine.episode_rewards[0],
        "terminals": engine.terminals[0],
        "truncations": engine.truncations[0],
    }


def _state_arrays(engine: GridEngine) -> dict[str, NDArray[Any]]:
    """What is there after the reset and after every step."""
    return {
        "agent_state": engine.agent_state(0),
        "agent_inventory": engine.agent_inventory(0),
        "converter_state": engine.converter_state(0),
        "converter_inventory": engine.converter_inventory(0),
        "observations": engine.observations[0],
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


def check_case(case: Mapping[str, Any]) -> str:
    """Whether a case of errors.json comes out as recorded; returns what is wrong, or nothing."""
    for key in ("name", "config", "map", "seed", "ok"):
        if key not in case:
            return f"the case has no {key}"
    try:
        rules = compile_rules(WorldConfig.model_validate(as_ours(case["config"])))
        rows = case["map"]
        engine = GridEngine(
            [rules], 1, max_height=max(len(rows), 1), max_width=max(map(len, rows), default=1) or 1
        )
        engine.reset([0], [rows], [case["seed"]])
    except ValidationError as error:
        return _compare_refusal(case, str(error), error_fields(error))
    except ValueError as error:
        return _compare_refusal(case, str(error), [])
    return "" if case["ok"] else f"expected a refusal ({_recorded_reason(case)}), got none"


def _compare_refusal(case: Mapping[str, Any], message: str, fields: list[str]) -> str:
    if case["ok"]:
        return f"expected to be taken, got: {message}"
    recorded = list(case.get("fields") or [])
    for name in _UNION_NAMES:
        recorded = [field.replace(name, "") for field in recorded]
    if recorded and (not fields or not set(fields) <= set(recorded)):
        return f"expected wrong fields {recorded}, got {fields or message}"
    text = case.get("message")
    if text and case.get("exception") != "IndexError" and text not in message:
        return f"expected the message {text!r}, got {message!r}"
    return ""


def _recorded_reason(case: Mapping[str, Any]) -> str:
    return str(case.get("message") or case.get("fields") or case.get("exception"))


def check_folder(folder: Path) -> Iterator[Result]:
    """The outcome of every scenario of a folder, then of every case of its errors.json."""
    index = _read_list(folder / "index.json")
    listed: dict[str, dict[str, Any]] = {}
    if isinstance(index, str):
        yield Result("index.json", "", index)
    else:
        for i, entry in enumerate(index):
            if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
                yield Result("index.json", "", f"entry {i} names no file")
            else:
                listed[entry["file"]] = entry
    for name in sorted({*listed, *(path.name for path in folder.glob("*.npz"))}):
        yield _check_trace(folder / name, listed.get(name))
    cases = _read_list(folder / "errors.json")
    if isinstance(cases, str):
        yield Result("errors.json", "", cases)
        return
    for i, case in enumerate(cases):
        if not isinstance(case, dict):
            yield Result(f"errors.json[{i}]", "", "the case is not a JSON object")
            continue
        yield Result(
            f"errors.json/{case.get('name', i)}",
            "refused" if not case.get("ok") else "taken",
            check_case(case),
        )


def _check_trace(path: Path, entry: Mapping[str, Any] | None) -> Result:
    if not path.is_file():
        return Result(path.stem, "", f"index.json lists {path.name}, but there is no such file")
    try:
        trace = Trace(path)
        digest = hashlib.sha256(np.ascontiguousarray(trace["observations"]).tobytes()).hexdigest()
        if entry is not None and entry.get("sha256_observations", digest) != digest:
            return Result(
                path.stem, "", "the file's observations do not have the sha256 that index.json gives"
            )
        difference = replay(trace)
    except BrokenTraceError as error:
        return Result(path.stem, "", str(error))
    agents = trace["actions"].shape[1]
    return Result(
        path.stem, f"{trace.steps} steps, {agents} agents", "" if difference is None else str(difference)
    )


def _read_list(path: Path) -> list[Any] | str:
    """The JSON list in a file, or what is wrong with the file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "the file is missing"
    except (OSError, ValueError) as error:
        return f"the file cannot be read as JSON: {error}"
    return data if isinstance(data, list) else f"the file holds a {type(data).__name__}, not a list"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m metta.mettagrid.conformance",
        description="Replay recorded episodes and compare everything.",
    )
    parser.add_argument("folder", type=Path, help="folder of traces, with index.json and errors.json")
    parser.add_argument(
        "--interpreted", action="store_true", help="run the engine as plain Python, uncompiled"
    )
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        print(f"{options.folder} is no folder: give the folder that holds the traces.", file=sys.stderr)
        return 2
    if options.interpreted:
        command = [sys.executable, "-m", "metta.mettagrid.conformance", str(options.folder)]
        return subprocess.run(command, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, check=False).returncode
    failed = total = traces = 0
    for result in check_folder(options.folder):
        print(result, flush=True)
        total += 1
        traces += not result.name.endswith(".json") and not result.name.startswith("errors.json")
        failed += bool(result.problem)
    if traces == 0:
        print(f"{options.folder} holds no traces (*.npz): there is nothing to compare.", file=sys.stderr)
        return 2
    print(f"{total - failed} of {total} match" if failed else f"all {total} match")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
