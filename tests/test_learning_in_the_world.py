"""In a small world of the real engine a short run learns to carry ore, and a broken learner does not."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import metta.rl.losses
from metta.api import (
    AgentModelConfig,
    ExperienceConfig,
    OptimizerConfig,
    PPOConfig,
    VecEnv,
    make_agent,
    make_experience_manager,
    make_optimizer,
    rollout,
    run_episodes,
    summarize,
    train_ppo,
)
from small_worlds import CARRYING_ORE

BEST = 7.0
"""Taking, two turns, putting, two turns: six steps for each ore, so seven of them in forty steps."""
THRESHOLD = 5.0
CHANCE = 1.0
"""What an untrained agent stays below."""


def learn() -> float:
    torch.manual_seed(0)
    env = VecEnv(CARRYING_ORE, 16, seed=0, stagger=True)
    agent = make_agent(
        env.single_observation_space,
        env.single_action_space,
        [],
        "cpu",
        AgentModelConfig(hidden_dim=32, mask_actions=False),
    )
    assert summarize(run_episodes(agent, env, 32)).mean_reward < CHANCE
    optimizer = make_optimizer(agent, OptimizerConfig(learning_rate=3e-3, eps=1e-5))
    sizes = ExperienceConfig(batch_size=1024, minibatch_size=256, bptt_horizon=16, async_factor=1)
    experience = make_experience_manager(env, agent, sizes)
    ppo = PPOConfig(gamma=0.95, clip_coef=0.2, ent_coef=0.01, clip_vloss=False)
    for _ in range(40):
        rollout(experience, agent)
        train_ppo(agent, optimizer, experience, ppo, update_epochs=2)
    return summarize(run_episodes(agent, env, 32)).mean_reward


def test_the_best_there_is() -> None:
    """The bound above is true: the plan that it describes earns that much."""
    env = VecEnv(CARRYING_ORE)
    ids = [env.spec.action_names.index(name) for name in ("get_items", "turn_left", "turn_left", "put_items")]
    plan = [*ids, *ids[1:3]]
    episodes = []
    for step in range(40):
        episodes += env.step(np.array([[plan[step % 6], 0]] * 2)).episodes
    assert episodes[0].score == BEST


def test_a_short_run_learns() -> None:
    assert learn() > THRESHOLD


def _flip_sign(patch: pytest.MonkeyPatch) -> None:
    plain = metta.rl.losses.clipped_policy_loss
    patch.setattr(metta.rl.losses, "clipped_policy_loss", lambda *args: -plain(*args))


def _no_advantages(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(metta.rl.losses, "normalize_advantages", torch.zeros_like)


def _advantages_of_others(patch: pytest.MonkeyPatch) -> None:
    plain = metta.rl.losses.normalize_advantages
    patch.setattr(metta.rl.losses, "normalize_advantages", lambda advantages: plain(advantages).roll(1, 0))


@pytest.mark.parametrize("fault", [_flip_sign, _no_advantages, _advantages_of_others])
def test_a_broken_learner_does_not(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert learn() < THRESHOLD / 2
