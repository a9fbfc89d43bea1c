"""The benchmark's work is what it says it is. Nothing here asserts a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metta.bench import interpreted
from metta.bench.calibration import interpreted_rate, memset_seconds
from metta.bench.cases import CASES, Case, RandomActions, make_env
from metta.bench.report import stepping_lines
from metta.bench.stepping import Side, engine_seconds, measure, summarize, token_bytes
from metta.mettagrid.registry import get_env_config
from metta.mettagrid.worlds.arena import ARENA

TINY = replace(CASES["c"], name="c", num_worlds=3, max_steps=20)


@pytest.mark.parametrize("name", CASES)
def test_the_worlds_are_those_of_the_case(name: str) -> None:
    case = CASES[name]
    config = case.config()
    game, field = config.game, config.map_builder
    assert (game.num_agents, field.height, field.width) == (case.agents, case.size, case.size)
    assert (game.observation_width, game.observation_height, game.num_observation_tokens) == (11, 11, 200)
    assert (game.max_steps, case.num_worlds) == (1000, 32)
    assert game.longest_episode == 1000


def test_case_d_has_every_converter() -> None:
    env, _ = make_env(replace(CASES["d"], num_worlds=1, max_steps=1))
    names = set(np.unique(env.engine.initial_grid(0)))
    assert {"mine_red", "generator_red", "altar", "armory", "lasery", "lab", "factory", "temple"} <= names


def test_every_action_is_valid_and_every_kind_occurs() -> None:
    env, actions = make_env(TINY)
    legal = set(env.spec.legal_actions)
    drawn = {(int(kind), int(arg)) for _ in range(50) for kind, arg in actions.batch()}
    assert drawn == legal
    kinds = np.concatenate([actions.batch()[:, 0] for _ in range(200)])
    assert np.bincount(kinds).min() > 0.5 * len(kinds) / len(env.spec.action_names)


def test_actions_do_not_repeat_soon() -> None:
    env, _ = make_env(TINY)
    actions = RandomActions(env.spec, env.num_agents)
    batches = [actions.batch().tobytes() for _ in range(40)]
    assert len(set(batches)) > 20


def test_a_round_ends_one_episode_in_each_world_and_brings_new_maps() -> None:
    side = Side(TINY, num_threads=1)
    maps = [side.env.engine.initial_grid_hash(world) for world in range(TINY.num_worlds)]
    side.environment_seconds(TINY.max_steps)
    assert side.episodes == TINY.num_worlds
    after = [side.env.engine.initial_grid_hash(world) for world in range(TINY.num_worlds)]
    assert not set(maps) & set(after)
    # Not all at once: the worlds are at different phases.
    assert len(set(side.env.engine.current_step.tolist())) > 1


def test_the_engine_alone_does_the_same_step_and_is_put_back() -> None:
    side = Side(TINY, num_threads=1)
    before = side.env.state_dict()
    observations = side.env.observations.copy()
    side.engine_seconds(3)
    side.memset_seconds(1e-4)
    after = side.env.state_dict()
    assert np.array_equal(side.env.observations, observations)
    for name, array in before["engine"].items():
        assert np.array_equal(array, after["engine"][name]), name
    clock = side.env.engine.current_step.copy()
    engine_seconds(side.env, RandomActions(side.env.spec, side.env.num_agents), 3)
    assert np.array_equal(side.env.engine.current_step, clock + 3)


def test_token_bytes_are_those_that_the_engine_counts() -> None:
    side = Side(replace(TINY, max_steps=1000), num_threads=1)
    env = side.env

    def counted() -> float:
        return sum(env.engine.episode_stats(w)["game"]["tokens_written"] for w in range(env.num_worlds))

    before = counted()
    engine_seconds(env, RandomActions(env.spec, env.num_agents), 1)
    assert token_bytes(env) == 3 * (counted() - before)


def test_memset_fills_the_whole_buffer() -> None:
    buffer = np.zeros(1000, np.uint8)
    assert memset_seconds(buffer[:900], 1e-4) > 0
    assert (buffer[:900] == 255).all()
    assert not buffer[900:].any()


def test_figures_are_ratios_of_the_same_round() -> None:
    rows = [
        {"memset": 1.0, "compute": 1.9, "env_1": 10.0, "env_2": 5.0, "engine_1": 8.0, "engine_2": 4.0},
        {"memset": 2.0, "compute": 1.9, "env_1": 20.0, "env_2": 10.0, "engine_1": 16.0, "engine_2": 8.0},
        {"memset": 3.0, "compute": 1.9, "env_1": 30.0, "env_2": 15.0, "engine_1": 24.0, "engine_2": 12.0},
    ]
    figures = summarize(TINY, rows, (1, 2), bytes_per_step=100.0, buffer_bytes=400, interpreted=36.0)
    assert figures["env_1/agent_steps_per_second"] == 20 * 72 / 20.0
    assert figures["env_1/of_interpreted"] == 2
    assert figures["env_1/of_memset"] == pytest.approx(0.1)
    assert figures["env_1/of_memset_of_tokens"] == pytest.approx(0.025)
    assert figures["engine_2/of_memset"] == pytest.approx(0.25)
    assert figures["engine_2/of_one_thread"] == 2
    assert figures["env_1/of_original"] == pytest.approx(72 / 283e3)
    assert figures["memset_gigabytes_per_second"] == pytest.approx(400 * 20 / 2.0 / 1e9)


def test_the_whole_measurement_of_a_tiny_case() -> None:
    figures = measure(TINY, rounds=1, interpreted_seconds=0.01)
    assert all(value > 0 for value in figures.values())
    assert {name.split("/")[0] for name in figures if "/" in name} == {
        "env_1",
        "env_2",
        "engine_1",
        "engine_2",
    }
    assert figures["buffer_bytes_per_agent"] == 600
    lines = stepping_lines(TINY, figures)
    assert 7 <= len(lines) <= 8  # one more where the machine is busy


def test_worlds_that_never_end_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Case, "config", lambda case: get_env_config(f"{ARENA}/basic"))
    with pytest.raises(RuntimeError, match="there should be one each"):
        measure(TINY, rounds=1, interpreted_seconds=0.01)


def test_the_interpreted_engine_is_interpreted() -> None:
    with pytest.raises(RuntimeError, match="NUMBA_DISABLE_JIT"):
        interpreted.main("c", 0.01)
    assert interpreted_rate(CASES["a"], 0.01) > 0
