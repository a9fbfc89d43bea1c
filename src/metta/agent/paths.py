"""How a layer is computed: by plain torch operations, or by compiled loops on one or several CPU threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import torch

ComputePath = Literal["auto", "fast", "plain"]
"""`plain`: torch operations, any device, the reference. `fast`: compiled loops. `auto`: fast where it can be."""

ROWS_PER_THREAD = 512
"""Fewer rows than this are not worth another thread."""

T = TypeVar("T")


def split_rows(num_rows: int, work: Callable[[slice], T]) -> list[T]:
    """Do compiled work on a batch's rows with as many threads as torch uses.

    Args:
        num_rows: rows of the batch.
        work: called with consecutive slices of rows, from several threads at once.

    Returns:
        What each call returned, in the order of the rows.
    """
    parts = max(1, min(torch.get_num_threads(), num_rows // ROWS_PER_THREAD))
    bounds = [num_rows * i // parts for i in range(parts + 1)]
    slices = [slice(begin, end) for begin, end in itertools.pairwise(bounds)]
    if parts == 1:
        return [work(slices[0])]
    with ThreadPoolExecutor(parts - 1) as pool:
        others = [pool.submit(work, part) for part in slices[1:]]
        return [work(slices[0]), *(other.result() for other in others)]


def use_fast(path: ComputePath, tensor: torch.Tensor) -> bool:
    """Whether to use the compiled loops on data like `tensor`, floating; never while `torch.compile` traces a graph.

    Raises:
        ValueError: `fast` was asked for where it cannot be.
    """
    if path == "plain" or torch.compiler.is_compiling():
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
