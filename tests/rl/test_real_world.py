"""The learner in MettaGrid itself, by the documented functions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.interface.training import (
    compute_advantages,
    load_checkpoint,
    make_experience_manager,
    make_optimizer,
    rollout,
    save_checkpoint,
    train_ppo,
)
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.vec import VecEnv
from metta.rl.trainer_config import ExperienceConfig

CONFIG = EnvConfig(game=GameConfig(num_agents=4, width=12, height=12, max_steps=11))


def make_agent(env, seed: int = 0) -> MettaAgent:
    config = AgentModelConfig(hidden_dim=32, analyze_weights_interval=0)
    return MettaAgent(
        env.single_observation_space.spec, config, generator=torch.Generator().manual_seed(seed)
    )


def make_run(seed: int):
    env = VecEnv(CONFIG, 4, seed=seed)
    agent = make_agent(env, seed)
    sizes = ExperienceConfig(batch_size=512, minibatch_size=256, bptt_horizon=8)
    return env, agent, make_optimizer(agent), make_experience_manager(env, agent, sizes, seed=seed)


def test_one_world_and_many_train_alike() -> None:
    one = MettaGridEnv(CONFIG)
    agent = make_agent(one)
    experience = make_experience_manager(
        one, agent, config=ExperienceConfig(batch_size=256, minibatch_size=128, bptt_horizon=8)
    )
    info = rollout(experience, agent)
    assert info.total_env_steps == 256
    assert info.episode_lengths == [11] * 5
    assert compute_advantages(experience, gamma=0.99, gae_lambda=0.95).shape == (32, 8)
    stats = train_ppo(agent, make_optimizer(agent), experience, update_epochs=4)
    assert stats["updates"] == 8


def test_ratio_is_one_with_episode_ends_inside_segments() -> None:
    _, agent, _, experience = make_run(0)
    with torch.no_grad():
        agent.action_head.layers[-1].weight.mul_(300)
    rollout(experience, agent)
    minibatch = experience.minibatch(torch.arange(64), torch.zeros(64, 8))
    assert bool(minibatch.dones[:, :-1].any())
    with torch.no_grad():
        out = agent.evaluate(
            minibatch.observations, minibatch.start_state, minibatch.dones, minibatch.actions
        )
    assert float((out.logprobs - minibatch.logprobs).abs().max()) < 1e-4


def test_a_run_resumes_bit_for_bit_from_its_files(tmp_path: Path) -> None:
    def go(run, count):
        _, agent, optimizer, experience = run
        return [
            (rollout(experience, agent).episode_returns, train_ppo(agent, optimizer, experience))
            for _ in range(count)
        ]

    whole = make_run(0)
    go(whole, 2)
    save_checkpoint(
        epoch=2,
        agent_step=1024,
        agent=whole[1],
        optimizer=whole[2],
        policy_store=None,
        checkpoint_path=tmp_path,
        checkpoint_interval=1,
        experience=whole[3],
    )
    expected = go(whole, 2)
    resumed = make_run(1)
    _, agent, optimizer, experience = resumed
    result = load_checkpoint(
        checkpoint_dir=tmp_path, agent=agent, optimizer=optimizer, policy_store=None, experience=experience
    )
    assert result == (1024, 2, str(tmp_path / "checkpoint_000002.pt"))
    assert go(resumed, 2) == expected
    for a, b in zip(whole[1].parameters(), agent.parameters(), strict=True):
        assert torch.equal(a, b)
    np.testing.assert_array_equal(whole[0].observations, resumed[0].observations)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("offload", [False, True])
def test_trains_on_an_accelerator(offload: bool) -> None:
    env = VecEnv(CONFIG, 4)
    agent = make_agent(env).to("cuda")
    sizes = ExperienceConfig(batch_size=512, minibatch_size=256, bptt_horizon=8, cpu_offload=offload)
    experience = make_experience_manager(env, agent, sizes)
    rollout(experience, agent)
    assert experience.observations.is_cuda is not offload
    before = agent.core.layers[0].weight_hh.detach().clone()
    stats = train_ppo(agent, make_optimizer(agent), experience)
    assert stats["approx_kl"] < 0.01
    assert not torch.equal(before, agent.core.layers[0].weight_hh)
