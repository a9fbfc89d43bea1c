"""Where the steps of a batch lie: tensors of segments, and the recurrent state before each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from metta.agent.state import PolicyState
from metta.mettagrid.outcomes import StepBatch

_PER_STEP = (
    "observations",
    "actions",
    "logprobs",
    "values",
    "rewards",
    "terminals",
    "truncations",
    "truncation_values",
)


def to_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array of the host as a tensor there, without waiting for the device; on the CPU it may be the same memory."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        # A copy that stays until it is carried over: from other memory the driver may wait.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class SegmentStorage:
    """A batch as `[segments, horizon]`.

    Each row (agent) of the environment fills one segment after another, all rows side by side: segment
    `chunk * rows + row` is the chunk-th stretch of that row's life in the batch. The storage is reserved here and takes
    memory as it is filled.

    S = segments, T = horizon, N = rows, K = tokens of an observation, L = recurrent layers, H = their width.

    Attributes:
        storage_device: where the batch lives.
        horizon: T.
        num_rows: N.
        num_segments: S.
        observations: uint8 `[S, T, K, 3]`.
        actions: int64 `[S, T, 2]`.
        logprobs, values, rewards: float32 `[S, T]`.
        terminals, truncations: bool `[S, T]`: the episode ended at that step.
        truncation_values: float32 `[S, T]`: where truncated, the value of what the agent saw last; else 0.
        start_h, start_c: float32 `[L, S, H]`: recurrent state before each segment, zero where an episode begins.
        starts: bool `[S]`: an episode begins with the segment.

    Args:
        num_rows: N.
        num_segments: S, a multiple of it.
        horizon: T.
        tokens: shape of an observation, (K, 3).
        state: of all rows, for its size.
        device: where the batch lives.
    """

    def __init__(
        self,
        num_rows: int,
        num_segments: int,
        horizon: int,
        tokens: tuple[int, ...],
        state: PolicyState,
        device: torch.device,
    ) -> None:
        self.storage_device = device
        self.horizon = horizon
        self.num_rows = num_rows
        self.num_segments = num_segments
        shape = (num_segments, horizon)
        self.observations = self._reserve(*shape, *tokens, dtype=torch.uint8)
        self.actions = self._reserve(*shape, 2, dtype=torch.int64)
        self.logprobs = self._reserve(*shape)
        self.values = self._reserve(*shape)
        self.rewards = self._reserve(*shape)
        self.terminals = self._reserve(*shape, dtype=torch.bool)
        self.truncations = self._reserve(*shape, dtype=torch.bool)
        self.truncation_values = self._reserve(*shape)
        self.start_h = self._reserve(state.h.shape[0], num_segments, state.h.shape[2])
        self.start_c = self._reserve(state.c.shape[0], num_segments, state.c.shape[2])
        self.starts = self._reserve(num_segments, dtype=torch.bool)
        # Rows whose next observation begins an episode, as far as this batch is concerned.
        self._fresh = np.ones(num_rows, dtype=np.bool_)

    def _reserve(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        # Not zeroed: the system hands out the pages of an untouched array only when they are written.
        return torch.empty(shape, dtype=dtype, device=self.storage_device)

    @property
    def num_bytes(self) -> int:
        """Memory of the full storage."""
        return sum(int(tensor.nbytes) for tensor in self.stored(0, self.num_segments).values())

    @property
    def dones(self) -> torch.Tensor:
        """Bool `[S, T]`: the episode ended at that step, either way."""
        return self.terminals | self.truncations

    def segments(self, position: int, rows: slice) -> slice:
        """The segments that hold step `position` of these rows."""
        first = position // self.horizon * self.num_rows
        return slice(first + rows.start, first + rows.stop)

    def store_start(self, position: int, rows: slice, state: PolicyState) -> None:
        """Remember the recurrent state before the first step of a segment.

        Args:
            position: step of the batch, a multiple of the horizon.
            rows: the rows it belongs to.
            state: before the observation, zero where an episode begins.
        """
        segments = self.segments(position, rows)
        self.start_h[:, segments] = state.h.to(self.storage_device)
        self.start_c[:, segments] = state.c.to(self.storage_device)
        self.starts[segments] = to_device(self._fresh[rows], self.storage_device)

    def store_action(
        self,
        position: int,
        rows: slice,
        observations: torch.Tensor,
        actions: torch.Tensor,
        logprobs: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """Store what rows saw and did at one step: uint8 `[R, K, 3]`, int64 `[R, 2]`, float32 `[R]` twice."""
        segments, step = self.segments(position, rows), position % self.horizon
        self.observations[segments, step] = observations.to(self.storage_device)
        self.actions[segments, step] = actions.to(self.storage_device)
        self.logprobs[segments, step] = logprobs.to(self.storage_device)
        self.values[segments, step] = values.to(self.storage_device)

    def store_result(
        self,
        position: int,
        rows: slice,
        batch: StepBatch,
        truncations: torch.Tensor,
        truncation_values: torch.Tensor,
    ) -> None:
        """Store what came of it: rewards and terminals of `batch`, bool `[R]` truncations, float32 `[R]` values there."""
        segments, step = self.segments(position, rows), position % self.horizon
        self.rewards[segments, step] = torch.as_tensor(batch.rewards).to(self.storage_device)
        self.terminals[segments, step] = torch.as_tensor(batch.terminals).to(self.storage_device)
        self.truncations[segments, step] = truncations.to(self.storage_device)
        self.truncation_values[segments, step] = truncation_values.to(self.storage_device)
        self._fresh[rows] = False
        self._fresh[batch.final_rows] = True

    def stored(self, first: int, last: int) -> dict[str, torch.Tensor]:
        """Segments `first` to `last`, by name: views of the storage, shaped like it."""
        parts: dict[str, torch.Tensor] = {name: getattr(self, name)[first:last] for name in _PER_STEP}
        parts |= {"start_h": self.start_h[:, first:last], "start_c": self.start_c[:, first:last]}
        return parts | {"starts": self.starts[first:last]}

    def put(self, segments: dict[str, torch.Tensor]) -> None:
        """Write segments, named and shaped as `stored` gives them, to the beginning of the storage."""
        for name, target in self.stored(0, len(segments["starts"])).items():
            target.copy_(segments[name])
