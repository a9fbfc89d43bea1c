"""The terms of the loss, by hand."""

import math

import pytest
import torch

from metta.rl.losses import (
    approximate_kl,
    clip_fraction,
    clipped_policy_loss,
    explained_variance,
    normalize_advantages,
    value_loss,
)


def test_policy_loss_is_the_lower_of_both() -> None:
    log_ratio = torch.tensor([2.0, 2.0, 0.5, 0.5, 1.05]).log()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0])
    # 2 counts as 1.1 for a gain, as 2 for a loss; 0.5 as 0.5 for a gain, as 0.9 for a loss.
    expected = -(1.1 - 2.0 + 0.5 - 0.9 + 2.1) / 5
    assert float(clipped_policy_loss(log_ratio, advantages, 0.1)) == pytest.approx(expected, rel=1e-6)


def test_policy_loss_has_no_gradient_where_the_clip_holds() -> None:
    log_ratio = torch.tensor([2.0, 2.0, 0.5, 0.5]).log().requires_grad_()
    clipped_policy_loss(log_ratio, torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.1).backward()
    assert log_ratio.grad is not None
    torch.testing.assert_close(log_ratio.grad, torch.tensor([0.0, 2.0, -0.5, 0.0]) / 4)


def test_value_loss_is_the_higher_of_both() -> None:
    old, returns = torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, 0.05])
    values = torch.tensor([0.5, 0.05, 0.5, 0.05])
    # Clipped to 0.1, 0.05, 0.1, 0.05: errors .81 (not .25), .9025, 2.25 (not 1.21), 0.
    expected = 0.5 * (0.81 + 0.9025 + 2.25 + 0) / 4
    assert float(value_loss(values, old, returns, 0.1)) == pytest.approx(expected, rel=1e-6)
    expected = 0.5 * (0.25 + 0.9025 + 2.25 + 0) / 4
    assert float(value_loss(values, old, returns, None)) == pytest.approx(expected, rel=1e-6)


def test_a_value_that_moved_too_far_towards_its_target_is_not_pushed_on() -> None:
    values = torch.tensor([0.5, 0.05, 0.5], requires_grad=True)
    value_loss(values, torch.zeros(3), torch.tensor([1.0, 1.0, -1.0]), 0.1).backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.tensor([0.0, -0.95, 1.5]) / 3)


def test_normalized_advantages_have_mean_0_and_deviation_1() -> None:
    result = normalize_advantages(torch.tensor([[1.0, 3.0], [5.0, 7.0]]))
    torch.testing.assert_close(result, torch.tensor([[-3.0, -1.0], [1.0, 3.0]]) / math.sqrt(5))
    assert normalize_advantages(torch.full((2, 2), 3.0)).tolist() == [[0, 0], [0, 0]]


def test_kl_estimate_and_clip_fraction() -> None:
    log_ratio = torch.tensor([0.0, math.log(2), math.log(0.5), math.log(1.05)])
    expected = (0 + (1 - math.log(2)) + (-0.5 + math.log(2)) + (0.05 - math.log(1.05))) / 4
    assert float(approximate_kl(log_ratio)) == pytest.approx(expected, rel=1e-5)
    assert float(clip_fraction(log_ratio, 0.1)) == 0.5
    # Over many draws it is the divergence itself.
    old, new = torch.tensor([0.2, 0.8]), torch.tensor([0.35, 0.65])
    draws = torch.multinomial(old, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    exact = float((old * (old / new).log()).sum())
    assert float(approximate_kl((new / old).log()[draws])) == pytest.approx(exact, rel=0.03)


def test_explained_variance() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert float(explained_variance(returns + 5, returns)) == 1  # a constant error explains all that varies
    assert float(explained_variance(torch.full((3,), 2.0), returns)) == 0
    assert float(explained_variance(-returns, returns)) == -3
    assert float(explained_variance(torch.randn(3), torch.ones(3))) == 0
