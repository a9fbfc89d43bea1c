"""The records of training: what a rollout reports, what an update reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from metta.agent.state import PolicyState
    from metta.mettagrid.vec import EpisodeOutcome


@dataclass
class BatchInfo:
    """What one `rollout` collected.

    Attributes:
        total_env_steps: agent steps collected (environment steps times agents).
        episode_returns: per finished episode, the mean over its agents of the summed reward.
        episode_lengths: per finished episode, its environment steps.
        episodes: the outcomes behind both lists, with statistics, in the order in which they finished.
        env_seconds: time spent waiting for the environment.
        inference_seconds: time spent in the agent.
    """

    total_env_steps: int
    episode_returns: list[float] | None = None
    episode_lengths: list[int] | None = None
    episodes: list[EpisodeOutcome] = field(default_factory=list, repr=False)
    env_seconds: float = 0.0
    inference_seconds: float = 0.0


@dataclass(frozen=True)
class Minibatch:
    """Some segments of a batch, on the agent's device.

    Attributes:
        indices: int64 `[B]`, the segments' places in the experience.
        observations: uint8 `[B, T, K, 3]`.
        actions: int64 `[B, T, 2]`.
        logprobs: float32 `[B, T]`, of the actions when they were taken.
        values: float32 `[B, T]`, estimated when they were taken.
        dones: bool `[B, T]`, the episode ended at that step.
        advantages: float32 `[B, T]`.
        returns: float32 `[B, T]`, advantages + values, the value targets.
        start_state: the recurrent state before the first observation.
    """

    indices: torch.Tensor
    observations: torch.Tensor
    actions: torch.Tensor
    logprobs: torch.Tensor
    values: torch.Tensor
    dones: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    start_state: PolicyState
