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
  IndexError (a row of the map is too short) its message says less than ours and is not compared; nor is the advice
  that follows on consumed items that do not exist.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.rules import compile_rules
from metta.mettagrid.traces import BrokenTraceError, Trace, as_ours, replay
from metta.mettagrid.world_config import WorldConfig, error_fields

_BEFORE_ADVICE = "that are not in inventory_item_names"
_UNION_NAMES = (".PyConverterConfig", ".PyWallConfig")


@dataclass(frozen=True)
class Result:
    """The outcome of one scenario; `problem` is empty if it matches."""

    name: str
    summary: str
    problem: str = ""

    def __str__(self) -> str:
        return f"FAIL {self.name}: {self.problem}" if self.problem else f"ok   {self.name}: {self.summary}"


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
    except (TypeError, AttributeError) as error:
        return f"the case is not laid out like one: {type(error).__name__}: {error}"
    return "" if case["ok"] else f"expected a refusal ({_recorded_reason(case)}), got none"


def _compare_refusal(case: Mapping[str, Any], message: str, fields: list[str]) -> str:
    if case["ok"]:
        return f"expected to be taken, got: {message}"
    recorded = list(case.get("fields") or [])
    for name in _UNION_NAMES:
        recorded = [field.replace(name, "") for field in recorded]
    if recorded and (not fields or not set(fields) <= set(recorded)):
        return f"expected wrong fields {recorded}, got {fields or message}"
    text = str(case.get("message") or "")
    fact, found, _ = text.partition(_BEFORE_ADVICE)
    if case.get("exception") != "IndexError" and fact + found not in message:
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
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        return Result(
            path.stem, "", f"the file is not laid out like a trace: {type(error).__name__}: {error}"
        )
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
