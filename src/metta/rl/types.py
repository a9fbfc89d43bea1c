"""The records of training: what a rollout reports, what an update reads."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from metta.common.files import StrPath
from metta.common.reading import one_line
from metta.rl.tensor_tree import read_tree, write_tree

if TYPE_CHECKING:
    from metta.agent.state import PolicyState
    from metta.mettagrid.outcomes import EpisodeOutcome


@dataclass
class BatchInfo:
    """What one `rollout` collected.

    Attributes:
        total_env_steps: agent steps collected (environment steps times agents).
        episode_returns: per finished episode, the mean over its agents of the summed reward.
        episode_lengths: per finished episode, its environment steps.
        episodes: the outcomes behind both lists, with statistics, in the order in which they finished.
        env_seconds: time spent waiting for the environment; with worlds on a GPU, the GPU's time.
        inference_seconds: time spent in the agent; likewise.
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
        rewards: float32 `[B, T]`.
        dones: bool `[B, T]`, the episode ended at that step.
        truncation_values: float32 `[B, T]`, where the episode was cut off, the value of what was seen last; else 0.
        advantages: float32 `[B, T]`.
        returns: float32 `[B, T]`, advantages + values, the value targets.
        following_values: float32 `[B]`, value of what came after each segment.
        following_advantages: float32 `[B]`, advantage of the step after each segment; 0 after the end of the batch.
        start_state: the recurrent state before the first observation.
        weights: float32 `[B]`, how much each segment counts, 1 on average; None: all alike.
    """

    indices: torch.Tensor
    observations: torch.Tensor
    actions: torch.Tensor
    logprobs: torch.Tensor
    values: torch.Tensor
    rewards: torch.Tensor
    dones: torch.Tensor
    truncation_values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    following_values: torch.Tensor
    following_advantages: torch.Tensor
    start_state: PolicyState
    weights: torch.Tensor | None = None


STATE_FILE = "training_state.safetensors"
"""Name of the file that `TrainingState.save` writes."""

_STATE_KIND = "metta-training-state-2"


@dataclass
class TrainingState:
    """Where a training run stands, the policy's weights apart.

    Every value must be made of None, bool, int, float, str, list, tuple, dict, tensors and numpy values; it comes back
    equal and of the same type. Nothing is pickled.

    Attributes:
        epoch: batches trained on.
        agent_step: agent steps of this run.
        total_agent_step: agent steps over all processes and earlier runs.
        optimizer_state_dict: of the optimizer.
        lr_scheduler_state_dict: of the schedule, if there is one.
        policy_path: file of the policy that belongs to it, if it was saved; relative to the state's folder if it lies
            there, so that the folder can move.
        stopwatch_state: timing so far.
        extra_args: whatever else the run needs.
        rank_state: what rank 0 alone goes on from: its experience and its teachers' memories, if they were saved.
        world_size: how many processes trained together.
        save_id: part of the names of the files that hold the same of the other ranks.
    """

    epoch: int = 0
    agent_step: int = 0
    total_agent_step: int = 0
    optimizer_state_dict: dict[str, Any] = field(default_factory=dict)
    lr_scheduler_state_dict: dict[str, Any] | None = None
    policy_path: str | None = None
    stopwatch_state: dict[str, Any] | None = None
    extra_args: dict[str, Any] = field(default_factory=dict)
    rank_state: dict[str, Any] | None = None
    world_size: int = 1
    save_id: str = ""

    def save(self, checkpoint_dir: StrPath) -> str:
        """Write the state into a folder: after a crash at any moment the file there is the old or the new, whole.

        Args:
            checkpoint_dir: the folder; made if it is missing.

        Returns:
            The path of the file.

        Raises:
            TypeError: a value cannot be saved; the message names its place.
            OSError: the folder cannot be written.
        """
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return str(write_tree(Path(checkpoint_dir) / STATE_FILE, values, kind=_STATE_KIND))

    @classmethod
    def load(cls, path: StrPath) -> TrainingState:
        """Read a state.

        Args:
            path: the file, or the folder that `save` was given.

        Raises:
            FileNotFoundError: there is none.
            ValueError: the file is damaged or something else.
        """
        file = Path(path)
        values = read_tree(file / STATE_FILE if file.is_dir() else file, kind=_STATE_KIND)
        kinds = {entry.name: type(getattr(cls(), entry.name)) for entry in fields(cls)}
        if not isinstance(values, dict) or values.keys() != kinds.keys():
            raise ValueError(f"{path} holds no training state, or not all of one; the file is damaged.")
        for name, kind in kinds.items():
            if kind is not type(None) and not isinstance(values[name], kind):
                raise ValueError(
                    f"{path} has the {name} {one_line(repr(values[name]))}, which is no {kind.__name__}; the file is damaged."
                )
        return cls(**values)
