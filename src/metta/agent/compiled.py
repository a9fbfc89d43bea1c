"""A network that torch compiles, for training.

`torch.compile` makes one graph of a network's plain torch operations, forward and backward. The loops over tokens and ticks
that Metta compiles itself have no place in such a graph: while it is traced, the layers take their plain path (see
`metta.agent.paths.use_fast`). On a CPU those loops are faster than any such graph, so this is for devices that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch

from metta.agent.paths import ComputePath

_wanted: ContextVar[bool] = ContextVar("compiled_networks", default=False)

T = TypeVar("T")


@contextmanager
def compiled_networks(wanted: bool = True) -> Iterator[None]:
    """Within, agents judge segments, where a gradient is wanted, through a graph that torch compiles at the first of them.

    Args:
        wanted: False: they do not.
    """
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def compilation_wanted() -> bool:
    """Whether a network is to be compiled here: acting, and teachers, who only say what they think, never are."""
    return _wanted.get() and torch.is_grad_enabled()


class CompiledFunction:
    """A function, and its graph from the first call on. A copy has to compile anew."""

    def __init__(self) -> None:
        self._compiled: Callable[..., Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._compiled = None

    def __call__(self, function: Callable[..., T], path: ComputePath, *arguments: Any) -> T:
        """Call the function.

        Args:
            function: always the same.
            path: of its layers; `fast` insists on what a graph cannot hold.
            arguments: its own; other shapes or dtypes than before make another graph.

        Raises:
            ValueError: the path is `fast`.
            FileNotFoundError: there is no compiler that torch could use.
        """
        if path == "fast":
            raise ValueError(
                "path is 'fast' but compile is True, and torch.compile replaces the compiled loops: use path='auto', or "
                "leave compile at False."
            )
        if self._compiled is None:
            # In one piece or not at all: what torch cannot trace is an error here, and no silent half measure.
            self._compiled = torch.compile(function, fullgraph=True)
        try:
            result: T = self._compiled(*arguments)
        except RuntimeError as error:
            if "InvalidCxxCompiler" not in str(error):
                raise
            raise FileNotFoundError(
                "compile is True but torch.compile finds no C++ compiler that works: install g++, name one in the environment "
                "variable CXX, or leave compile at False."
            ) from error
        return result
