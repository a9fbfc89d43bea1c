"""The page of docs/learning.md: its tables and pictures, from what is kept of the runs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.learning.aggregate import aggregate
from benchmarks.learning.kept import Group, Kept, gather, groups, load, save
from benchmarks.learning.pictures import draw
from benchmarks.learning.settings import Changes
from benchmarks.learning.tasks import ITEMS, TASKS, USUAL
from benchmarks.pages import table, write_between

DOCS = Path(__file__).parents[2] / "docs"
PAGE, KEPT = DOCS / "learning.md", DOCS / "learning.json"

FIRST_HEARTS = 0.1
"""Hearts gained per agent and episode from which on the chain counts as found."""

NAMES = {"ore_red": "ore", "battery_red": "batteries", "heart": "hearts"}


def report(folder: Path | None, page: Path = PAGE, file: Path = KEPT, *, anew: bool = False) -> str:
    """Write the page, its pictures, and what is kept.

    Args:
        folder: of logs whose complete runs are added; None: only write what is kept.
        page: Markdown, with marks; pictures go beside it.
        file: what is kept.
        anew: forget what was kept before.

    Returns:
        The results as text, and which runs are not complete.

    Raises:
        ValueError: a log is damaged, or the page has no place for a table.
        FileNotFoundError: there are no logs.
    """
    kept: Kept = {"runs": {}, "settings": {}} if anew else load(file)
    incomplete: list[str] = []
    if folder is not None:
        kept, incomplete = gather(folder, kept)
        save(file, kept)
        kept = load(file)
    found = groups(kept)
    page.write_text(write_tables(page.read_text(), found))
    for name, shown in usual(found).items():
        draw(page.parent / f"learning_{name}.png", longest(shown), name)
    return "\n\n".join([results(found), ledger(found), "\n".join(incomplete)])


def write_tables(text: str, found: Sequence[Group]) -> str:
    """The page with all its tables."""
    for name, content in (
        ("tasks", tasks()),
        ("results", results(found)),
        ("pictures", pictures(found)),
        ("peers", peers(found)),
        ("ledger", ledger(found)),
    ):
        text = write_between(text, name, content)
    return text


def usual(found: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups with usual settings, trained in the task's own world, by task; tasks without one are left out."""
    by_task = {name: [g for g in found if g.task == name and g.standing and not g.env] for name in TASKS}
    return {name: shown for name, shown in by_task.items() if shown}


def pictures(found: Sequence[Group]) -> str:
    """Where the pictures are."""
    lines = [
        f"![{name}: score and hearts against steps and CPU seconds](learning_{name}.png)"
        for name in usual(found)
    ]
    return "\n\n".join(lines) or "No run is kept yet."


def tasks() -> str:
    """What the tasks are, from the code."""
    rows = []
    for name, task in TASKS.items():
        different = "; ".join(f"{who}: {stated(task.changes[who])}" for who in USUAL if task.changes.get(who))
        rows.append(
            [name, f"`{task.env}`", f"{task.steps:,}", str(task.eval_episodes), different or "nothing"]
        )
    return table(["task", "world", "agent steps", "episodes to judge", "set for it"], rows)


def stated(changes: Changes) -> str:
    """Changes as one would write them on the command line."""
    return ", ".join(f"`{name}={json.dumps(value)}`" for name, value in changes.items())


def results(found: Sequence[Group]) -> str:
    """Every learner with its usual settings."""
    shown = [group for part in usual(found).values() for group in part]
    shown.sort(key=lambda g: (list(TASKS).index(g.task), g.steps, list(USUAL).index(g.learner), g.threads))
    rows = []
    for group in shown:
        cells = [group.task, f"{group.steps / 1e6:g} M", group.learner, str(len(group.runs))]
        cells += [str(aggregate(group.after("score"))), *items(group), first_hearts(group)]
        cpu = statistics.median(run["cpu_seconds"] for run in group.runs)
        wall = statistics.median(run["seconds"] for run in group.runs)
        cells += [f"{cpu:,.0f}", f"{wall:,.0f}", str(group.threads)]
        rows.append(cells)
    head = ["task", "steps", "learner", "runs", "score", *NAMES.values()]
    head += [f"{FIRST_HEARTS:g} hearts from", "CPU seconds", "seconds", "threads"]
    return table(head, rows) if rows else "No run is kept yet."


def ledger(found: Sequence[Group]) -> str:
    """Every group of runs, as it happened."""
    rows = []
    for group in found:
        notes = dict.fromkeys(run["note"] for run in group.runs if run["note"])
        change = stated(group.changes) or "nothing"
        if group.env:
            change += f", trained in `{group.env}`"
        cpu = statistics.median(run["cpu_seconds"] for run in group.runs)
        cells = [group.task, group.learner, change, "; ".join(notes), f"{group.steps / 1e6:g} M"]
        cells += [str(len(group.runs)), str(aggregate(group.after("score"))), *items(group)]
        rows.append([*cells, first_hearts(group), f"{cpu:,.0f}", group.runs[0]["commit"]])
    head = ["task", "learner", "changed", "why", "steps", "runs", "score", *NAMES.values()]
    head += [f"{FIRST_HEARTS:g} hearts from", "CPU seconds", "commit"]
    return table(head, rows) if rows else "No run is kept yet."


def items(group: Group) -> list[str]:
    """Gains per agent and episode after training."""
    return [f"{aggregate(group.after(f'{item}.gained')).mean:.2f}" for item in ITEMS]


def first_hearts(group: Group) -> str:
    """Agent steps at the end of the first stretch of the curve whose episodes gained so many hearts, the median run's."""
    firsts = []
    for run in group.runs:
        curve = run["curve"]
        pairs = zip(curve["steps"], curve["heart.gained"], strict=True)
        firsts.append(next((steps for steps, hearts in pairs if hearts > FIRST_HEARTS), float("inf")))
    middle = statistics.median_high(firsts) if firsts else float("inf")
    return f"{middle / 1e6:.1f} M" if np.isfinite(middle) else "never"


def longest(found: Sequence[Group]) -> list[Group]:
    """Of each learner, the group with the most steps; of those, that with the most runs."""
    best: dict[str, Group] = {}
    for group in found:
        other = best.get(group.learner)
        if other is None or (group.steps, len(group.runs)) > (other.steps, len(other.runs)):
            best[group.learner] = group
    return [best[name] for name in USUAL if name in best]


def peers(found: Sequence[Group]) -> str:
    """How soon Metta is where the others end, by its mean curve over seeds."""
    rows = []
    for name, part in usual(found).items():
        shown = longest(part)
        own = next((group for group in shown if group.learner == "metta"), None)
        for group in shown:
            if (
                own is None
                or group is own
                or not all(run["curve"]["score"] for run in (*group.runs, *own.runs))
            ):
                continue
            score = statistics.fmean(run["curve"]["score"][-1] for run in group.runs)
            cpu = statistics.fmean(run["cpu_seconds"] for run in group.runs)
            there = [reached(own, score, clock) for clock in ("steps", "cpu_seconds")]
            cells = [name, group.learner, f"{score:.2f}", f"{group.steps / 1e6:g} M", f"{cpu:,.0f}"]
            if there[1] is None or there[0] is None:
                rows.append([*cells, "not reached", "not reached", ""])
            else:
                times = f"{cpu / there[1]:.1f}"
                rows.append([*cells, f"{there[0] / 1e6:.2f} M", f"{there[1]:,.0f}", times])
    head = ["task", "peer", "its score at last", "its steps", "its CPU seconds"]
    head += ["Metta there after steps", "after CPU seconds", "times sooner"]
    return table(head, rows) if rows else "No peer's run is kept yet."


def reached(group: Group, score: float, clock: str) -> float | None:
    """When the mean curve of a group first stood at a score, by `steps` or `cpu_seconds`; None: never.

    A point of a curve tells of the stretch that ends with it, so nothing counts before the first one.
    """
    curves = [run["curve"] for run in group.runs]
    end = min(curve[clock][-1] for curve in curves)
    times = np.linspace(0, end, 201)[1:]
    scores = [np.interp(times, curve[clock], curve["score"], left=np.nan) for curve in curves]
    mean = np.mean(scores, axis=0)
    at = np.flatnonzero(mean >= score)
    return float(times[at[0]]) if len(at) else None
