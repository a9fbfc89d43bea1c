"""Agent-steps per second, resets and new maps included, beside the marks of `calibration`.

All sides take turns within a round, and a round steps each environment through exactly one episode per world. Figures are
medians over rounds; ratios are taken within a round, so that a drift of the machine's speed cancels.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from metta.bench.calibration import interpreted_rate, memset_seconds, two_thread_compute
from metta.bench.cases import Case, RandomActions, make_env
from metta.mettagrid.vec import VecEnv

PARTS = 10
"""Turns that each side has in a round."""

Figures = dict[str, float]


class Side:
    """One way of stepping the worlds of a case.

    Attributes:
        episodes: that ended within the measured time so far.
        bytes_per_step: of the tokens that one step writes, in all worlds; a mean over moments.
    """

    def __init__(self, case: Case, num_threads: int) -> None:
        self.case = case
        self.env, self._actions = make_env(case, num_threads=num_threads)
        self.episodes = 0
        self._token_bytes: list[int] = []

    def environment_seconds(self, steps: int) -> float:
        """Time that `VecEnv.step` takes for so many steps, automatic resets and new maps included."""
        env, batch = self.env, self._actions.batch
        ended = 0
        start = time.perf_counter()
        for _ in range(steps):
            ended += len(env.step(batch()).episodes)
        seconds = time.perf_counter() - start
        self.episodes += ended
        self._token_bytes.append(token_bytes(env))
        return seconds

    def engine_seconds(self, steps: int) -> float:
        """Time that `GridEngine.step` alone takes; the worlds are put back afterwards."""
        state = self.env.state_dict()
        seconds = engine_seconds(self.env, self._actions, steps)
        self.env.load_state_dict(state)
        return seconds

    def memset_seconds(self, seconds: float) -> float:
        """Time that `memset` takes to fill the observations of all worlds, those very bytes; they are put back."""
        state = self.env.state_dict()
        took = memset_seconds(self.env.observations, seconds)
        self.env.load_state_dict(state)
        return took

    @property
    def bytes_per_step(self) -> float:
        """Bytes of tokens that one step of all worlds writes."""
        return statistics.fmean(self._token_bytes)


def token_bytes(env: VecEnv) -> int:
    """Bytes of the tokens in the observations as they are; unused tokens, all 255, do not count."""
    return 3 * int(np.count_nonzero(env.observations[..., 1] != 255))


def engine_seconds(env: VecEnv, actions: RandomActions, steps: int) -> float:
    """Time that so many steps of the engine take, with nothing begun anew."""
    step = env.engine.step
    shape = (env.num_worlds, env.agents_per_world, 2)
    batch = actions.batch
    start = time.perf_counter()
    for _ in range(steps):
        step(batch().reshape(shape))
    return time.perf_counter() - start


def measure(
    case: Case, rounds: int, *, threads: tuple[int, ...] = (1, 2), interpreted_seconds: float = 1.5
) -> Figures:
    """All figures of a case by name.

    Args:
        case: what to step.
        rounds: how often each side steps through one episode per world.
        threads: numbers of threads; the first is the one that the others are compared with.
        interpreted_seconds: for how long the interpreted engine is stepped.

    Raises:
        RuntimeError: the work was not what it is said to be.
    """
    sides = {count: Side(case, count) for count in threads}
    steps = case.max_steps // PARTS
    rows: list[Figures] = []
    for _ in range(rounds):
        row: Figures = {"memset": 0, "compute": two_thread_compute(0.05)}
        for _ in range(PARTS):
            for count, side in sides.items():
                row[f"env_{count}"] = row.get(f"env_{count}", 0) + side.environment_seconds(steps)
            for count, side in sides.items():
                row[f"engine_{count}"] = row.get(f"engine_{count}", 0) + side.engine_seconds(steps)
            row["memset"] += sides[threads[0]].memset_seconds(0.01) * steps
        rows.append(row)
    for side in sides.values():
        if side.episodes != rounds * case.num_worlds:
            raise RuntimeError(
                f"{side.episodes} episodes ended in {rounds} rounds of {case.num_worlds} worlds; there should be one each."
            )
        side.env.close()
    first = sides[threads[0]]
    interpreted = interpreted_rate(case, interpreted_seconds)
    return summarize(case, rows, threads, first.bytes_per_step, first.env.observations.nbytes, interpreted)


def summarize(
    case: Case,
    rows: list[Figures],
    threads: tuple[int, ...],
    bytes_per_step: float,
    buffer_bytes: int,
    interpreted: float,
) -> Figures:
    """Rates and ratios from the seconds of each round, each of which is of `PARTS * (max_steps // PARTS)` steps."""
    steps = case.max_steps // PARTS * PARTS
    memset = [row["memset"] for row in rows]
    figures: Figures = {
        "bytes_per_agent_step": bytes_per_step / case.num_agents,
        "buffer_bytes_per_agent": buffer_bytes / case.num_agents,
        "memset_gigabytes_per_second": buffer_bytes * steps / statistics.median(memset) / 1e9,
        "compute_two_threads": statistics.median(row["compute"] for row in rows),
        "interpreted_agent_steps_per_second": interpreted,
    }
    for what in ("env", "engine"):
        alone = [row[f"{what}_{threads[0]}"] for row in rows]
        for count in threads:
            taken = [row[f"{what}_{count}"] for row in rows]
            rate = steps * case.num_agents / statistics.median(taken)
            of_memset = _ratio(memset, taken)
            figures |= {
                f"{what}_{count}/agent_steps_per_second": rate,
                f"{what}_{count}/of_one_thread": _ratio(alone, taken),
                f"{what}_{count}/of_original": rate / case.original,
                f"{what}_{count}/of_memset": of_memset,
                f"{what}_{count}/of_memset_of_tokens": of_memset * bytes_per_step / buffer_bytes,
                f"{what}_{count}/of_interpreted": rate / interpreted,
            }
    return figures


def _ratio(over: list[float], under: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(over, under, strict=True))
