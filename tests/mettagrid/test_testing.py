"""The checks that we ship: they pass on what is right and say what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from metta.mettagrid.engine import state as cols
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.testing import check_batch_independence, check_world, worlds
from random_worlds import random_actions, random_episode, random_grid, random_rules


@pytest.fixture
def engine() -> GridEngine:
    rng = np.random.default_rng(4)
    rules = random_rules(rng)
    engine = GridEngine([rules], 1, max_height=14, max_width=14)
    engine.reset([0], [random_grid(rules, rng)], [0])
    for actions in random_actions(rules, rng, 20):
        engine.step(actions[None])
    return engine


def move_agent(arrays: dict[str, Any]) -> None:
    arrays["agents"][0, 0, cols.ROW] += 1


def add_item(arrays: dict[str, Any]) -> None:
    arrays["agent_items"][0, 0, 0] = 1 if arrays["agent_items"][0, 0, 0] <= 0 else 0


def break_order(arrays: dict[str, Any]) -> None:
    arrays["agents"][0, 0, cols.ORDER] = arrays["agents"][0, 1, cols.ORDER]


def break_padding(arrays: dict[str, Any]) -> None:
    arrays["observations"][0, 0, -1] = 7


def lose_thing(arrays: dict[str, Any]) -> None:
    arrays["object_ids"][0, np.flatnonzero(arrays["object_ids"][0])[0]] = 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (move_agent, "agent 0 is not in its cell"),
        (add_item, "agent 0 holds"),
        (break_order, r"the order \[.*\] is no permutation"),
        (break_padding, "an unused token is not all 255"),
        (lose_thing, "things were lost"),
    ],
)
def test_an_unsound_world_is_noticed(
    engine: GridEngine, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    check_world(engine, 0)
    arrays = engine.snapshot()
    spoil(arrays)
    engine.restore(arrays)
    with pytest.raises(AssertionError, match=message):
        check_world(engine, 0)


def test_a_world_that_depends_on_its_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Biased(GridEngine):
        def step(self, actions: Any, worlds: slice = slice(None)) -> None:
            super().step(actions, worlds)
            self.rewards[1:] += 1

    rng = np.random.default_rng(0)
    rules = [random_rules(rng)]
    episodes = [random_episode(rules, rng, 4) for _ in range(3)]
    check_batch_independence(rules, episodes)
    monkeypatch.setattr(worlds, "GridEngine", Biased)
    with pytest.raises(AssertionError, match="episode 1 in world 1 at step 0: rewards differ"):
        check_batch_independence(rules, episodes)
