"""A fleet in worker processes: each builds the maps of its share of the worlds and steps them.

What is large lies in memory that all of them share; what is small goes through a pipe to each worker, commands one
way and replies the other, in order. The memory has no name and ends with the last process that holds it, and a
worker ends when its pipe does: whatever happens to this process, nothing is left behind.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections.abc import Callable, Sequence
from mmap import mmap
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from metta.mettagrid.engine.board import ENDED, Episodes, allocate_episodes
from metta.mettagrid.engine.streams import Longs
from metta.mettagrid.fleet import LocalFleet, TaskSet, compile_engine

INT32 = np.iinfo(np.int32)

_START = (
    "import os, sys; sys.path[:] = sys.argv[3:]; from metta.mettagrid.workers import serve; "
    "serve(int(sys.argv[1]), int(sys.argv[2])); os._exit(0)"
)
"""What a worker runs. The script that started it all is not run again, so it needs no `__main__` guard. At the end there
is nothing to put in order, and a compiler takes its time to be taken apart."""

_PATIENCE = 5.0
"""Seconds that a worker gets to finish its last command when the fleet closes."""

_ALIGNMENT = 64
_WORLDS_SECOND = frozenset({"values", "flags"})
"""Arrays of a snapshot whose second axis is the world; of all others it is the first."""


class WorkerFleet:
    """A fleet whose worlds are stepped by other processes; see `Fleet` and the head of this module.

    Every worker has a contiguous share of the worlds. What happens in them is the same as in a `LocalFleet`.

    Args:
        tasks: what can be played.
        num_worlds: B.
        num_workers: processes, at most one for each world.
        collect_stats: whether `episode_stats` is going to be asked; workers report it with the step that ends an episode.

    Raises:
        ValueError: a number is out of range, or the map of a task cannot be built.
        RuntimeError: a worker could not be started.
    """

    def __init__(
        self, tasks: TaskSet, num_worlds: int, num_workers: int, *, collect_stats: bool = True
    ) -> None:
        if not 1 <= num_workers <= num_worlds:
            raise ValueError(
                f"num_workers is {num_workers}; the {num_worlds} worlds can be shared among 1 to {num_worlds} workers."
            )
        compile_engine(tasks)
        size = (num_worlds, tasks.num_agents, tasks.spec.num_tokens)
        memory = _anonymous_memory()
        shared = _map_arrays(memory, size)
        self.observations = shared.observations
        self.episodes = shared.episodes
        self._stats: dict[int, dict[str, Any]] = {}
        self._steps: dict[tuple[int, int], list[tuple[_Worker, int]]] = {}
        self._workers: list[_Worker] = []
        self._end = weakref.finalize(self, _end_all, self._workers)
        try:
            for number in range(num_workers):
                share = range(num_worlds * number // num_workers, num_worlds * (number + 1) // num_workers)
                self._workers.append(_Worker(number, share, memory))
            _replies([(w, w.post("start", tasks, size, w.share, collect_stats)) for w in self._workers])
        except BaseException:
            self.close()
            raise
        finally:
            os.close(memory)

    def begin(self, worlds: Sequence[int], tasks: Sequence[int], streams: Longs) -> None:
        """See `Fleet`."""
        asked = []
        for worker in self._workers:
            mine = [i for i, world in enumerate(worlds) if world in worker.share]
            if mine:
                theirs = [worlds[i] - worker.share.start for i in mine]
                asked.append((worker, worker.post("begin", theirs, [tasks[i] for i in mine], streams[mine])))
        _replies(asked)

    def launch(self, actions: npt.NDArray[np.integer[Any]], start: int, stop: int) -> None:
        """See `Fleet`."""
        ours = self.episodes.actions[start:stop]
        ours[:] = np.clip(actions, INT32.min, INT32.max).reshape(ours.shape)
        asked = []
        for worker in self._workers:
            share = worker.share
            first, last = max(start, share.start), min(stop, share.stop)
            if first < last:
                asked.append((worker, worker.post("step", first - share.start, last - share.start)))
        self._steps[start, stop] = asked

    def wait(self, start: int, stop: int) -> int:
        """See `Fleet`."""
        asked = self._steps.pop((start, stop))
        self._stats = {}
        for (worker, _), stats in zip(asked, _replies(asked), strict=True):
            self._stats |= {worker.share[world]: counted for world, counted in stats.items()}
        return int(np.count_nonzero(self.episodes.ended[start:stop]))

    def episode_stats(self, worlds: Sequence[int]) -> list[dict[str, Any]]:
        """See `Fleet`."""
        return [self._stats[world] for world in worlds]

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """See `Fleet`."""
        capacities = self._ask_all("capacity")
        parts = self._ask_all("snapshot", *(max(sizes) for sizes in zip(*capacities, strict=True)))
        whole = {
            name: np.concatenate([part[name] for part in parts], axis=1 if name in _WORLDS_SECOND else 0)
            for name in parts[0]
        }
        return whole | {"rules": parts[0]["rules"]}

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """See `Fleet`."""
        worlds = len(arrays["began"])
        if worlds != len(self.observations):
            raise ValueError(f"the snapshot has {worlds} worlds, this fleet {len(self.observations)}.")
        asked = []
        for worker in self._workers:
            part = {name: _worlds_of(name, array, worker.share) for name, array in arrays.items()}
            asked.append((worker, worker.post("restore", part)))
        _replies(asked)

    def close(self) -> None:
        """See `Fleet`. The arrays keep what they show."""
        self._end()

    def _ask_all(self, command: str, *arguments: Any) -> list[Any]:
        return _replies([(worker, worker.post(command, *arguments)) for worker in self._workers])


class _Worker:
    """One worker process, seen from here. Replies come in the order of the commands, and may be fetched in any."""

    def __init__(self, number: int, share: range, memory: int) -> None:
        self.number = number
        self.share = share
        self._posted = self._received = 0
        self._replies: dict[int, tuple[str, Any]] = {}
        self._pipe, theirs = Pipe()
        with theirs:
            descriptors = (theirs.fileno(), memory)
            # A process group of its own: Ctrl-C is for this process, which decides what becomes of its workers.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *map(str, descriptors), *sys.path],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                process_group=0,
            )

    def post(self, command: str, *arguments: Any) -> int:
        """Send a command; returns the number to fetch its reply by."""
        try:
            self._pipe.send((command, arguments))
        except OSError:
            raise RuntimeError(self._epitaph()) from None
        self._posted += 1
        return self._posted

    def fetch(self, number: int) -> tuple[str, Any]:
        """Wait for a reply: ("", value), or the name of an exception and its text."""
        while number not in self._replies:
            try:
                reply = self._pipe.recv()
            except (EOFError, OSError):
                raise RuntimeError(self._epitaph()) from None
            self._received += 1
            self._replies[self._received] = reply
        return self._replies.pop(number)

    def hang_up(self) -> None:
        """Close the pipe, at which the worker ends."""
        self._pipe.close()

    def bury(self) -> None:
        """Wait for the end of the process; force it if it takes too long."""
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _epitaph(self) -> str:
        who = f"worker process {self.number} (worlds {self.share.start} to {self.share.stop - 1})"
        if self._pipe.closed:
            return f"{who} was closed; make the environment anew."
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            how = "no longer answers"
        else:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
        return f"{who} {how}, and its worlds are lost: make the environment anew and go on from a checkpoint."


def _replies(asked: Sequence[tuple[_Worker, int]]) -> list[Any]:
    """All the replies, in order.

    Raises:
        ValueError: a worker raised one; it says the same as it would here.
        RuntimeError: a worker raised anything else, or is gone.
    """
    replies = [(worker, *worker.fetch(number)) for worker, number in asked]
    for worker, error, value in replies:
        if error == "ValueError":
            raise ValueError(value)
        if error:
            raise RuntimeError(f"worker process {worker.number} failed:\n{value}")
    return [value for _, _, value in replies]


def _end_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.hang_up()
    for worker in workers:
        worker.bury()


def serve(pipe: int, memory: int) -> None:
    """What a worker process does: obey what comes through the pipe until it closes.

    Args:
        pipe: file descriptor of its end of the pipe.
        memory: file descriptor of the shared memory.
    """
    commands: dict[str, Callable[..., Any]] = {}

    def start(*arguments: Any) -> None:
        commands.update(_commands(_map_arrays(memory, arguments[1]), *arguments))

    commands["start"] = start
    try:
        with Connection(pipe) as connection:
            while True:
                command, arguments = connection.recv()
                connection.send(_obey(commands[command], arguments))
    except (EOFError, OSError):
        pass  # the other side has closed the pipe, or is gone


def _obey(command: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """A command's reply, in the form that `_Worker.fetch` hands out."""
    try:
        return "", command(*arguments)
    except ValueError as error:
        return "ValueError", str(error)
    except Exception as error:
        return type(error).__name__, traceback.format_exc()


def _commands(
    shared: _Shared, tasks: TaskSet, size: tuple[int, int, int], share: range, collect_stats: bool
) -> dict[str, Callable[..., Any]]:
    """What a worker can do with its share of the worlds, which it numbers from 0."""
    del size
    start, stop = share.start, share.stop
    whole: tuple[Any, ...] = shared.episodes
    episodes = Episodes(*(array[start:stop] for array in whole))
    fleet = LocalFleet(tasks, stop - start, observations=shared.observations[start:stop], episodes=episodes)

    def step(first: int, last: int) -> dict[int, dict[str, Any]]:
        fleet.launch(episodes.actions[first:last].reshape(-1, 2), first, last)
        if not collect_stats:
            return {}
        worlds = [first + int(world) for world in np.flatnonzero(episodes.ended[first:last] == ENDED)]
        return dict(zip(worlds, fleet.episode_stats(worlds), strict=True))

    def snapshot(converters: int, invalid: int) -> dict[str, npt.NDArray[Any]]:
        fleet.engine.reserve(converters, invalid)
        return fleet.snapshot()

    return {
        "begin": fleet.begin,
        "step": step,
        "capacity": lambda: fleet.engine.capacity,
        "snapshot": snapshot,
        "restore": fleet.restore,
    }


class _Shared(NamedTuple):
    """The arrays that all processes see; see `Fleet`."""

    observations: npt.NDArray[np.uint8]
    episodes: Episodes


def _map_arrays(memory: int, size: tuple[int, int, int]) -> _Shared:
    """Lay the arrays out in the memory behind a file descriptor: in every process the same.

    Args:
        memory: the descriptor; it is grown as needed.
        size: worlds, agents of a world, tokens of an observation.
    """
    worlds, agents, tokens = size
    kinds: list[tuple[np.dtype[Any], tuple[int, ...]]] = [
        (np.dtype(np.uint8), (worlds, agents, tokens, 3)),
        *((array.dtype, array.shape) for array in allocate_episodes(worlds, agents)),
    ]
    offsets = [0]
    for dtype, shape in kinds:
        blocks = -(-dtype.itemsize * math.prod(shape) // _ALIGNMENT)
        offsets.append(offsets[-1] + blocks * _ALIGNMENT)
    os.ftruncate(memory, offsets[-1])
    buffer = mmap(memory, offsets[-1])
    arrays: list[Any] = [
        np.ndarray(shape, dtype, buffer, offset)
        for (dtype, shape), offset in zip(kinds, offsets, strict=False)
    ]
    return _Shared(arrays[0], Episodes(*arrays[1:]))


def _anonymous_memory() -> int:
    """A file descriptor of memory that has no name and goes with the last process that holds it."""
    if sys.platform == "linux":
        return os.memfd_create("metta-worlds")
    else:  # noqa: RET505 - mypy knows platforms by if and else
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def _worlds_of(name: str, array: npt.NDArray[Any], share: range) -> npt.NDArray[Any]:
    """Some worlds of an array of a snapshot."""
    if name == "rules":
        return array
    return array[:, share.start : share.stop] if name in _WORLDS_SECOND else array[share.start : share.stop]
