"""Where the time of a step goes.

`run_phase` does one phase of the step in all worlds; all phases one after another are the step, bit for bit. Doing them in turn
takes each world out of the caches and brings it back, and the compiler sees them apart, so their sum is compared with the
engine's own kernel, which does them world by world.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from metta.bench.cases import Case, RandomActions, make_env
from metta.bench.stepping import Figures
from metta.mettagrid.engine.compile import kernel
from metta.mettagrid.engine.converters import run_converters
from metta.mettagrid.engine.observe import observe
from metta.mettagrid.engine.random import draw_order
from metta.mettagrid.engine.state import Ints, open_rules, open_state
from metta.mettagrid.engine.step import begin_step, reward_agents, run_actions, step_world
from metta.mettagrid.map.builder import make_map_builder
from metta.mettagrid.vec import VecEnv

PHASES = ("begin", "converters", "order", "actions", "observe", "rewards")
BEGIN, CONVERTERS, ORDER, ACTIONS, OBSERVE, REWARDS = range(6)
NOTHING = 6

PARTS = 10
"""Turns that each way of stepping has in a round."""


@kernel
def run_worlds(rule_table: Any, state_table: Any, actions: Ints, start: int, stop: int) -> None:
    """Do the whole step of worlds `start` to `stop - 1`, world by world as the engine does; see `run_phase`."""
    rules = open_rules(rule_table)
    state = open_state(state_table)
    for w in range(start, stop):
        step_world(rules, state, actions, w)


@kernel
def run_phase(rule_table: Any, state_table: Any, actions: Ints, phase: int, start: int, stop: int) -> None:
    """Do one phase of the step, or nothing, in worlds `start` to `stop - 1`.

    Args:
        rule_table: the rule tables, from `describe`.
        state_table: the batch, from `describe`; changed in place.
        actions: int32 `[B, A, 2]`, (action id, argument) per agent.
        phase: a place in `PHASES`, or `NOTHING`.
        start: first world.
        stop: one past the last world.
    """
    rules = open_rules(rule_table)
    state = open_state(state_table)
    for w in range(start, stop):
        if phase == BEGIN:
            begin_step(state, w)
        elif phase == CONVERTERS:
            run_converters(rules, state, w)
        elif phase == ORDER:
            draw_order(state, w)
        elif phase == ACTIONS:
            run_actions(rules, state, actions, w)
        elif phase == OBSERVE:
            observe(rules, state, actions, w)
        elif phase == REWARDS:
            reward_agents(rules, state, w)


class PhasedWorlds:
    """The worlds of an environment, stepped by kernels alone.

    Attributes:
        seconds: spent in each phase so far, and last in calling with `NOTHING`.
        kernel_seconds: spent in whole steps.
    """

    def __init__(self, env: VecEnv) -> None:
        self._engine = env.engine
        self._shape = (env.num_worlds, env.agents_per_world, 2)
        self.seconds = [0.0] * (NOTHING + 1)
        self.kernel_seconds = 0.0

    def step_in_phases(self, actions: npt.NDArray[np.int32]) -> None:
        """Do all phases, each in all worlds, then nothing. Actions have to be valid: invalid ones may need more room."""
        rules, state = self._engine.tables
        batch = actions.reshape(self._shape)
        for phase in range(NOTHING + 1):
            start = time.perf_counter()
            run_phase(rules, state, batch, phase, 0, self._shape[0])
            self.seconds[phase] += time.perf_counter() - start

    def step(self, actions: npt.NDArray[np.int32]) -> None:
        """Do the step world by world, as the engine does."""
        rules, state = self._engine.tables
        batch = actions.reshape(self._shape)
        start = time.perf_counter()
        run_worlds(rules, state, batch, 0, self._shape[0])
        self.kernel_seconds += time.perf_counter() - start


def measure_phases(case: Case, rounds: int) -> Figures:
    """Nanoseconds per agent-step on one thread, by what they are spent on; medians over rounds.

    Returns:
        The phases by name; `phases`: their sum; `kernel`: the engine's own kernel; `engine`: `GridEngine.step`; `env`:
        `VecEnv.step` while no episode ends; `ends`: what ends of episodes add to it; `all`: `VecEnv.step`; `maps`, `reset` and
        `statistics`: building the maps, beginning the worlds and collecting statistics, each done by itself, as often.
    """
    env, actions = make_env(case)
    with env:
        rows = [_round(env, actions, case) for _ in range(rounds + 1)][1:]  # the first round warms up
    scale = 1e9 / (case.max_steps // PARTS * PARTS * case.num_agents)
    return {name: scale * statistics.median(row[name] for row in rows) for name in rows[0]}


def _round(env: VecEnv, actions: RandomActions, case: Case) -> Figures:
    """Seconds by what they were spent on, for an episode in each world."""
    worlds = PhasedWorlds(env)
    steps = case.max_steps // PARTS
    engine = 0.0
    taken: list[float] = []
    ends: list[int] = []
    for _ in range(PARTS):
        state = env.state_dict()
        for _ in range(steps):
            worlds.step_in_phases(actions.batch())
        env.load_state_dict(state)
        for _ in range(steps):
            worlds.step(actions.batch())
        env.load_state_dict(state)
        batches = [actions.batch().reshape(env.num_worlds, -1, 2) for _ in range(steps)]
        start = time.perf_counter()
        for batch in batches:
            env.engine.step(batch)
        engine += time.perf_counter() - start
        env.load_state_dict(state)
        for _ in range(steps):
            plain = actions.batch()
            start = time.perf_counter()
            episodes = env.step(plain).episodes
            taken.append(time.perf_counter() - start)
            ends.append(len(episodes))
    calling = worlds.seconds[NOTHING]
    row = {name: worlds.seconds[place] - calling for place, name in enumerate(PHASES)}
    quiet = statistics.fmean([seconds for seconds, ended in zip(taken, ends, strict=True) if not ended])
    return {
        **row,
        "phases": sum(row.values()),
        "kernel": worlds.kernel_seconds - calling,
        "engine": engine,
        "env": quiet * len(taken),
        "ends": sum(taken) - quiet * len(taken),
        "all": sum(taken),
        **_ends(env, case, sum(ends)),
    }


def _ends(env: VecEnv, case: Case, episodes: int) -> Figures:
    """Seconds of what is done at so many ends of episodes, each part by itself."""
    engine = env.engine
    state = env.state_dict()
    worlds = [count % env.num_worlds for count in range(episodes)]
    build = make_map_builder(case.config(), engine.rules[0].cell_codes)
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for world in worlds:
        engine.episode_stats(world)
    counted = time.perf_counter()
    grids = [build(rng) for _ in worlds]
    built = time.perf_counter()
    for world, grid in zip(worlds, grids, strict=True):
        engine.reset([world], [grid], [world])
    begun = time.perf_counter()
    env.load_state_dict(state)
    return {"statistics": counted - start, "maps": built - counted, "reset": begun - built}
