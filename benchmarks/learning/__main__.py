"""The learning benchmark: runs, and the page made of them.

    python -m benchmarks.learning run --task arena --learner metta --seed 0 [--steps N] [--set ppo.gamma=0.99 ...]
    python -m benchmarks.learning report [--folder runs/learning]
    python -m benchmarks.learning list

`run` writes a log of JSON lines into the folder; `report` adds the complete runs of a folder to docs/learning.json and writes the
tables and pictures of docs/learning.md, without a folder from what is kept; `list` shows tasks, learners and their settings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.learning.learners import LEARNERS
from benchmarks.learning.report import report
from benchmarks.learning.runs import record_run
from benchmarks.learning.settings import flat, parse
from benchmarks.learning.tasks import TASKS, settings_of

FOLDER = Path("runs/learning")


def main() -> None:
    parser = argparse.ArgumentParser(description="What is learned from how many steps and seconds.")
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="train one learner on one task")
    runs.add_argument("--task", choices=list(TASKS), required=True)
    runs.add_argument("--learner", choices=list(LEARNERS), default="metta")
    runs.add_argument("--seed", type=int, nargs="+", default=[0], help="one run for each")
    runs.add_argument("--steps", type=int, help="agent steps; the task's")
    runs.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings that differ")
    runs.add_argument("--env", help="another world or curriculum to train in; judged in the task's own")
    runs.add_argument("--threads", type=int, default=1, help="torch threads")
    runs.add_argument("--folder", type=Path, default=FOLDER, help="of the logs")
    runs.add_argument("--note", default="", help="what the run is for")
    runs.add_argument("--episodes", type=int, help="of each evaluation; the task's")
    reports = commands.add_parser("report", help="write docs/learning.md")
    reports.add_argument("--folder", type=Path, help="logs whose complete runs are added to what is kept")
    reports.add_argument("--anew", action="store_true", help="forget what was kept before")
    commands.add_parser("list", help="tasks, learners and their settings")
    options = parser.parse_args()
    try:
        if options.command == "list":
            show()
        elif options.command == "report":
            print(report(options.folder, anew=options.anew))
        else:
            for seed in options.seed:
                path = record_run(
                    options.task,
                    options.learner,
                    seed=seed,
                    steps=options.steps,
                    changes=parse(options.set),
                    env=options.env,
                    threads=options.threads,
                    folder=options.folder,
                    note=options.note,
                    eval_episodes=options.episodes,
                )
                print(path)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"benchmarks.learning: {error}") from error


def show() -> None:
    for name, task in TASKS.items():
        print(f"{name}: {task.env}, {task.steps:,} steps, {task.eval_episodes} episodes to judge")
        for learner in LEARNERS:
            settings = settings_of(task, learner).model_dump(mode="json")
            print(f"  {learner}: {json.dumps(flat(settings))}")


if __name__ == "__main__":
    main()
