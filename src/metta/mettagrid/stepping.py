"""The threads that share the work of an engine.

Every helper sits in compiled code, without the interpreter lock, and looks for work. It looks for a short while only:
where steps follow each other closely the next one finds it ready within a microsecond; otherwise it sleeps, and costs
nothing, until it is called. Nobody ever waits for a helper to begin: what it does not take, the caller does.
"""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metta.mettagrid.engine.board import ALONE, LINE, RECALL, THREADS, TICKETS, Board, do_job
from metta.mettagrid.engine.bundle import describe
from metta.mettagrid.engine.compile import is_interpreted
from metta.mettagrid.engine.state import Ints
from metta.mettagrid.engine.streams import Longs

PATIENCE = 200e-6
"""Seconds that a helper looks for work before it sleeps."""

WORTH_CALLING = 512
"""Agents of a step for which a helper that sleeps is called in any case; it takes some ten microseconds to come."""

_PROBE = 1000
_NO_WORDS = np.zeros((0, 2), np.int32)


@dataclass
class _Shift:
    """What helpers look at. It does not hold the crew, which is let go with its engine."""

    board: Any
    shared: Longs
    patience: int = 0
    closed: bool = False
    asleep: list[bool] = field(default_factory=list)
    doors: list[threading.Lock] = field(default_factory=list)


class Crew:
    """The caller's thread and its helpers, which start with the first job.

    Interpreted, or forked off another process, there are no helpers, and the caller does everything.

    Args:
        threads: the caller included.
        agents: of a world.
    """

    def __init__(self, threads: int, agents: int) -> None:
        self._helpers: list[threading.Thread] = []
        self._threads = 1 if is_interpreted() else threads
        self._board: Board | None = None
        self._last = 0.0
        shared = np.zeros(TICKETS + LINE * threads, np.int64)
        shared[THREADS] = self._threads
        self._shift = _Shift(None, shared)
        for _ in range(1, self._threads):
            self._shift.asleep.append(False)
            self._shift.doors.append(threading.Lock())
            self._shift.doors[-1].acquire()
        self._agents = agents
        weakref.finalize(self, _dismiss, self._shift)

    def run(self, board: Board, words: Ints, job: int, first: int, last: int) -> int:
        """Do a job; see `do_job`.

        Args:
            board: what it is done on; its arrays have to stay until another board is given, or the crew is closed.
            words, job, first, last: see `do_job`.

        Raises:
            RuntimeError: the system does not let a thread start.
        """
        shift = self._shift
        if board is not self._board:
            self._replace_board(board)
        if is_interpreted():
            with np.errstate(all="ignore"):  # compiled code does not warn of overflows either
                return do_job(shift.board, shift.shared, words, 0, job, first, last, 0)
        if self._threads == 1:
            return do_job(shift.board, shift.shared, words, 0, job, first, last, 0)
        if len(self._helpers) < self._threads - 1:
            self._hire()
        if (
            True in shift.asleep
            and not shift.shared[ALONE]
            and (
                (last - first) * self._agents >= WORTH_CALLING or time.perf_counter() - self._last < PATIENCE
            )
        ):
            self._call()
        result = do_job(shift.board, shift.shared, words, 0, job, first, last, 0)
        self._last = time.perf_counter()
        return result

    @property
    def idle(self) -> bool:
        """Whether all helpers sleep."""
        return all(self._shift.asleep)

    def close(self) -> None:
        """End the helpers. Closing twice is fine; jobs are done by the caller afterwards."""
        _dismiss(self._shift)
        for helper in self._helpers:
            if helper.is_alive():
                helper.join()
        self._helpers = []
        self._threads = 1
        self._shift.shared[THREADS] = 1

    def _replace_board(self, board: Board) -> None:
        """Go on with other arrays, which nobody may look at by an old table; if interrupted it is done anew."""
        self._recall()
        self._shift.board = board if is_interpreted() else describe(board)
        self._board = board

    def _hire(self) -> None:
        """Start the helpers that are missing."""
        shift = self._shift
        shift.patience = pauses_of_patience(shift.board, shift.shared)
        for place in range(1 + len(self._helpers), self._threads):
            helper = threading.Thread(target=_help, args=(shift, place), name=f"metta-{place}", daemon=True)
            self._helpers.append(helper)  # before it starts: who interrupts that cannot tell whether it did
            try:
                helper.start()
            except RuntimeError as error:
                raise RuntimeError(
                    f"thread {place + 1} of {self._threads} could not be started ({error}); lower num_threads."
                ) from None

    def _call(self) -> None:
        """Wake the helpers that sleep."""
        shift = self._shift
        for place, asleep in enumerate(shift.asleep):
            if asleep:
                shift.asleep[place] = False
                shift.doors[place].release()

    def _recall(self) -> None:
        """Have all helpers asleep."""
        shift = self._shift
        shift.shared[RECALL] = 1
        while any(
            helper.is_alive() and not asleep
            for helper, asleep in zip(self._helpers, shift.asleep, strict=False)
        ):
            time.sleep(0)
        shift.shared[RECALL] = 0


def pauses_of_patience(board_table: Any, shared: Longs) -> int:
    """How many pauses make up `PATIENCE`."""
    times = []
    for _ in range(4):  # the first may have to load the code, and any may be held up
        began = time.perf_counter()
        do_job(board_table, shared, _NO_WORDS, 1, 0, 0, 0, _PROBE)
        times.append(time.perf_counter() - began)
    return int(_PROBE * PATIENCE / min(times)) + 1


def _help(shift: _Shift, place: int) -> None:
    """What a helper does."""
    while not shift.closed:
        do_job(shift.board, shift.shared, _NO_WORDS, place, 0, 0, 0, shift.patience)
        shift.asleep[place - 1] = True
        shift.doors[place - 1].acquire()


def _dismiss(shift: _Shift) -> None:
    """Tell all helpers to end."""
    if not shift.closed:
        shift.closed = True
        shift.shared[RECALL] = 1
        for door in shift.doors:
            if door.locked():
                door.release()
