"""However the loop is written, the memory ends with the episode, and goes on where a run was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.state import PolicyState
from metta.interface.environment import Environment
from metta.rl.advantage import compute_advantages
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.experience import Experience
from metta.rl.losses import Losses, process_minibatch_update
from metta.rl.optimizer import Optimizer
from metta.rl.rollout import perform_rollout_step, rollout
from metta.rl.trainer_config import TrainerConfig
from metta.rl.update import train_ppo
from small_worlds import CARRYING_ORE

PPO = {"clip_coef": 0.2, "ent_coef": 0.01, "gamma": 0.5, "gae_lambda": 0.9}
Patch = pytest.MonkeyPatch


def by_rollouts(
    agent: MettaAgent, optimizer: Optimizer, experience: Experience, config: TrainerConfig
) -> None:
    rollout(experience, agent)
    compute_advantages(experience, config.ppo.gamma, config.ppo.gae_lambda)
    train_ppo(agent, optimizer, experience, trainer_cfg=config)


def by_hand(agent: MettaAgent, optimizer: Optimizer, experience: Experience, config: TrainerConfig) -> None:
    while not experience.ready_for_training:
        perform_rollout_step(agent, experience.env, experience, "cpu")
    advantages = compute_advantages(experience, config.ppo.gamma, config.ppo.gae_lambda)
    for _ in range(config.update_epochs):
        for minibatch in experience.minibatches(advantages, config, 0):
            loss = process_minibatch_update(
                agent, experience, minibatch, advantages, config, None, 0, Losses(), "cpu"
            )
            optimizer.step(loss)


Loop = Callable[[MettaAgent, Optimizer, Experience, TrainerConfig], None]
WAYS: dict[str, tuple[Loop, int]] = {
    "rollout, groups in turns": (by_rollouts, 2),
    "rollout, all together": (by_rollouts, 1),
    "step by step": (by_hand, 1),
}


def never_forget(patch: Patch) -> None:
    patch.setattr(PolicyState, "zero_", lambda self, rows: None)


def judge_without_ends(patch: Patch) -> None:
    plain = MettaAgent.evaluate

    def evaluate(self: MettaAgent, obs: Any, state: Any, dones: torch.Tensor, actions: Any) -> Any:
        return plain(self, obs, state, torch.zeros_like(dones), actions)

    patch.setattr(MettaAgent, "evaluate", evaluate)


def judge_from_nothing(patch: Patch) -> None:
    plain = MettaAgent.evaluate

    def evaluate(self: MettaAgent, obs: Any, state: PolicyState, dones: Any, actions: Any) -> Any:
        return plain(self, obs, self.initial_state(state.batch_size), dones, actions)

    patch.setattr(MettaAgent, "evaluate", evaluate)


@pytest.mark.parametrize("fault", [None, never_forget, judge_without_ends, judge_from_nothing])
@pytest.mark.parametrize("way", WAYS)
def test_the_first_update_finds_every_action_as_probable_as_it_was(
    way, fault, make_env, make_agent, make_experience, monkeypatch
) -> None:
    loop, groups = WAYS[way]
    agent = make_agent()
    with torch.no_grad():  # far from uniform, so that what the memory holds shows
        agent.action_head.layers[-1].weight.mul_(600)
    experience = make_experience(make_env(lengths=(2, 13)), agent, async_factor=groups)
    config = TrainerConfig(**experience.config.model_dump(), vtrace=None)
    if fault is not None:
        fault(monkeypatch)
    plain, furthest = MettaAgent.evaluate, []

    def evaluate(self: MettaAgent, obs: Any, *rest: Any) -> Any:
        out = plain(self, obs, *rest)
        if not furthest:
            same = (experience.observations[:, None] == obs[None]).flatten(2).all(2)
            taken = experience.logprobs[same.byte().argmax(0)]
            furthest.append(float((out.logprobs - taken).detach().abs().max()))
        return out

    monkeypatch.setattr(MettaAgent, "evaluate", evaluate)
    loop(agent, Optimizer(policy=agent), experience, config)
    (most,) = furthest
    assert most < 1e-4 if fault is None else most > 1e-2


def forget_on_resuming(patch: Patch) -> None:
    plain = Experience.load_state_dict

    def load(self: Experience, state: dict[str, Any]) -> None:
        plain(self, state)
        self._state = PolicyState(torch.zeros_like(self._state.h), self._state.c)

    patch.setattr(Experience, "load_state_dict", load)


def resume_in_other_places(patch: Patch) -> None:
    plain = Experience.load_state_dict

    def load(self: Experience, state: dict[str, Any]) -> None:
        plain(self, state)
        self._state = PolicyState(self._state.h.roll(1, 1), self._state.c.roll(1, 1))

    patch.setattr(Experience, "load_state_dict", load)


def trained(way: str, workers: int, folder: Path, *stops: int) -> list[torch.Tensor]:
    """Weights of a run that is made anew after each stop."""
    loop, groups = WAYS[way]
    config = TrainerConfig(
        batch_size=16 * 16, minibatch_size=64, bptt_horizon=8, async_factor=groups, vtrace=None, ppo=PPO
    )
    for stop in stops:
        env = Environment(
            env_config=CARRYING_ORE,
            num_envs=16 // CARRYING_ORE.game.num_agents,
            num_workers=max(workers, 1),
            vectorization="multiprocessing" if workers else "serial",
            seed=3,
        )
        try:
            agent = MettaAgent(
                env.spec,
                AgentModelConfig(hidden_dim=16, backbone="mlp"),
                generator=torch.Generator().manual_seed(0),
            )
            optimizer = Optimizer(policy=agent, learning_rate=0.01)
            run: dict[str, Any] = {"optimizer": optimizer, "experience": Experience(env, agent, config, 1)}
            _, epoch, _ = load_checkpoint(agent, checkpoint_dir=folder, **run)
            for _ in range(epoch, stop):
                loop(agent, experience=run["experience"], optimizer=optimizer, config=config)
            now: dict[str, Any] = {"epoch": stop, "agent_step": 0, "policy_store": None, "force": True}
            save_checkpoint(agent, **run, **now, checkpoint_path=folder, checkpoint_interval=0)
        finally:
            env.close()
    return [parameter.detach() for parameter in agent.parameters()]


@pytest.mark.parametrize(("way", "workers"), [*((way, 0) for way in WAYS), ("rollout, groups in turns", 2)])
def test_an_interrupted_run_goes_on_with_its_memory(
    way: str, workers: int, tmp_path: Path, monkeypatch: Patch
) -> None:
    whole = trained(way, workers, tmp_path / "whole", 3)
    parts = trained(way, workers, tmp_path / "parts", 2, 3)
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))
    for number, fault in enumerate((forget_on_resuming, resume_in_other_places)):
        with monkeypatch.context() as patch:
            fault(patch)
            spoilt = trained(way, workers, tmp_path / f"spoilt_{number}", 2, 3)
        assert not all(torch.equal(one, other) for one, other in zip(whole, spoilt, strict=True)), fault
