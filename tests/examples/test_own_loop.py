"""The loop written out in `examples/own_loop.py` trains: it learns in the real engine, and a broken one does not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

import metta.rl.losses
from metta.agent.config import AgentModelConfig
from metta.interface.agent import Agent
from metta.interface.environment import Environment
from metta.rl.optimizer import Optimizer
from metta.rl.trainer_config import CheckpointConfig, PPOConfig, TrainerConfig
from metta.rl.types import TrainingState
from metta.sim.simulation import run_episodes, summarize
from small_worlds import CARRYING_ORE

THRESHOLD = 5.0


@pytest.fixture(scope="module")
def own_loop() -> ModuleType:
    file = Path(__file__).parents[2] / "examples" / "own_loop.py"
    spec = importlib.util.spec_from_file_location("own_loop", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_run(folder: Path, steps: int, **fields: object):
    torch.manual_seed(0)
    config = TrainerConfig(
        total_timesteps=steps,
        batch_size=1024,
        minibatch_size=256,
        bptt_horizon=16,
        update_epochs=2,
        ppo=PPOConfig(gamma=0.95, gae_lambda=0.916, clip_coef=0.2, ent_coef=0.01, clip_vloss=False),
        checkpoint=CheckpointConfig(checkpoint_interval=7, checkpoint_dir=str(folder)),
        **fields,
    )
    env = Environment(env_config=CARRYING_ORE, num_envs=16)
    agent = Agent(env, AgentModelConfig(hidden_dim=32, mask_actions=False))  # as the thresholds were measured
    return env, agent, config, Optimizer("adam", policy=agent, learning_rate=3e-3, eps=1e-5)


def learn(own_loop: ModuleType, folder: Path, **fields: object) -> float:
    env, agent, config, optimizer = make_run(folder, 40 * 1024, **fields)
    assert summarize(run_episodes(agent, env, 32)).mean_reward < 1.0
    own_loop.train(env, agent, optimizer, config)
    return summarize(run_episodes(agent, env, 32)).mean_reward


@pytest.mark.parametrize(
    "fields",
    [{}, {"prioritized_experience_replay": {"prio_alpha": 0.5}}],
    ids=["as it is", "prioritised"],
)
def test_it_learns(own_loop: ModuleType, tmp_path: Path, fields: dict[str, object]) -> None:
    assert learn(own_loop, tmp_path, **fields) > THRESHOLD


def _flip_sign(patch: pytest.MonkeyPatch) -> None:
    plain = metta.rl.losses.clipped_policy_loss
    patch.setattr(metta.rl.losses, "clipped_policy_loss", lambda *args: -plain(*args))


def _no_surprises(patch: pytest.MonkeyPatch) -> None:
    plain = metta.rl.losses.compute_advantage
    patch.setattr(
        metta.rl.losses, "compute_advantage", lambda *args, **kwargs: plain(*args, **kwargs).zero_()
    )


def _never_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("metta.rl.optimizer.clip_and_step", lambda *args: 0.0)


@pytest.mark.parametrize("fault", [_flip_sign, _no_surprises, _never_step])
def test_a_broken_loop_does_not(
    own_loop: ModuleType,
    fault: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    fault(monkeypatch)
    assert learn(own_loop, tmp_path) < THRESHOLD / 2


def test_started_again_it_goes_on_exactly(own_loop: ModuleType, tmp_path: Path) -> None:
    def weights(folder: Path, *stops: int) -> list[torch.Tensor]:
        for batches in stops:
            env, agent, config, optimizer = make_run(folder, batches * 1024)
            own_loop.train(env, agent, optimizer, config)
        clocks = TrainingState.load(folder).stopwatch_state
        assert clocks is not None
        assert clocks["elapsed"]["rollout"] > clocks["elapsed"]["inference"] > 0
        return [p.detach() for p in agent.parameters()]

    whole, parts = weights(tmp_path / "whole", 4), weights(tmp_path / "parts", 2, 4)
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)


def test_it_can_be_read_in_one_go(own_loop: ModuleType) -> None:
    assert len(Path(str(own_loop.__file__)).read_text().splitlines()) < 100
