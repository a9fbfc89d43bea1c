"""A device that is none: its tensors are computed by the processor, and what the host of a GPU would wait for is counted.

It holds code to what a GPU asks of it on machines without one: nothing may mix the two memories, and a step may not make the
host wait. It changes torch for the whole process, so tests that use it run in a process of their own.
"""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "standin"

_COPIES = ("aten._to_copy.default", "aten.copy_.default")
_WAIT_FOR_VALUES = (
    "aten._local_scalar_dense.",
    "aten.nonzero.",
    "aten.masked_select.",
    "aten.unique",
    "aten.is_nonzero.",
)


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class _Generator(torch.Generator):
    def __new__(cls, device: object = "cpu") -> _Generator:
        del device
        return super().__new__(cls, "cpu")


class OnDevice(torch.Tensor):
    """A tensor on the stand-in; `inner` is the one of the processor that holds the numbers."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        layout: dict[str, Any] = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, **layout, dtype=inner.dtype, device=torch.device(NAME, 0)
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:
        return f"OnDevice({self.inner})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on the stand-in outside of `StandIn`")


class StandIn(TorchDispatchMode):
    """Within, tensors can lie on the device `standin`.

    Attributes:
        waits: operations so far for which the host of a GPU would have waited, and the line of ours that asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = str(func)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        asked = kwargs.get("device")
        target = asked.type if asked is not None else NAME if there else "cpu"
        if name == "aten.copy_.default":
            target = args[0].device.type
            crosses = args[0].device.type != args[1].device.type
        else:
            crosses = name == "aten._to_copy.default" and args[0].device.type != target
        if there and name not in _COPIES:
            apart = [t for t in tensors if not isinstance(t, OnDevice) and t.ndim > 0]
            if apart:
                raise RuntimeError(f"{name} mixes tensors of the processor and of the device")
        if target == NAME or there:
            self._count(name, args, kwargs, crosses, target)
        if target != "meta" and asked is not None:
            kwargs["device"] = torch.device("cpu")
        given = {id(tensor.inner): tensor for tensor in there}
        got = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))

        def wrap(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if id(value) in given:
                return given[id(value)]
            return OnDevice(value) if target == NAME else value

        return tree_map(wrap, got)

    def _count(self, name: str, args: Any, kwargs: Any, crosses: bool, target: str) -> None:
        asynchronous = kwargs.get("non_blocking", len(args) > 2 and name == "aten.copy_.default" and args[2])
        by_mask = name.startswith(("aten.index.", "aten.index_put", "aten._index_put")) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        carried = crosses and not (asynchronous and target == NAME)
        if carried or by_mask or name.startswith(_WAIT_FOR_VALUES):
            ours = [frame for frame in traceback.extract_stack() if "/metta/" in frame.filename]
            line = (
                f"{ours[-1].filename.rsplit('/', 1)[1]}:{ours[-1].lineno}: {ours[-1].line}" if ours else "?"
            )
            self.waits.append(f"{name} at {line}")


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, OnDevice) else value


class StandInArrays:
    """Worlds of the CUDA simulator shown as if they lay on the stand-in. See `metta.mettagrid.cuda_fleet.DeviceArrays`."""

    gpu = None

    def show(self, array: Any) -> torch.Tensor:
        return OnDevice(torch.from_numpy(array))

    def copy(self, array: torch.Tensor) -> torch.Tensor:
        return array.clone()

    def take(self, array: torch.Tensor, rows: Any) -> torch.Tensor:
        return array.index_select(0, torch.from_numpy(rows).to(array.device, non_blocking=True))

    def as_actions(self, actions: torch.Tensor) -> torch.Tensor:
        assert isinstance(actions, OnDevice), "actions were brought to the host"
        return actions.to(torch.int32)


def set_up() -> None:
    """Make the device known to torch, for the rest of the process. Random numbers come from the processor's generators."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    torch.Generator = _Generator  # type: ignore[misc]
