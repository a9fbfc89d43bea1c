"""Action and value heads, and the distribution over legal actions."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from metta.agent.acting import Layer, prepare_layer
from metta.agent.layers import dense
from metta.mettagrid.spec import EnvSpec

POLICY_GAIN = 0.01
"""Scale of the action head's last layer: small, so that the first policy is close to uniform and explores."""


class Head(nn.Module):
    """`num_layers` linear layers with ReLU between them."""

    def __init__(self, num_inputs: int, num_outputs: int, num_layers: int, gain: float) -> None:
        super().__init__()
        self.gain = gain
        widths = [num_inputs] * num_layers + [num_outputs]
        self.layers = nn.ModuleList(dense(a, b) for a, b in itertools.pairwise(widths))

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Orthogonal, sqrt(2) in the hidden layers, the head's own gain in the last one."""
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            gain = self.gain if i == len(self.layers) - 1 else 2**0.5
            nn.init.orthogonal_(layer.weight, gain, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., inputs]` to `[..., outputs]`."""
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < last:
                x = x.relu_()
        return x

    def prepared(self, *, half: bool) -> Layer:
        """`forward` for acting; see `metta.agent.acting`."""
        *hidden, last = self.layers
        steps = [prepare_layer(layer, half=half, nonlinearity=torch.relu) for layer in hidden]
        steps.append(prepare_layer(last, half=half))

        def apply(x: torch.Tensor) -> torch.Tensor:
            for step in steps:
                x = step(x)
            return x

        return apply


class ActionTable(nn.Module):
    """The legal (action, argument) pairs and their place in one flat categorical distribution.

    Attributes:
        pairs: int64 `[legal, 2]`, in ascending order.
        place: int64 `[actions, arguments]`, index of a pair, -1 where it is not legal.
    """

    pairs: torch.Tensor
    place: torch.Tensor

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        pairs = torch.tensor(spec.legal_actions, dtype=torch.int64).reshape(-1, 2)
        place = torch.full((len(spec.action_names), 1 + max(spec.max_action_args, default=0)), -1)
        place[pairs[:, 0], pairs[:, 1]] = torch.arange(len(pairs))
        self.most_args = dict(zip(spec.action_names, spec.max_action_args, strict=True))
        self.register_buffer("pairs", pairs, persistent=False)
        self.register_buffer("place", place, persistent=False)

    def __len__(self) -> int:
        return int(self.pairs.shape[0])

    def index(self, actions: torch.Tensor) -> torch.Tensor:
        """Places of actions `[..., 2]`, int64 `[...]`.

        Raises:
            ValueError: an action is not legal.
        """
        action, arg = actions.long().unbind(-1)
        num_actions, num_args = self.place.shape
        index = self.place[action.clamp(0, num_actions - 1), arg.clamp(0, num_args - 1)]
        legal = (action >= 0) & (action < num_actions) & (arg >= 0) & (arg < num_args) & (index >= 0)
        if not bool(legal.all()):
            bad = actions[~legal][0].tolist()
            known = ", ".join(
                f"({i}, 0..{most}) {name}" for i, (name, most) in enumerate(self.most_args.items())
            )
            raise ValueError(
                f"actions contains ({bad[0]}, {bad[1]}), which is not legal here; legal are {known}."
            )
        return index


def sample(logprobs: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """One draw per row.

    Args:
        logprobs: normalised log probabilities, `[B, choices]`.
        generator: source of randomness; None = torch's own.

    Returns:
        int64 `[B]`.
    """
    # The first place where the running sum exceeds a uniform share of the whole: a choice of probability 0 adds
    # nothing to the sum and is never that place. One random number per row, whatever the number of choices.
    total = logprobs.exp().cumsum(-1)
    share = torch.rand(
        logprobs.shape[0], 1, generator=generator, device=logprobs.device, dtype=logprobs.dtype
    )
    return (total <= share * total[:, -1:]).sum(-1)


def draw(
    logprobs: torch.Tensor, pairs: torch.Tensor, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `sample` draws, as actions, compiled.

    Args:
        logprobs: normalised log probabilities on the CPU, `[B, choices]`.
        pairs: int64 `[choices, 2]`, the action of each choice.
        generator: source of randomness; None = torch's own.

    Returns:
        Actions int64 `[B, 2]`, and the log probability of each, `[B]`.
    """
    from metta.agent import acting_kernels

    shares = torch.rand(logprobs.shape[0], 1, generator=generator, dtype=logprobs.dtype)
    actions, chosen = pairs.new_empty(len(logprobs), 2), logprobs.new_empty(len(logprobs))
    tensors = (logprobs, logprobs.exp(), shares, pairs, actions, chosen)
    acting_kernels.draw(*[tensor.numpy() for tensor in tensors])
    return actions, chosen


def entropy(logprobs: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of each row of normalised log probabilities, `[..., choices]` to `[...]`."""
    return -(logprobs.exp() * logprobs).sum(-1)
