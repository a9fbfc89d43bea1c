"""Worlds that live on a GPU, for `VecEnv`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from metta.mettagrid.device import require_cuda
from metta.mettagrid.engine.maps import Plans
from metta.mettagrid.engine.streams import Longs
from metta.mettagrid.fleet import LocalFleet, TaskSet

if TYPE_CHECKING:
    from metta.mettagrid.cuda_engine import CudaEngine


LateResults = tuple[npt.NDArray[np.float32], list[dict[str, Any]]]
"""Returns of each agent and statistics, of some episodes."""


class DeviceArrays(Protocol):
    """How whoever uses the worlds wants to see arrays of the device: as tensors of a library, for instance.

    Attributes:
        gpu: number of the GPU; None: the one that this thread uses already, at first the first one.
    """

    @property
    def gpu(self) -> int | None:
        """See above."""
        ...

    def show(self, array: Any) -> Any:
        """The same memory in that form. `array` has `__cuda_array_interface__`, or is one of numpy with the CUDA simulator."""
        ...

    def copy(self, array: Any) -> Any:
        """A copy of what `show` gave, on the device."""
        ...

    def take(self, array: Any, rows: npt.NDArray[np.int64]) -> Any:
        """A copy of some rows of what `show` gave, on the device; the host does not wait for it."""
        ...

    def as_actions(self, actions: Any) -> Any:
        """Actions on the device as int32, beyond 32 bits the nearest 32-bit number.

        Raises:
            ValueError: they are no integers.
        """
        ...


class CudaFleet(LocalFleet):
    """A fleet on a GPU. See `Fleet`.

    `observations`, and of `episodes` the `rewards`, `terminals` and `truncations`, are what `arrays` shows. The rest of
    `episodes` lies on the host, where `returns` are only up to date after a snapshot. No step waits for the GPU but one in
    some dozens (see `CudaEngine`).

    Args:
        tasks: what can be played.
        num_worlds: B.
        arrays: how arrays of the device are shown.

    Raises:
        ValueError: the map of a task cannot be built.
        RuntimeError: there is no GPU to be used; see `require_cuda`.
    """

    engine: CudaEngine

    def __init__(self, tasks: TaskSet, num_worlds: int, arrays: DeviceArrays) -> None:
        self._restored = False
        self._gpu = arrays.gpu
        super().__init__(tasks, num_worlds)
        kept = self.engine.device_episodes
        self._actions = arrays.show(self.engine.actions)
        self.observations = arrays.show(self.engine.observations)
        self.episodes = self.engine.episodes._replace(
            rewards=arrays.show(kept.rewards),
            terminals=arrays.show(kept.terminals),
            truncations=arrays.show(kept.truncations),
        )

    def _make_engine(self, tasks: TaskSet, num_worlds: int, plans: Plans, **_: Any) -> CudaEngine:
        require_cuda()
        from metta.mettagrid.cuda_engine import CudaEngine  # brings Numba's CUDA target along

        height, width = tasks.largest_map
        return CudaEngine(
            tasks.rules, num_worlds, max_height=height, max_width=width, plans=plans, gpu=self._gpu
        )

    def begin(self, worlds: Sequence[int], tasks: Sequence[int], streams: Longs) -> None:
        """See `Fleet`."""
        self._take_up()
        super().begin(worlds, tasks, streams)

    def launch(self, actions: Any, start: int, stop: int) -> None:
        """See `Fleet`; `actions` are what `DeviceArrays.as_actions` gives."""
        self._take_up()
        self._actions[start:stop] = actions.reshape(self._actions[start:stop].shape)
        self._ended[start, stop] = self.engine.play(self.engine.actions, start, stop)

    def wait(self, start: int, stop: int) -> int:
        """See `Fleet`; what is on the device may still be under way, and whatever is done with it there comes after."""
        return super().wait(start, stop)

    def late_results(self, worlds: Sequence[int], with_stats: bool) -> Callable[[], LateResults]:
        """Keep what became of episodes that just ended, without waiting for it.

        Args:
            worlds: where they ended, before anything new begins there.
            with_stats: whether to keep the engine's statistics.

        Returns:
            A call that waits: it gives float32 `[n, A]` returns, and statistics, {} if they are not kept.
        """
        returns = self.engine.keep_returns(worlds)
        stats = self.engine.keep_stats(worlds) if with_stats else lambda: [{} for _ in worlds]
        return lambda: (returns(), stats())

    def episode_stats(self, worlds: Sequence[int]) -> list[dict[str, Any]]:
        """See `Fleet`; waits for the GPU."""
        self.engine.refresh(worlds)
        return super().episode_stats(worlds)

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """See `Fleet`."""
        self.engine.fetch_returns()
        return super().snapshot()

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """See `Fleet`."""
        super().restore(arrays)
        self._restored = True

    def _take_up(self) -> None:
        """After `restore` whoever holds the fleet fills in `episodes`; the device gets it before anything happens."""
        if self._restored:
            self.engine.store_accounts()
            self._restored = False
