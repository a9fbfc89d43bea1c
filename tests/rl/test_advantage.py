"""Advantages against their definition, over every way in which short sequences can end."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metta.rl import advantage as advantage_module
from metta.rl.advantage import compute_advantage, compute_advantages
from metta.rl.rollout import rollout

GOES_ON, TERMINAL, TRUNCATED = 0, 1, 2


def oracle(
    values, rewards, ends, ratios, cut_values, last_value, gamma, gae_lambda, rho_clip=1.0, c_clip=1.0
):
    """The sum from the definition, float64: no recursion, one episode piece at a time.

    A_t = sum over k >= t, up to the end of t's episode or of the sequence, of
    (gamma lambda)^(k - t) * (product of c_t ... c_{k-1}) * rho_k * (r_k + gamma V(after k) - V_k).
    """
    length = len(rewards)
    result = np.zeros(length)
    for t in range(length):
        for k in range(t, length):
            if ends[k] == TERMINAL:
                after = 0.0
            elif ends[k] == TRUNCATED:
                after = cut_values[k]
            elif k == length - 1:
                after = last_value
            else:
                after = values[k + 1]
            surprise = min(ratios[k], rho_clip) * (rewards[k] + gamma * after - values[k])
            reach = np.prod([min(ratio, c_clip) for ratio in ratios[t:k]])
            result[t] += (gamma * gae_lambda) ** (k - t) * reach * surprise
            if ends[k] != GOES_ON:
                break
    return result


def advantages_of(
    values, rewards, ends, cut_values=None, last_values=None, ratios=None, gamma=0.9, gae_lambda=0.8, **clips
):
    values, rewards = (torch.as_tensor(np.array(x), dtype=torch.float64) for x in (values, rewards))
    ends = np.array(ends)
    return compute_advantage(
        values,
        rewards,
        torch.from_numpy(ends != GOES_ON),
        torch.ones_like(values) if ratios is None else torch.as_tensor(np.array(ratios), dtype=torch.float64),
        torch.empty_like(values),
        gamma,
        gae_lambda,
        clips.get("rho_clip", 1.0),
        clips.get("c_clip", 1.0),
        truncation_values=None
        if cut_values is None
        else torch.as_tensor(np.array(cut_values) * (ends == TRUNCATED), dtype=torch.float64),
        bootstrap_values=None if last_values is None else torch.as_tensor(np.array(last_values)),
    ).numpy()


@pytest.mark.parametrize("horizon", range(1, 6))
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.977, 0.916), (1.0, 1.0), (0.9, 0.0), (0.0, 0.5)])
def test_every_pattern_of_ends(horizon: int, gamma: float, gae_lambda: float) -> None:
    ends = np.array(list(product((GOES_ON, TERMINAL, TRUNCATED), repeat=horizon)))
    rng = np.random.default_rng(horizon)
    values, rewards, cut_values = rng.normal(size=(3, *ends.shape))
    last_values = rng.normal(size=len(ends))
    got = advantages_of(values, rewards, ends, cut_values, last_values, gamma=gamma, gae_lambda=gae_lambda)
    for i in range(len(ends)):
        expected = oracle(
            values[i],
            rewards[i],
            ends[i],
            np.ones(horizon),
            cut_values[i],
            last_values[i],
            gamma,
            gae_lambda,
        )
        np.testing.assert_allclose(got[i], expected, rtol=1e-12, atol=1e-12, err_msg=str(ends[i]))


@pytest.mark.parametrize("form", ["_compiled", "_by_doubling"])
@pytest.mark.parametrize("horizon", range(1, 6))
def test_every_pattern_of_ends_with_vtrace(monkeypatch: pytest.MonkeyPatch, form: str, horizon: int) -> None:
    chosen = getattr(advantage_module, form)
    monkeypatch.setattr(advantage_module, "_compiled", chosen)
    ends = np.array(list(product((GOES_ON, TERMINAL, TRUNCATED), repeat=horizon)))
    rng = np.random.default_rng(horizon)
    values, rewards, cut_values = rng.normal(size=(3, *ends.shape))
    ratios = np.exp(rng.normal(size=ends.shape))
    last = rng.normal(size=len(ends))
    got = advantages_of(values, rewards, ends, cut_values, last, ratios, rho_clip=1.3, c_clip=0.8)
    for i in range(len(ends)):
        own = (values[i], rewards[i], ends[i], ratios[i], cut_values[i], last[i])
        expected = oracle(*own, 0.9, 0.8, 1.3, 0.8)
        np.testing.assert_allclose(got[i], expected, rtol=1e-12, atol=1e-12, err_msg=str(ends[i]))


def test_both_forms_pass_on_what_is_not_a_number() -> None:
    ones = torch.ones(1, 3)
    ratio = torch.tensor([[1.0, torch.nan, 1.0]])
    given_ = (
        ones,
        ones,
        torch.zeros(1, 3, dtype=torch.bool),
        ratio,
        ones * 0,
        ones[:, 0],
        ones[:, 0],
        0.9,
        0.8,
    )
    for form in (advantage_module._compiled, advantage_module._by_doubling):
        assert form(*given_, 1.0, 1.0).isnan().tolist() == [[True, True, False]]


@given(
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.1, 3),
    st.floats(0.1, 3),
)
def test_vtrace_equals_its_definition(
    rows: int, horizon: int, seed: int, gamma: float, gae_lambda: float, rho_clip: float, c_clip: float
) -> None:
    rng = np.random.default_rng(seed)
    values, rewards, cut_values = rng.normal(size=(3, rows, horizon))
    ends = rng.choice(3, size=(rows, horizon), p=(0.7, 0.15, 0.15))
    ratios = np.exp(rng.normal(size=(rows, horizon)))
    last = rng.normal(size=rows)
    got = advantages_of(
        values,
        rewards,
        ends,
        cut_values,
        last,
        ratios,
        gamma,
        gae_lambda,
        rho_clip=rho_clip,
        c_clip=c_clip,
    )
    for i in range(rows):
        expected = oracle(
            values[i],
            rewards[i],
            ends[i],
            ratios[i],
            cut_values[i],
            last[i],
            gamma,
            gae_lambda,
            rho_clip,
            c_clip,
        )
        np.testing.assert_allclose(got[i], expected, rtol=1e-9, atol=1e-9)


def test_hand_vectors() -> None:
    # gamma 1/2, lambda 1/2. Surprises: 1 + 2/2 - 4 = -2, 0 + 6/2 - 2 = 1, 3 + 8/2 - 6 = 1.
    got = advantages_of([[4, 2, 6]], [[1, 0, 3]], [[0, 0, 0]], None, [8.0], gamma=0.5, gae_lambda=0.5)
    assert got.tolist() == [[-2 + (1 + 1 / 4) / 4, 1 + 1 / 4, 1]]
    # The same, ended by a terminal at the second step: its surprise is 0 - 2.
    got = advantages_of([[4, 2, 6]], [[1, 0, 3]], [[0, 1, 0]], None, [8.0], gamma=0.5, gae_lambda=0.5)
    assert got.tolist() == [[-2 - 2 / 4, -2, 1]]
    # Cut off there instead, after an observation worth 10: 0 + 10/2 - 2 = 3.
    got = advantages_of([[4, 2, 6]], [[1, 0, 3]], [[0, 2, 0]], [[9, 10, 9]], [8.0], gamma=0.5, gae_lambda=0.5)
    assert got.tolist() == [[-2 + 3 / 4, 3, 1]]


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.sampled_from((TERMINAL, TRUNCATED))
)
def test_two_episodes_in_one_sequence_are_two_sequences(seed: int, first: int, second: int, end: int) -> None:
    rng = np.random.default_rng(seed)
    values, rewards, cut_values = rng.normal(size=(3, 1, first + second))
    ends = np.zeros((1, first + second), dtype=int)
    ends[0, first - 1] = end
    whole = advantages_of(values, rewards, ends, cut_values, [0.3])
    left = advantages_of(values[:, :first], rewards[:, :first], ends[:, :first], cut_values[:, :first], [7.0])
    right = advantages_of(
        values[:, first:], rewards[:, first:], ends[:, first:], cut_values[:, first:], [0.3]
    )
    np.testing.assert_array_equal(whole, np.concatenate([left, right], 1))


def test_fills_the_buffer_it_is_given_and_names_a_wrong_shape() -> None:
    values = torch.randn(2, 3)
    buffer = torch.full((2, 3), 7.0)
    rewards, ones = torch.randn(2, 3), torch.ones(2, 3)
    result = compute_advantage(values, rewards, torch.zeros(2, 3), ones, buffer, 0.9, 0.9, 1.0, 1.0, "cpu")
    assert result is buffer
    assert not bool((buffer == 7).any())
    for name in ("bootstrap_values", "bootstrap_advantages"):
        with pytest.raises(
            ValueError, match=rf"{name} is \[2, 1\] but values is \[2, 3\]; .* the 2 segments"
        ):
            compute_advantage(*[torch.zeros(2, 3)] * 5, 0.9, 0.9, **{name: torch.zeros(2, 1)})
    with pytest.raises(ValueError, match=r"rewards is \[2, 2\] but values is \[2, 3\]"):
        compute_advantage(values, rewards[:, :2], torch.zeros(2, 3), ones, buffer, 0.9, 0.9)


class NamesADevice:
    """What stands for a device in the documents: its text names one."""

    def __str__(self) -> str:
        return "cpu"


class Elsewhere(torch.Tensor):
    """A tensor of which `.to` always makes a copy, as of one on another device."""

    def to(self, *_: object) -> torch.Tensor:  # type: ignore[override]
        return self.as_subclass(torch.Tensor).clone()


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), NamesADevice(), None])
def test_fills_a_buffer_on_another_device_too(device: object) -> None:
    values, rewards, ones = torch.randn(2, 3), torch.randn(2, 3), torch.ones(2, 3)
    expected = compute_advantage(values, rewards, torch.zeros(2, 3), ones, torch.empty(2, 3), 0.9, 0.8)
    buffer = torch.full((2, 3), 7.0)
    result = compute_advantage(
        values, rewards, torch.zeros(2, 3), ones, buffer.as_subclass(Elsewhere), 0.9, 0.8, device=device
    )
    assert torch.equal(result, expected)
    assert torch.equal(buffer, expected)


@pytest.mark.parametrize("horizon", [4, 8, 32])
def test_a_collected_batch_equals_the_oracle_over_each_agents_whole_stretch(
    make_env, make_agent, make_experience, horizon
) -> None:
    env, agent = make_env(2, 2), make_agent()
    experience = make_experience(env, agent, bptt_horizon=horizon, batch_size=4 * 32, minibatch_size=32)
    rollout(experience, agent)
    got = compute_advantages(experience, 0.9, 0.8)
    assert experience.advantages is got
    assert got.shape == (4 * 32 // horizon, horizon)
    for row in range(4):
        mine = slice(row, None, 4)
        stretch = {
            name: getattr(experience, name)[mine].flatten().double().numpy()
            for name in ("values", "rewards", "truncation_values")
        }
        ends = experience.terminals[mine].flatten().int() + 2 * experience.truncations[mine].flatten().int()
        expected = oracle(
            stretch["values"],
            stretch["rewards"],
            ends.numpy(),
            np.ones(32),
            stretch["truncation_values"],
            float(experience.bootstrap_values()[row]),
            0.9,
            0.8,
        )
        np.testing.assert_allclose(got[mine].flatten().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert bool(experience.terminals.any())
    assert bool(experience.truncations.any())


def test_a_begun_segment_lends_its_first_value_to_the_one_before(
    make_env, make_agent, make_experience
) -> None:
    env, agent = make_env(lengths=(1000, 1000)), make_agent()
    experience = make_experience(env, agent)
    rollout(experience, agent, 11 * 8)
    got = compute_advantages(experience, 0.9, 0.0)
    assert got.shape == (8, 8)
    following = experience.values[8:16, 0]
    expected = experience.rewards[:8, -1] + 0.9 * following - experience.values[:8, -1]
    torch.testing.assert_close(got[:, -1], expected)


def test_nothing_collected_is_said(make_env, make_agent, make_experience) -> None:
    env, agent = make_env(), make_agent()
    experience = make_experience(env, agent)
    with pytest.raises(ValueError, match="0 agent steps, less than one segment"):
        compute_advantages(experience)
