"""What came of a training run: said on the console, drawn, and written into the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from metta.common.files import atomic_write_json
from metta.interface.console import duration
from metta.interface.directories import RunDirectories
from metta.interface.evaluation import ReplayFiles
from metta.sim.learning_curve import write_learning_curve
from metta.tracking.metrics_file import read_metrics

METRICS = "metrics.jsonl"
"""Where a run's metrics stand in its `stats_dir`."""


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
            and an `eval/half_interval` for each evaluation, the first of them before training and the last after it, and with
            `timing/total/seconds` and, where episodes ended, `episode/score` for each epoch.
        env: what was trained on.
        seed: of the run.
        replay: of the trained policy.

    Returns:
        What `summary.json` holds.

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
        [e["eval/training/score"], e["eval/half_interval"]] for e in (evaluations[0], evaluations[-1])
    )
    steps, seconds = history[-1]["steps"], history[-1]["seconds"]
    facts = {"env": env, "seed": seed, "steps": steps, "seconds": seconds, "before": before, "after": after}
    summary = atomic_write_json(dirs.run_dir / "summary.json", facts)
    curve = write_learning_curve(
        dirs.run_dir / "learning_curve.png", history, before=before, after=after, title=f"{env}, seed {seed}"
    )
    console.print(f"\n[bold]{steps:,} steps in {duration(seconds)}[/]")
    console.print("score before  [bold]{:6.2f}[/] ± {:.2f}".format(*before))
    console.print("score after   [bold green]{:6.2f}[/] ± {:.2f}".format(*after))
    places = {"replay": replay.page, "curve": curve, "policy": dirs.checkpoint_dir, "metrics": dirs.stats_dir}
    for what, place in (places | {"summary": summary}).items():
        console.print(f"{what:13} {place}", soft_wrap=True, highlight=False)
    console.print("[dim]The replay is a page: open it in a browser.[/]")
    return facts
