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
from metta.mettagrid.engine.board import GIVEN, Episodes
from metta.mettagrid.engine.compile import is_interpreted, is_kept
from metta.mettagrid.engine.maps import Plans
from metta.mettagrid.engine.streams import STREAM_COLUMNS, Longs, as_generator, open_streams, seed_words
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.grids import MAX_CODES
from metta.mettagrid.map.builder import agent_order, make_map_builder
from metta.mettagrid.map.plans import Plan, make_plan, most_of_codes, stack_plans
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

    @property
    def largest_map(self) -> tuple[int, int]:
        """The most rows and the most columns that a map has."""
        builders = [config.map_builder for config in self.configs]
        return max(builder.height for builder in builders), max(builder.width for builder in builders)

    def make_engine(self, num_worlds: int, num_threads: int = 1, **arrays: Any) -> GridEngine:
        """An engine for worlds of these tasks, large enough for the largest map."""
        height, width = self.largest_map
        return GridEngine(
            self.rules,
            num_worlds,
            max_height=height,
            max_width=width,
            num_threads=num_threads,
            **arrays,
        )


class Fleet(Protocol):
    """B worlds of A agents each that can be begun and stepped. All arrays stay where they are in memory.

    Attributes:
        observations: uint8 `[B, A, K, 3]`.
        episodes: what becomes of the episodes; `cut_at` is for whoever holds the fleet to fill in.
    """

    observations: npt.NDArray[np.uint8]
    episodes: Episodes

    def begin(self, worlds: Sequence[int], tasks: Sequence[int], streams: Longs) -> None:
        """Begin an episode of a task in some worlds.

        Args:
            worlds: which worlds.
            tasks: a task for each.
            streams: int64 `[n, STREAM_COLUMNS]`: what map and agent order are drawn from.

        Raises:
            ValueError: a map cannot be built.
        """
        ...

    def launch(self, actions: npt.NDArray[np.integer[Any]], start: int, stop: int) -> None:
        """Begin to step the worlds from `start` to `stop` with these actions, integers `[R, 2]`."""
        ...

    def wait(self, start: int, stop: int) -> int:
        """Return when that step is done and the arrays show it; the same part of the batch as in `launch`.

        Returns:
            how many episodes ended.
        """
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
        observations, episodes: the arrays to write into; None: arrays of its own.

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
        episodes: Episodes | None = None,
    ) -> None:
        self._builders = []
        self._plan_of = []
        plans: list[Plan] = []
        converters = 1
        for config, place in zip(tasks.configs, tasks.rule_of, strict=True):
            rule = tasks.rules[place]
            self._builders.append(make_map_builder(config, rule.cell_codes))
            plan = plan_of(config, rule)
            self._plan_of.append(GIVEN if plan is None else len(plans))
            if plan is not None:
                plans.append(plan)
                converters = max(converters, most_converters(plan, rule))
        self._rule_of = tasks.rule_of
        self.engine = self._make_engine(
            tasks,
            num_worlds,
            stack_plans(plans),
            num_threads=num_threads,
            observations=observations,
            episodes=episodes,
        )
        self.engine.reserve(converters, 0)
        self.observations = self.engine.observations
        self.episodes = self.engine.episodes
        self._ended: dict[tuple[int, int], int] = {}

    def _make_engine(self, tasks: TaskSet, num_worlds: int, plans: Plans, **options: Any) -> GridEngine:
        return tasks.make_engine(num_worlds, plans=plans, **options)

    def begin(self, worlds: Sequence[int], tasks: Sequence[int], streams: Longs) -> None:
        """See `Fleet`."""
        plans = [self._plan_of[task] for task in tasks]
        rules = [self._rule_of[task] for task in tasks]
        if GIVEN not in plans:
            self.engine.begin(worlds, plans, streams, rules)
            return
        given = [i for i, plan in enumerate(plans) if plan == GIVEN]
        generators = [as_generator(streams[i]) for i in given]
        grids = [self._builders[tasks[i]](rng) for i, rng in zip(given, generators, strict=True)]
        seeds = [int(rng.integers(2**32)) for rng in generators]
        self.engine.reset([worlds[i] for i in given], grids, seeds, [rules[i] for i in given])
        drawn = [i for i, plan in enumerate(plans) if plan != GIVEN]
        if drawn:
            self.engine.begin(
                [worlds[i] for i in drawn],
                [plans[i] for i in drawn],
                streams[drawn],
                [rules[i] for i in drawn],
            )

    def build_maps(self) -> None:
        """Build a map of every task that has one which the engine does not draw; nothing begins."""
        for builder, plan in zip(self._builders, self._plan_of, strict=True):
            if plan == GIVEN:
                builder(np.random.default_rng(0))

    def launch(self, actions: npt.NDArray[np.integer[Any]], start: int, stop: int) -> None:
        """See `Fleet`; here the whole step is done at once."""
        self._ended[start, stop] = self.engine.play(actions, start, stop)

    def wait(self, start: int, stop: int) -> int:
        """See `Fleet`."""
        return self._ended[start, stop]

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


def plan_of(config: EnvConfig, rule: RuleTable) -> Plan | None:
    """How the engine draws the map of an environment, None if it cannot, or if the rules would refuse the map."""
    agents = [rule.cell_codes[f"agent.{group}"] for group in agent_order(config)]
    plan = make_plan(config.map_builder, rule.cell_codes, agents)
    things = len(agents) + len(rule.objects) + (0 if plan is None else most_converters(plan, rule))
    return plan if len(agents) == rule.num_agents and things <= MAX_CODES else None


def most_converters(plan: Plan, rule: RuleTable) -> int:
    """The most converters that a map can have."""
    kinds = [rule.cell_codes[entry["type_name"]] for entry in rule.objects if entry["kind"] == "Converter"]
    return most_of_codes(plan, kinds)


def compile_engine(tasks: TaskSet) -> None:
    """Have everything compiled and kept on disk, if it is not yet, so that processes started next find it there."""
    if is_interpreted():
        return
    fleet = LocalFleet(tasks, 1)
    streams = np.zeros((1, STREAM_COLUMNS), np.int64)
    if all(is_kept(name) for name in ("do_job", "open_streams", "move_invalid_counts")):
        fleet.build_maps()  # kinds of maps have kernels of their own
        return
    open_streams(seed_words(0), np.zeros(1, np.int64), np.zeros(1, np.int64), streams)
    for task in range(len(tasks.configs)):
        fleet.begin([0], [task], streams)
    fleet.launch(np.zeros((tasks.num_agents, 2), np.int64), 0, 1)
    converters, invalid = fleet.engine.capacity
    fleet.engine.reserve(converters, 2 * invalid)
