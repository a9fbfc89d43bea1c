"""run.py in this process, in a world and at a size where four batches take less than a second."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metta.agent.config import AgentModelConfig
from metta.common.interrupt import StopRequest
from metta.mettagrid.registry import env_paths, register_env
from metta.rl.trainer_config import TrainerConfig
from metta.tracking.tracker import Trackers
from small_worlds import CARRYING_ORE

WORLD = CARRYING_ORE.with_overrides(max_steps=9)
ENV = "/env/tests/tiny_run"
NETWORK = AgentModelConfig(hidden_dim=8, backbone="mlp", analyze_weights_interval=0)
SIZES: dict[str, Any] = {
    "batch_size": 64,
    "minibatch_size": 32,
    "bptt_horizon": 8,
    "update_epochs": 2,
    "total_timesteps": 512,
}


class NotedTrackers(Trackers):
    """Notes when a run says how it was judged, and which policies it sends."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Any] = []

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        if any(name.startswith("eval/") for name in metrics):
            self.notes.append(step)

    def log_policy(self, path: Any, metadata: Mapping[str, Any]) -> None:
        self.notes.append(Path(path).name)


def train(folder: Path, config: TrainerConfig, num_batches: int = 4, name: str = "r") -> list[Any]:
    """Start run.py, or go on with a run of that name; gives the trackers' notes."""
    if ENV not in env_paths():
        register_env(ENV, lambda: WORLD)
    spec = importlib.util.spec_from_file_location("run", Path(__file__).parents[1] / "run.py")
    assert spec is not None
    assert spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    trackers = NotedTrackers()
    run.CONFIG, run.AGENT, run.EVAL_EPISODES = config, NETWORK, 1
    run.start_trackers = lambda *args, **kwargs: trackers
    run.report_outcome = lambda *args: None
    torch.manual_seed(0)
    steps = num_batches * SIZES["batch_size"]
    run.train(StopRequest(), ENV, steps, 0, "cpu", name, 0, True, False, folder)
    return trackers.notes
