"""Many worlds that take turns: while the caller thinks about some of them, others are stepped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Curriculum
from metta.mettagrid.outcomes import StepBatch
from metta.mettagrid.vec import VecEnv


@dataclass(frozen=True)
class ReceivedBatch:
    """What `recv` hands out: some worlds, and what their last step gave.

    Attributes:
        worlds: which worlds.
        rows: their rows in arrays of the whole batch.
        starts: bool `[R]`: the observation is the first of an episode.
        step: the step; after `async_reset` one in which nothing has happened yet, with the first observations.
    """

    worlds: slice
    rows: slice
    starts: npt.NDArray[np.bool_]
    step: StepBatch


class AsyncVecEnv(VecEnv):
    """A `VecEnv` that can also be asked not to wait.

    For `async_reset`, `recv` and `send` the worlds form groups of `batch_size`, which take turns: the group that was
    sent first is received first, whichever is done first, so that the result does not depend on timing. `reset` and
    `step` do what they do in `VecEnv`, to all worlds at once.

    Args:
        tasks, num_worlds, options: as in `VecEnv`.
        batch_size: worlds of a group; None: all of them are one.

    Raises:
        ValueError: the groups do not divide the worlds; and as in `VecEnv`.
    """

    def __init__(
        self,
        tasks: EnvConfig | Curriculum,
        num_worlds: int = 1,
        *,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        if batch_size is not None and (batch_size < 1 or num_worlds % batch_size):
            raise ValueError(
                f"batch_size is {batch_size}; the {num_worlds} worlds have to divide evenly into such groups."
            )
        self.batch_size = batch_size or num_worlds
        # Groups are sent and received in the same order, round and round. Right after `async_reset` all of them are
        # under way without a step having been asked for.
        self._turn = 0  # the group that `send` is for
        self._under_way = 0  # groups that were sent and not yet received
        self._unstepped = 0  # how many of these only show the beginning of an episode
        super().__init__(tasks, num_worlds, **options)

    def reset(self, seed: int | None = None) -> npt.NDArray[np.uint8]:
        """As in `VecEnv`. What was sent and not received is forgotten."""
        self._forget_sent()
        return super().reset(seed)

    def step(self, actions: npt.NDArray[np.integer[Any]], worlds: slice | None = None) -> StepBatch:
        """As in `VecEnv`.

        Raises:
            RuntimeError: something was sent and not received.
        """
        self._refuse_under_way("step()")
        return super().step(actions, worlds)

    def restart(self, worlds: Sequence[int]) -> None:
        """As in `VecEnv`.

        Raises:
            RuntimeError: something was sent and not received.
        """
        self._refuse_under_way("restart()")
        super().restart(worlds)

    def async_reset(self, seed: int | None = None) -> None:
        """Begin a new episode in every world; `recv` then hands out the first observations, group by group.

        Args:
            seed: as in `reset`.
        """
        self.reset(seed)
        self._under_way = self._unstepped = self._num_groups

    def send(self, actions: npt.NDArray[np.integer[Any]]) -> None:
        """Give the actions of the group that was received, and has had no answer, for the longest time.

        With worker processes this returns at once, and they step the worlds.

        Args:
            actions: integers `[R, 2]`: (action id, argument) of each of its agents.

        Raises:
            ValueError: `actions` has the wrong shape or is not made of integers.
            RuntimeError: every group is under way.
        """
        if self._under_way == self._num_groups:
            raise RuntimeError("send() while no group of worlds waits for actions; recv() one first.")
        worlds = self._group(self._turn)
        self._launch(actions, worlds.start, worlds.stop)
        self._turn = (self._turn + 1) % self._num_groups
        self._under_way += 1

    def recv(self) -> ReceivedBatch:
        """Wait for the next group of worlds; groups take turns, whichever is done first.

        Raises:
            RuntimeError: no group is under way, or a worker process is gone.
        """
        if not self._under_way:
            raise RuntimeError(
                "recv() while no group of worlds is under way; begin with async_reset(), and send() actions for each group "
                "that you receive."
            )
        worlds = self._group((self._turn - self._under_way) % self._num_groups)
        rows = slice(worlds.start * self.agents_per_world, worlds.stop * self.agents_per_world)
        self._under_way -= 1
        if self._unstepped:
            self._unstepped -= 1
            step = self._unstepped_batch(rows)
        else:
            step = self._land(worlds.start, worlds.stop)
        starts = self.starts[rows] if self.zero_copy else self.starts[rows].copy()
        return ReceivedBatch(worlds, rows, starts, step)

    def state_dict(self) -> dict[str, Any]:
        """As in `VecEnv`, and whose turn it is.

        Raises:
            RuntimeError: something was sent and not received; it would be lost.
        """
        self._refuse_under_way("state_dict()")
        return {**super().state_dict(), "turn": self._turn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As in `VecEnv`, from the state of either class. The next call is `send` or `step`."""
        self._forget_sent()
        super().load_state_dict(state)
        self._turn = int(state.get("turn", 0)) % self._num_groups

    def _refuse_under_way(self, call: str) -> None:
        if self._under_way:
            raise RuntimeError(
                f"{call} while {self._under_way} groups of worlds are under way; recv() them first, or reset()."
            )

    def _unstepped_batch(self, rows: slice) -> StepBatch:
        """A step in which nothing has happened."""
        observations = self._shown(rows)
        return StepBatch(
            observations=observations,
            rewards=self._zeros_like(self._rewards[rows]),
            terminals=self._zeros_like(self._terminals[rows]),
            truncations=self._zeros_like(self._truncations[rows]),
            final_rows=self._no_rows,
            final_terminals=self._no_flags,
            final_observations=observations[:0],
            episodes=[],
        )

    def _zeros_like(self, array: Any) -> Any:
        zeros = self._copied(array)
        zeros[:] = 0
        return zeros

    @property
    def _num_groups(self) -> int:
        return self.num_worlds // self.batch_size

    def _group(self, place: int) -> slice:
        """The worlds of a group."""
        return slice(place * self.batch_size, (place + 1) * self.batch_size)

    def _forget_sent(self) -> None:
        """Wait until nothing is under way any more."""
        for back in range(self._under_way - self._unstepped, 0, -1):
            worlds = self._group((self._turn - back) % self._num_groups)
            self._fleet.wait(worlds.start, worlds.stop)
        self._turn = self._under_way = self._unstepped = 0
