"""What a minibatch of the documented loop is made of, and the loss that it leads to."""

import math
from dataclasses import replace

import pytest
import torch

from metta.rl.advantage import compute_advantage, compute_advantages
from metta.rl.losses import (
    SMALLEST_VARIANCE,
    Losses,
    clipped_policy_loss,
    minibatch_losses,
    normalize_advantages,
    process_minibatch_update,
    return_variance,
    value_loss,
    vtrace_advantages,
)
from metta.rl.optimizer import Optimizer, make_optimizer
from metta.rl.rollout import rollout
from metta.rl.sampling import prioritized_minibatch
from metta.rl.trainer_config import (
    OptimizerConfig,
    PPOConfig,
    PrioritizedExperienceReplayConfig,
    TrainerConfig,
    VTraceConfig,
)
from metta.rl.update import train_ppo
from ranks import Ranks

PPO = PPOConfig(gamma=0.9, gae_lambda=0.8)
NO_CLIP = VTraceConfig(vtrace_rho_clip=1.0, vtrace_c_clip=1.0)


@pytest.fixture
def collected(make_env, make_agent, make_experience):
    """An agent far from uniform and a full batch of it, episode ends inside and at the borders of segments included."""
    agent = make_agent()
    with torch.no_grad():
        agent.action_head.layers[-1].weight.mul_(50)
    experience = make_experience(make_env(), agent)
    rollout(experience, agent)
    return agent, experience


def trainer_config(experience, **fields) -> TrainerConfig:
    sizes = {
        name: getattr(experience.config, name) for name in ("batch_size", "minibatch_size", "bptt_horizon")
    }
    return TrainerConfig(**sizes, **{"ppo": PPO, **fields})


def update(agent, experience, minibatch, advantages, config, losses=None) -> torch.Tensor:
    losses = Losses() if losses is None else losses
    return process_minibatch_update(agent, experience, minibatch, advantages, config, None, 0, losses, "cpu")


def moved(agent, amount: float = 0.05):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))


# --- V-trace ---------------------------------------------------------------------------------------------------


def stretched_ratio_oracle(experience, indices, ratio, vtrace) -> torch.Tensor:
    """Advantages of the whole stretch of each row, with the ratio inside the segments and 1 everywhere else."""
    rows, horizon = experience.num_rows, experience.horizon
    result = torch.zeros(len(indices), horizon, dtype=torch.float64)

    def life(tensor):
        return tensor.reshape(-1, rows, horizon).transpose(0, 1).reshape(rows, -1).double()

    for i, index in enumerate(indices.tolist()):
        everywhere = torch.ones(experience.num_segments, horizon)
        everywhere[index] = ratio[i]
        values = life(experience.values)
        whole = compute_advantage(
            values,
            life(experience.rewards),
            life(experience.dones),
            life(everywhere),
            torch.empty_like(values),
            PPO.gamma,
            PPO.gae_lambda,
            vtrace.vtrace_rho_clip,
            vtrace.vtrace_c_clip,
            truncation_values=life(experience.truncation_values),
            bootstrap_values=experience.bootstrap_values().double(),
        )
        chunk, row = divmod(index, rows)
        result[i] = whole[row, chunk * horizon : (chunk + 1) * horizon]
    return result.float()


def test_with_ratio_one_it_is_gae_across_the_borders_of_segments(collected) -> None:
    _, experience = collected
    advantages = compute_advantages(experience, PPO.gamma, PPO.gae_lambda)
    minibatch = experience.minibatch(torch.arange(experience.num_segments), advantages)
    assert bool(minibatch.dones[:, -1].any())
    assert not bool(minibatch.dones[:, -1].all())
    ones = torch.ones_like(minibatch.values)
    torch.testing.assert_close(vtrace_advantages(minibatch, ones, PPO, NO_CLIP), advantages)
    for field in ("following_values", "following_advantages", "truncation_values"):
        wrong = replace(minibatch, **{field: torch.zeros_like(getattr(minibatch, field))})
        error = (vtrace_advantages(wrong, ones, PPO, NO_CLIP) - advantages).abs().max()
        assert float(error) > 0.01, f"{field} is not used"


@pytest.mark.parametrize("clips", [(1.0, 1.0), (2.0, 0.7), (0.5, 3.0)])
def test_with_other_ratios_it_is_the_definition_over_the_whole_stretch(collected, clips) -> None:
    _, experience = collected
    vtrace = VTraceConfig(vtrace_rho_clip=clips[0], vtrace_c_clip=clips[1])
    advantages = compute_advantages(experience, PPO.gamma, PPO.gae_lambda)
    # Ratios of 1 beyond the segment count with clips below 1 too, where GAE has none: leave those out.
    indices = torch.tensor([3, 17, 40, 63] if min(clips) >= 1 else [56, 59, 63])
    ratio = torch.exp(
        torch.randn(len(indices), experience.horizon, generator=torch.Generator().manual_seed(1))
    )
    got = vtrace_advantages(experience.minibatch(indices, advantages), ratio, PPO, vtrace)
    torch.testing.assert_close(
        got, stretched_ratio_oracle(experience, indices, ratio, vtrace), rtol=1e-4, atol=1e-5
    )


def test_a_fresh_batch_gives_the_plain_loss(collected) -> None:
    agent, experience = collected
    advantages = compute_advantages(experience, PPO.gamma, PPO.gae_lambda)
    minibatch = experience.minibatch(torch.arange(16), advantages)
    losses = Losses()
    loss = update(agent, experience, minibatch, advantages, trainer_config(experience), losses)
    plain = minibatch_losses(agent, minibatch, PPO)
    torch.testing.assert_close(loss, plain.loss, rtol=1e-4, atol=1e-6)
    assert losses.stats()["ratio"] == pytest.approx(1, abs=1e-5)
    assert set(losses.stats()) == set(plain.terms)


@pytest.mark.parametrize("field", VTraceConfig.model_fields)
def test_the_loss_uses_the_clips_once_the_policy_has_moved(collected, field) -> None:
    agent, experience = collected
    advantages = compute_advantages(experience, PPO.gamma, PPO.gae_lambda)
    minibatch = experience.minibatch(torch.arange(16), advantages)
    moved(agent)

    def terms(vtrace) -> dict[str, float]:
        losses = Losses()
        update(agent, experience, minibatch, advantages, trainer_config(experience, vtrace=vtrace), losses)
        return losses.stats()

    small, large, off = terms({field: 0.2}), terms({field: 5.0}), terms(None)
    plain = minibatch_losses(agent, minibatch, PPO).scalars()
    for name in ("policy_loss", "value_loss"):
        assert len({round(t[name], 6) for t in (small, large, off)}) == 3, name
        assert off[name] == pytest.approx(plain[name], rel=1e-6)


def test_the_advantages_given_take_the_place_of_those_drawn_with(collected) -> None:
    agent, experience = collected
    advantages = compute_advantages(experience, PPO.gamma, PPO.gae_lambda)
    stale = experience.minibatch(torch.arange(16), torch.randn_like(advantages))
    fresh = experience.minibatch(torch.arange(16), advantages)
    for vtrace in (None, NO_CLIP):
        config = trainer_config(experience, vtrace=vtrace)
        assert float(update(agent, experience, stale, advantages, config).detach()) == float(
            update(agent, experience, fresh, advantages, config).detach()
        )
    assert torch.equal(
        experience.with_advantages(stale, advantages).following_advantages, fresh.following_advantages
    )


def test_the_batch_counts_as_trained_on_and_can_still_be_drawn_from(collected) -> None:
    agent, experience = collected
    advantages = compute_advantages(experience)
    assert experience.ready_for_training
    update(agent, experience, experience.sample_minibatch(advantages), advantages, trainer_config(experience))
    assert not experience.ready_for_training
    assert len(experience.sample_minibatch(advantages).indices) == 16
    with pytest.raises(ValueError, match="device is cuda but the policy lies on cpu"):
        process_minibatch_update(
            agent,
            experience,
            experience.sample_minibatch(advantages),
            advantages,
            trainer_config(experience),
            None,
            0,
            Losses(),
            "cuda",
        )


def test_the_loop_and_train_ppo_are_one_algorithm(make_env, make_agent, make_experience) -> None:
    """The documented loop, without V-trace, makes the same weights as `train_ppo`."""

    def collect():
        agent = make_agent()
        experience = make_experience(make_env(), agent)
        rollout(experience, agent)
        return agent, experience, compute_advantages(experience, PPO.gamma, PPO.gae_lambda)

    agent, experience, advantages = collect()
    config = trainer_config(experience, vtrace=None)
    optimizer = Optimizer(policy=agent, learning_rate=0.01, max_grad_norm=PPO.max_grad_norm)
    losses = Losses()
    for _ in range(2):
        for minibatch in experience.minibatches(advantages, config):
            optimizer.step(update(agent, experience, minibatch, advantages, config, losses), 0)
    other, experience, advantages = collect()
    made = make_optimizer(other, OptimizerConfig(learning_rate=0.01))
    stats = train_ppo(other, made, experience, PPO, update_epochs=2)
    for a, b in zip(agent.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    for name, value in losses.stats().items():
        assert stats[name] == value, name


@pytest.mark.parametrize("agent_step", [0, 700])
def test_train_ppo_corrects_for_priorities_as_far_as_the_run_has_come(collected, agent_step) -> None:
    agent, experience = collected
    advantages = compute_advantages(experience)
    replay = {"prio_alpha": 1.0, "prio_beta0": 0.1}
    config = trainer_config(experience, total_timesteps=1000, prioritized_experience_replay=replay)
    order = experience.shuffle_generator.get_state()
    expected = [minibatch.weights for minibatch in experience.minibatches(advantages, config, agent_step)]
    experience.shuffle_generator.set_state(order)
    drawn = []
    plain = experience.minibatch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experience, "minibatch", lambda *a: drawn.append(plain(*a)) or drawn[-1])
        train_ppo(
            agent,
            make_optimizer(agent),
            experience,
            trainer_cfg=config,
            update_epochs=1,
            agent_step=agent_step,
        )
    for one, other in zip(expected, (minibatch.weights for minibatch in drawn), strict=True):
        assert torch.equal(one, other)


def test_train_ppo_reads_a_trainer_config(make_env, make_agent, make_experience) -> None:
    def train(**fields) -> torch.Tensor:
        agent = make_agent()
        experience = make_experience(make_env(), agent)
        rollout(experience, agent)
        optimizer = make_optimizer(agent, OptimizerConfig(learning_rate=0.03))
        config = trainer_config(experience, **fields)
        train_ppo(agent, optimizer, experience, update_epochs=2, trainer_cfg=config)
        return torch.nn.utils.parameters_to_vector(agent.parameters()).detach()

    plain = train(vtrace=None)
    assert torch.equal(plain, train(vtrace=None))
    changes = (
        {"vtrace": NO_CLIP},
        {"vtrace": None, "prioritized_experience_replay": {"prio_alpha": 1.0}},
        {"vtrace": None, "ppo": {"gamma": 0.5}},
    )
    for fields in changes:
        assert not torch.equal(plain, train(**fields)), fields


# --- which segments ----------------------------------------------------------------------------------------------


def test_a_pass_has_every_segment_once_and_goes_on_with_the_next(collected) -> None:
    _, experience = collected
    advantages = compute_advantages(experience)
    assert experience.num_minibatches == 4
    passes = [[experience.sample_minibatch(advantages).indices for _ in range(4)] for _ in range(2)]
    for one in passes:
        assert torch.cat(one).sort().values.tolist() == list(range(64))
    assert not torch.equal(torch.cat(passes[0]), torch.cat(passes[1]))
    experience.sample_minibatch(advantages)
    whole = [minibatch.indices for minibatch in experience.minibatches(advantages)]
    assert torch.cat(whole).sort().values.tolist() == list(range(64))
    with pytest.raises(
        ValueError, match=r"advantages is \[8, 8\], but the batch has 64 complete segments of 8 steps"
    ):
        experience.sample_minibatch(advantages[:8])


def test_what_follows_a_segment_is_the_row_s_next(collected) -> None:
    _, experience = collected
    advantages = compute_advantages(experience)
    minibatch = experience.minibatch(torch.tensor([5, 60]), advantages)
    assert minibatch.following_values.tolist() == [
        float(experience.values[13, 0]),
        float(experience.bootstrap_values()[4]),
    ]
    assert minibatch.following_advantages.tolist() == [float(advantages[13, 0]), 0.0]


def test_segments_are_drawn_in_proportion_to_a_power_of_their_priority() -> None:
    advantages = torch.tensor([[1.0, -1.0], [-4.0, 4.0], [0.0, 18.0]])  # priorities 1, 4, 9
    generator = torch.Generator().manual_seed(0)
    for alpha in (0.5, 1.0):
        indices, weights = prioritized_minibatch(advantages, 60_000, alpha, 0.5, generator)
        chance = torch.tensor([1.0, 4.0, 9.0]).pow(alpha)
        chance /= chance.sum()
        share = torch.bincount(indices, minlength=3) / len(indices)
        torch.testing.assert_close(share, chance, atol=0.01, rtol=0)
        expected = chance[indices].pow(-0.5)
        torch.testing.assert_close(weights, expected / expected.mean(), rtol=1e-3, atol=1e-4)


def test_with_full_correction_a_weighted_mean_estimates_the_plain_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    advantages = torch.randn(50, 4, generator=generator).exp()
    numbers = advantages.abs().mean(1) + torch.randn(50, generator=generator)
    indices, weights = prioritized_minibatch(advantages, 40_000, 1.0, 1.0, generator)
    assert float((numbers[indices] * weights).mean()) == pytest.approx(float(numbers.mean()), abs=0.03)
    assert float(numbers[indices].mean()) > float(numbers.mean()) + 0.3


def test_odd_priorities() -> None:
    generator = torch.Generator().manual_seed(0)
    indices, weights = prioritized_minibatch(torch.zeros(4, 2), 4000, 1.0, 1.0, generator)
    assert torch.bincount(indices).min() > 800
    assert torch.equal(weights, torch.ones(4000))
    broken = torch.zeros(4, 2)
    broken[2, 1] = math.nan
    indices, _ = prioritized_minibatch(broken, 3, 1.0, 1.0, generator)
    assert indices.tolist() == [2, 2, 2]  # so that the loss tells
    for size in (1e-4, 1e4):  # to the power of 200 neither is a number any more
        advantages = torch.tensor([[1.0, 1.0], [2.0, 2.0]]) * size
        assert prioritized_minibatch(advantages, 3, 200.0, 1.0, generator)[0].tolist() == [1, 1, 1]


def test_nothing_can_be_drawn_from_an_empty_batch(make_env, make_agent, make_experience) -> None:
    experience = make_experience(make_env(), make_agent())
    for advantages in (torch.zeros(64, 8), torch.zeros(0, 8)):
        with pytest.raises(ValueError, match="the batch has 0 complete segments"):
            list(experience.minibatches(advantages))


def test_every_prioritised_field_acts_and_the_correction_grows_with_the_run(collected) -> None:
    _, experience = collected
    advantages = compute_advantages(experience)

    def draw(agent_step: int, **replay):
        experience.shuffle_generator.manual_seed(0)
        config = trainer_config(experience, total_timesteps=1000, prioritized_experience_replay=replay)
        return experience.sample_minibatch(advantages, config, agent_step)

    plain, prioritised = draw(0, prio_alpha=0.0), draw(0, prio_alpha=1.0)
    assert plain.weights is None
    assert not torch.equal(plain.indices, prioritised.indices)
    assert set(PrioritizedExperienceReplayConfig.model_fields) == {"prio_alpha", "prio_beta0"}
    spread = [
        float(draw(step, prio_alpha=1.0, prio_beta0=beta).weights.std())
        for step, beta in ((0, 0.0), (0, 0.3), (500, 0.3), (1000, 0.3), (5000, 0.0))
    ]
    assert spread[0] == 0
    assert sorted(spread) == spread
    assert spread[3] == pytest.approx(spread[4])


def test_weights_count_a_segment_more_or_less(collected) -> None:
    """Two segments of three, the third weighing nothing."""
    agent, experience = collected
    advantages = compute_advantages(experience)
    three = experience.minibatch(torch.tensor([1, 2, 3]), advantages, torch.tensor([1.5, 1.5, 0.0]))
    two = experience.minibatch(torch.tensor([1, 2]), advantages)
    config = PPOConfig(norm_adv=False)
    a, b = (minibatch_losses(agent, minibatch, config).scalars() for minibatch in (three, two))
    for name in ("loss", "policy_loss", "value_loss", "entropy"):
        assert a[name] == pytest.approx(b[name], rel=1e-5), name
    ones = torch.ones(2, 1)
    log_ratio, advantage = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(
        clipped_policy_loss(log_ratio, advantage, 0.1, ones), clipped_policy_loss(log_ratio, advantage, 0.1)
    )
    assert torch.equal(
        value_loss(log_ratio, advantage, advantage, 0.1, ones),
        value_loss(log_ratio, advantage, advantage, 0.1),
    )


def test_a_value_loss_of_unit_variance_does_not_know_the_size_of_rewards(collected) -> None:
    agent, experience = collected
    minibatch = experience.minibatch(torch.tensor([0, 1, 2]), compute_advantages(experience))
    spread = minibatch.returns.double().var(correction=0).item()
    assert spread > SMALLEST_VARIANCE
    raw = minibatch_losses(agent, minibatch, PPOConfig(vf_coef=0.7)).scalars()
    scaled = minibatch_losses(agent, minibatch, PPOConfig(vf_coef=0.7, norm_vloss=True)).scalars()
    assert scaled["value_loss"] == raw["value_loss"]
    change = 0.7 * raw["value_loss"] * (1 / spread - 1)
    assert scaled["loss"] - raw["loss"] == pytest.approx(change, rel=1e-4)
    returns = minibatch.returns
    assert float(return_variance(30 * returns)) == pytest.approx(900 * spread, rel=1e-5)
    assert float(return_variance(returns * 0 + 5)) == pytest.approx(SMALLEST_VARIANCE)


# --- sums, and several processes -----------------------------------------------------------------------------------


def test_losses_are_means_over_the_minibatches_that_have_them() -> None:
    losses = Losses()
    assert losses.stats() == {}
    losses.add({"loss": 1.0, "ks": 3.0})
    losses.add({"loss": 2.0})
    assert losses.stats() == {"loss": 1.5, "ks": 3.0}
    losses.clear()
    losses.add({"loss": 7.0})
    assert losses.stats() == {"loss": 7.0}


def test_exceeds_speaks_of_the_last_minibatch() -> None:
    losses = Losses()
    assert not losses.exceeds(0.1)
    losses.add({"approx_kl": 0.5})
    assert losses.exceeds(0.1)
    assert not losses.exceeds(None)
    losses.add({"approx_kl": 0.05})
    assert not losses.exceeds(0.1)


def test_processes_normalise_over_all_their_advantages(monkeypatch) -> None:
    parts = [torch.randn(3, 4) * (rank + 1) + rank for rank in range(3)]
    whole = normalize_advantages(torch.cat(parts))
    ranks = Ranks(monkeypatch, 3)
    together = torch.cat(ranks.run(lambda rank: normalize_advantages(parts[rank])))
    torch.testing.assert_close(together, whole)


def test_processes_stop_together(make_env, make_agent, make_experience, monkeypatch) -> None:
    """Rank 0 would stop early, rank 1 never: both stop when rank 0 does."""

    def train(rank: int) -> dict[str, float]:
        agent = make_agent(rank)
        experience = make_experience(make_env(seed=rank), agent, rank)
        rollout(experience, agent)
        optimizer = make_optimizer(agent, OptimizerConfig(learning_rate=(0.03, 1e-6)[rank]))
        return train_ppo(agent, optimizer, experience, PPOConfig(target_kl=0.002), update_epochs=5)

    alone = [train(0)["updates"], train(1)["updates"]]
    assert alone[0] < alone[1] == 20
    ranks = Ranks(monkeypatch, 2)
    together = ranks.run(train)
    assert together[0]["updates"] == together[1]["updates"] < 20
    assert together[0]["early_stop"] == together[1]["early_stop"] == 1


def test_processes_refuse_a_broken_loss_together(make_env, make_agent, make_experience, monkeypatch) -> None:
    messages = []

    def train(rank: int) -> None:
        agent = make_agent(rank)
        experience = make_experience(make_env(seed=rank), agent, rank)
        rollout(experience, agent)
        if rank == 1:
            experience.rewards[:] = math.nan
        with pytest.raises(FloatingPointError) as refusal:
            train_ppo(agent, make_optimizer(agent), experience, PPOConfig(norm_adv=False))
        messages.append(str(refusal.value))
        assert all(bool(torch.isfinite(p).all()) for p in agent.parameters())

    Ranks(monkeypatch, 2).run(train)
    assert sorted("in another process" in message for message in messages) == [False, True]


# --- the whole loss against its definition ---------------------------------------------------------------------


@torch.no_grad()
def loss_by_definition(agent, experience, minibatch, advantages, config) -> float:
    """V-trace, PPO's term, the clipped value loss and the entropy, in double precision and step by step."""
    ppo, vtrace = config.ppo, config.vtrace
    out = agent.evaluate(minibatch.observations, minibatch.start_state, minibatch.dones, minibatch.actions)
    new_values, entropies = out.values.double(), out.entropies.double()
    ratio = (out.logprobs.double() - minibatch.logprobs.double()).exp()
    corrected = torch.zeros_like(ratio)
    rows, horizon = experience.num_rows, experience.horizon
    for i, segment in enumerate(minibatch.indices.tolist()):
        later = segment + rows
        goes_on = later < experience.num_segments
        if goes_on:
            value_after, advantage = float(experience.values[later, 0]), float(advantages[later, 0])
        else:
            value_after, advantage = float(experience.bootstrap_values()[segment % rows]), 0.0
        for t in reversed(range(horizon)):
            if experience.terminals[segment, t] or experience.truncations[segment, t]:
                after, reach = float(experience.truncation_values[segment, t]), 0.0
            else:
                after = float(experience.values[segment, t + 1]) if t + 1 < horizon else value_after
                reach = ppo.gamma * ppo.gae_lambda * min(float(ratio[i, t]), vtrace.vtrace_c_clip)
            surprise = float(experience.rewards[segment, t]) + ppo.gamma * after
            surprise -= float(experience.values[segment, t])
            advantage = min(float(ratio[i, t]), vtrace.vtrace_rho_clip) * surprise + reach * advantage
            corrected[i, t] = advantage
    old_values = minibatch.values.double()
    targets = corrected + old_values
    shifted = corrected - corrected.mean()
    normal = shifted / (shifted.pow(2).mean().sqrt() + 1e-8)
    near = ratio.clamp(1 - ppo.clip_coef, 1 + ppo.clip_coef)
    policy = -torch.minimum(ratio * normal, near * normal).mean()
    clipped = old_values + (new_values - old_values).clamp(-ppo.vf_clip_coef, ppo.vf_clip_coef)
    value = 0.5 * torch.maximum((new_values - targets) ** 2, (clipped - targets) ** 2).mean()
    return float(policy + ppo.vf_coef * value - ppo.ent_coef * entropies.mean())


def plain_advantages(minibatch, *rest) -> torch.Tensor:
    """As if the corrected advantages were computed and then forgotten."""
    return minibatch.advantages


def without_what_follows(minibatch, *rest) -> torch.Tensor:
    """As if the episode always ended with the segment."""
    zeros = torch.zeros_like(minibatch.following_values)
    cut = replace(minibatch, following_values=zeros, following_advantages=zeros)
    return vtrace_advantages(cut, *rest)


def ratio_upside_down(minibatch, ratio, *rest) -> torch.Tensor:
    return vtrace_advantages(minibatch, 1 / ratio, *rest)


@pytest.mark.parametrize("fault", [None, plain_advantages, without_what_follows, ratio_upside_down])
def test_the_loss_is_that_of_the_definition(collected, monkeypatch, fault) -> None:
    agent, experience = collected
    advantages = compute_advantages(experience, PPO.gamma, PPO.gae_lambda)
    moved(agent)
    config = trainer_config(experience, vtrace=VTraceConfig(vtrace_rho_clip=1.3, vtrace_c_clip=0.8))
    minibatch = experience.minibatch(torch.tensor([0, 3, 17, 40, 56, 63]), advantages)
    expected = loss_by_definition(agent, experience, minibatch, advantages, config)
    if fault is not None:
        monkeypatch.setattr("metta.rl.losses.vtrace_advantages", fault)
    got = float(update(agent, experience, minibatch, advantages, config).detach())
    assert (abs(got - expected) < 1e-5 * abs(expected) + 1e-6) == (fault is None), (got, expected)


def test_a_loop_of_ones_own_shares_rows_as_train_ppo_does(collected, monkeypatch) -> None:
    """Else torch's threads and those with rows would wait for one another, for most of the time."""
    agent, experience = collected
    seen = []
    evaluate, after_update = agent.evaluate, agent.after_update
    monkeypatch.setattr(agent, "evaluate", lambda *a: seen.append(torch.get_num_threads()) or evaluate(*a))
    monkeypatch.setattr(
        agent, "after_update", lambda *a: seen.append(torch.get_num_threads()) or after_update(*a)
    )
    advantages = compute_advantages(experience)
    config = trainer_config(experience)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for minibatch in experience.minibatches(advantages, config, 0):
            Optimizer(policy=agent).step(update(agent, experience, minibatch, advantages, config))
            break
        assert seen == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
