"""Rows of a batch side by side: each thread takes some rows through the whole network.

The products of a small network are too short for several threads to share each of them: most of the time goes into
handing over and waiting. Rows do not depend on one another, so each thread works on its own, forward and backward, and
they meet once, at the end.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch.autograd.function import once_differentiable

from metta.agent.paths import ComputePath

WORK_PER_PART = 2**24
"""Rows times weights below which another thread costs more than it saves, as measured."""

_given: ContextVar[int] = ContextVar("row_threads", default=0)
"""Threads that `sharing_rows` took from torch; 0: outside of it."""

T = TypeVar("T")
Tensors = tuple[torch.Tensor, ...]


@contextmanager
def sharing_rows() -> Iterator[None]:
    """Within, torch's own operations use one thread, and agents share rows out among as many as torch had before.

    Around a whole loop it is worth more than around single calls: threads of torch that have just had something to do
    wait for more at full speed for a while, on a core that a thread with rows could use.
    """
    before = torch.get_num_threads()
    token = _given.set(_given.get() or before)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _given.reset(token)


class RowThreads:
    """The calling thread and some of its own, which are started when they are first needed."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def run(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Make the calls side by side, each on a thread.

        Returns:
            What they returned, in their order.
        """
        # Within, for a thread that first meets torch takes on the number that is set at that moment.
        with sharing_rows():
            pool = self._started(len(calls) - 1)
            others = [pool.submit(call) for call in calls[1:]]
            try:
                first = calls[0]()
            finally:
                wait(others)
            return [first, *(other.result() for other in others)]

    def _started(self, size: int) -> ThreadPoolExecutor:
        # A child process inherits this object, but not the threads.
        if self._pool is None or self._size < size or self._process != os.getpid():
            self._pool = ThreadPoolExecutor(size, "metta-rows", torch.set_num_threads, (1,))
            self._size, self._process = size, os.getpid()
        return self._pool


def row_parts(path: ComputePath, weights: torch.Tensor, rows: int, samples: int) -> list[slice]:
    """How a batch is best shared out.

    Args:
        path: `plain` is never shared.
        weights: all of them, or anything of their size and on their device.
        rows: of the batch.
        samples: observations in it.

    Returns:
        Consecutive slices of rows, one for each thread; one for all where sharing does not pay.
    """
    parts = 1
    able = weights.device.type == "cpu" and not torch.compiler.is_compiling()
    if path != "plain" and able:
        parts = min(
            _given.get() or torch.get_num_threads(), rows, max(1, samples * weights.numel() // WORK_PER_PART)
        )
    bounds = [rows * i // parts for i in range(parts + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(bounds)]


def by_rows(
    threads: RowThreads,
    function: Callable[[slice], Tensors],
    parts: Sequence[slice],
    dims: Sequence[int],
    parameters: Sequence[torch.Tensor],
) -> Tensors:
    """Compute a function of rows part by part, side by side, and later its gradient in the same way.

    Args:
        threads: do the work.
        function: gives the results for some rows, tensors that may have a graph.
        parts: slices of rows that together are all of them.
        dims: dimension of the rows in each of the results.
        parameters: by what the results can be differentiated.

    Returns:
        The results for all rows.
    """
    if len(parts) == 1:
        return function(parts[0])
    return _ByRows.apply(threads, function, parts, dims, *parameters)  # type: ignore[no-untyped-call, no-any-return]


class _ByRows(torch.autograd.Function):
    """`by_rows`, with the backward pass part by part as well."""

    @staticmethod
    def forward(
        ctx: Any,
        threads: RowThreads,
        function: Callable[[slice], Tensors],
        parts: Sequence[slice],
        dims: Sequence[int],
        *parameters: torch.Tensor,
    ) -> Tensors:
        def compute(rows: slice) -> Tensors:
            with torch.enable_grad():
                return function(rows)

        ctx.results = threads.run([functools.partial(compute, rows) for rows in parts])
        ctx.threads, ctx.parts, ctx.dims, ctx.parameters = threads, parts, dims, parameters
        by_result = zip(zip(*ctx.results, strict=True), dims, strict=True)
        joined = tuple(torch.cat([part.detach() for part in parts], dim) for parts, dim in by_result)
        fixed = [out for out, part in zip(joined, ctx.results[0], strict=True) if not part.requires_grad]
        ctx.mark_non_differentiable(*fixed)
        ctx.set_materialize_grads(False)
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[Any, ...]:
        def differentiate(results: Tensors, rows: slice) -> tuple[torch.Tensor | None, ...]:
            outputs, given = [], []
            for result, grad, dim in zip(results, grads, ctx.dims, strict=True):
                if grad is not None and result.requires_grad:
                    outputs.append(result)
                    given.append(grad.narrow(dim, rows.start, rows.stop - rows.start))
            # Whether this graph is needed once more, only who keeps the outer one knows.
            gradients: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
                outputs, ctx.parameters, given, retain_graph=True, allow_unused=True
            )
            return gradients

        first, *others = ctx.threads.run(
            [
                functools.partial(differentiate, results, rows)
                for results, rows in zip(ctx.results, ctx.parts, strict=True)
            ]
        )
        totals = list(first)
        for part in others:
            for i, more in enumerate(part):
                total = totals[i]
                totals[i] = more if total is None else total if more is None else total + more
        return None, None, None, None, *totals
