"""The types of what the kernels for GPUs are launched with, worked out without a GPU."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from numba import types
from numba.np import numpy_support

from metta.mettagrid.engine import cuda as kernels
from metta.mettagrid.engine.board import Episodes
from metta.mettagrid.engine.bundle import array_fields
from metta.mettagrid.engine.maps import Plans
from metta.mettagrid.engine.state import Rules, State


def array(dtype: str, ndim: int) -> Any:
    return types.Array(numpy_support.from_dtype(np.dtype(dtype)), ndim, "C")


def bundle(kind: type[NamedTuple]) -> Any:
    """Of a bundle of the engine, from its annotations."""
    fields = [array(field.dtype, field.ndim) for field in array_fields(kind).values()]
    return types.NamedTuple(fields, kind)


def named(kind: Any, *fields: tuple[str, int]) -> Any:
    return types.NamedTuple([array(*field) for field in fields], kind)


def kernel_signatures() -> dict[Any, tuple[Any, ...]]:
    """Every kernel, and the types of its arguments."""
    rules, state, episodes, plans = (bundle(cast(Any, kind)) for kind in (Rules, State, Episodes, Plans))
    shared = named(kernels.Shared, ("int16", 3), ("int32", 2), ("int32", 1))
    memory = named(kernels.Memory, ("uint8", 1), ("int64", 2), ("uint8", 1))
    begins = named(kernels.Begins, ("int64", 2), ("int64", 2), ("int16", 3), ("int16", 2))
    actions = types.UniTuple(array("int32", 3), 1)
    rows = types.UniTuple(array("uint8", 3), 1)
    return {
        kernels.step_kernel: (rules, state, episodes, shared, actions, types.int64, types.int64),
        kernels.begin_kernel: (rules, state, episodes, shared, plans, memory, begins),
        kernels.gather_kernel: (memory, named(kernels.Copies, ("int64", 1), ("uint8", 2))),
        kernels.rows_kernel: (rows, named(kernels.Copies, ("int64", 1), ("uint8", 3))),
    }
