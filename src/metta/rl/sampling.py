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
