"""Several processes that train one policy: the only user of `torch.distributed`."""

from __future__ import annotations

import torch
import torch.distributed as dist


def is_distributed() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_mean(tensor: torch.Tensor) -> torch.Tensor:
    """Mean over the processes, of a tensor that has the same shape in all of them; alone, the tensor itself."""
    if not is_distributed():
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def any_rank(flag: bool) -> bool:
    """Whether the flag is set in any process: what all must decide alike, lest some wait for the others for ever."""
    if not is_distributed():
        return flag
    flags: list[bool] = [False] * dist.get_world_size()
    dist.all_gather_object(flags, flag)
    return any(flags)
