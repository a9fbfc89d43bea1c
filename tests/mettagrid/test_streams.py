"""Random numbers and maps drawn by the engine: exactly what numpy and the map builders draw."""

from __future__ import annotations

import numpy as np
import pytest

from metta.mettagrid.config import EnvConfig, GameConfig, MapBuilderConfig
from metta.mettagrid.curriculum.base import Task
from metta.mettagrid.engine.board import GIVEN
from metta.mettagrid.engine.streams import (
    STREAM_COLUMNS,
    as_generator,
    open_streams,
    save_stream,
    seed_words,
)
from metta.mettagrid.fleet import LocalFleet, TaskSet
from metta.mettagrid.map.config import MapConfig, RoomsConfig, VariedTerrainConfig

FIELD = MapBuilderConfig(
    width=17, height=11, border_width=2, agents=4, objects={"altar": (0, 5), "wall": 9, "mine_red": (3, 3)}
)
ROOMS = RoomsConfig(
    room=MapBuilderConfig(width=8, height=9, border_width=1, agents=2, objects={"altar": (1, 4), "wall": 3}),
    num_rooms=3,
    border_width=2,
    gap=1,
)


def streams_of(seed: int, worlds: list[int], episodes: list[int]) -> np.ndarray:
    streams = np.zeros((len(worlds), STREAM_COLUMNS), np.int64)
    open_streams(seed_words(seed), np.array(worlds), np.array(episodes), streams)
    return streams


def numpy_generator(seed: int, world: int, episode: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(world, episode)))


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**32, 2**127 + 5, 2**128, 2**200 + 2**70])
def test_streams_are_those_of_numpy(seed: int) -> None:
    worlds, episodes = [0, 1, 4095, 2**32 - 1, 2**32 + 3], [0, 10**6, 5, 2**40, 1]
    streams = streams_of(seed, worlds, episodes)
    for world, episode, stream in zip(worlds, episodes, streams, strict=True):
        theirs, ours = numpy_generator(seed, world, episode), as_generator(stream)
        assert ours.bit_generator.state == theirs.bit_generator.state
        for _ in range(3):  # an odd number of halves, so that one is left over
            assert ours.integers(10) == theirs.integers(10)
            save_stream(ours, stream)
            ours = as_generator(stream)
        assert ours.bit_generator.state == theirs.bit_generator.state


def fleet_on(scene: MapConfig) -> tuple[LocalFleet, LocalFleet]:
    """The same worlds, with maps drawn by the engine and by the builders."""
    config = EnvConfig(
        game=GameConfig(num_agents=scene.num_agents, width=scene.width, height=scene.height, max_steps=9),
        map_builder=scene,
    )
    tasks = TaskSet.of([Task("a", config)])
    drawn, built = LocalFleet(tasks, 3), LocalFleet(tasks, 3)
    built._plan_of = [GIVEN]
    return drawn, built


@pytest.mark.parametrize("scene", [FIELD, ROOMS], ids=["field", "rooms"])
def test_the_engine_draws_what_the_builders_draw(scene: MapConfig) -> None:
    drawn, built = fleet_on(scene)
    assert drawn._plan_of == [0]
    for episode in range(20):
        # The second worlds begin in another order, and have fewer neighbours.
        for fleet, worlds in ((drawn, [2, 0, 1]), (built, [1]), (built, [0, 2])):
            fleet.begin(worlds, [0] * len(worlds), streams_of(5, worlds, [episode] * len(worlds)))
        ours, theirs = drawn.engine.snapshot(), built.engine.snapshot()
        converters = ours["converters"].shape[1]
        built.engine.reserve(converters, 0)
        theirs = built.engine.snapshot()
        for name, array in ours.items():
            assert np.array_equal(array, theirs[name]), name
        assert len({array.tobytes() for array in ours["maps"]}) == 3


@pytest.mark.parametrize(
    "scene",
    [
        FIELD.model_copy(update={"seed": 3}),
        ROOMS.model_copy(update={"room": ROOMS.room.model_copy(update={"seed": 3})}),
        VariedTerrainConfig(width=20, height=20, agents=2, objects={"altar": 2}),
    ],
    ids=["seed", "seed of the rooms", "terrain"],
)
def test_other_maps_are_left_to_the_builders(scene: MapConfig) -> None:
    assert fleet_on(scene)[0]._plan_of == [GIVEN]


def test_a_world_begun_anew_is_as_fresh_as_the_first() -> None:
    """No array remembers anything of the episode before."""
    fleets = fleet_on(FIELD)[0], fleet_on(FIELD)[0]
    rng = np.random.default_rng(0)
    fleets[0].begin([0, 1, 2], [0] * 3, streams_of(1, [0, 1, 2], [0] * 3))
    for _ in range(60):
        fleets[0].launch(rng.integers(-3, 12, size=(12, 2)), 0, 3)
    for fleet in fleets:
        fleet.begin([2, 1, 0], [0] * 3, streams_of(1, [2, 1, 0], [1] * 3))
    used, fresh = (fleet.engine.snapshot() for fleet in fleets)
    fleets[1].engine.reserve(0, used["invalid"].shape[1])
    fresh = fleets[1].engine.snapshot()
    for name, array in used.items():
        assert np.array_equal(array, fresh[name]), name
    for name, array in fleets[0].episodes._asdict().items():
        if name not in ("rewards", "terminals", "truncations", "ended"):
            assert np.array_equal(array, fleets[1].episodes._asdict()[name]), name
