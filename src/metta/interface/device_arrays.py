"""Arrays of a GPU as tensors, without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from metta.rl.storage import to_device

_INT32 = torch.iinfo(torch.int32)


class TorchArrays:
    """Shows arrays that Numba made on the GPU as tensors. See `metta.mettagrid.cuda_fleet.DeviceArrays`.

    Args:
        gpu: number of the GPU; None: there is none, the CUDA simulator stands for it, and arrays are those of numpy.
    """

    def __init__(self, gpu: int | None) -> None:
        self.gpu = gpu
        self.device = torch.device("cpu") if gpu is None else torch.device("cuda", gpu)

    def show(self, array: Any) -> torch.Tensor:
        """A tensor over the same memory."""
        if isinstance(array, np.ndarray):
            return torch.from_numpy(array)
        return torch.as_tensor(array, device=self.device)

    def copy(self, array: torch.Tensor) -> torch.Tensor:
        """A copy on the device."""
        return array.clone()

    def take(self, array: torch.Tensor, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """A copy of some rows on the device; the host does not wait for it."""
        return array.index_select(0, to_device(rows, array.device))

    def as_actions(self, actions: Any) -> torch.Tensor:
        """Actions, a tensor or an array of integers, as int32 on the device; beyond 32 bits the nearest 32-bit number.

        Raises:
            ValueError: they are no integers.
        """
        given = actions if isinstance(actions, torch.Tensor) else torch.as_tensor(np.asarray(actions))
        if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
            raise ValueError(
                f"actions are {given.dtype}; give integers: (action id, argument) for each agent."
            )
        given = given.to(self.device)
        if given.dtype == torch.int64:
            given = given.clamp(_INT32.min, _INT32.max)
        return given.to(torch.int32)
