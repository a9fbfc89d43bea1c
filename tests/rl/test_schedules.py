"""Numbers that change over a run, and value targets that change over a batch."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from metta.rl.advantage import compute_advantages
from metta.rl.losses import Losses, process_minibatch_update
from metta.rl.optimizer import Optimizer, make_optimizer
from metta.rl.rollout import rollout
from metta.rl.trainer_config import PPOConfig, ScheduleConfig, Scheduled, TrainerConfig, VTraceConfig
from metta.rl.update import train_ppo

NAMES = get_args(Scheduled)


def test_each_shape_goes_its_way_between_its_times() -> None:
    def way(**fields: Any) -> list[float]:
        config = TrainerConfig(
            total_timesteps=1000, ppo={"ent_coef": 0.08}, schedules={"ent_coef": {"end": 0.02, **fields}}
        )
        return [config.ppo_at(step).ent_coef for step in (0, 250, 500, 750, 1000, 2000)]

    assert way() == pytest.approx([0.08, 0.065, 0.05, 0.035, 0.02, 0.02])
    assert way(shape="exponential") == pytest.approx([0.08, 0.08 * 0.5**0.5, 0.04, 0.02 * 2**0.5, 0.02, 0.02])
    near = 0.03 * (1 - 0.5**0.5)
    assert way(shape="cosine") == pytest.approx([0.08, 0.08 - near, 0.05, 0.02 + near, 0.02, 0.02])
    assert way(start_at=0.25, end_at=0.75) == pytest.approx([0.08, 0.08, 0.05, 0.02, 0.02, 0.02])
    assert way(end=0) == pytest.approx([0.08, 0.06, 0.04, 0.02, 0, 0])


def test_what_is_not_scheduled_stays() -> None:
    config = TrainerConfig(schedules={"ent_coef": ScheduleConfig(end=0.5)})
    assert config.ppo_at(config.total_timesteps) == PPOConfig(ent_coef=0.5)
    assert (
        TrainerConfig().ppo_at(10**6) is TrainerConfig().ppo or TrainerConfig().ppo_at(10**6) == PPOConfig()
    )
    assert TrainerConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_scheduled_number_is_the_one_that_counts_at_its_time(
    name, loop, make_env, make_agent, make_experience
) -> None:
    """Half way to 0.9 trains as the number half way, stated from the start, does."""

    def weights(agent_step: int, **fields: Any) -> list[torch.Tensor]:
        agent = make_agent()
        experience = make_experience(make_env(), agent)
        config = TrainerConfig(**experience.config.model_dump(), total_timesteps=100, **fields)
        rollout(experience, agent)
        advantages = compute_advantages(experience)
        if loop:
            optimizer, losses = Optimizer(policy=agent, learning_rate=0.03), Losses()
            for minibatch in experience.minibatches(advantages, config, agent_step):
                loss = process_minibatch_update(
                    agent, experience, minibatch, advantages, config, None, agent_step, losses, "cpu"
                )
                optimizer.step(loss, 0)
        else:
            optimizer = make_optimizer(agent)
            train_ppo(agent, optimizer, experience, trainer_cfg=config, agent_step=agent_step)
        return list(agent.parameters())

    ppo = {"clip_coef": 0.001, "vf_clip_coef": 0.001, name: 0.001}
    schedules = {name: {"end": 0.9}}
    at_first = weights(0, ppo=ppo, schedules=schedules)
    half_way = weights(50, ppo=ppo, schedules=schedules)
    stated = weights(50, ppo={**ppo, name: 0.001 + (0.9 - 0.001) * 0.5})
    plain = weights(0, ppo=ppo)
    assert all(torch.equal(a, b) for a, b in zip(at_first, plain, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(half_way, stated, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(half_way, plain, strict=True))


@pytest.mark.parametrize("vtrace", [None, VTraceConfig()])
def test_refreshed_targets_are_those_of_the_present_values(
    vtrace, make_env, make_agent, make_experience
) -> None:
    """A second pass is that of a batch which was collected with the values that the first one ended with."""

    def run(refresh: bool) -> tuple[Any, Any, TrainerConfig]:
        agent = make_agent()
        experience = make_experience(make_env(), agent)
        ppo = PPOConfig(refresh_targets=refresh, gamma=0.9, gae_lambda=0.8)
        config = TrainerConfig(**experience.config.model_dump(), ppo=ppo, vtrace=vtrace)
        rollout(experience, agent)
        return agent, experience, config

    agent, experience, config = run(refresh=True)
    optimizer = make_optimizer(agent)
    collected = experience.values.clone()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    plain = type(agent).evaluate

    def evaluate(self: Any, *args: Any) -> Any:
        out = plain(self, *args)
        seen.append((args[0], out.values.detach()))
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(agent), "evaluate", evaluate)
        train_ppo(agent, optimizer, experience, trainer_cfg=config, update_epochs=1)
    assert not torch.equal(experience.values, collected)
    newest = {obs[i].numpy().tobytes(): values[i] for obs, values in seen for i in range(len(obs))}
    for segment in range(experience.num_segments):
        said = newest[experience.observations[segment].numpy().tobytes()]
        assert torch.equal(experience.values[segment], said)

    twice, twice_experience, config = run(refresh=True)
    train_ppo(twice, make_optimizer(twice), twice_experience, trainer_cfg=config, update_epochs=2)
    advantages = compute_advantages(experience, 0.9, 0.8)
    for minibatch in experience.minibatches(advantages, config, 0):
        optimizer.zero_grad()
        loss = process_minibatch_update(
            agent, experience, minibatch, advantages, config, None, 0, Losses(), "cpu"
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(agent.parameters(), config.ppo.max_grad_norm)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(agent.parameters(), twice.parameters(), strict=True))
    stale, stale_experience, config = run(refresh=False)
    train_ppo(stale, make_optimizer(stale), stale_experience, trainer_cfg=config, update_epochs=2)
    assert torch.equal(stale_experience.values, collected)
    assert any(not torch.equal(a, b) for a, b in zip(stale.parameters(), twice.parameters(), strict=True))
