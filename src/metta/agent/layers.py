"""Making layers without drawing their weights twice."""

from __future__ import annotations

import torch
from torch import nn


def dense(num_inputs: int, num_outputs: int) -> nn.Linear:
    """A linear layer whose weights are not initialised: its owner does that, with a generator of its choice."""
    with torch.device("meta"):
        layer = nn.Linear(num_inputs, num_outputs)
    return layer.to_empty(device="cpu")


def convolution(
    num_inputs: int, num_outputs: int, kernel: tuple[int, int], stride: int, padding: int
) -> nn.Conv2d:
    """A convolution whose weights are not initialised; see `dense`."""
    with torch.device("meta"):
        layer = nn.Conv2d(num_inputs, num_outputs, kernel, stride, padding)
    return layer.to_empty(device="cpu")
