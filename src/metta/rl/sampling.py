"""Which segments make up a minibatch."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def uniform_minibatches(num_segments: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """One pass over all segments in random order.

    Args:
        num_segments: segments to draw from.
        size: segments per minibatch; the last one is smaller if it does not divide them.
        generator: decides the order; on the CPU.

    Yields:
        int64 `[<= size]`: every segment in exactly one minibatch.
    """
    order = torch.randperm(num_segments, generator=generator)
    for start in range(0, num_segments, size):
        yield order[start : start + size]


def prioritized_minibatch(
    advantages: torch.Tensor, size: int, alpha: float, beta: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Segments drawn by the size of their advantages, and the weights that make up for it.

    Schaul et al. 2016, "Prioritized experience replay" (arXiv:1511.05952), with segments in the place of transitions: the
    priority p of a segment is the mean of |advantage|, it is drawn with probability `P = p ** alpha / sum`, with
    replacement, and weighs `(1 / P) ** beta`. The weights are scaled to mean 1, so that the size of the loss stays what
    it was; with beta 1 a weighted mean then estimates the plain mean over all segments.

    Args:
        advantages: float `[S, T]`.
        size: segments to draw.
        alpha: how much priorities count.
        beta: how much is made up for.
        generator: decides; on the CPU.

    Returns:
        int64 `[size]` and float32 `[size]`, on the CPU.
    """
    priority = advantages.abs().mean(1).double().cpu()
    broken = ~priority.isfinite()
    if broken.any():
        # Drawn for certain, so that the check of the loss finds out and says so.
        chance = broken.double()
    else:
        # Nothing is ruled out altogether, or no weight could make up for it. Relative to the largest, a high power of
        # very large or very small advantages stays a number.
        priority = priority + 1e-6 * priority.mean()
        largest = priority.max()
        chance = (priority / largest).pow(alpha) if largest > 0 else torch.ones_like(priority)
    indices = torch.multinomial(chance, size, replacement=True, generator=generator)
    weights = chance[indices].pow(-beta)
    return indices, (weights / weights.mean()).float()
