"""One run: a learner on a task, and its log.

A log is a file of JSON lines. The first, `header`, says what was run; `evaluation`s are whole episodes on fresh maps, before and
after training; a `row` follows after every so many agent steps; the last, `end`, says that the run is complete.
"""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks.learning.learners import LEARNERS, Learner
from benchmarks.learning.settings import Changes, differences, fingerprint
from benchmarks.learning.tasks import TASKS, settings_of
from metta.api import VecEnv, make_curriculum
from metta.mettagrid.outcomes import EpisodeOutcome
from metta.sim.simulation import run_episodes, summarize

ROW_STEPS = 50_000
"""Agent steps from one row of a log to the next, about."""

CHANGES_OF_ITEMS = ("gained", "lost", "get", "put")
LOSSES = (
    "entropy",
    "approx_kl",
    "clipfrac",
    "explained_variance",
    "value_loss",
    "grad_norm",
    "learning_rate",
)


def record_run(
    task_name: str,
    learner_name: str,
    *,
    seed: int = 0,
    steps: int | None = None,
    changes: Changes | None = None,
    env: str | None = None,
    threads: int = 1,
    folder: Path = Path("runs/learning"),
    note: str = "",
    eval_episodes: int | None = None,
    row_steps: int = ROW_STEPS,
) -> Path:
    """Train a learner on a task, and judge it before and after.

    Args:
        task_name: of `TASKS`.
        learner_name: of `LEARNERS`.
        seed: decides weights, maps and actions.
        steps: agent steps; None: the task's.
        changes: settings by dotted name that differ from the task's.
        env: registered name of another world or a curriculum to train in; the task's own judges all the same.
        threads: torch's threads.
        folder: of the logs.
        note: what the run is for.
        eval_episodes: None: the task's.
        row_steps: agent steps from one row to the next.

    Returns:
        The log.

    Raises:
        ValueError: an unknown name, or settings that do not fit.
    """
    if task_name not in TASKS:
        raise ValueError(f"task is '{task_name}'; it is one of {', '.join(TASKS)}.")
    task = TASKS[task_name]
    settings = settings_of(task, learner_name, changes)
    if learner_name not in LEARNERS:
        raise ValueError(f"learner is '{learner_name}'; it is one of {', '.join(LEARNERS)}.")
    steps, eval_episodes = steps or task.steps, eval_episodes or task.eval_episodes
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    learner = LEARNERS[learner_name](env or task.env, settings, steps, seed)
    dump = settings.model_dump(mode="json")
    started = datetime.now(UTC)
    name = f"{task_name}-{learner_name}-{fingerprint(dump)}-seed{seed}-{started:%m%d-%H%M%S-%f}"
    header = {
        "task": task_name,
        "learner": learner_name,
        "seed": seed,
        "steps": steps,
        "env": env or task.env,
        "own_env": env is None,
        "changes": differences(settings_of(task, learner_name).model_dump(mode="json"), dump),
        "note": note,
        "settings": dump,
        "weights": learner.num_weights(),
        "threads": threads,
        "commit": commit(),
        "started": started.isoformat(timespec="seconds"),
        "versions": versions(learner_name),
        "command": sys.argv,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    judges = VecEnv(make_curriculum(task.env), 1, seed=0)
    try:
        with path.open("x") as file:
            write(file, "header", header)
            write(file, "evaluation", {"steps": 0, **judge(learner, judges, eval_episodes)})
            last = train(learner, steps, row_steps, file)
            write(file, "evaluation", {"steps": last["steps"], **judge(learner, judges, eval_episodes)})
            write(file, "end", last)
    finally:
        judges.close()
        learner.close()
    return path


def train(learner: Learner, steps: int, row_steps: int, file: TextIO) -> dict[str, float]:
    """Train, and write a row after every `row_steps`; gives steps and seconds in all."""
    agent_step, due, before = 0, row_steps, 0
    seconds = cpu_seconds = spent = 0.0
    episodes: list[EpisodeOutcome] = []
    while agent_step < steps:
        wall, cpu = time.perf_counter(), time.process_time()
        progress = learner.advance()
        spent += time.perf_counter() - wall
        seconds += time.perf_counter() - wall
        cpu_seconds += time.process_time() - cpu
        agent_step += progress.steps
        episodes += progress.episodes
        if agent_step >= due or agent_step >= steps:
            row: dict[str, Any] = {"steps": agent_step, "seconds": seconds, "cpu_seconds": cpu_seconds}
            row |= {"steps_per_s": (agent_step - before) / spent, **gains(episodes)}
            row["losses"] = {name: progress.losses[name] for name in LOSSES if name in progress.losses}
            write(file, "row", row)
            tell(row)
            before, spent, episodes = agent_step, 0.0, []
            due = agent_step // row_steps * row_steps + row_steps
    return {"steps": agent_step, "seconds": seconds, "cpu_seconds": cpu_seconds}


def gains(episodes: Sequence[EpisodeOutcome]) -> dict[str, Any]:
    """Score and what agents did with items, per agent and episode; None where no episode ended."""
    if not episodes:
        return {"episodes": 0, "score": None, "stats": None}
    result = summarize(episodes)
    stats = {
        name: value
        for name, value in result.stats.items()
        if name.count(".") == 1 and name.split(".")[1] in CHANGES_OF_ITEMS
    }
    return {"episodes": len(episodes), "score": result.mean_reward, "stats": stats}


def judge(learner: Learner, worlds: VecEnv, num_episodes: int) -> dict[str, Any]:
    """Whole episodes on fresh maps, the same for every learner."""
    episodes = run_episodes(learner.policy(), worlds, num_episodes)
    return gains(episodes) | {"half_interval": summarize(episodes).half_interval}


def write(file: TextIO, kind: str, values: Mapping[str, Any]) -> None:
    """A line of the log; what is no number becomes null."""
    file.write(json.dumps({"kind": kind, **finite(values)}, allow_nan=False) + "\n")
    file.flush()


def finite(value: Any, digits: int = 6) -> Any:
    """The same with None for what is not finite, and so many digits."""
    if isinstance(value, Mapping):
        return {name: finite(inner, digits) for name, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner, digits) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def tell(row: Mapping[str, Any]) -> None:
    """A row as a line for people."""
    stats = row["stats"] or {}
    score = "   -  " if row["score"] is None else f"{row['score']:6.2f}"
    items = "  ".join(f"{name} {stats[name]:.3f}" for name in sorted(stats) if name.endswith(".gained"))
    clock = f"{row['cpu_seconds']:7.0f} CPU-s  {row['steps_per_s']:7,.0f} steps/s"
    print(f"{row['steps']:10,} steps  {clock}  score {score}  {items}", flush=True)


def read_log(path: Path) -> dict[str, Any]:
    """A log by kind: `header` and `end` (None where the run is not complete), lists of `evaluation` and `row`.

    Raises:
        ValueError: it is no log of a run.
    """
    log: dict[str, Any] = {"header": None, "end": None, "evaluation": [], "row": []}
    try:
        for line in path.read_text().splitlines():
            values = json.loads(line)
            kind = values.pop("kind")
            if isinstance(log[kind], list):
                log[kind].append(values)
            else:
                log[kind] = values
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no log of a learning run, or it is damaged: {error}.") from None
    if log["header"] is None:
        raise ValueError(f"{path} has no header, so it is no log of a learning run.")
    return log


def commit() -> str:
    """The commit that is checked out, with a plus where files differ from it; empty outside of git."""
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return result.stdout.strip() if result.returncode == 0 else ""

    found = git("rev-parse", "--short=10", "HEAD")
    return found + "+" * bool(found and git("status", "--porcelain", "--untracked-files=no"))


def versions(learner: str) -> dict[str, str]:
    """Of what a run of a learner depends on."""
    names = ["torch", "numba", "numpy", *(["pufferlib", "heavyball"] if learner == "pufferlib" else [])]
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
