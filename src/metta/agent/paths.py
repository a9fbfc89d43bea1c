"""Which of two ways computes a layer: plain torch operations, or compiled loops on a CPU."""

from __future__ import annotations

from typing import Literal

import torch

Path = Literal["auto", "fast", "plain"]
"""`plain`: torch operations, any device, the reference. `fast`: compiled loops. `auto`: fast where it can be."""


def use_fast(path: Path, tensor: torch.Tensor) -> bool:
    """Whether to use the compiled loops on data like `tensor`, floating.

    Raises:
        ValueError: `fast` was asked for where it cannot be.
    """
    if path == "plain":
        return False
    able = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
    if path == "fast":
        if not able:
            raise ValueError(
                f"path is 'fast' but the agent is {tensor.dtype} on {tensor.device}, and the compiled loops need "
                "float32 or float64 on a CPU: use path='auto'."
            )
        return True
    if not able:
        return False
    import numba

    # Interpreted, the compiled loops would be the slow way.
    return not numba.config.DISABLE_JIT  # type: ignore[attr-defined]
