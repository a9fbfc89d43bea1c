"""What threads and worker processes gain over one thread, stepping alone.

    python -m benchmarks.vectorization [--json] [--seconds 1] [--workers 2]

Every case steps the same worlds with the same random actions in one thread, in several threads of this process and in
several worker processes, taking turns. Reported are agent-steps per second and, as the median of the turns, the ratio of
each to one thread. Episodes end and begin anew on the way, maps included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metta.api import EnvConfig, GameConfig, get_env_config, make_curriculum
from metta.mettagrid.curriculum.base import Curriculum
from metta.mettagrid.curriculum.overrides import override_tasks
from metta.mettagrid.vec import VecEnv

TURNS = 7
MIN_STEPS = 8


@dataclass(frozen=True)
class Case:
    """Worlds of one kind."""

    name: str
    tasks: EnvConfig | Curriculum
    num_worlds: int


def cases() -> list[Case]:
    arena = EnvConfig(game=GameConfig(num_agents=24, width=25, height=25, max_steps=100))
    rooms = override_tasks(make_curriculum("/env/mettagrid/curriculum/navigation/bucketed"), max_steps=50)
    return [
        Case("simple_64_worlds", get_env_config("/env/mettagrid/simple"), 64),
        Case("24_agents_32_worlds", arena, 32),
        Case("bucketed_64_worlds_50_steps", rooms, 64),
        Case("arena_256_worlds", get_env_config("/env/mettagrid/arena/basic"), 256),
    ]


def measure(case: Case, workers: int, seconds: float) -> dict[str, float]:
    """Agent-steps per second of each kind, and its ratio to one thread."""
    kinds: dict[str, dict[str, Any]] = {
        "serial": {},
        f"threads_{workers}": {"num_threads": workers},
        f"multiprocessing_{workers}": {"num_workers": workers},
    }
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    with ExitStack() as stack:
        envs = {
            kind: stack.enter_context(VecEnv(case.tasks, case.num_worlds, stagger=True, **options))
            for kind, options in kinds.items()
        }
        legal = np.array(envs["serial"].spec.legal_actions)
        rows = envs["serial"].num_agents
        plan = legal[np.random.default_rng(0).integers(len(legal), size=(64, rows))]
        for turn in range(TURNS + 1):
            for kind, env in envs.items():
                rate = rows * _steps_per_second(env, plan, seconds / TURNS)
                if turn:  # the first turn warms up
                    rates[kind].append(rate)
    figures: dict[str, float] = {}
    for kind, measured in rates.items():
        figures[f"{kind}/agent_steps_per_second"] = round(statistics.median(measured))
        ratios = [mine / one for mine, one in zip(measured, rates["serial"], strict=True)]
        figures[f"{kind}/of_serial"] = round(statistics.median(ratios), 3)
    return figures


def _steps_per_second(env: VecEnv, plan: npt.NDArray[np.int64], seconds: float) -> float:
    steps = 0
    start = now = time.perf_counter()
    while now - start < seconds or steps < MIN_STEPS:
        env.step(plan[steps % len(plan)])
        steps += 1
        now = time.perf_counter()
    return steps / (now - start)


def run(workers: int, seconds: float) -> dict[str, float]:
    """All figures by name."""
    figures: dict[str, float] = {}
    for case in cases():
        for name, value in measure(case, workers, seconds).items():
            figures[f"{case.name}/{name}"] = value
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure threads and worker processes.")
    parser.add_argument("--json", action="store_true", help="print one JSON object of named figures")
    parser.add_argument("--seconds", type=float, default=2.0, help="time per figure")
    parser.add_argument("--workers", type=int, default=2, help="threads and processes")
    options = parser.parse_args()
    figures = run(options.workers, options.seconds)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:60} {value:>14,.4g}" if name.endswith("of_serial") else f"{name:60} {value:>14,.0f}")


if __name__ == "__main__":
    main()
