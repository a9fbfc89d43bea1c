"""Options of whole runs and of evaluations: what run.py leaves in its folder, what a suite and a replay hold."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import option_training
from metta.common.config import Config
from metta.interface.evaluation import generate_replay_simple
from metta.mettagrid.curriculum.base import MultiTaskCurriculum, Task
from metta.mettagrid.registry import register_curriculum, register_env
from metta.mettagrid.vec import VecEnv
from metta.rl.trainer_config import CheckpointConfig, SimulationConfig, TorchProfilerConfig, TrainerConfig
from metta.sim.config import ReplayConfig, Simulation, SimulationSuite
from metta.sim.suite import run_suite
from option_schema import Kind, Other, Probe, other
from option_training import make_agent
from tiny_run import SIZES, WORLD, train

ENV = "/env/options/carrying_ore"
TASKS = "/env/options/two_tasks"
OTHER_WORLD = WORLD.with_overrides(max_steps=5)


def register() -> None:
    """Names for the world and for a curriculum of two."""
    register_env(ENV, lambda: WORLD)
    tasks = [Task("long", WORLD), Task("short", OTHER_WORLD)]
    register_curriculum(TASKS, lambda: MultiTaskCurriculum(tasks))


def left_by_a_run(config: TrainerConfig) -> list[Any]:
    """What run.py does in four batches: the files that it leaves, when it judges, and what it sends."""
    with tempfile.TemporaryDirectory() as folder:
        notes = train(Path(folder), config)
        home, named = Path(folder), Path("elsewhere")
        left = [sorted(str(file.relative_to(home)) for file in home.rglob("*") if file.is_file())]
        left.append(sorted(file.name for file in named.rglob("*")))
    shutil.rmtree(named, ignore_errors=True)
    return [*left, notes]


def part(name: str) -> Callable[[Any], list[Any]]:
    """A run with one part of its configuration, and little of the others."""

    def left_by_a_run_with(config: Any) -> list[Any]:
        return left_by_a_run(TrainerConfig(**{**SIZES, **QUIET, name: config}))

    return left_by_a_run_with


def suite_scores(suite: SimulationSuite) -> list[Any]:
    """Episodes and scores of a suite, and its report."""
    result = run_suite(make_agent(VecEnv(WORLD, 1)), suite)
    rows = [(row.simulation, row.task, row.returns, row.length) for row in result.episodes]
    return [result.suite.name, rows, sorted(result.metrics().items())]


def simulated(simulation: Simulation) -> list[Any]:
    """A suite of one."""
    return suite_scores(SimulationSuite(simulations={"a/b": simulation}))


def replayed(config: ReplayConfig) -> bytes:
    """The replay's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        files = generate_replay_simple(make_agent(VecEnv(WORLD, 1)), config, folder, name="replay")
        return files.replay.read_bytes()


QUIET: dict[str, Any] = {
    "checkpoint": CheckpointConfig(checkpoint_interval=0, wandb_checkpoint_interval=0),
    "simulation": SimulationConfig(evaluate_interval=0, replay_interval=0),
}
PLAYED: dict[str, Other] = {
    "env": other(OTHER_WORLD, TASKS),
    "overrides": other({"max_steps": 4}),
}
OF_A_RUN: dict[str, Config] = {
    "checkpoint": CheckpointConfig(checkpoint_interval=1, wandb_checkpoint_interval=0),
    "simulation": SimulationConfig(evaluate_interval=1, replay_interval=0),
    "profiler": TorchProfilerConfig(interval_epochs=2),
}
TRAINER = option_training.PROBES[TrainerConfig]
PROBES: dict[Kind, Probe] = {
    TrainerConfig: replace(
        TRAINER,
        others={
            **TRAINER.others,
            **{name: Other((value,), QUIET, (left_by_a_run,)) for name, value in OF_A_RUN.items()},
        },
    ),
    CheckpointConfig: Probe(
        (part("checkpoint"),),
        {
            "checkpoint_interval": other(2, 1),
            "wandb_checkpoint_interval": other(2, 1),
            "checkpoint_dir": other("elsewhere"),
        },
        {"checkpoint_interval": 0, "wandb_checkpoint_interval": 0},
    ),
    SimulationConfig: Probe(
        (part("simulation"),),
        {
            "evaluate_interval": other(2, 1),
            "replay_interval": other(2, 1),
            "replay_dir": other("elsewhere", replay_interval=2),
        },
        {"evaluate_interval": 0, "replay_interval": 0},
    ),
    TorchProfilerConfig: Probe(
        (part("profiler"),),
        {"interval_epochs": other(2, 1), "profile_dir": other("elsewhere", interval_epochs=2)},
    ),
    Simulation: Probe((simulated,), {**PLAYED, "num_episodes": other(2)}, {"env": ENV}),
    SimulationSuite: Probe(
        (suite_scores,),
        {"name": other("another"), "simulations": other({"a/b": Simulation(env=ENV, num_episodes=2)})},
        {"simulations": {"a/b": Simulation(env=ENV)}},
    ),
    ReplayConfig: Probe(
        (replayed,),
        {
            **PLAYED,
            "task": other("long", env=TASKS, seed=1),
            "seed": other(1),
            "deterministic": other(True),
            "max_steps": other(3),
        },
        {"env": ENV},
    ),
}
