"""The arrays of a batch once more, in the memory of a GPU."""

# Numba says little about its types, and less in some versions.
# mypy: disable-error-code="no-untyped-call,unused-ignore,import-untyped"

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from metta.mettagrid.engine.cuda import is_simulated
from metta.mettagrid.engine.state import CHANGED, LAST_KIND, NEVER, NEXT_DUE, State

Bundle = TypeVar("Bundle", bound=NamedTuple)

_ALIGNMENT = 256


def device_empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array on the device that holds anything; with the simulator one of numpy."""
    return np.empty(shape, dtype) if is_simulated() else cuda.device_array(shape, dtype)


def device_zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of zeros on the device."""
    return to_device(np.zeros(shape, dtype))


def to_device(array: NDArray[Any]) -> Any:
    """A copy of an array on the device."""
    return array.copy() if is_simulated() else cuda.to_device(np.ascontiguousarray(array))


def to_host(array: Any) -> NDArray[Any]:
    """A copy of an array of the device; waits until everything before it is done."""
    copy: NDArray[Any] = array.copy() if is_simulated() else array.copy_to_host()
    return copy


def write(array: Any, values: NDArray[Any]) -> None:
    """Copy an array of the host over one of the device, after all that was launched before, and without waiting for it."""
    if is_simulated():
        array[...] = values
    else:
        # With a stream named, the host's memory is read before the call returns, and nothing waits for the device.
        array.copy_to_device(np.ascontiguousarray(values), stream=cuda.default_stream())


class DeviceCopy(Generic[Bundle]):
    """The arrays of a bundle on the device, with the same shapes and strides.

    Attributes:
        memory: uint8, one piece of device memory that holds all arrays but those that have memory of their own.
        arrays: the bundle, of device arrays.

    Args:
        bundle: named arrays of the host; their values are copied.
        apart: uint8 device arrays to use for some of them, by name.
    """

    def __init__(self, bundle: Bundle, apart: Mapping[str, Any] | None = None) -> None:
        named = bundle._asdict()
        self._apart = [(_owner(named[name]), memory) for name, memory in (apart or {}).items()]
        self._together: list[tuple[Any, int]] = []  # arrays that own memory, and where their copies begin
        size = 0
        for array in bundle:
            owner = _owner(array)
            if not any(other is owner for other, _ in [*self._together, *self._apart]):
                self._together.append((owner, size))
                size += -(-owner.nbytes // _ALIGNMENT) * _ALIGNMENT
        self.memory = device_empty((max(size, _ALIGNMENT),), np.uint8)
        self.arrays: Bundle = type(bundle)(*(self._view(array) for array in bundle))
        self.upload()

    def upload(self) -> None:
        """Copy everything from the host."""
        for owner, memory in self._blocks():
            write(memory, owner.reshape(-1).view(np.uint8))

    def download(self) -> None:
        """Copy everything to the host; waits until all that was launched is done."""
        for owner, memory in self._blocks():
            owner.reshape(-1).view(np.uint8)[:] = to_host(memory)

    def place_of(self, array: NDArray[Any]) -> int:
        """Where the copy of an array of the bundle begins in `memory`."""
        owner = _owner(array)
        place = next(place for other, place in self._together if other is owner)
        return int(place + array.ctypes.data - owner.ctypes.data)

    def _blocks(self) -> list[tuple[Any, Any]]:
        """Arrays of the host that own memory, and their copies."""
        together = [
            (owner, self.memory[place : place + owner.nbytes])
            for owner, place in self._together
            if owner.nbytes
        ]
        return together + self._apart

    def _view(self, array: NDArray[Any]) -> Any:
        owner = _owner(array)
        memory = next((memory for other, memory in self._apart if other is owner), None)
        if memory is not None:
            return device_view(memory, int(array.ctypes.data - owner.ctypes.data), array)
        return device_view(self.memory, self.place_of(array), array)


def bytes_of(array: Any, shape: tuple[int, ...]) -> Any:
    """The bytes of a packed array of the device as an array of their own."""
    return device_view(array, 0, np.empty(shape, np.uint8))


def device_view(memory: Any, place: int, like: NDArray[Any]) -> Any:
    """An array on the device that begins at a byte of `memory`, with the shape, strides and type of another."""
    if is_simulated():
        return np.ndarray(like.shape, like.dtype, memory.reshape(-1).view(np.uint8), place, like.strides)
    interface = {
        "shape": like.shape,
        "strides": None if like.flags.c_contiguous else like.strides,
        "typestr": like.dtype.str,
        "data": (memory.__cuda_array_interface__["data"][0] + place, False),
        "version": 3,
    }
    return cuda.from_cuda_array_interface(interface, owner=memory, sync=False)


def _owner(array: Any) -> Any:
    """The array whose memory an array shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


_BY_KIND = ("values", "flags")
"""Arrays whose second index is the world."""


def world_parts(state: State) -> list[NDArray[Any]]:
    """Everything of a state but its observations, as arrays whose first index is the world and the rest of which is packed."""
    parts: list[NDArray[Any]] = []
    for name, array in state._asdict().items():
        if name in _BY_KIND:
            parts += list(array)
        elif name != "observations":
            parts.append(array)
    return parts


def unpack_worlds(rows: NDArray[np.uint8], like: State) -> State:
    """Some worlds as `engine.cuda.gather_kernel` copies them.

    Args:
        rows: uint8 `[n, bytes of a world]`.
        like: the state that they were copied of, for its shapes.

    Returns:
        A state of n worlds, without observations.
    """
    place = 0

    def taken(array: NDArray[Any]) -> NDArray[Any]:
        nonlocal place
        size = array[0].nbytes
        part = np.ascontiguousarray(rows[:, place : place + size])
        place += size
        return part.view(array.dtype).reshape(len(rows), *array.shape[1:])

    fields: dict[str, NDArray[Any]] = {}
    for name, array in like._asdict().items():
        if name in _BY_KIND:
            fields[name] = np.stack([taken(kind) for kind in array])
        else:
            fields[name] = array[:0] if name == "observations" else taken(array)
    return State(**fields)


def fresh_bytes(state: State) -> NDArray[np.uint8]:
    """What a world without a map holds, in the order of `world_parts`."""
    one = {
        name: np.zeros(
            (array.shape[0], 1, *array.shape[2:]) if name in _BY_KIND else (1, *array.shape[1:]), array.dtype
        )
        for name, array in state._asdict().items()
    }
    one["worlds"][0, NEXT_DUE] = NEVER
    one["agents"][0, :, LAST_KIND] = -1
    one["agents"][0, :, CHANGED] = 1
    one["agent_items"][...] = -1
    return np.concatenate([np.frombuffer(part.tobytes(), np.uint8) for part in world_parts(State(**one))])


def segments_of(copy: DeviceCopy[State], state: State) -> NDArray[np.int64]:
    """The parts of a state's memory that belong to one world each; see `engine.cuda.reset_kernel`."""
    rows: list[tuple[int, int, int, int]] = []
    place = 0
    for part in world_parts(state):
        size = int(np.prod(part.shape[1:], dtype=np.int64)) * part.itemsize
        rows.append((copy.place_of(part), part.strides[0], size, place))
        place += size
    return np.array(rows, np.int64)
