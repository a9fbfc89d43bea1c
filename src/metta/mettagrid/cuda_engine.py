"""A batch of worlds on a GPU: the interface of `GridEngine`, with state and observations in the GPU's memory."""

# Numba says little about its types, and less in some versions.
# mypy: disable-error-code="no-untyped-call,unused-ignore,import-untyped"

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from metta.mettagrid import introspection
from metta.mettagrid.device import choose_gpu, require_cuda
from metta.mettagrid.engine import cuda as kernels
from metta.mettagrid.engine import state as cols
from metta.mettagrid.engine.board import (
    CUT,
    ENDED,
    GIVEN,
    GOES_ON,
    MAP_MARGIN,
    MAP_STRIDE,
    PLAN,
    PLAY,
    RULE_SET,
    STEP,
    WORLD,
    Episodes,
)
from metta.mettagrid.engine.device_memory import (
    DeviceCopy,
    bytes_of,
    device_empty,
    device_view,
    device_zeros,
    fresh_bytes,
    segments_of,
    to_device,
    to_host,
    unpack_worlds,
    world_parts,
    write,
)
from metta.mettagrid.engine.maps import Plans
from metta.mettagrid.engine.state import Rules, State
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.rules import RuleTable
from metta.mettagrid.world_config import WorldConfig

NEVER_ENDS = 2**62

_INT32 = np.iinfo(np.int32)

SIMULATED_LANES = 3
"""Threads of a block in the simulator, which makes a thread of Python's of each."""


class CudaEngine(GridEngine):
    """B worlds on a GPU; the same rules, maps, seeds and actions give the same bits as in a `GridEngine`.

    Nothing here waits for the GPU but reading (the methods of `WorldReader`, `refresh`, `snapshot`, what `keep_returns` and
    `keep_stats` give), maps that are handed in by `reset` and, every few dozen steps, a look at how full the tables of
    invalid actions are. All work goes to the default stream, in order.

    Arrays of the interface, but for `agent_mask`, are device arrays: `torch.as_tensor(array, device="cuda")` shows the same
    memory. With the CUDA simulator they are arrays of numpy. `observations` and `actions` stay where they are in
    memory; the others move when a map needs more room than any before, so ask for them
    anew after a reset.

    Attributes:
        actions: int32 `[B, A, 2]`, where actions can be put to be stepped without a copy.
        device_episodes: what `play` keeps account of, on the device: `rewards`, `terminals`, `truncations`, `returns`. They stay
            where they are in memory. In `episodes`, which lies on the host, the rest is kept: `lengths`, `starts`, `cut_at`
            and `ended`, for which the clock is enough, and how episodes ended: `terminals` and `truncations` of worlds that
            `ended`.

    Args:
        rules, num_worlds, max_height, max_width, plans: as in `GridEngine`.
        gpu: number of the GPU; None: the one that this thread uses already, at first the first one.
        invalid_per_agent: rows of the tables of invalid actions for every agent; the more, the rarer a look at them.

    Raises:
        ValueError: as in `GridEngine`.
        RuntimeError: there is no GPU to be used; see `require_cuda`.
    """

    def __init__(
        self,
        rules: Sequence[RuleTable | WorldConfig],
        num_worlds: int,
        *,
        max_height: int,
        max_width: int,
        plans: Plans | None = None,
        gpu: int | None = None,
        invalid_per_agent: int = 32,
    ) -> None:
        require_cuda()
        if gpu is not None:
            choose_gpu(gpu)
        super().__init__(rules, num_worlds, max_height=max_height, max_width=max_width, plans=plans)
        super()._make_invalid(invalid_per_agent * self.max_agents)
        self._lanes = SIMULATED_LANES if kernels.is_simulated() else kernels.LANES
        self._device_rules = DeviceCopy[Rules](self._tables)
        self._device_plans = DeviceCopy[Plans](self._plans)
        self._kept = DeviceCopy[Episodes](self.episodes)
        self.device_episodes = self._kept.arrays
        self.actions = self.device_episodes.actions
        self._return_bytes = bytes_of(self.device_episodes.returns, (num_worlds, 1, 4 * self.max_agents))
        self._shared = kernels.Shared(
            maps=device_zeros(self._maps.shape, np.int16),
            wanted=device_zeros((num_worlds, self.max_agents), np.int32),
            most_used=device_zeros((1,), np.int32),
        )
        self._begins_there = kernels.Begins(
            rows=device_zeros((num_worlds, kernels.ROW_COLUMNS), np.int64),
            streams=device_zeros(self._streams.shape, np.int64),
            given=device_zeros((1, max_height, max_width), np.int16),
            fields=device_empty((num_worlds, max_height * max_width), np.int16),
        )
        self._chosen = device_zeros((num_worlds,), np.int64)
        self._observed = device_empty((self._state.observations.nbytes,), np.uint8)
        self._clock = np.zeros(num_worlds, np.int64)  # steps since the reset
        scalars = self._tables.scalars[:, [cols.S_MAX_STEPS, cols.S_LIFETIME]].astype(np.int64)
        times = np.where(scalars > 0, scalars, NEVER_ENDS)
        self._ends_at = times.min(axis=1)
        truncates = self._tables.scalars[:, cols.S_TRUNCATES] != 0
        self._terminal_at = np.where(truncates, NEVER_ENDS, times[:, 0])
        self._ends = np.full(num_worlds, NEVER_ENDS)  # the step at which each world's episode ends
        self._terminates = np.full(num_worlds, NEVER_ENDS)  # from which step on that is the task's own end
        self._sure_steps = 0  # steps for which the tables of invalid actions have room in any case
        self._stale = np.zeros(num_worlds, np.bool_)  # worlds of which the host's arrays are out of date
        self._push()

    def _begin(self, worlds: Sequence[int]) -> None:
        count = len(worlds)
        begins = self._begins[:count]
        begins[:, WORLD] = worlds
        begins[:, MAP_MARGIN] = self._margin
        begins[:, MAP_STRIDE] = self._stride
        places = list(worlds)
        rules = begins[:, RULE_SET]
        rows = np.concatenate([begins, self.episodes.cut_at[places, None]], axis=1)
        given = (begins[:, PLAN] == GIVEN).any()
        write(self._begins_there.rows[:count], rows)
        write(self._begins_there.streams[:count], self._streams[:count])
        kernels.begin_kernel[count, self._lanes](
            self._device_rules.arrays,
            self._copy.arrays,
            self.device_episodes,
            self._shared,
            self._device_plans.arrays,
            self._memory,
            self._begins_there._replace(given=to_device(self._maps[places])) if given else self._begins_there,
        )
        self._state.worlds[places, cols.RULE] = rules
        self.agent_mask[places] = self._agents_of_rule[rules, None] > np.arange(self.max_agents)
        self._clock[places] = self.episodes.lengths[places] = 0
        self._ends[places] = self._ends_at[rules]
        self._terminates[places] = self._terminal_at[rules]
        self.episodes.starts[places] = True
        self._stale[places] = True
        self._began[places] = True
        self._waiting = not self._began.all()

    def step(self, actions: Any, worlds: slice = slice(None)) -> None:
        """As `GridEngine.step`; `actions` may lie on the device, int32 and C-contiguous, for instance `self.actions`."""
        if isinstance(actions, np.ndarray) and actions is not self.actions:
            super().step(actions, worlds)
            return
        if tuple(actions.shape) != self._actions_shape:
            raise ValueError(
                f"actions have shape {tuple(actions.shape)}, but this engine takes {self._actions_shape}."
            )
        if self._waiting:
            raise ValueError(f"world {int(np.argmin(self._began))} has no map yet: reset it before stepping.")
        start, stop, _ = worlds.indices(self.num_worlds)
        self._launch(self._as_device_array(actions), STEP, start, stop)

    def play(self, actions: Any, start: int, stop: int) -> int:
        """As `GridEngine.play`; `actions` may be `self.actions`, in which those of all worlds stand."""
        if actions is self.actions:
            return self._launch(actions, PLAY, start, stop) if start < stop else 0
        return super().play(actions, start, stop)

    def _step(self, actions: NDArray[np.integer[Any]], job: int, start: int, stop: int) -> int:
        words = np.clip(actions, _INT32.min, _INT32.max).astype(np.int32)
        write(self.actions[start:stop], words.reshape(stop - start, self.max_agents, 2))
        return self._launch(self.actions, job, start, stop)

    def _launch(self, actions: Any, job: int, start: int, stop: int) -> int:
        """Step worlds with actions of the device; returns how many episodes are over."""
        if start >= stop:
            return 0
        self._keep_room_for_invalid()
        kernels.step_kernel[stop - start, self._lanes](
            self._device_rules.arrays,
            self._copy.arrays,
            self.device_episodes,
            self._shared,
            (actions,),
            job,
            start,
        )
        part = slice(start, stop)
        self._stale[part] = True
        self._clock[part] += 1
        if job != PLAY:
            return 0
        episodes = self.episodes
        episodes.lengths[part] += 1
        episodes.starts[part] = False
        over = self._clock[part] >= self._ends[part]
        cut = episodes.lengths[part] == episodes.cut_at[part]
        episodes.ended[part] = np.where(over, ENDED, np.where(cut, CUT, GOES_ON))
        terminal = over & (self._clock[part] >= self._terminates[part])
        agents = self.agent_mask[part]
        episodes.terminals[part] = terminal[:, None] & agents
        episodes.truncations[part] = (over & ~terminal)[:, None] & agents | (cut & ~over)[:, None]
        return int(np.count_nonzero(episodes.ended[part]))

    def refresh(self, worlds: Sequence[int]) -> None:
        """Copy what `WorldReader` reads of some worlds at once; otherwise each is copied when it is asked for."""
        places = list(worlds)
        if not places:
            return
        rows = self._gather(places)
        maps = self._rows(places, self._map_bytes)
        self._maps[places] = to_host(maps).view(np.int16)
        copies = unpack_worlds(to_host(rows), self._state)
        for part, copied in zip(world_parts(self._state), world_parts(copies), strict=True):
            part[places] = copied
        self._stale[places] = False

    def keep_returns(self, worlds: Sequence[int]) -> Callable[[], NDArray[np.float32]]:
        """Copy the returns of some worlds' agents on the device; the call that is given waits and brings them here.

        Args:
            worlds: at least one.

        Returns:
            A call for float32 `[n, A]`, as they are now.
        """
        copies = self._rows(list(worlds), self._return_bytes)
        return lambda: to_host(copies)[:, 0].view(np.float32)

    def keep_stats(self, worlds: Sequence[int]) -> Callable[[], list[dict[str, Any]]]:
        """Copy what `episode_stats` reads of some worlds on the device; the call that is given waits and reads it.

        Args:
            worlds: at least one.

        Returns:
            A call for the statistics of each, as they are now.
        """
        places = list(worlds)
        copies, state = self._gather(places), self._state
        rules = [self.rules[rule] for rule in state.worlds[places, cols.RULE]]

        def read() -> list[dict[str, Any]]:
            kept = unpack_worlds(to_host(copies), state)
            return [introspection.episode_stats(rule, kept, place) for place, rule in enumerate(rules)]

        return read

    def _gather(self, places: list[int]) -> Any:
        """Everything of some worlds but their observations and maps, uint8 `[n, bytes of a world]`, on the device."""
        copies = device_empty((len(places), self._memory.fresh.shape[0]), np.uint8)
        kernels.gather_kernel[len(places), self._lanes](
            self._memory, kernels.Copies(self._choose(places), copies)
        )
        return copies

    def _rows(self, places: list[int], rows: Any) -> Any:
        """Some worlds of an array of bytes `[B, n, m]`, on the device."""
        copies = device_empty((len(places), *rows.shape[1:]), np.uint8)
        kernels.rows_kernel[len(places), self._lanes]((rows,), kernels.Copies(self._choose(places), copies))
        return copies

    def _choose(self, places: list[int]) -> Any:
        write(self._chosen[: len(places)], np.array(places, np.int64))
        return self._chosen

    def fetch_returns(self) -> None:
        """Bring `episodes.returns` up to date."""
        self.episodes.returns[...] = to_host(self.device_episodes.returns)

    def store_accounts(self) -> None:
        """Let the device go on from what stands in `episodes`."""
        self._kept.upload()

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """As `GridEngine.snapshot`, in the memory of the host; either kind of engine continues from it."""
        self._pull()
        return super().snapshot()

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """As `GridEngine.restore`, from a snapshot of either kind of engine."""
        self._pull()
        super().restore(arrays)
        self._clock[:] = self._state.worlds[:, cols.STEP]
        self._ends[:] = self._ends_at[self._state.worlds[:, cols.RULE]]
        self._terminates[:] = self._terminal_at[self._state.worlds[:, cols.RULE]]
        write(self._shared.maps, self._maps)
        self._push()

    def synchronize(self) -> None:
        """Return when everything that was launched is done."""
        if not kernels.is_simulated():
            cuda.synchronize()

    def _as_device_array(self, actions: Any) -> Any:
        """Actions that lie on the device, as Numba knows them."""
        if actions is self.actions:
            return actions
        given = cuda.as_cuda_array(actions, sync=False)
        if given.dtype != np.int32 or not given.is_c_contiguous():
            raise ValueError(
                f"actions on the device are {given.dtype} with strides {given.strides}; give C-contiguous int32."
            )
        return given

    def _keep_room_for_invalid(self) -> None:
        """See to it that the tables of invalid actions stay sparse; a step adds at most one row per agent."""
        if self._sure_steps == 0:
            rows = self._state.invalid.shape[1]
            free = 3 * rows // 4 - int(to_host(self._shared.most_used)[0])
            # Well before it has to be, or the looks would follow each other closely where a table stays nearly full.
            if free < max(self.max_agents, rows // 4):
                self._make_invalid(2 * rows)
                free += 3 * rows // 4
            write(self._shared.most_used, np.zeros(1, np.int32))
            self._sure_steps = free // self.max_agents
        self._sure_steps -= 1

    def _grow_things(self, converters: int) -> None:
        if converters > self._state.converters.shape[1]:
            self._pull()
            super()._grow_things(converters)
            self._push()

    def _make_invalid(self, rows: int) -> None:
        self._pull()
        super()._make_invalid(rows)
        self._push()

    def _pull(self) -> None:
        """Copy everything to the host."""
        self._copy.download()
        self._maps[...] = to_host(self._shared.maps)
        self._stale[:] = False

    def _push(self) -> None:
        """Copy everything to the device, into new memory."""
        state = self._state
        self._copy = DeviceCopy[State](state, {"observations": self._observed})
        self._memory = kernels.Memory(
            memory=self._copy.memory,
            segments=to_device(segments_of(self._copy, state)),
            fresh=to_device(fresh_bytes(state)),
        )
        self._sure_steps = 0
        held = self._copy.arrays
        row = (self.num_worlds, self.max_height, 2 * self.max_width)
        self._map_bytes = bytes_of(self._shared.maps, row)
        shape = (self.num_worlds, self.max_agents, self.num_tokens, 3)
        self.observations = device_view(self._observed, 0, state.observations.reshape(shape))
        self.rewards = held.values[cols.REWARD]
        self.episode_rewards = held.values[cols.EPISODE_REWARD]
        self.terminals = held.flags[cols.TERMINAL]
        self.truncations = held.flags[cols.TRUNCATION]
        self.action_success = held.flags[cols.SUCCESS]
        self.current_step = held.worlds[:, cols.STEP]

    def _world(self, world: int) -> int:
        world = super()._world(world)
        if self._stale[world]:
            self.refresh([world])
        return world
