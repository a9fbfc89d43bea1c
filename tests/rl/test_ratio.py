"""Ratio one: judging a fresh batch with unchanged weights finds every action as probable as when it was taken."""

import dataclasses

import pytest
import torch

from metta.agent.state import PolicyState
from metta.rl.rollout import rollout


def largest_log_ratio(agent, experience, **changed) -> float:
    advantages = torch.zeros(experience.num_segments, experience.horizon)
    minibatch = experience.minibatch(torch.arange(experience.num_segments), advantages)
    minibatch = dataclasses.replace(
        minibatch, **{name: change(minibatch) for name, change in changed.items()}
    )
    with torch.no_grad():
        out = agent.evaluate(
            minibatch.observations, minibatch.start_state, minibatch.dones, minibatch.actions
        )
    return float((out.logprobs - minibatch.logprobs).abs().max())


@pytest.fixture(params=[{}, {"lstm_layers": 2}, {"backbone": "cnn"}], ids=str)
def collected(request, make_env, make_agent, make_experience):
    agent = make_agent(**request.param)
    with torch.no_grad():  # far from uniform, so that what the memory holds shows in the probabilities
        agent.action_head.layers[-1].weight.mul_(600)
    experience = make_experience(make_env(lengths=(2, 13)), agent)
    rollout(experience, agent, 20 * 8)
    rollout(experience, agent)
    rollout(experience, agent)
    return agent, experience


def test_ratio_is_one_with_episode_ends_inside_segments(collected) -> None:
    agent, experience = collected
    inside = experience.dones[:, :-1]
    assert bool((experience.terminals & ~experience.truncations)[:, :-1].any())
    assert bool(experience.truncations[:, :-1].any())
    assert float(inside.any(1).float().mean()) > 0.5
    assert float(experience.logprobs.exp().std()) > 0.1
    assert largest_log_ratio(agent, experience) < 1e-4


@pytest.mark.parametrize(
    "fault",
    [
        {"dones": lambda m: torch.zeros_like(m.dones)},
        {"dones": lambda m: m.dones.roll(1, 1)},
        {"start_state": lambda m: PolicyState(0 * m.start_state.h, 0 * m.start_state.c)},
        {"start_state": lambda m: PolicyState(m.start_state.h.roll(1, 1), m.start_state.c.roll(1, 1))},
    ],
    ids=["ends ignored", "ends one step late", "segments start from zero", "another segment's memory"],
)
def test_a_broken_memory_shows(collected, fault) -> None:
    agent, experience = collected
    assert largest_log_ratio(agent, experience, **fault) > 1e-2


def test_a_rollout_that_does_not_forget_shows(
    make_env, make_agent, make_experience, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_agent()
    with torch.no_grad():
        agent.action_head.layers[-1].weight.mul_(600)
    monkeypatch.setattr(PolicyState, "zero_", lambda self, rows: None)
    experience = make_experience(make_env(), agent)
    rollout(experience, agent)
    assert largest_log_ratio(agent, experience) > 1e-2
