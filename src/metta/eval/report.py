"""An evaluation for people and programs: a Markdown table, a JSON file."""

from __future__ import annotations

from typing import Any

from metta.common.files import StrPath, atomic_write_bytes, atomic_write_json
from metta.sim.scores import Score
from metta.sim.suite import SuiteResult


def report_table(result: SuiteResult) -> str:
    """Scores as a Markdown table: each category, its simulations below it, and all together at the end."""
    lines = [
        f"# {result.suite.name}",
        "",
        "| simulation | episodes | score | 95 % interval |",
        "| --- | ---: | ---: | --- |",
    ]
    simulations = result.simulation_scores
    for category, score in result.category_scores.items():
        lines.append(_row(f"**{category}**", score))
        lines += [_row(name, own) for name, own in simulations.items() if name.startswith(f"{category}/")]
    lines.append(_row("**all**", result.score))
    if result.skipped:
        lines += ["", "Not played:", ""]
        lines += [f"- {name}: {reason}" for name, reason in result.skipped.items()]
    lines += ["", "The score of an episode is the mean over agents of their total reward."]
    return "\n".join(lines) + "\n"


def report_data(result: SuiteResult) -> dict[str, Any]:
    """Scores and episodes as a JSON-ready value; intervals that are not known are null."""
    return {
        "suite": result.suite.name,
        "seed": result.seed,
        "deterministic": result.deterministic,
        "score": _data(result.score),
        "categories": {name: _data(score) for name, score in result.category_scores.items()},
        "simulations": {name: _data(score) for name, score in result.simulation_scores.items()},
        "skipped": dict(result.skipped),
        "episodes": [
            {
                "simulation": record.simulation,
                "episode": record.episode,
                "task": record.task,
                "seed": record.seed,
                "score": record.score,
                "returns": list(record.returns),
                "length": record.length,
                "truncated": record.truncated,
            }
            for record in result.episodes
        ],
    }


def write_report(result: SuiteResult, path: StrPath) -> None:
    """Write a report, whole or not at all.

    Args:
        result: what was played.
        path: the file; a name that ends in `.json` gets `report_data`, `.md` gets `report_table`.

    Raises:
        ValueError: the name has another ending.
    """
    name = str(path)
    if name.endswith(".json"):
        atomic_write_json(path, report_data(result))
    elif name.endswith(".md"):
        atomic_write_bytes(path, report_table(result).encode())
    else:
        raise ValueError(f"report {name} ends neither in .json nor in .md; name the form that you want.")


def _row(name: str, score: Score) -> str:
    half = score.half_interval
    interval = "unknown" if half is None else f"{score.mean - half:.3f} to {score.mean + half:.3f}"
    return f"| {name} | {score.num_episodes} | {score.mean:.3f} | {interval} |"


def _data(score: Score) -> dict[str, Any]:
    return {"mean": score.mean, "half_interval": score.half_interval, "num_episodes": score.num_episodes}
