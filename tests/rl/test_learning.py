"""It learns; and a learner with a fault in it does not, so this test would notice."""

import pytest
import torch

import metta.rl.losses
from metta.agent.state import PolicyState
from metta.rl.optimizer import make_optimizer
from metta.rl.rollout import rollout
from metta.rl.trainer_config import OptimizerConfig, PPOConfig
from metta.rl.update import train_ppo

THRESHOLD = 0.95
"""Share of right actions. Chance is 0.5; whoever sees the sign but forgets it at once gets 0.65."""


def _flip_sign(patch: pytest.MonkeyPatch) -> None:
    plain = metta.rl.losses.clipped_policy_loss
    patch.setattr(metta.rl.losses, "clipped_policy_loss", lambda *args: -plain(*args))


def _shuffle_advantages(patch: pytest.MonkeyPatch) -> None:
    plain, generator = metta.rl.losses.normalize_advantages, torch.Generator().manual_seed(0)

    def shuffled(advantages: torch.Tensor) -> torch.Tensor:
        order = torch.randperm(advantages.numel(), generator=generator)
        return plain(advantages).flatten()[order].view_as(advantages)

    patch.setattr(metta.rl.losses, "normalize_advantages", shuffled)


def _zero_advantages(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(metta.rl.losses, "normalize_advantages", torch.zeros_like)


def _never_forget(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PolicyState, "zero_", lambda self, rows: None)


def _always_forget(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PolicyState, "zero_", lambda self, rows: (self.h.zero_(), self.c.zero_()))


FAULTS = {
    "sign of the loss": _flip_sign,
    "advantages of other steps": _shuffle_advantages,
    "no advantages": _zero_advantages,
    "memory survives the episode": _never_forget,
    "memory lasts one step": _always_forget,
}


@pytest.fixture
def learn(make_env, make_agent, make_experience):
    def run(kind: str = "adam", seed: int = 0) -> float:
        agent = make_agent(seed)
        experience = make_experience(
            make_env(16, 2, seed=seed, memory=True),
            agent,
            seed,
            batch_size=1024,
            minibatch_size=256,
            bptt_horizon=16,
        )
        optimizer = make_optimizer(agent, OptimizerConfig(type=kind, learning_rate=0.01))
        config = PPOConfig(clip_coef=0.2, ent_coef=0.01, gamma=0.5, gae_lambda=0.9)
        right = []
        for _ in range(15):
            rollout(experience, agent)
            train_ppo(agent, optimizer, experience, config, update_epochs=3)
            right.append(float(experience.rewards.mean()))
        return sum(right[-3:]) / 3

    return run


@pytest.mark.parametrize("kind", ["adam", "muon"])
@pytest.mark.parametrize("seed", [0, 1])
def test_learns_what_takes_a_memory_that_ends_with_the_episode(learn, kind, seed) -> None:
    assert learn(kind, seed) > THRESHOLD


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_learner_stays_below(learn, monkeypatch, fault) -> None:
    FAULTS[fault](monkeypatch)
    assert learn() < 0.9
