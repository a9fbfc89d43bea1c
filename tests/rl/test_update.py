"""train_ppo: what moves, what each option changes, when it stops."""

import math

import pytest
import torch

import metta.rl.losses
from metta.rl.advantage import compute_advantages
from metta.rl.optimizer import make_optimizer
from metta.rl.rollout import rollout
from metta.rl.trainer_config import OptimizerConfig, PPOConfig
from metta.rl.update import train_ppo

STATISTICS = {
    *("loss", "policy_loss", "value_loss", "entropy", "l2_reg_loss", "l2_init_loss", "approx_kl", "clipfrac"),
    *("ratio", "grad_norm", "explained_variance", "advantage_mean", "advantage_std", "return_mean"),
    *("learning_rate", "updates", "epochs", "early_stop"),
}


@pytest.fixture
def train(make_env, make_agent, make_experience):
    """Collects with a fixed seed, trains once; gives agent and statistics."""

    def run(ppo=None, optimizer=None, epochs=3, agent_fields=None, **experience_fields):
        agent = make_agent(**(agent_fields or {}))
        experience = make_experience(make_env(), agent, **experience_fields)
        rollout(experience, agent)
        made = make_optimizer(agent, OptimizerConfig(**{"learning_rate": 0.03, **(optimizer or {})}))
        stats = train_ppo(agent, made, experience, PPOConfig(**(ppo or {})), update_epochs=epochs)
        return agent, stats

    return run


def weights(agent) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in agent.named_parameters()}


def differ(a, b) -> bool:
    return any(not torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["adam", "muon"])
@pytest.mark.parametrize("fields", [{}, {"forward_lstm": False}, {"backbone": "cnn"}], ids=str)
def test_every_weight_moves_in_one_update(make_env, make_agent, make_experience, kind, fields) -> None:
    agent = make_agent(**fields)
    experience = make_experience(make_env(), agent, minibatch_size=512)
    rollout(experience, agent)
    before = weights(agent)
    stats = train_ppo(agent, make_optimizer(agent, OptimizerConfig(type=kind)), experience)
    assert stats["updates"] == 1
    for name, parameter in agent.named_parameters():
        assert not torch.equal(before[name], parameter), f"{name} did not move"


def test_statistics_are_numbers_with_these_names(train) -> None:
    _, stats = train(epochs=2)
    assert set(stats) == STATISTICS
    assert all(type(value) is float and math.isfinite(value) for value in stats.values()), stats
    assert stats["updates"] == 8
    assert stats["epochs"] == 2
    assert stats["learning_rate"] == 0.03
    assert 0 < stats["entropy"] <= math.log(3) + 1e-6
    assert stats["approx_kl"] > 0
    assert 0 < stats["clipfrac"] < 1
    assert stats["grad_norm"] > 0


def test_any_optimizer_will_do(make_env, make_agent, make_experience) -> None:
    agent = make_agent()
    experience = make_experience(make_env(), agent)
    rollout(experience, agent)
    before = weights(agent)
    train_ppo(agent, torch.optim.RMSprop(agent.parameters(), lr=1e-3), experience)
    assert not torch.equal(before["core.layers.0.weight_hh"], agent.core.layers[0].weight_hh)


def test_advantages_computed_beforehand_are_the_ones_used(make_env, make_agent, make_experience) -> None:
    def run(gamma_before, gamma):
        agent = make_agent()
        experience = make_experience(make_env(), agent)
        rollout(experience, agent)
        if gamma_before is not None:
            compute_advantages(experience, gamma_before, 0.9)
        train_ppo(agent, make_optimizer(agent), experience, PPOConfig(gamma=gamma, gae_lambda=0.9))
        return agent

    assert not differ(run(0.5, 0.9), run(0.5, 0.1))
    assert not differ(run(0.5, 0.9), run(None, 0.5))
    assert differ(run(0.5, 0.9), run(0.6, 0.9))


def test_a_new_rollout_forgets_the_old_advantages(make_env, make_agent, make_experience) -> None:
    agent = make_agent()
    experience = make_experience(make_env(), agent)
    rollout(experience, agent)
    compute_advantages(experience)
    rollout(experience, agent)
    assert experience.advantages is None


def test_update_epochs_given_wins_over_the_experience(make_env, make_agent, make_experience) -> None:
    agent = make_agent()
    experience = make_experience(make_env(), agent, update_epochs=2)
    optimizer = make_optimizer(agent)
    rollout(experience, agent)
    assert train_ppo(agent, optimizer, experience)["epochs"] == 2
    assert train_ppo(agent, optimizer, experience, update_epochs=3)["epochs"] == 3
    with pytest.raises(ValueError, match="update_epochs=0"):
        train_ppo(agent, optimizer, experience, update_epochs=0)


def test_target_kl_stops(train) -> None:
    _, free = train(epochs=5)
    _, stopped = train(ppo={"target_kl": 0.002}, epochs=5)
    _, never = train(ppo={"target_kl": 100.0}, epochs=5)
    assert free["early_stop"] == never["early_stop"] == 0
    assert free["updates"] == never["updates"] == 20
    assert stopped["early_stop"] == 1
    assert 1 <= stopped["updates"] < 20
    assert stopped["epochs"] < 5


def test_the_gradient_is_clipped_to_its_norm(make_env, make_agent, make_experience) -> None:
    def change(max_grad_norm):
        agent = make_agent()
        experience = make_experience(make_env(), agent, minibatch_size=512)
        rollout(experience, agent)
        before = torch.nn.utils.parameters_to_vector(agent.parameters()).detach().clone()
        stats = train_ppo(
            agent,
            torch.optim.SGD(agent.parameters(), lr=1.0),
            experience,
            PPOConfig(max_grad_norm=max_grad_norm),
        )
        after = torch.nn.utils.parameters_to_vector(agent.parameters()).detach()
        return float((after - before).norm()), stats["grad_norm"]

    moved, norm = change(0)
    assert moved == pytest.approx(norm, rel=1e-4)
    assert norm > 0.01
    moved, reported = change(norm / 10)
    assert moved == pytest.approx(norm / 10, rel=1e-3)
    assert reported == pytest.approx(norm, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(
    make_env, make_agent, make_experience
) -> None:
    agent = make_agent()
    experience = make_experience(make_env(), agent)
    rollout(experience, agent)
    experience.rewards[3, 2] = math.nan
    before = weights(agent)
    with pytest.raises(
        FloatingPointError,
        match=r"at agent step 24 \(step 3 of agent 3\) there is nan in the environment's rewards, and",
    ):
        train_ppo(agent, make_optimizer(agent), experience, PPOConfig(norm_adv=False), update_epochs=1)
    changed = [name for name, parameter in agent.named_parameters() if not torch.isfinite(parameter).all()]
    assert changed == []
    assert before.keys() == weights(agent).keys()


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(
    make_env, make_agent, make_experience, monkeypatch
) -> None:
    agent = make_agent()
    experience = make_experience(make_env(), agent)
    rollout(experience, agent)
    plain = metta.rl.losses.value_loss

    def steep(values, *args):
        return plain(values, *args) + 0 * (values - values.detach()).abs().sqrt().sum()

    monkeypatch.setattr(metta.rl.losses, "value_loss", steep)
    before = weights(agent)
    with pytest.raises(
        FloatingPointError,
        match=r"in update 1 there is nan in the gradient of .*\.weight, and the weights were left",
    ):
        train_ppo(agent, make_optimizer(agent), experience)
    for name, parameter in agent.named_parameters():
        assert torch.equal(before[name], parameter), name


def test_only_complete_segments_are_trained_on(make_env, make_agent, make_experience) -> None:
    agent = make_agent()
    experience = make_experience(make_env(), agent)
    rollout(experience, agent, 5 * 8)
    with pytest.raises(
        ValueError, match="40 agent steps, less than one segment of 8 steps for each of its 8 agents"
    ):
        train_ppo(agent, make_optimizer(agent), experience)
    rollout(experience, agent, 15 * 8)
    stats = train_ppo(agent, make_optimizer(agent), experience)
    assert compute_advantages(experience).shape == (16, 8)
    assert stats["updates"] == 1


def test_the_agents_analysis_joins_the_statistics_on_its_ticks(train) -> None:
    _, stats = train(epochs=1, agent_fields={"analyze_weights_interval": 4})
    assert stats["updates"] == 4
    assert set(stats) > STATISTICS
    _, stats = train(epochs=1, agent_fields={"analyze_weights_interval": 5})
    assert set(stats) == STATISTICS


@pytest.mark.parametrize("term", ["l2_reg_loss", "l2_init_loss"])
def test_l2_terms_pull(make_env, make_agent, make_experience, term) -> None:
    def distance(coefficient):
        agent = make_agent()
        start = torch.nn.utils.parameters_to_vector(agent.parameters()).detach().clone()
        experience = make_experience(make_env(), agent)
        optimizer = torch.optim.SGD(agent.parameters(), lr=0.5)
        for _ in range(3):
            rollout(experience, agent)
            train_ppo(
                agent, optimizer, experience, PPOConfig(**{f"{term}_coef": coefficient, "max_grad_norm": 0})
            )
        end = torch.nn.utils.parameters_to_vector(agent.parameters()).detach()
        return float((end if term == "l2_reg_loss" else end - start).norm())

    assert distance(1000.0) < 0.9 * distance(0)
