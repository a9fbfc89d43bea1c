"""What a policy says: when it acts, and when it judges."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metta.agent.state import PolicyState


@dataclass
class ActOutput:
    """What `MettaAgent.act` decided for `B` rows.

    Attributes:
        actions: int64 `[B, 2]`, (action id, argument), always a legal pair.
        logprobs: float32 `[B]`, log probability of each.
        values: float32 `[B]`, expected discounted return from here.
        state: memory after this observation.
    """

    actions: torch.Tensor
    logprobs: torch.Tensor
    values: torch.Tensor
    state: PolicyState


@dataclass
class EvalOutput:
    """What `MettaAgent.evaluate` says of `B` segments of `T` ticks; differentiable.

    Attributes:
        logprobs: float32 `[B, T]`, log probability of the actions taken.
        entropies: float32 `[B, T]`, entropy of the distribution they were drawn from, in nats.
        values: float32 `[B, T]`.
        state: memory before tick `T`, zeroed where the last tick ended an episode.
        all_logprobs: float32 `[B, T, legal]`, log probability of every legal action, in the order of
            `EnvSpec.legal_actions`.
    """

    logprobs: torch.Tensor
    entropies: torch.Tensor
    values: torch.Tensor
    state: PolicyState
    all_logprobs: torch.Tensor
