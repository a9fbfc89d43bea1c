"""A batch of worlds: one call steps them all, any of them begins anew in place.

Every world has its own rules, map and clock, and behaves exactly as it would alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.engine import state as cols
from metta.mettagrid.engine.bundle import describe
from metta.mettagrid.engine.compile import announce_compilation, is_interpreted
from metta.mettagrid.engine.reset import move_invalid_counts, reset_worlds
from metta.mettagrid.engine.state import (
    INVALID_COLUMNS,
    Rules,
    State,
    allocate,
    clear,
)
from metta.mettagrid.engine.step import step_worlds
from metta.mettagrid.grids import Grid, as_codes, count_agents, count_converters
from metta.mettagrid.rules import RuleTable, compile_rules, stack_rules
from metta.mettagrid.world_config import WorldConfig
from metta.mettagrid.world_reader import WorldReader

_MAX_CODES = 2**16 - 1

_GROWING = frozenset({"converters", "converter_items", "converter_stats", "looks", "invalid"})
"""Arrays of the state that get more rows when a map or an episode needs them."""


class GridEngine(WorldReader):
    """B worlds in one set of arrays.

    Sizes: B worlds, A the most agents and K the most tokens that any rule set has. Rows of `[B, A]` arrays beyond
    a world's own agents are padding and stay zero (observations: 255).

    Attributes:
        rules: the rule sets.
        observations: uint8 `[B, A, K, 3]`, tokens of (location, feature id, value). Read them, do not write: what
            lies behind the last token is known to be padding and is not written again.
        rewards: float32 `[B, A]`, of the last step, after sharing.
        episode_rewards: float32 `[B, A]`, sums of the rewards before sharing.
        terminals, truncations: bool `[B, A]`; once set they stay until the world is reset.
        action_success: bool `[B, A]`, of the last step.
        agent_mask: bool `[B, A]`, rows in use.
        current_step: int32 `[B]`, steps since the reset.
        agents_per_thread: a further thread is only used for at least so many agents; for less, waking it takes longer
            than it saves.

    Args:
        rules: the rule sets that worlds may have.
        num_worlds: B.
        max_height, max_width: of the largest map.
        num_threads: threads that share the worlds of a step.
        observations: the array to write observations into, for instance in memory shared with another process; None:
            one of its own.

    Raises:
        ValueError: a size below 1, no rules, or an array for the observations that does not fit.
    """

    agents_per_thread: int = 256

    def __init__(
        self,
        rules: Sequence[RuleTable | WorldConfig],
        num_worlds: int,
        *,
        max_height: int,
        max_width: int,
        num_threads: int = 1,
        observations: NDArray[np.uint8] | None = None,
    ) -> None:
        if not rules:
            raise ValueError("rules is empty: a GridEngine needs at least one rule set.")
        for name, value in (
            ("num_worlds", num_worlds),
            ("max_height", max_height),
            ("max_width", max_width),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}, but a GridEngine needs at least 1.")
        self.rules = [rule if isinstance(rule, RuleTable) else compile_rules(rule) for rule in rules]
        self.num_worlds = num_worlds
        self.max_height = max_height
        self.max_width = max_width
        self.max_agents = max(rule.num_agents for rule in self.rules)
        self.num_tokens = max(rule.num_tokens for rule in self.rules)
        self._margin = max(rule.margin for rule in self.rules)
        self._stride = max_width + 2 * self._margin
        self._tables: Rules = stack_rules(self.rules, self._stride)
        self._rule_table = describe(self._tables)
        state = allocate(self._sizes())
        if observations is not None:
            state = _observing_into(observations, state)
        self._hold(state)
        self._maps = np.zeros((num_worlds, max_height, max_width), np.int16)
        self._began = np.zeros(num_worlds, np.bool_)
        self._no_actions = np.zeros((num_worlds, self.max_agents, 2), np.int32)
        configs = "\n".join(rule.config.model_dump_json() for rule in self.rules)
        self._fingerprint = np.frombuffer(hashlib.sha256(configs.encode()).digest(), np.uint8).copy()
        self._actions_shape = (num_worlds, self.max_agents, 2)
        self._waiting = True
        self._bind()
        self._pool: ThreadPoolExecutor | None = None
        self.num_threads = num_threads
        announce_compilation()

    @property
    def num_threads(self) -> int:
        """Threads that share the worlds of a step; may be changed between steps."""
        return self._num_threads

    @num_threads.setter
    def num_threads(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"num_threads is {count}, but a GridEngine needs at least 1.")
        previous = self._pool
        if previous is not None:
            previous.shutdown()
        self._num_threads = count
        self._pool = ThreadPoolExecutor(count - 1, "metta-engine") if count > 1 else None

    def reset(
        self,
        worlds: Sequence[int],
        grids: Sequence[Grid],
        seeds: Sequence[int],
        rules: Sequence[int] | None = None,
    ) -> None:
        """Begin new episodes in some worlds; the others are not touched, and nothing is if this raises.

        Args:
            worlds: which worlds.
            grids: a map for each: cell names, or int codes as in `RuleTable.cell_codes`.
            seeds: an unsigned 32-bit seed for each; it decides the order in which agents act.
            rules: a rule set for each; without it every world keeps the one that it has, 0 at first.

        Raises:
            ValueError: a map, seed or index is wrong; one sentence that names it.
        """
        if rules is None:
            rules = [int(self._state.worlds[w, cols.RULE]) if 0 <= w < self.num_worlds else 0 for w in worlds]
        if not len(worlds) == len(grids) == len(seeds) == len(rules):
            raise ValueError(
                f"reset got {len(worlds)} worlds, {len(grids)} grids, {len(seeds)} seeds and {len(rules)} rules: "
                "give as many of each."
            )
        if len(set(worlds)) < len(worlds):
            raise ValueError(f"reset got worlds {list(worlds)}: name each world only once.")
        codes = [self._check(*entry) for entry in zip(worlds, grids, seeds, rules, strict=True)]
        if not codes:
            return
        self._grow_things(
            max(count_converters(grid, self.rules[rule]) for grid, rule in zip(codes, rules, strict=True)),
        )
        starts = np.zeros((len(worlds), 7), np.int64)
        for i, (w, grid, seed, rule) in enumerate(zip(worlds, codes, seeds, rules, strict=True)):
            self._maps[w] = 0
            self._maps[w, : grid.shape[0], : grid.shape[1]] = grid
            starts[i] = w, rule, seed, grid.shape[0], grid.shape[1], self._margin, self._stride
            self.agent_mask[w] = np.arange(self.max_agents) < self.rules[rule].num_agents
            self._began[w] = True
        self._waiting = not self._began.all()
        clear(self._state, list(worlds))
        with np.errstate(all="ignore"):
            reset_worlds(self._rule_table, self._state_table, self._no_actions, self._maps, starts)

    def step(self, actions: NDArray[np.integer[Any]], worlds: slice = slice(None)) -> None:
        """Do one step of all worlds, or of a contiguous part of them, and write the arrays in place.

        Args:
            actions: int32 `[B, A, 2]`, (action id, argument) per agent, of all worlds in either case. Anything may
                be tried; invalid actions fail and are counted.
            worlds: which worlds.

        Raises:
            ValueError: the actions have the wrong shape or dtype, or a world was never reset.
        """
        if actions.shape != self._actions_shape:
            raise ValueError(
                f"actions have shape {actions.shape}, but this engine takes {self._actions_shape}."
            )
        if actions.dtype != np.int32 or not actions.flags.c_contiguous:
            actions = _as_int32(actions)
        start, stop, stride = worlds.indices(self.num_worlds)
        if stride != 1:
            raise ValueError(f"worlds is {worlds}: steps are done for a contiguous part of the batch.")
        if self._waiting and not self._began[start:stop].all():
            missing = start + int(np.argmin(self._began[start:stop]))
            raise ValueError(f"world {missing} has no map yet: reset it before stepping.")
        if start < stop:
            self._grow_invalid(self._run(actions, start, stop))

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays by name; `restore` continues from them exactly."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from a snapshot of an engine with the same rules, worlds and sizes.

        Raises:
            ValueError: the snapshot is of another kind of engine; nothing is changed.
        """
        own = self._arrays()
        if arrays.keys() != own.keys():
            odd = sorted(arrays.keys() ^ own.keys())
            raise ValueError(
                f"the snapshot does not hold the arrays of this engine: {odd} are missing or unknown."
            )
        if not np.array_equal(arrays["rules"], own["rules"]):
            raise ValueError(
                "the snapshot was taken of an engine with other rules: restore into one with the same."
            )
        for name, array in arrays.items():
            size = list(own[name].shape)
            if name in _GROWING and array.ndim == len(size):
                size[1] = array.shape[1]
            if list(array.shape) != size or array.dtype != own[name].dtype:
                raise ValueError(
                    f"the snapshot's {name} is {array.dtype} {array.shape}, but this engine has {own[name].dtype} "
                    f"{tuple(size)}: restore into an engine with the same worlds and sizes."
                )
        replaced = {}
        for name, array in arrays.items():
            if own[name].shape == array.shape:
                own[name][...] = array  # what the interface shows keeps its place in memory
            else:
                replaced[name] = array.copy()
        self._waiting = not self._began.all()
        self._hold(self._state._replace(**replaced))

    @property
    def capacity(self) -> tuple[int, int]:
        """Rows that each world has for converters and for different invalid actions; they grow on demand."""
        return self._state.converters.shape[1], self._state.invalid.shape[1]

    @property
    def tables(self) -> tuple[Any, Any]:
        """What kernels of one's own take first: rule tables and state. State moves when `capacity` grows: ask anew."""
        return self._rule_table, self._state_table

    @property
    def bytes_per_world(self) -> dict[str, int]:
        """Bytes that each world takes, by array; they grow where `capacity` does. What all worlds share is not in it."""
        arrays = self._arrays() | {"no_actions": self._no_actions}
        del arrays["rules"]
        return {name: array.nbytes // self.num_worlds for name, array in arrays.items()}

    def reserve(self, converters: int, invalid: int) -> None:
        """Make the capacity at least this, so that snapshots of several engines are alike; worlds do not change."""
        self._grow_things(converters)
        if invalid > self._state.invalid.shape[1]:
            self._make_invalid(invalid)

    def _sizes(self) -> dict[str, int]:
        rules = self.rules
        return {
            "worlds": self.num_worlds,
            "rows": self.max_height + 2 * self._margin,
            "columns": self._stride,
            "agents": self.max_agents,
            "converters": 1,
            "items": max(1, *(len(rule.item_names) for rule in rules)),
            "codes": self._num_codes(1),
            "look": max(rule.look_length for rule in rules),
            "group_ids": self._tables.groups.shape[1],
            "agent_stats": max(len(names) for rule in rules for names in rule.agent_stats),
            "converter_stats": max(
                (len(names) for rule in rules for names in rule.converter_stats), default=1
            ),
            "game_stats": max(len(rule.game_stats) for rule in rules),
            "invalid": _invalid_rows(64, self.max_agents),
            "tokens": self.num_tokens,
        }

    def _hold(self, state: State) -> None:
        """Make these the engine's arrays."""
        self._state = state
        self._state_table = describe(state)

    def _num_codes(self, converters: int) -> int:
        return int(1 + self.max_agents + converters + self._tables.objects.shape[1])

    def _bind(self) -> None:
        """Name the arrays that belong to the interface."""
        state = self._state
        shape = (self.num_worlds, self.max_agents, self.num_tokens, 3)
        self.observations: NDArray[np.uint8] = state.observations.reshape(shape)
        self.rewards: NDArray[np.float32] = state.values[cols.REWARD]
        self.episode_rewards: NDArray[np.float32] = state.values[cols.EPISODE_REWARD]
        self.terminals: NDArray[np.bool_] = state.flags[cols.TERMINAL]
        self.truncations: NDArray[np.bool_] = state.flags[cols.TRUNCATION]
        self.action_success: NDArray[np.bool_] = state.flags[cols.SUCCESS]
        self.current_step: NDArray[np.int32] = state.worlds[:, cols.STEP]
        self.agent_mask: NDArray[np.bool_] = np.zeros((self.num_worlds, self.max_agents), np.bool_)

    def _run(self, actions: NDArray[Any], start: int, stop: int) -> int:
        """Step some worlds, on several threads if there is enough to do; returns what `step_worlds` returns."""
        threads = 1
        if self._pool is not None:
            threads = min(
                self._num_threads, stop - start, (stop - start) * self.max_agents // self.agents_per_thread
            )
        if threads <= 1:
            return self._run_part(actions, start, stop)
        assert self._pool is not None
        bounds = [start + (stop - start) * i // threads for i in range(threads + 1)]
        others = [
            self._pool.submit(self._run_part, actions, bounds[i], bounds[i + 1]) for i in range(1, threads)
        ]
        return max(self._run_part(actions, bounds[0], bounds[1]), *(other.result() for other in others))

    def _run_part(self, actions: NDArray[Any], start: int, stop: int) -> int:
        if not is_interpreted():
            used = step_worlds(self._rule_table, self._state_table, actions, start, stop)
        else:
            with np.errstate(all="ignore"):  # compiled code does not warn of overflows either
                used = step_worlds(self._rule_table, self._state_table, actions, start, stop)
        return int(used)

    def _check(self, world: int, grid: Grid, seed: int, rule: int) -> NDArray[np.int16]:
        """The codes of a map, if everything about this reset is right."""
        if not 0 <= world < self.num_worlds:
            raise ValueError(
                f"world {world} does not exist: this engine has worlds 0 to {self.num_worlds - 1}."
            )
        if not 0 <= rule < len(self.rules):
            raise ValueError(f"rule set {rule} of world {world} does not exist: there are {len(self.rules)}.")
        if not 0 <= seed < 2**32:
            raise ValueError(f"the seed of world {world} is {seed}, but seeds are 0 to {2**32 - 1}.")
        table = self.rules[rule]
        codes = as_codes(grid, table, f"the map of world {world}")
        height, width = codes.shape
        if not (1 <= height <= self.max_height and 1 <= width <= self.max_width):
            raise ValueError(
                f"the map of world {world} has {height} rows and {width} columns, but this engine was made for 1 to "
                f"{self.max_height} rows and 1 to {self.max_width} columns."
            )
        agents = count_agents(codes, table)
        if agents != table.num_agents:
            raise ValueError(
                f"the map of world {world} has {agents} agents where its rules say num_agents {table.num_agents}: "
                f"observations has shape [{table.num_agents}, {table.num_tokens}, 3] but expected "
                f"[{agents}, [something], 3]."
            )
        things = self.max_agents + count_converters(codes, table) + self._tables.objects.shape[1]
        if things > _MAX_CODES:
            raise ValueError(
                f"the map of world {world} has too many converters: agents, converters and kinds of objects together "
                f"are {things}, and the engine can tell {_MAX_CODES} apart."
            )
        return codes

    def _grow_things(self, converters: int) -> None:
        """Make room for more converters than any map so far had."""
        state = self._state
        if converters <= state.converters.shape[1]:
            return
        self._hold(
            state._replace(
                converters=_grown(state.converters, converters),
                converter_items=_grown(state.converter_items, converters),
                converter_stats=_grown(state.converter_stats, converters),
                looks=_grown(state.looks, self._num_codes(converters)),
            )
        )

    def _grow_invalid(self, used: int) -> None:
        """Keep the table of invalid actions sparse: a step adds at most one row per agent."""
        rows = self._state.invalid.shape[1]
        if 4 * (used + self.max_agents) <= 3 * rows:
            return
        self._make_invalid(_invalid_rows(rows, used + self.max_agents))

    def _make_invalid(self, rows: int) -> None:
        """Move the counts of invalid actions to a table of so many rows."""
        old = self._state.invalid
        self._hold(self._state._replace(invalid=np.zeros((self.num_worlds, rows, INVALID_COLUMNS), np.int32)))
        move_invalid_counts(self._state_table, old)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that a snapshot holds; `rules` is a fingerprint."""
        arrays: dict[str, NDArray[Any]] = self._state._asdict()
        return arrays | {
            "maps": self._maps,
            "began": self._began,
            "mask": self.agent_mask,
            "rules": self._fingerprint,
        }


def _observing_into(observations: NDArray[np.uint8], state: State) -> State:
    """The same state with the observations in an array of the caller's."""
    worlds, agents, size = state.observations.shape
    shape = (worlds, agents, size // 3, 3)
    if observations.shape != shape or observations.dtype != np.uint8 or not observations.flags.c_contiguous:
        raise ValueError(
            f"the array for observations is {observations.dtype} {observations.shape}, but this engine writes "
            f"C-contiguous uint8 {shape}."
        )
    flat = observations.reshape(state.observations.shape)
    flat[...] = state.observations
    return state._replace(observations=flat)


def _as_int32(actions: NDArray[Any]) -> NDArray[np.int32]:
    """Actions as the engine takes them, if that changes no number."""
    if not np.issubdtype(actions.dtype, np.integer):
        raise ValueError(f"actions have dtype {actions.dtype}, but the engine takes int32.")
    ready: NDArray[np.int32] = np.ascontiguousarray(actions, np.int32)
    if not np.array_equal(ready, actions):
        raise ValueError(f"actions hold {np.abs(actions).max()}, which is no 32-bit number.")
    return ready


def _invalid_rows(rows: int, needed: int) -> int:
    """Rows of a table of invalid actions that stays at most half full."""
    while 2 * needed > rows:
        rows *= 2
    return rows


def _grown(array: Any, size: int) -> Any:
    """The same array with room for `size` along its second axis."""
    larger = np.zeros((array.shape[0], size, *array.shape[2:]), array.dtype)
    larger[:, : array.shape[1]] = array
    return larger
