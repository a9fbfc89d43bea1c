"""What two processes do together, told to the tests as one JSON file per rank.

python -m torch.distributed.run --nproc_per_node=2 tests/rl/distributed_lessons.py FOLDER
"""

import contextlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conftest import SPEC, ScriptedEnv
from metta.agent.any_config import read_agent_config
from metta.agent.metta_agent import MettaAgent
from metta.agent.outputs import EvalOutput
from metta.interface.directories import (
    cleanup_distributed,
    save_experiment_config,
    setup_device_and_distributed,
    setup_distributed_vars,
    setup_run_directories,
)
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.distributed import (
    all_mean,
    any_rank,
    fail_together,
    gather,
    gather_episodes,
    split_seed,
    unwrap_agent,
)
from metta.rl.experience import Experience
from metta.rl.optimizer import make_optimizer
from metta.rl.policy_management import wrap_agent_distributed
from metta.rl.rollout import rollout
from metta.rl.trainer_config import ExperienceConfig, OptimizerConfig, PPOConfig
from metta.rl.types import TrainingState
from metta.rl.update import train_ppo

PPO = PPOConfig(l2_init_loss_coef=0.1, l2_reg_loss_coef=0.1, max_grad_norm=0.05)
SIZES = {"batch_size": 512, "minibatch_size": 256, "bptt_horizon": 8, "update_epochs": 2}
GRAPH = {
    "components": {
        "_obs_": {"layer": "TokenPlanes"},
        "flat": {"layer": "Flatten", "sources": ["_obs_"]},
        "fc": {"layer": "Linear", "sources": ["flat"], "out_features": 16},
        "_core_": {"layer": "LSTM", "sources": ["fc"], "hidden_size": 16},
        "_value_": {"layer": "Linear", "sources": ["_core_"], "out_features": 1},
        "_action_": {"layer": "Linear", "sources": ["_core_"]},
    }
}
OPTIONS: dict[str, dict[str, Any]] = {
    "clip_range": {"clip_range": 1e-3},
    "no_lstm": {"forward_lstm": False},
    "graph": GRAPH,
    "reference": {"l2_init_weight_update_interval": 3},
}
STEPS = (
    "observations",
    "actions",
    "logprobs",
    "values",
    "rewards",
    "terminals",
    "truncations",
    "start_h",
    "start_c",
)


def make_agent(seed: int, **fields: Any) -> MettaAgent:
    standard = {"hidden_dim": 16, "backbone": "mlp", "analyze_weights_interval": 0}
    config = read_agent_config(fields if "components" in fields else standard | fields)
    return MettaAgent(SPEC, config, generator=torch.Generator().manual_seed(seed))


class Run:
    """One rank's share of a run."""

    def __init__(self, seed: int, *, weights: int = 0, sizes: dict[str, int] = SIZES, **fields: Any) -> None:
        own = split_seed(seed)
        self.policy = wrap_agent_distributed(make_agent(weights, **fields), "cpu")
        self.agent = unwrap_agent(self.policy)
        self.experience = Experience(ScriptedEnv(seed=own), self.policy, ExperienceConfig(**sizes), own)
        self.optimizer = make_optimizer(self.agent, OptimizerConfig(learning_rate=0.01))
        self.epoch = self.agent_step = 0

    def go(self, epochs: int, config: PPOConfig = PPO) -> list[dict[str, float]]:
        history = []
        for _ in range(epochs):
            batch = rollout(self.experience, self.policy)
            self.agent_step += sum(gather(batch.total_env_steps))
            history.append(train_ppo(self.policy, self.optimizer, self.experience, config))
            self.epoch += 1
        return history

    def parts(self) -> dict[str, Any]:
        return {"agent": self.policy, "optimizer": self.optimizer, "experience": self.experience}

    def save(self, folder: Path) -> Any:
        return save_checkpoint(
            **self.parts(),
            epoch=self.epoch,
            agent_step=self.agent_step,
            policy_store=None,
            checkpoint_path=folder,
            checkpoint_interval=1,
            metadata={"sum": weight_sum(self.agent)},
        )

    def load(self, folder: Path) -> str | None:
        self.agent_step, self.epoch, policy = load_checkpoint(checkpoint_dir=folder, **self.parts())
        return policy


def weight_sum(agent: MettaAgent) -> float:
    return sum(float(t.double().sum()) for t in agent.state_dict().values())


def simple_loss(out: EvalOutput) -> torch.Tensor:
    return (out.values + out.logprobs).mean()


def weights(agent: MettaAgent) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in agent.state_dict().items()}


def lesson_setup(home: Path, rank: int) -> dict[str, Any]:
    setup = setup_device_and_distributed("cpu")
    device, is_master, world_size, own_rank = setup_device_and_distributed("cpu")
    dirs = setup_run_directories(data_dir=home / "runs")
    config = save_experiment_config(dirs, setup, {"rank": rank}, seed=split_seed(5))
    return {
        "text": str(setup),
        "vars": [str(device), is_master, world_size, own_rank],
        "again": setup_distributed_vars(),
        "run": dirs.run_name,
        "config": str(config),
        "seed": split_seed(5),
    }


def lesson_together(home: Path, rank: int) -> dict[str, Any]:
    said = []
    for failing in (0, 1, None):
        try:
            with fail_together():
                if rank == failing:
                    raise FileNotFoundError(f"no file {rank}")
            said.append("fine")
        except FileNotFoundError as error:
            said.append(str(error))
    env, agent = ScriptedEnv(seed=split_seed(1)), make_agent(0)
    episodes = rollout(Experience(env, agent, ExperienceConfig(**SIZES), rank), agent).episodes
    told = gather_episodes(episodes)
    return {
        "mean": all_mean(torch.tensor([1.0, 2.0]) * (rank + 1)).tolist(),
        "any": [any_rank(False), any_rank(rank == 1), any_rank(True)],
        "gather": gather({"rank": rank, "long": "ä" * rank * 100, "nan": float("nan")}),
        "fails": said,
        "own": [[episode.score, episode.length] for episode in episodes],
        "episodes": [[e.score, e.length, e.task, e.returns.dtype.name, len(e.returns)] for e in told],
    }


def lesson_averaging(home: Path, rank: int) -> dict[str, Any]:
    """Three updates on a whole batch per rank; weights of the two ranks differ before they are wrapped."""
    sizes = {**SIZES, "minibatch_size": 512, "update_epochs": 3}
    run = Run(3, weights=rank, sizes=sizes)
    start = weights(run.agent)
    rollout(run.experience, run.policy)
    steps = {name: getattr(run.experience, name).numpy() for name in STEPS}
    (stats,) = [train_ppo(run.policy, run.optimizer, run.experience, PPO)]
    np.savez(home / f"batch_{rank}.npz", advantages=np.asarray(run.experience.advantages), **steps)
    return {"start": start, "end": weights(run.agent), "stats": stats}


def lesson_options(home: Path, rank: int) -> dict[str, Any]:
    """Weights stay equal with each thing that touches gradients, and nothing waits for ever."""
    sums = {}
    for name, fields in OPTIONS.items():
        run = Run(1, **fields)
        run.go(2)
        sums[name] = weight_sum(run.agent)
    run = Run(2)
    stats = run.go(3, PPOConfig(target_kl=1e-3))
    sums["target_kl"] = weight_sum(run.agent)
    minibatch = run.experience.minibatch(torch.arange(8), torch.zeros(64, 8))
    seen = (minibatch.observations, minibatch.start_state, minibatch.dones, minibatch.actions)
    run.policy.evaluate(*seen)  # no backward pass follows this one
    simple_loss(run.policy.evaluate(*seen)).backward()
    run.optimizer.zero_grad()
    gradients = []
    for together in (contextlib.nullcontext(), run.policy.no_sync(), contextlib.nullcontext()):
        with together:
            simple_loss(run.policy.evaluate(*seen)).backward()
        gradients.append([float(p.grad.double().sum()) for p in run.agent.parameters() if p.grad is not None])
        if len(gradients) == 1:
            run.optimizer.zero_grad()
    return {"sums": sums, "stops": [stat["early_stop"] for stat in stats], "gradients": gradients}


def lesson_resume(home: Path, rank: int) -> dict[str, Any]:
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("metta").addHandler(handler)
    logging.getLogger("metta").setLevel(logging.INFO)
    folder = home / "checkpoints"
    whole = Run(6)
    whole.go(2)
    record = whole.save(folder)
    rollout(whole.experience, whole.policy, 12 * 8)  # and once more in the middle of a batch
    whole.save(folder)
    rollout(whole.experience, whole.policy)
    train_ppo(whole.policy, whole.optimizer, whole.experience, PPO)
    history = whole.go(1)
    resumed = Run(60, weights=7)
    path = resumed.load(folder)
    rollout(resumed.experience, resumed.policy)
    train_ppo(resumed.policy, resumed.optimizer, resumed.experience, PPO)
    again = resumed.go(1)
    same = weights(whole.agent) == weights(resumed.agent)
    rewards = [run.experience.rewards.flatten().tolist() for run in (whole, resumed)]
    # Rank 1's experience does not fit, rank 0's does.
    refused = Run(6, weights=9, sizes={**SIZES, "bptt_horizon": 4 if rank else 8})
    before = weight_sum(refused.agent)
    try:
        refused.load(folder)
        error = None
    except ValueError as caught:
        error = str(caught)
    try:
        resumed.load(folder / "elsewhere" if rank else folder)
        apart = None
    except ValueError as caught:
        apart = str(caught)
    return {
        "record": record is not None,
        "path": path,
        "same": same,
        "histories": history == again,
        "rewards": rewards[0] == rewards[1],
        "mine": rewards[0][:20],
        "refused": [error, weight_sum(refused.agent) == before, refused.experience.position],
        "apart": apart,
        "files": sorted(entry.name for entry in folder.iterdir()),
        "state": TrainingState.load(folder).save_id,
        "log": told,
    }


def lesson_not_finite(home: Path, rank: int) -> dict[str, Any]:
    run = Run(4)
    rollout(run.experience, run.policy)
    if rank == 1:
        run.experience.rewards[0, 0] = float("nan")
    try:
        train_ppo(run.policy, run.optimizer, run.experience, PPO)
    except FloatingPointError as error:
        return {"error": str(error), "sum": weight_sum(run.agent)}
    return {"error": None}


def main(home: Path) -> None:
    torch.set_num_threads(1)
    _, _, rank = setup_distributed_vars(timeout=20)
    report: dict[str, Any] = {}
    for name, lesson in list(globals().items()):
        if name.startswith("lesson_"):
            start = time.perf_counter()
            report[name.removeprefix("lesson_")] = lesson(home, rank)
            print(f"rank {rank} {name} {time.perf_counter() - start:.1f}s", flush=True)
    (home / f"report_{rank}.json").write_text(json.dumps(report))
    cleanup_distributed()
    cleanup_distributed()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
