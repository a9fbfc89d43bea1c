"""What can be read of a world in a batch, with names where the engine has numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid import introspection
from metta.mettagrid.engine import state as cols
from metta.mettagrid.engine.state import Ints, State
from metta.mettagrid.grid_hash import grid_hash
from metta.mettagrid.grids import as_names
from metta.mettagrid.rules import RuleTable


class WorldReader:
    """The reading half of `GridEngine`. Every method takes the index of a world and returns copies."""

    rules: list[RuleTable]
    num_worlds: int
    _state: State
    _maps: NDArray[np.int16]

    def grid_objects(self, world: int, *, fixed: bool = True) -> dict[int, dict[str, Any]]:
        """Everything on the map of a world by object id; `fixed=False` leaves out walls that cannot be swapped."""
        return introspection.grid_objects(self.rule_of(world), self._state, self._world(world), fixed=fixed)

    def episode_stats(self, world: int) -> dict[str, Any]:
        """Statistics of the episode: `game` (by name), `agent` and `converter` (one dict each)."""
        return introspection.episode_stats(self.rule_of(world), self._state, self._world(world))

    def agent_order(self, world: int) -> NDArray[np.int32]:
        """int32 `[agents]`: the agent that acted k-th in the last step."""
        return self._agents(world)[:, cols.ORDER].copy()

    def agent_state(self, world: int) -> NDArray[np.int32]:
        """int32 `[agents, 6]`: row, column, orientation, remaining frozen steps, colour, glyph."""
        return self._agents(world)[:, cols.ROW : cols.GLYPH + 1].copy()

    def agent_inventory(self, world: int) -> NDArray[np.int16]:
        """int16 `[agents, items]`: counts; -1 no entry, 0 an entry that holds nothing."""
        rule = self.rule_of(world)
        return self._state.agent_items[world, : rule.num_agents, : len(rule.item_names)].copy()

    def agent_object_ids(self, world: int) -> NDArray[np.int32]:
        """int32 `[agents]`: object id of every agent."""
        return self._agents(world)[:, cols.AGENT_OBJECT_ID].copy()

    def converter_ids(self, world: int) -> NDArray[np.int32]:
        """int32 `[converters]`: object id of every converter, ascending."""
        return self._converters(world)[:, cols.CONVERTER_OBJECT_ID].copy()

    def converter_state(self, world: int) -> NDArray[np.bool_]:
        """bool `[converters, 2]`: is converting, is cooling down."""
        phase = self._converters(world)[:, cols.PHASE]
        return np.stack([phase == cols.CONVERTING, phase == cols.COOLING], axis=1)

    def converter_inventory(self, world: int) -> NDArray[np.int16]:
        """int16 `[converters, items]`: counts; -1 no entry."""
        count = int(self._state.worlds[self._world(world), cols.NUM_CONVERTERS])
        held = self._state.converter_items[world, :count, : len(self.rule_of(world).item_names)]
        return np.where(held == 0, np.int16(-1), held)

    def initial_grid(self, world: int) -> NDArray[np.str_]:
        """Cell names `[height, width]` of the map that the episode began with."""
        height, width = self.map_size(world)
        return as_names(self._maps[world, :height, :width], self.rule_of(world))

    def initial_grid_hash(self, world: int) -> int:
        """A 64-bit fingerprint of the map that the episode began with."""
        return grid_hash(self.initial_grid(world).tolist())

    def map_size(self, world: int) -> tuple[int, int]:
        """Rows and columns of a world's map."""
        row = self._state.worlds[self._world(world)]
        return int(row[cols.HEIGHT]), int(row[cols.WIDTH])

    def rule_of(self, world: int) -> RuleTable:
        """The rule set of a world."""
        return self.rules[int(self._state.worlds[self._world(world), cols.RULE])]

    def _world(self, world: int) -> int:
        if not 0 <= world < self.num_worlds:
            raise ValueError(
                f"world {world} does not exist: this engine has worlds 0 to {self.num_worlds - 1}."
            )
        return world

    def _agents(self, world: int) -> Ints:
        return self._state.agents[self._world(world), : self._state.worlds[world, cols.NUM_AGENTS]]

    def _converters(self, world: int) -> Ints:
        return self._state.converters[self._world(world), : self._state.worlds[world, cols.NUM_CONVERTERS]]
