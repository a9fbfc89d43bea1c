"""The terms of the PPO loss: pure functions of tensors of any common shape.

Schulman et al. 2017, "Proximal policy optimization algorithms" (arXiv:1707.06347); the value clipping is that of its
published implementation, described by Huang et al. 2022, "The 37 implementation details of PPO".
"""

from __future__ import annotations

import torch


def normalize_advantages(advantages: torch.Tensor) -> torch.Tensor:
    """Shift and scale to mean 0 and (population) standard deviation 1; the scale is left alone near 0."""
    centred = advantages - advantages.mean()
    return centred / (centred.pow(2).mean().sqrt() + 1e-8)


def clipped_policy_loss(log_ratio: torch.Tensor, advantages: torch.Tensor, clip_coef: float) -> torch.Tensor:
    """Mean of `-min(ratio A, clip(ratio, 1 - clip_coef, 1 + clip_coef) A)`.

    Args:
        log_ratio: log of the action's probability now over when it was taken.
        advantages: A, of the same shape.
        clip_coef: how far the ratio counts.

    Returns:
        A scalar.
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_coef, 1 + clip_coef)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, clip: float | None
) -> torch.Tensor:
    """Half the mean squared error; clipped, the larger of the errors with and without the change clipped.

    Args:
        values: estimates now.
        old_values: estimates when the batch was collected.
        returns: targets.
        clip: furthest that a value may profit from moving away from the old one; None: any distance.

    Returns:
        A scalar.
    """
    error = (values - returns).pow(2)
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns).pow(2))
    return 0.5 * error.mean()


def approximate_kl(log_ratio: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(old policy, new policy): the mean of `(ratio - 1) - log ratio`, never negative.

    Schulman 2020, "Approximating KL divergence", estimator k3.
    """
    return ((log_ratio.exp() - 1) - log_ratio).mean()


def clip_fraction(log_ratio: torch.Tensor, clip_coef: float) -> torch.Tensor:
    """Share of elements whose ratio lies outside `[1 - clip_coef, 1 + clip_coef]`."""
    return ((log_ratio.exp() - 1).abs() > clip_coef).float().mean()


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> torch.Tensor:
    """`1 - Var(returns - values) / Var(returns)`: 1 is perfect, 0 no better than a constant; 0 if nothing varies."""
    variance = returns.var(correction=0)
    residual = (returns - values).var(correction=0)
    return torch.where(variance > 0, 1 - residual / variance, torch.zeros_like(variance))
