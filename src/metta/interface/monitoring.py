"""Watching a run: its trackers while it goes on, and what came of it in the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.console import Console

from metta.common.files import atomic_write_json
from metta.interface.console import duration
from metta.interface.directories import RunDirectories
from metta.interface.evaluation import ReplayFiles
from metta.sim.learning_curve import write_learning_curve
from metta.tracking.metrics_file import MetricsFile, read_metrics
from metta.tracking.tensorboard import TensorBoardTracker
from metta.tracking.tracker import Tracker, Trackers
from metta.tracking.wandb import initialize_wandb

METRICS = "metrics.jsonl"
"""Where a run's metrics stand in its `stats_dir`."""


def start_trackers(
    dirs: RunDirectories,
    config: BaseModel,
    *,
    resume_step: int = 0,
    enabled: bool = True,
    tensorboard: bool = False,
    wandb: bool = False,
) -> Trackers:
    """The trackers of a run: always a metrics file, others where they are asked for.

    Args:
        dirs: the run's folders; `stats_dir` gets `metrics.jsonl` and TensorBoard's files.
        config: of the run, for Weights & Biases to show.
        resume_step: agent step at which the run begins or goes on; what lies behind it is taken back.
        enabled: False: no trackers at all, as in all processes but the master.
        tensorboard: whether to write TensorBoard's files.
        wandb: whether to track at Weights & Biases, see `initialize_wandb`.

    Raises:
        ImportError: TensorBoard is asked for and not installed.
        ValueError: the metrics file holds something else.
    """
    if not enabled:
        return Trackers()
    trackers: list[Tracker] = [MetricsFile(dirs.stats_dir / METRICS, resume_step=resume_step)]
    if tensorboard:
        trackers.append(TensorBoardTracker(dirs.stats_dir, resume_step=resume_step))
    if wandb:
        shown = config.model_dump(mode="json")
        trackers.append(initialize_wandb("metta", dirs.run_name, dirs.run_dir, shown))
    return Trackers(trackers)


def training_history(stats_dir: Path) -> list[dict[str, Any]]:
    """Steps, seconds and score (None where no episode ended) of each epoch, as `write_learning_curve` draws them.

    Raises:
        FileNotFoundError: there are no metrics.
    """
    return [
        {"steps": e["step"], "seconds": e["timing/total/seconds"], "score": e.get("episode/score")}
        for e in read_metrics(stats_dir / METRICS)
        if "timing/total/seconds" in e
    ]


def report_outcome(
    console: Console, dirs: RunDirectories, env: str, seed: int, replay: ReplayFiles
) -> dict[str, Any]:
    """Sum a run up from its metrics: scores before and after, the learning curve, and where everything is.

    Writes `summary.json` and `learning_curve.png` into the run's folder.

    Args:
        console: where to say it.
        dirs: the run's folders; the metrics are `stats_dir/metrics.jsonl`, with an `eval/training/score`
            and, where it is known, an `eval/half_interval` for each evaluation, the first of them before training and the last
            after it, and with `timing/total/seconds` and, where episodes ended, `episode/score` for each epoch.
        env: what was trained on.
        seed: of the run.
        replay: of the trained policy.

    Returns:
        What `summary.json` holds; half an interval that is not known is null there.

    Raises:
        FileNotFoundError: there are no metrics.
        ValueError: they hold no evaluation, or no epoch.
    """
    evaluations = [line for line in read_metrics(dirs.stats_dir / METRICS) if "eval/training/score" in line]
    history = training_history(dirs.stats_dir)
    if not evaluations or not history:
        raise ValueError(
            f"{dirs.stats_dir / METRICS} holds {len(evaluations)} evaluations and {len(history)} epochs; a summary needs "
            "some of both."
        )
    before, after = (
        [e["eval/training/score"], e.get("eval/half_interval", math.nan)]
        for e in (evaluations[0], evaluations[-1])
    )
    steps, seconds = history[-1]["steps"], history[-1]["seconds"]
    facts = {"env": env, "seed": seed, "steps": steps, "seconds": seconds}
    facts |= {"before": _known(before), "after": _known(after)}
    summary = atomic_write_json(dirs.run_dir / "summary.json", facts)
    curve = write_learning_curve(
        dirs.run_dir / "learning_curve.png", history, before=before, after=after, title=f"{env}, seed {seed}"
    )
    console.print(f"\n[bold]{steps:,} steps in {duration(seconds)}[/]")
    for what, colour, (mean, half) in (("before", "", before), ("after ", " green", after)):
        interval = f"{half:.2f}" if math.isfinite(half) else "unknown"
        console.print(f"score {what}  [bold{colour}]{mean:6.2f}[/] ± {interval}")
    places = {"replay": replay.page, "curve": curve, "policy": dirs.checkpoint_dir, "metrics": dirs.stats_dir}
    for what, place in (places | {"summary": summary}).items():
        console.print(f"{what:13} {place}", soft_wrap=True, highlight=False)
    console.print("[dim]The replay is a page: open it in a browser.[/]")
    return facts


def _known(score: Sequence[float]) -> list[float | None]:
    """Mean and half interval, None for what is not a number."""
    return [value if math.isfinite(value) else None for value in score]
