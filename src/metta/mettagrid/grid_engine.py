"""A batch of worlds: one call steps them all, any of them begins anew in place.

Every world has its own rules, map and clock, and behaves exactly as it would alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.engine import state as cols
from metta.mettagrid.engine.board import (
    BEGIN,
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
    STEP,
    WORLD,
    Board,
    Episodes,
    allocate_episodes,
)
from metta.mettagrid.engine.bundle import describe
from metta.mettagrid.engine.maps import Plans
from metta.mettagrid.engine.reset import move_invalid_counts
from metta.mettagrid.engine.state import (
    INVALID_COLUMNS,
    Rules,
    State,
    allocate,
)
from metta.mettagrid.engine.streams import STREAM_COLUMNS, Longs
from metta.mettagrid.grids import Grid, MapCheck
from metta.mettagrid.map.plans import no_plans
from metta.mettagrid.rules import RuleTable, compile_rules, stack_rules
from metta.mettagrid.stepping import Crew
from metta.mettagrid.world_config import WorldConfig
from metta.mettagrid.world_reader import WorldReader

_INT32, _INT64 = np.dtype(np.int32), np.dtype(np.int64)
_INT32_RANGE = np.iinfo(np.int32)

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
        episodes: what becomes of the episodes that the worlds play, kept by `play`.

    Args:
        rules: the rule sets that worlds may have.
        num_worlds: B.
        max_height, max_width: of the largest map.
        num_threads: threads that share the worlds of a step.
        observations: the array to write observations into, for instance in memory shared with another process; None:
            one of its own.
        episodes: likewise, the arrays of `episodes`.
        plans: maps that `begin` can draw.

    Raises:
        ValueError: a size below 1, no rules, or an array for the observations that does not fit.
    """

    def __init__(
        self,
        rules: Sequence[RuleTable | WorldConfig],
        num_worlds: int,
        *,
        max_height: int,
        max_width: int,
        num_threads: int = 1,
        observations: NDArray[np.uint8] | None = None,
        episodes: Episodes | None = None,
        plans: Plans | None = None,
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
        state = allocate(self._sizes())
        if observations is not None:
            state = _observing_into(observations, state)
        self.episodes = allocate_episodes(num_worlds, self.max_agents) if episodes is None else episodes
        self._plans = no_plans() if plans is None else plans
        self._maps = np.zeros((num_worlds, max_height, max_width), np.int16)
        self._begins = np.zeros((num_worlds, BEGIN_COLUMNS), np.int64)
        self._streams = np.zeros((num_worlds, STREAM_COLUMNS), np.int64)
        self._began = np.zeros(num_worlds, np.bool_)
        configs = "\n".join(rule.config.model_dump_json() for rule in self.rules)
        self._fingerprint = np.frombuffer(hashlib.sha256(configs.encode()).digest(), np.uint8).copy()
        self._actions_shape = (num_worlds, self.max_agents, 2)
        self._waiting = True
        self._check = MapCheck(self.rules, max_height, max_width, self._tables.objects.shape[1])
        self._no_words = np.zeros((0, 2), np.int32)
        self._agents_of_rule = np.array([rule.num_agents for rule in self.rules])
        self._num_threads = 1
        self._hold(state)
        self._crew = Crew(1, self.max_agents)
        self._bind()
        if num_threads != 1:
            self.num_threads = num_threads

    @property
    def num_threads(self) -> int:
        """Threads that share the worlds of a step; may be changed between steps."""
        return self._num_threads

    @num_threads.setter
    def num_threads(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"num_threads is {count}, but a GridEngine needs at least 1.")
        self._crew.close()
        self._num_threads = count
        self._hold(self._state)
        self._crew = Crew(count, self.max_agents)

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
        self._check_worlds(worlds)
        for world, seed in zip(worlds, seeds, strict=True):
            if not 0 <= seed < 2**32:
                raise ValueError(f"the seed of world {world} is {seed}, but seeds are 0 to {2**32 - 1}.")
        if not len(worlds):
            return
        maps, sizes, converters = self._check.read(worlds, grids, rules)
        self._grow_things(converters)
        self._maps[list(worlds)] = maps
        begins = self._begins[: len(worlds)]
        begins[:, RULE_SET] = rules
        begins[:, PLAN] = GIVEN
        begins[:, SEED] = seeds
        begins[:, MAP_HEIGHT : MAP_WIDTH + 1] = sizes
        self._begin(worlds)

    def begin(
        self, worlds: Sequence[int], plans: Sequence[int], streams: Longs, rules: Sequence[int]
    ) -> None:
        """Begin new episodes in some worlds, on maps that are drawn here.

        The plans are trusted to fit the rules; see `map.plans`.

        Args:
            worlds: which worlds.
            plans: for each how its map is drawn, of the plans that the engine was made with.
            streams: int64 `[n, STREAM_COLUMNS]`: what it is drawn from, and after it the seed of the agents' order.
            rules: a rule set for each.

        Raises:
            ValueError: a world is named twice, or does not exist.
        """
        self._check_worlds(worlds)
        begins = self._begins[: len(worlds)]
        begins[:, RULE_SET] = rules
        begins[:, PLAN] = plans
        begins[:, MAP_HEIGHT : MAP_WIDTH + 1] = self._plans.sizes[plans, :2]
        self._streams[: len(worlds)] = streams
        self._begin(worlds)

    def _begin(self, worlds: Sequence[int]) -> None:
        """Begin what is written down in `_begins`."""
        count = len(worlds)
        begins = self._begins[:count]
        begins[:, WORLD] = worlds
        begins[:, MAP_MARGIN] = self._margin
        begins[:, MAP_STRIDE] = self._stride
        self._crew.run(self._board, self._no_words, BEGIN, 0, count)
        self.agent_mask[worlds] = self._agents_of_rule[begins[:, RULE_SET], None] > np.arange(self.max_agents)
        if self._waiting:
            self._began[worlds] = True
            self._waiting = not self._began.all()

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
        start, stop, stride = worlds.indices(self.num_worlds)
        if stride != 1:
            raise ValueError(f"worlds is {worlds}: steps are done for a contiguous part of the batch.")
        if actions.dtype != np.int32:
            actions = _as_int32(actions)
        if self._waiting and not self._began[start:stop].all():
            missing = start + int(np.argmin(self._began[start:stop]))
            raise ValueError(f"world {missing} has no map yet: reset it before stepping.")
        if start < stop:
            self._step(actions[start:stop].reshape(-1, 2), STEP, start, stop)

    def play(self, actions: NDArray[np.integer[Any]], start: int, stop: int) -> int:
        """Do one step of the worlds from `start` to `stop`, and keep account of it in `episodes`.

        Args:
            actions: integers `[R, 2]`: (action id, argument) of the agents of these worlds. Numbers beyond 32 bits
                become the nearest 32-bit number.
            start: first world.
            stop: one past the last.

        Returns:
            how many episodes ended.

        Raises:
            ValueError: not a row for each agent of these worlds.
        """
        if actions.shape != ((stop - start) * self.max_agents, 2):
            raise ValueError(
                f"actions have shape {actions.shape}; worlds {start} to {stop - 1} take {(stop - start) * self.max_agents} "
                "rows of (action id, argument)."
            )
        return self._step(actions, PLAY, start, stop) & 0xFFFFFFFF if start < stop else 0

    def _step(self, actions: NDArray[np.integer[Any]], job: int, start: int, stop: int) -> int:
        if actions.dtype is _INT64 or actions.dtype is _INT32:
            words = actions
        else:
            words = np.clip(actions, _INT32_RANGE.min, _INT32_RANGE.max).astype(np.int32)
        if not words.flags.carray:
            words = np.array(words, order="C")
        result = self._crew.run(self._board, words.view(np.int32), job, start, stop)
        if result > 0xFFFFFFFF:
            self._grow_invalid(start, stop)
        return result

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
        if replaced:
            self._replace(**replaced)

    @property
    def capacity(self) -> tuple[int, int]:
        """Rows that each world has for converters and for different invalid actions; they grow on demand."""
        return self._state.converters.shape[1], self._state.invalid.shape[1]

    @property
    def tables(self) -> tuple[Any, Any]:
        """What kernels of one's own take first: rule tables and state. State moves when `capacity` grows: ask anew."""
        return self._board.rules, self._board.state

    @property
    def bytes_per_world(self) -> dict[str, int]:
        """Bytes that each world takes, by array; they grow where `capacity` does. What all worlds share is not in it."""
        arrays = self._arrays() | self.episodes._asdict() | {"begins": self._begins, "streams": self._streams}
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
        board = Board(
            rules=describe(self._tables),
            state=describe(state),
            episodes=describe(self.episodes),
            plans=describe(self._plans),
            maps=self._maps,
            begins=self._begins,
            streams=self._streams,
            fields=np.zeros((self._num_threads, self.max_height * self.max_width), np.int16),
        )
        self._state, self._board = state, board  # at once: an interrupt may come at any call

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

    def _check_worlds(self, worlds: Sequence[int]) -> None:
        """See to it that worlds exist and are named once."""
        if len(set(worlds)) < len(worlds):
            raise ValueError(f"reset got worlds {list(worlds)}: name each world only once.")
        for world in worlds:
            if not 0 <= world < self.num_worlds:
                raise ValueError(
                    f"world {world} does not exist: this engine has worlds 0 to {self.num_worlds - 1}."
                )

    def _grow_things(self, converters: int) -> None:
        """Make room for more converters than any map so far had."""
        state = self._state
        if converters <= state.converters.shape[1]:
            return
        self._replace(
            converters=_grown(state.converters, converters),
            converter_items=_grown(state.converter_items, converters),
            converter_stats=_grown(state.converter_stats, converters),
            looks=_grown(state.looks, self._num_codes(converters)),
        )

    def _grow_invalid(self, start: int, stop: int) -> None:
        """Keep the table of invalid actions sparse: a step adds at most one row per agent."""
        used = int(self._state.worlds[start:stop, cols.INVALID_USED].max()) + self.max_agents
        self._make_invalid(_invalid_rows(self._state.invalid.shape[1], used))

    def _make_invalid(self, rows: int) -> None:
        """Move the counts of invalid actions to a table of so many rows."""
        old = self._state.invalid
        self._replace(invalid=np.zeros((self.num_worlds, rows, INVALID_COLUMNS), np.int32))
        move_invalid_counts(self._board.state, old)

    def _replace(self, **arrays: Any) -> None:
        """Go on with other arrays in the place of some."""
        self._hold(self._state._replace(**arrays))

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
