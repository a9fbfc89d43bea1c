"""An account of every item of a world, kept beside the engine: where items came from and where they went.

It knows recipes, costs and limits from the resolved configuration, how often each converter worked and who was defended from the
statistics, and what everybody holds from the inventories; that the three agree is the point.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.rules import RuleTable

FULL = 255
"""A converter holds no more of an item; what it makes beyond that is thrown away."""


class Ledger:
    """The items of one world, step by step.

    Args:
        engine: has just been reset.
        world: which of its worlds.
    """

    def __init__(self, engine: GridEngine, world: int) -> None:
        self.engine = engine
        self.world = world
        self.rules: RuleTable = engine.rule_of(world)
        self._objects: dict[str, Any] = self.rules.resolved["objects"]
        self._actions: dict[str, Any] = self.rules.resolved["actions"]
        things = engine.grid_objects(world)
        names = self.rules.spec.object_type_names
        self._recipes = [self._objects[names[things[i]["type"]]] for i in engine.converter_ids(world)]
        groups = {self._objects[f"agent.{group}"]["group_id"]: group for group in self.rules.group_names}
        agents = sorted((thing["agent_id"], thing) for thing in things.values() if "agent_id" in thing)
        self._groups = [groups[thing["group_id"]] for _, thing in agents]
        self._limits = np.array(
            [[thing["resource_limits"][item] for item in range(self._num_items)] for _, thing in agents]
        ).reshape(-1, self._num_items)
        self._before = self._read()

    @property
    def _num_items(self) -> int:
        return len(self.rules.item_names)

    def check(self, actions: np.ndarray) -> None:
        """After a step: whether what changed is what recipes, costs, defenses and caps make of it.

        Args:
            actions: int32 `[agents, 2]` of the step.
        """
        before, self._before = self._before, self._read()
        agents, converters, work, defended = self._before
        agents_before, converters_before, work_before, defended_before = before
        assert (agents <= np.maximum(self._limits, 0)).all(), "an agent holds more than it may"
        assert (agents >= 0).all()
        assert ((converters >= 0) & (converters <= FULL)).all(), "a converter holds what it cannot"
        change = agents.sum(0) + converters.sum(0) - agents_before.sum(0) - converters_before.sum(0)
        made = np.zeros(self._num_items)
        thrown = np.zeros(self._num_items)
        for c, recipe in enumerate(self._recipes):
            started, completed = work[c] - work_before[c]
            for item in range(self._num_items):
                gain = completed * recipe["output_resources"].get(str(item), 0)
                made[item] += gain - started * recipe["input_resources"].get(str(item), 0)
                if converters_before[c, item] + gain > FULL:
                    thrown[item] += gain
        spent = np.zeros(self._num_items)  # at most: a cost that an action leaves nothing for is not paid
        certain = np.zeros(self._num_items)
        names = list(self._actions)
        for a, (action, _) in enumerate(actions):
            if self.engine.action_success[self.world, a]:
                entry = self._actions[names[action]]
                for item, amount in entry["consumed_resources"].items():
                    spent[int(item)] += amount
                    # Only putting down and fighting can take away what the action had to have.
                    if entry.get("does", names[action]) not in ("put_items", "attack"):
                        certain[int(item)] += min(amount, entry["required_resources"].get(item, 0))
        for name, entry in self._actions.items():
            blocks = sum(defended[key] - defended_before.get(key, 0) for key in defended)
            if entry.get("defense_resources") and blocks:
                assert name == "attack"
                for item, amount in entry["defense_resources"].items():
                    made[int(item)] -= blocks * amount
        for item in range(self._num_items):
            low, high = made[item] - thrown[item] - spent[item], made[item] - certain[item]
            assert low <= change[item] <= high, (
                f"{self.rules.item_names[item]} changed by {change[item]}, and {low} to {high} is accounted for"
            )

    def _read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, float]]:
        """What agents and converters hold, conversions started and completed, and attacks that were blocked."""
        engine, world = self.engine, self.world
        stats = engine.episode_stats(world)
        ids = engine.converter_ids(world).tolist()
        by_id = {int(entry["id"]): entry for entry in stats["converter"] if "id" in entry}
        entries = [by_id[i] for i in ids] if by_id else stats["converter"]
        work = np.array(
            [[entry.get(f"conversions.{what}", 0) for what in ("started", "completed")] for entry in entries]
        ).reshape(-1, 2)
        defended: dict[str, float] = {}
        for entry in stats["agent"]:
            for name, count in entry.items():
                if ".blocked_by." in name:
                    defended[name] = defended.get(name, 0) + count
        agents = np.maximum(engine.agent_inventory(world), 0).astype(np.int64)
        converters = np.maximum(engine.converter_inventory(world), 0).astype(np.int64)
        return agents, converters, work, defended
