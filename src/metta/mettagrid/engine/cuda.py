"""The rules on a GPU: the same functions, compiled once more, and the kernels that call them.

`on_device` recompiles a rule with everything that it calls. Only leaves whose meaning depends on the machine are
replaced (`_leaves`): products, which a GPU would otherwise fuse with a sum that follows.

A world has a block of one warp. What has an order (the clock, converters, actions, rewards) is done by its first thread,
what has none (looks and observations) by all of them, an agent each. What bounds it, by reckoning: a step writes the
tokens of every agent, byte by byte, each thread into a row of its own, so that bytes of neighbours do not share a
transaction; before that the first thread follows chains of scattered reads, during which the other 31 wait. Many blocks
on a multiprocessor hide such waiting, as many as their registers leave room for. A thread per world would keep all
threads busy, but its rows lie a world apart and its branches part. `benchmarks/cuda.py` measures what comes of it.

With the CUDA simulator (`NUMBA_ENABLE_CUDASIM=1` and `NUMBA_DISABLE_JIT=1`) all this is plain Python too.
"""

# Numba says little about its types, and less in some versions.
# mypy: disable-error-code="no-untyped-call,attr-defined,untyped-decorator,unused-ignore,import-untyped,no-any-return"

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.core import config as numba_config
from numba.core.dispatcher import Dispatcher

from metta.mettagrid.engine import exact
from metta.mettagrid.engine.board import (
    BEGIN_COLUMNS,
    GIVEN,
    MAP_HEIGHT,
    MAP_MARGIN,
    MAP_STRIDE,
    MAP_WIDTH,
    PLAN,
    PLAY,
    RULE_SET,
    SEED,
    WORLD,
    keep_account,
)
from metta.mettagrid.engine.compile import cache_folder
from metta.mettagrid.engine.looks import show_agent
from metta.mettagrid.engine.maps import draw_map
from metta.mettagrid.engine.observe import count_tokens, observe_agent
from metta.mettagrid.engine.random import seed_random
from metta.mettagrid.engine.reset import place_things
from metta.mettagrid.engine.state import (
    CHANGED,
    HEIGHT,
    INVALID_USED,
    MARGIN,
    NUM_AGENTS,
    PADDING,
    RULE,
    STRIDE,
    WIDTH,
)
from metta.mettagrid.engine.step import change_world, reward_agents
from metta.mettagrid.engine.streams import next_word

LANES = 32
"""Threads of a block."""

# Columns of Begins.rows after those of Board.begins.
CUT_AT = BEGIN_COLUMNS
ROW_COLUMNS = BEGIN_COLUMNS + 1

# Columns of Memory.segments: where it begins for world 0, from one world to the next, bytes, where it is in Memory.fresh.
FIRST, PITCH, SIZE, PLACE = range(4)


def is_simulated() -> bool:
    """Whether the device is Numba's CUDA simulator."""
    return bool(numba_config.ENABLE_CUDASIM)


@cache
def on_device(function: Any) -> Any:
    """The device version of a rule, with those of all rules that it calls; the simulator takes it as it is."""
    if is_simulated():
        return function
    return cuda.jit(device=True)(_with_device_names(function))


def kernel(function: Callable[..., None]) -> Any:
    """Compile a function that is launched on the device, kept on disk like the kernels of `engine.compile`."""
    if is_simulated():
        return cuda.jit(function)
    from numba.cuda.core import config as cuda_config

    before = cuda_config.CACHE_DIR
    cuda_config.CACHE_DIR = str(cache_folder())
    try:
        return cuda.jit(cache=True)(_with_device_names(function))
    finally:
        cuda_config.CACHE_DIR = before


def device(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call; the simulator has to know which those are."""
    return cuda.jit(device=True)(function if is_simulated() else _with_device_names(function))


def _with_device_names(function: Any) -> Any:
    """A copy of a function in which the names of rules mean their device versions."""
    plain = function.py_func if isinstance(function, Dispatcher) else function
    names = dict(plain.__globals__)
    for name in plain.__code__.co_names:
        value = names.get(name)
        if isinstance(value, Dispatcher):
            names[name] = _leaves().get(value) or on_device(value)
    copy = FunctionType(plain.__code__, names, plain.__name__, plain.__defaults__, plain.__closure__)
    copy.__qualname__, copy.__module__ = plain.__qualname__, plain.__module__
    return copy


@cache
def _leaves() -> dict[Any, Any]:
    """What stands on the device in the place of rules whose meaning depends on the machine."""

    @cuda.jit(device=True)
    def times(x: Any, y: Any) -> Any:
        return cuda.libdevice.fmul_rn(x, y)

    @cuda.jit(device=True)
    def times64(x: Any, y: Any) -> Any:
        return cuda.libdevice.dmul_rn(x, y)

    return {exact.times: times, exact.times64: times64}


class Memory(NamedTuple):
    """The memory of the state without its names; the observations are not part of it."""

    memory: Any  # uint8 [bytes]
    segments: Any  # int64 [n, 4] parts that belong to one world each: see FIRST and those after it
    fresh: Any  # uint8 [bytes of a world] what a world without a map holds


class Begins(NamedTuple):
    """Episodes to begin, and where their maps are drawn."""

    rows: Any  # int64 [N, ROW_COLUMNS] as in Board.begins, then the step of the cut
    streams: Any  # int64 [N, STREAM_COLUMNS] what maps are drawn from
    given: Any  # int16 [N, height, width] maps that are there already
    fields: Any  # int16 [B, cells] scratch


class Shared(NamedTuple):
    """What kernels share beside the bundles."""

    maps: Any  # int16 [B, height, width] the maps that the episodes began with
    wanted: Any  # int32 [B, A] tokens that the observations would have if all fitted
    most_used: Any  # int32 [1] most rows of State.invalid that any world used lately


class Copies(NamedTuple):
    """Worlds to copy something of."""

    worlds: Any  # int64 [N]
    to: Any  # uint8, N rows


@device
def look_around(
    rules: Any, state: Any, shared: Any, actions: Any, w: int, lane: int, lanes: int, first: bool
) -> None:
    """Renew the looks of a world's agents and observe them; every thread calls it."""
    agents = int(state.worlds[w, NUM_AGENTS])
    for a in range(lane, agents, lanes):
        if first or state.agents[w, a, CHANGED]:
            show_agent(rules, state, w, a)
    cuda.syncthreads()
    for a in range(lane, agents, lanes):
        shared.wanted[w, a] = observe_agent(rules, state, w, a, int(actions[w, a, 0]), int(actions[w, a, 1]))


@device
def count_all_tokens(rules: Any, state: Any, shared: Any, w: int) -> None:
    """Count the tokens of a world's agents one after the other: a sum of float32 depends on the order."""
    for a in range(state.worlds[w, NUM_AGENTS]):
        count_tokens(rules, state, w, int(shared.wanted[w, a]))


@kernel
def step_kernel(
    rules: Any, state: Any, episodes: Any, shared: Any, actions: Any, job: int, start: int
) -> None:
    """Do one step of the worlds from `start` on, one block each.

    Args:
        rules: the rule tables.
        state: the batch; changed in place.
        episodes: kept account of if the job is PLAY.
        shared: `Shared`.
        actions: a tuple of one array, int32 `[B, A, 2]`: (action id, argument) per agent.
        job: STEP or PLAY.
        start: first world.
    """
    w = start + cuda.blockIdx.x
    lane = cuda.threadIdx.x
    if lane == 0:
        change_world(rules, state, actions[0], w)
    cuda.syncthreads()
    look_around(rules, state, shared, actions[0], w, lane, cuda.blockDim.x, False)
    cuda.syncthreads()
    if lane == 0:
        count_all_tokens(rules, state, shared, w)
        reward_agents(rules, state, w)
        if job == PLAY:
            keep_account(episodes, state, w)
        used = state.worlds[w, INVALID_USED]
        if used > shared.most_used[0]:
            cuda.atomic.max(shared.most_used, 0, used)


@kernel
def begin_kernel(
    rules: Any, state: Any, episodes: Any, shared: Any, plans: Any, memory: Any, begins: Any
) -> None:
    """Begin an episode in some worlds, one block each.

    Args:
        rules, state, episodes, shared: as in `step_kernel`.
        plans: how maps are drawn.
        memory: `Memory` of the state.
        begins: `Begins`.
    """
    i = cuda.blockIdx.x
    lane = cuda.threadIdx.x
    lanes = cuda.blockDim.x
    rows = begins.rows
    w = int(rows[i, WORLD])
    for s in range(memory.segments.shape[0]):
        first = memory.segments[s, FIRST] + w * memory.segments[s, PITCH]
        place = memory.segments[s, PLACE]
        for byte in range(lane, memory.segments[s, SIZE], lanes):
            memory.memory[first + byte] = memory.fresh[place + byte]
    for a in range(state.observations.shape[1]):
        for byte in range(lane, state.observations.shape[2], lanes):
            state.observations[w, a, byte] = PADDING
    if rows[i, PLAN] == GIVEN:
        for row in range(begins.given.shape[1]):
            for col in range(lane, begins.given.shape[2], lanes):
                shared.maps[w, row, col] = begins.given[i, row, col]
    for a in range(lane, episodes.returns.shape[1], lanes):
        episodes.returns[w, a] = np.float32(0)
        episodes.starts[w, a] = True
        for k in range(2):
            episodes.actions[w, a, k] = 0
    cuda.syncthreads()
    if lane == 0:
        seed = int(rows[i, SEED])
        if rows[i, PLAN] != GIVEN:
            draw_map(plans, int(rows[i, PLAN]), begins.streams, i, shared.maps, w, begins.fields, w)
            seed = next_word(begins.streams, i)
        episodes.lengths[w] = 0
        episodes.cut_at[w] = rows[i, CUT_AT]
        state.worlds[w, RULE] = rows[i, RULE_SET]
        state.worlds[w, HEIGHT] = rows[i, MAP_HEIGHT]
        state.worlds[w, WIDTH] = rows[i, MAP_WIDTH]
        state.worlds[w, MARGIN] = rows[i, MAP_MARGIN]
        state.worlds[w, STRIDE] = rows[i, MAP_STRIDE]
        seed_random(state, w, seed)
        place_things(rules, state, shared.maps, w)
    cuda.syncthreads()
    look_around(rules, state, shared, episodes.actions, w, lane, lanes, True)
    cuda.syncthreads()
    if lane == 0:
        count_all_tokens(rules, state, shared, w)


@kernel
def gather_kernel(memory: Any, copies: Any) -> None:
    """Copy everything of some worlds but their observations, one block each, in the order of `Memory.fresh`.

    Args:
        memory: `Memory` of the state.
        copies: `Copies`, uint8 `[N, bytes of a world]`.
    """
    i = cuda.blockIdx.x
    for s in range(memory.segments.shape[0]):
        first = memory.segments[s, FIRST] + copies.worlds[i] * memory.segments[s, PITCH]
        place = memory.segments[s, PLACE]
        for byte in range(cuda.threadIdx.x, memory.segments[s, SIZE], cuda.blockDim.x):
            copies.to[i, place + byte] = memory.memory[first + byte]


@kernel
def rows_kernel(rows: Any, copies: Any) -> None:
    """Copy what belongs to some worlds, one block each.

    Args:
        rows: a tuple of one array, uint8 `[B, n, m]`.
        copies: `Copies`, uint8 `[N, n, m]`.
    """
    i = cuda.blockIdx.x
    w = copies.worlds[i]
    for row in range(rows[0].shape[1]):
        for byte in range(cuda.threadIdx.x, rows[0].shape[2], cuda.blockDim.x):
            copies.to[i, row, byte] = rows[0][w, row, byte]
