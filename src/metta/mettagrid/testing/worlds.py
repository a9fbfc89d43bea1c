"""Checks of worlds: their state, and their independence of each other.

All of them raise AssertionError with one sentence that says what is wrong, and return nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.grids import Grid
from metta.mettagrid.rules import RuleTable
from metta.mettagrid.spec import PADDING


@dataclass(frozen=True)
class Episode:
    """A prepared episode.

    Attributes:
        rule: index of its rule set.
        grid: its map.
        seed: seed of the agent order.
        actions: int32 `[T, agents, 2]`.
    """

    rule: int
    grid: Grid
    seed: int
    actions: NDArray[np.int32]


def check_batch_independence(
    rules: Sequence[RuleTable], episodes: Sequence[Episode], *, num_worlds: int = 3, num_threads: int = 2
) -> None:
    """Whether a world in a batch does exactly what it does alone.

    The episodes are dealt to the worlds of one engine. Each world is reset in place when its episode is over, while
    its neighbours are in the middle of theirs; every array of every step has to equal that of an engine with
    that world and that rule set alone.
    """
    height = max(len(episode.grid) for episode in episodes)
    width = max(len(episode.grid[0]) for episode in episodes)
    batch = GridEngine(rules, num_worlds, max_height=height, max_width=width, num_threads=num_threads)
    waiting = list(enumerate(episodes))
    playing: dict[int, tuple[int, Episode, GridEngine, int]] = {}
    actions = np.zeros((num_worlds, batch.max_agents, 2), np.int32)
    idle = Episode(episodes[0].rule, episodes[0].grid, 0, episodes[0].actions[:0])
    while waiting or playing:
        for world in range(num_worlds):
            if world in playing:
                continue
            index, episode = waiting.pop(0) if waiting else (-1, idle)
            batch.reset([world], [episode.grid], [episode.seed], [episode.rule])
            if index >= 0:
                alone = GridEngine(
                    [rules[episode.rule]], 1, max_height=len(episode.grid), max_width=len(episode.grid[0])
                )
                alone.reset([0], [episode.grid], [episode.seed])
                _same(observable(batch, world), observable(alone, 0), f"episode {index} at its reset")
                playing[world] = (index, episode, alone, 0)
        for world, (_, episode, _, step) in playing.items():
            if step < len(episode.actions):
                actions[world, : episode.actions.shape[1]] = episode.actions[step]
        batch.step(actions)
        for world, (index, episode, alone, step) in list(playing.items()):
            if step == len(episode.actions):
                del playing[world]
                continue
            alone.step(episode.actions[step][None])
            where = f"episode {index} in world {world} at step {step}"
            _same(observable(batch, world), observable(alone, 0), where)
            playing[world] = (index, episode, alone, step + 1)
            if step + 1 == len(episode.actions):
                assert batch.episode_stats(world) == alone.episode_stats(0), f"{where}: the statistics differ"
                assert batch.grid_objects(world) == alone.grid_objects(0), f"{where}: the objects differ"


def observable(engine: GridEngine, world: int) -> dict[str, NDArray[Any]]:
    """Copies of everything that a world shows, without the padding of its batch."""
    rule = engine.rule_of(world)
    agents = rule.num_agents
    arrays: dict[str, NDArray[Any]] = {
        name: getattr(engine, name)[world, :agents].copy()
        for name in ("rewards", "episode_rewards", "terminals", "truncations", "action_success")
    }
    return arrays | {
        "observations": engine.observations[world, :agents, : rule.num_tokens].copy(),
        "current_step": engine.current_step[world : world + 1].copy(),
        "agent_order": engine.agent_order(world),
        "agent_state": engine.agent_state(world),
        "agent_inventory": engine.agent_inventory(world),
        "converter_state": engine.converter_state(world),
        "converter_inventory": engine.converter_inventory(world),
    }


def check_world(engine: GridEngine, world: int) -> None:
    """Whether a world is sound.

    Every agent is in exactly one cell, and that cell knows it; no cell holds two things; nobody holds more than
    allowed; what agents hold is what they gained less what they lost; observations are tokens, then padding; rows
    beyond the world's agents are untouched.
    """
    rule = engine.rule_of(world)
    things = engine.grid_objects(world)
    height, width = engine.map_size(world)
    cells = [(thing["r"], thing["c"]) for thing in things.values()]
    assert len(set(cells)) == len(cells), f"world {world}: a cell holds two things"
    assert all(0 <= r < height and 0 <= c < width for r, c in cells), f"world {world}: a thing is off the map"
    names = engine.initial_grid(world)
    assert len(things) == np.count_nonzero(~np.isin(names, ["empty", ".", " "])), (
        f"world {world}: things were lost"
    )
    agents = {thing["agent_id"]: thing for thing in things.values() if "agent_id" in thing}
    assert sorted(agents) == list(range(rule.num_agents)), f"world {world}: its agents are {sorted(agents)}"
    order = engine.agent_order(world)  # that of the last step, so there is none yet right after a reset
    assert not engine.current_step[world] or sorted(order.tolist()) == list(range(rule.num_agents)), (
        f"world {world}: the order {order.tolist()} is no permutation"
    )
    state = engine.agent_state(world)
    stats = engine.episode_stats(world)["agent"]
    inventory = engine.agent_inventory(world)
    for a, thing in agents.items():
        assert (thing["r"], thing["c"]) == tuple(state[a, :2]), f"world {world}, agent {a} is not in its cell"
        for item, name in enumerate(rule.item_names):
            held = max(int(inventory[a, item]), 0)
            assert held <= thing["resource_limits"][item], f"world {world}, agent {a} holds {held} {name}"
            balance = stats[a].get(f"{name}.gained", 0) - stats[a].get(f"{name}.lost", 0)
            assert held == balance, f"world {world}, agent {a} holds {held} {name}, but got {balance}"
    _check_tokens(engine.observations[world, : rule.num_agents, : rule.num_tokens], rule, world)
    assert (engine.observations[world, rule.num_agents :] == PADDING).all(), (
        f"world {world}: unused rows are written"
    )
    assert (engine.observations[world, :, rule.num_tokens :] == PADDING).all(), (
        f"world {world}: too many tokens"
    )
    assert not engine.rewards[world, rule.num_agents :].any(), f"world {world}: unused rows are rewarded"


def _check_tokens(observations: NDArray[np.uint8], rule: RuleTable, world: int) -> None:
    used = observations[:, :, 0] != PADDING
    assert (observations[~used] == PADDING).all(), f"world {world}: an unused token is not all {PADDING}"
    assert (np.diff(used.astype(np.int8), axis=1) <= 0).all(), f"world {world}: a token follows padding"
    locations = observations[used][:, 0]
    assert (locations >> 4 < rule.spec.obs_height).all(), f"world {world}: a token is below the window"
    assert (locations & 15 < rule.spec.obs_width).all(), f"world {world}: a token is right of the window"
    assert (observations[used][:, 1] < len(rule.spec.features)).all(), f"world {world}: an unknown feature"


def _same(got: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]], where: str) -> None:
    for name, array in expected.items():
        assert np.array_equal(got[name], array), f"{where}: {name} differ from those of the world alone"
