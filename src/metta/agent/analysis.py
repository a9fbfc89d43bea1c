"""Numbers about a network's weights, for logs: is it alive, how far has it moved."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def flatten(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """All elements in one vector, in order; differentiable."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@torch.no_grad()
def weight_statistics(
    parameters: dict[str, torch.Tensor], reference: torch.Tensor, features: torch.Tensor | None
) -> dict[str, float]:
    """Describe the weights.

    Args:
        parameters: every parameter by name, in the order of `reference`.
        reference: an earlier state of all of them, flat.
        features: the encoder's output for the latest training batch, `[..., hidden]`, non-negative.

    Returns:
        `weights/norm`, `weights/max` and `weights/moved` (distance to the reference, divided by the
        reference's norm) over all; `weights/<name>/norm` and `/moved` for each parameter; and, given
        features, `weights/dead_units`, the share of feature units that were zero for the whole batch.
    """
    stats: dict[str, float] = {}
    current = flatten(parameters.values())
    stats["weights/norm"] = current.norm().item()
    stats["weights/max"] = current.abs().max().item()
    stats["weights/moved"] = _relative(current - reference, reference)
    start = 0
    for name, tensor in parameters.items():
        before = reference[start : start + tensor.numel()]
        start += tensor.numel()
        stats[f"weights/{name}/norm"] = tensor.norm().item()
        stats[f"weights/{name}/moved"] = _relative(tensor.reshape(-1) - before, before)
    if features is not None:
        stats["weights/dead_units"] = (features.flatten(0, -2) <= 0).all(0).float().mean().item()
    return stats


def _relative(change: torch.Tensor, before: torch.Tensor) -> float:
    return float(change.norm() / before.norm().clamp(min=1e-12))
