"""The learning curve of `make train`: score against steps and against seconds, for several seeds.

    python -m benchmarks.learning [--json] [--seeds 0 1 2] [--steps N] [--folder runs/learning]

Runs `run.py` once for each seed, one after another, and draws the curves in one picture. A score is the mean over
agents of an episode's total reward; before and after training it comes from whole episodes on fresh maps, with the
half-width of its 95 % interval.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
from pathlib import Path

import run
from metta.interface.monitoring import training_history
from metta.sim.learning_curve import write_learning_curves

DEFAULT_STEPS: int = inspect.signature(run.main).parameters["steps"].default


def main() -> None:
    parser = argparse.ArgumentParser(description="Learning curves of run.py over several seeds.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="agent steps of each run")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/learning"), help="where runs and picture go"
    )
    arguments = parser.parse_args()
    histories, figures = {}, {}
    for seed in arguments.seeds:
        name = f"seed_{seed}"
        run.main(steps=arguments.steps, seed=seed, device="cpu", name=name, folder=arguments.folder)
        summary = json.loads((arguments.folder / name / "summary.json").read_text())
        histories[f"seed {seed}"] = training_history(arguments.folder / name / "stats")
        for moment in ("before", "after"):
            figures[f"{name}_{moment}"], figures[f"{name}_{moment}_half_interval"] = summary[moment]
        figures[f"{name}_seconds"] = summary["seconds"]
        figures[f"{name}_steps_per_s"] = summary["steps"] / summary["seconds"]
    for moment in ("before", "after"):
        figures[f"median_{moment}"] = statistics.median(
            figures[f"seed_{s}_{moment}"] for s in arguments.seeds
        )
    picture = write_learning_curves(arguments.folder / "learning_curves.png", histories, title=run.ENV)
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
        return
    for name, value in figures.items():
        print(f"{name:32} {value:12,.2f}")
    print(f"curves: {picture}")


if __name__ == "__main__":
    main()
