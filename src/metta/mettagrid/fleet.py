"""Where the worlds of a batch live and are stepped: here in this process (see `workers` for others).

A fleet builds maps and steps worlds. It knows nothing of episodes, outcomes and curricula: which task comes next is
decided by whoever holds the fleet, and what is drawn at random comes from generators that it is handed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Task
from metta.mettagrid.engine.compile import cache_folder, is_interpreted
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.map.builder import make_map_builder
from metta.mettagrid.rules import RuleTable, compile_rules
from metta.mettagrid.spec import EnvSpec


@dataclass(frozen=True)
class TaskSet:
    """What a fleet must know of the tasks, by their place in the curriculum.

    Attributes:
        configs: the environments.
        rules: their rule sets, each different one once.
        rule_of: for every task, the place of its rules in `rules`.
    """

    configs: tuple[EnvConfig, ...]
    rules: tuple[RuleTable, ...]
    rule_of: tuple[int, ...]

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> TaskSet:
        """Compile the rules of some tasks.

        Raises:
            ValueError: they differ in what all tasks of a batch must have in common.
        """
        rules: dict[str, RuleTable] = {}
        keys = []
        for task in tasks:
            config = task.config.to_world_config()
            key = config.model_dump_json()
            if key not in rules:
                rules[key] = compile_rules(config)
            keys.append(key)
            first, table = rules[keys[0]], rules[key]
            if table.spec != first.spec or table.num_agents != first.num_agents:
                raise ValueError(
                    f"task '{task.name}' differs from '{tasks[0].name}' in its agents, actions, features or "
                    "window; tasks of one batch must have these in common."
                )
        places = {key: place for place, key in enumerate(rules)}
        return cls(
            tuple(task.config for task in tasks), tuple(rules.values()), tuple(places[key] for key in keys)
        )

    @property
    def spec(self) -> EnvSpec:
        """What an agent may know of these tasks; the same for all."""
        return self.rules[0].spec

    @property
    def num_agents(self) -> int:
        """Agents in a world."""
        return self.rules[0].num_agents

    def make_engine(
        self, num_worlds: int, num_threads: int = 1, observations: npt.NDArray[np.uint8] | None = None
    ) -> GridEngine:
        """An engine for worlds of these tasks, large enough for the largest map."""
        return GridEngine(
            self.rules,
            num_worlds,
            max_height=max(config.map_builder.height for config in self.configs),
            max_width=max(config.map_builder.width for config in self.configs),
            num_threads=num_threads,
            observations=observations,
        )


class Fleet(Protocol):
    """B worlds of A agents each that can be begun and stepped. All arrays stay where they are in memory.

    Attributes:
        actions: int32 `[B, A, 2]`, to be filled in before `launch`.
        observations: uint8 `[B, A, K, 3]`.
        rewards: float32 `[B, A]`, of the last step.
        terminals, truncations: bool `[B, A]`, of the last step.
    """

    actions: npt.NDArray[np.int32]
    observations: npt.NDArray[np.uint8]
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]
    truncations: npt.NDArray[np.bool_]

    def begin(
        self, worlds: Sequence[int], tasks: Sequence[int], generators: Sequence[np.random.Generator]
    ) -> None:
        """Begin an episode of a task in some worlds; map and agent order are drawn from each one's generator.

        Raises:
            ValueError: a map cannot be built.
        """
        ...

    def launch(self, start: int, stop: int) -> None:
        """Begin to step the worlds from `start` to `stop` with what stands in `actions`."""
        ...

    def wait(self, start: int, stop: int) -> None:
        """Return when that step is done and the arrays show it; the same part of the batch as in `launch`."""
        ...

    def episode_stats(self, worlds: Sequence[int]) -> list[dict[str, Any]]:
        """The engine's statistics of episodes that ended in the step last waited for, before anything new begins there."""
        ...

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """Copies of the engine's arrays, as of one engine that holds all worlds."""
        ...

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Go on from a `snapshot`, of this or another kind of fleet.

        Raises:
            ValueError: it is of other worlds.
        """
        ...

    def close(self) -> None:
        """Let go of threads and processes. Closing twice is fine."""
        ...


class LocalFleet:
    """A fleet in this process: one engine, perhaps with several threads. See `Fleet`.

    Args:
        tasks: what can be played.
        num_worlds: B.
        num_threads: threads that step worlds side by side.
        observations: the array to write observations into; None: one of its own.

    Raises:
        ValueError: the map of a task cannot be built.
    """

    def __init__(
        self,
        tasks: TaskSet,
        num_worlds: int,
        *,
        num_threads: int = 1,
        observations: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self._builders = [
            make_map_builder(config, tasks.rules[rule].cell_codes)
            for config, rule in zip(tasks.configs, tasks.rule_of, strict=True)
        ]
        self._rule_of = tasks.rule_of
        self.engine = tasks.make_engine(num_worlds, num_threads, observations)
        self.actions = np.zeros((num_worlds, tasks.num_agents, 2), dtype=np.int32)
        self.observations = self.engine.observations
        self.rewards = self.engine.rewards
        self.terminals = self.engine.terminals
        self.truncations = self.engine.truncations

    def begin(
        self, worlds: Sequence[int], tasks: Sequence[int], generators: Sequence[np.random.Generator]
    ) -> None:
        """See `Fleet`."""
        grids = [self._builders[task](rng) for task, rng in zip(tasks, generators, strict=True)]
        seeds = [int(rng.integers(2**32)) for rng in generators]
        self.engine.reset(worlds, grids, seeds, [self._rule_of[task] for task in tasks])

    def launch(self, start: int, stop: int) -> None:
        """See `Fleet`; here the whole step is done at once."""
        self.engine.step(self.actions, slice(start, stop))

    def wait(self, start: int, stop: int) -> None:
        """See `Fleet`."""

    def episode_stats(self, worlds: Sequence[int]) -> list[dict[str, Any]]:
        """See `Fleet`."""
        return [self.engine.episode_stats(world) for world in worlds]

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """See `Fleet`."""
        return self.engine.snapshot()

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """See `Fleet`."""
        self.engine.restore(arrays)

    def close(self) -> None:
        """See `Fleet`."""
        self.engine.num_threads = 1


def compile_engine(tasks: TaskSet) -> None:
    """Have everything compiled and kept on disk, if it is not yet, so that processes started next find it there."""
    if is_interpreted() or any(cache_folder().rglob("*.nbi")):
        return
    fleet = LocalFleet(tasks, 1)
    for task in range(len(tasks.configs)):
        fleet.begin([0], [task], [np.random.default_rng(0)])
    fleet.launch(0, 1)
    converters, invalid = fleet.engine.capacity
    fleet.engine.reserve(converters, 2 * invalid)
