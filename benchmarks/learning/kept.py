"""What is kept of runs, in docs/learning.json: enough to write the page anew without their logs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.learning.runs import finite, read_log
from benchmarks.learning.settings import Changes, differences, fingerprint
from benchmarks.learning.tasks import ITEMS, TASKS, USUAL, settings_of
from metta.common.config import Config

POINTS = 40
"""Points that are kept of a curve, at most."""

HEADER: tuple[str, ...] = (
    *("task", "learner", "seed", "steps", "env", "own_env", "changes", "note"),
    *("weights", "threads", "commit", "started", "versions"),
)

Run = dict[str, Any]
Kept = dict[str, Any]
"""`runs` by name, and `settings`, all of them, by fingerprint."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds only.

    Attributes:
        task: name.
        learner: name.
        steps: agent steps of each.
        env: where they were trained; "" for the world that is the task's own now.
        threads: torch's threads.
        settings: all of them.
        changes: where they differed from what was usual when the first of them began.
        standing: whether the settings are what is usual for the task now.
        runs: in the order of their seeds.
    """

    task: str
    learner: str
    steps: int
    env: str
    threads: int
    settings: Mapping[str, Any]
    changes: Changes
    standing: bool
    runs: tuple[Run, ...]

    def after(self, what: str) -> list[float]:
        """Of each run after training: `score`, or a statistic."""
        return [
            run["after"]["score"] if what == "score" else run["after"]["stats"].get(what, 0.0)
            for run in self.runs
        ]


def keep(log: Mapping[str, Any]) -> Run:
    """What is kept of a complete log, with four digits."""
    before, after = log["evaluation"]
    end = log["end"]
    rows = [row for row in log["row"] if row["score"] is not None]
    curve: dict[str, list[float]] = {"steps": [], "seconds": [], "cpu_seconds": [], "score": []}
    curve |= {f"{item}.gained": [] for item in ITEMS}
    for part in parts(rows, POINTS):
        weights = [row["episodes"] for row in part]
        for name, values in curve.items():
            if name in part[-1]:
                points = [row[name] for row in part]
            else:
                points = [row["stats"].get(name, 0.0) for row in part]
            if name in ("steps", "seconds", "cpu_seconds"):
                values.append(points[-1])
            else:
                values.append(sum(p * w for p, w in zip(points, weights, strict=True)) / sum(weights))
    run: Run = {name: log["header"][name] for name in HEADER}
    run |= {"settings": fingerprint(log["header"]["settings"]), "before": before, "after": after}
    run |= {"seconds": end["seconds"], "cpu_seconds": end["cpu_seconds"], "curve": curve}
    rounded: Run = finite(run, 4)
    return rounded


def parts(rows: list[Any], number: int) -> list[list[Any]]:
    """The rows in so many stretches, as even as can be; fewer where there are fewer rows."""
    number = min(number, len(rows))
    borders = [round(i * len(rows) / number) for i in range(number + 1)] if number else [0]
    return [rows[low:high] for low, high in pairwise(borders)]


def gather(folder: Path, kept: Kept) -> tuple[Kept, list[str]]:
    """Add the complete runs of a folder, and of those in it, to those kept.

    Returns:
        All of them, and a sentence about each run that is not complete.

    Raises:
        ValueError: a file of the folder is no log.
        FileNotFoundError: there are none.
    """
    files = sorted(folder.rglob("*-seed*.jsonl"))
    if not files:
        raise FileNotFoundError(f"{folder} has no logs; make some with `run --folder {folder}`.")
    result: Kept = {"runs": dict(kept["runs"]), "settings": dict(kept["settings"])}
    incomplete = []
    for file in files:
        log = read_log(file)
        if log["end"] is None:
            at = log["row"][-1]["steps"] if log["row"] else 0
            incomplete.append(f"{file.stem} stands at {at:,} of {log['header']['steps']:,} steps")
            continue
        run = keep(log)
        result["runs"][file.stem] = run
        result["settings"][run["settings"]] = log["header"]["settings"]
    return result, incomplete


def load(file: Path) -> Kept:
    """What was kept; nothing where there is no file."""
    if not file.exists():
        return {"runs": {}, "settings": {}}
    kept: Kept = json.loads(file.read_text())
    return kept


def save(file: Path, kept: Kept) -> None:
    """Write it, a run in a line."""
    runs = [f"  {json.dumps(name)}: {json.dumps(run)}" for name, run in sorted(kept["runs"].items())]
    used = {run["settings"] for run in kept["runs"].values()}
    settings = [f"  {json.dumps(name)}: {json.dumps(kept['settings'][name])}" for name in sorted(used)]
    lines = ["{", ' "runs": {', ",\n".join(runs), " },", ' "settings": {', ",\n".join(settings), " }", "}"]
    file.write_text("\n".join(line for line in lines if line) + "\n")


def groups(kept: Kept) -> list[Group]:
    """The runs by what they have in common, in the order in which the first of each began."""
    found: dict[tuple[str, str, int, str, int, str], list[Run]] = {}
    for run in sorted(kept["runs"].values(), key=lambda run: str(run["started"])):
        at_home = run["own_env"] and run["task"] in TASKS and run["env"] == TASKS[run["task"]].env
        env = "" if at_home else run["env"]
        key = (run["task"], run["learner"], run["steps"], env, run["threads"], run["settings"])
        found.setdefault(key, []).append(run)
    result = []
    for (task, learner, steps, env, threads, mark), runs in found.items():
        settings = kept["settings"][mark]
        standing = is_standing(task, learner, settings)
        own = (settings, runs[0]["changes"], standing, tuple(latest(runs)))
        result.append(Group(task, learner, steps, env, threads, *own))
    return result


def latest(runs: Iterable[Run]) -> list[Run]:
    """The last run of each seed, by seed: a run that is repeated takes the place of the old one."""
    by_seed = {run["seed"]: run for run in runs}
    return [by_seed[seed] for seed in sorted(by_seed)]


def is_standing(task: str, learner: str, settings: Mapping[str, Any]) -> bool:
    """Whether a dump of settings says what is usual for a task now; settings that came later count as left alone."""
    if task not in TASKS or learner not in USUAL:
        return False
    usual = settings_of(TASKS[task], learner)
    kind: type[Config] = type(usual)
    try:
        then = kind.model_validate(dict(settings))
    except ValueError:
        return False
    return not differences(usual.model_dump(mode="json"), then.model_dump(mode="json"))
