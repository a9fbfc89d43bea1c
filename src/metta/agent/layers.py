"""Making layers without drawing their weights twice."""

from __future__ import annotations

import torch
from torch import nn


def dense(num_inputs: int, num_outputs: int) -> nn.Linear:
    """A linear layer whose weights are not initialised: its owner does that, with a generator of its choice."""
    with torch.device("meta"):
        layer = nn.Linear(num_inputs, num_outputs)
    return layer.to_empty(device="cpu")
