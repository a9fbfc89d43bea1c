"""The documented verbs of evaluation and replay, over a policy in each of its forms."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch
from pydantic import ValidationError

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_record import PolicyRecord
from metta.agent.policy_store import PolicyStore
from metta.eval.stats_db import StatsDB
from metta.interface import evaluation
from metta.interface.directories import setup_device_and_distributed
from metta.interface.evaluation import (
    Simulation,
    SimulationSuite,
    create_evaluation_config_suite,
    create_replay_config,
    evaluate_policy_suite,
    generate_replay_simple,
)
from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, MapBuilderConfig
from metta.mettagrid.replay_format import is_series, read_replay
from metta.mettagrid.vec import VecEnv
from metta.rl.distributed import DistributedAgent
from metta.sim import simulation
from metta.sim.suite import run_suite

DUEL = EnvConfig(
    game=GameConfig(num_agents=3, width=9, height=9, max_steps=25, num_observation_tokens=80),
    map_builder=MapBuilderConfig(
        border_width=1, objects={"mine_red": 6, "generator_red": 4, "altar": 3, "lasery": 4}
    ),
)
SUITE = SimulationSuite(name="duels", simulations={"duel/three": Simulation(env=DUEL, num_episodes=3)})


@pytest.fixture(scope="module")
def agent() -> MettaAgent:
    torch.manual_seed(0)
    return MettaAgent(VecEnv(DUEL).spec, AgentModelConfig(hidden_dim=8))


@pytest.fixture
def record(agent: MettaAgent, tmp_path: Path) -> PolicyRecord:
    return PolicyStore(tmp_path / "checkpoints").save(agent, 7, {"note": "seven"})


def test_the_standard_suite_names_real_worlds() -> None:
    suite = create_evaluation_config_suite()
    names = list(suite.simulations)
    assert {name.split("/")[0] for name in names} == {"navigation", "arena"}
    assert {"navigation/labyrinth", "navigation/emptyspace_sparse", "arena/basic", "arena/tag"} <= set(names)
    for name, one in suite.simulations.items():
        (task,) = one.curriculum().tasks
        assert task.config.game.longest_episode, name
        assert task.config.game.num_agents == (1 if name.startswith("navigation") else 24)
        assert one.num_episodes == 10


def test_the_standard_suite_can_be_cut_and_extended() -> None:
    own = {"mine/duel": Simulation(env=DUEL)}
    suite = create_evaluation_config_suite(
        2, categories=["arena"], simulations=own, overrides={"max_steps": 5}, name="quick"
    )
    assert suite.name == "quick"
    assert [name for name in suite.simulations if not name.startswith("arena/")] == ["mine/duel"]
    basic = suite.simulations["arena/basic"]
    assert (basic.num_episodes, basic.curriculum().tasks[0].config.game.max_steps) == (2, 5)
    assert suite.simulations["mine/duel"] == own["mine/duel"]
    assert list(create_evaluation_config_suite(categories=(), simulations=own).simulations) == ["mine/duel"]
    with pytest.raises(
        ValueError, match="categories contains 'chess', but the standard ones are navigation, arena"
    ):
        create_evaluation_config_suite(categories=["chess"])
    with pytest.raises(ValidationError, match="at least 1 item"):
        create_evaluation_config_suite(categories=[])


def test_a_policy_from_elsewhere_plays_the_whole_standard_suite(agent: MettaAgent) -> None:
    """It knows all the actions of the navigation worlds and most of what is seen in the arena."""
    suite = create_evaluation_config_suite(1, overrides={"max_steps": 3})
    result = evaluate_policy_suite(agent, suite)
    assert set(result.simulation_scores) == set(suite.simulations)
    assert set(result.category_scores) == {"navigation", "arena"}


def test_a_policy_may_come_in_any_form(
    agent: MettaAgent, record: PolicyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_suite(agent, SUITE)
    monkeypatch.chdir(record.path.parent)
    store = PolicyStore(record.path.parent)
    forms: list[Any] = [
        agent,
        record,
        record.path,
        str(record.path),
        record.uri,
        record.path.name,
        record.path.parent,
    ]
    for form in forms:
        assert evaluate_policy_suite(form, SUITE, device=setup_device_and_distributed("cpu")) == expected
    assert evaluate_policy_suite(record.uri, SUITE, policy_store=store) == expected
    assert evaluate_policy_suite(agent, SUITE, seed=1) == run_suite(agent, SUITE, seed=1) != expected
    assert evaluate_policy_suite(agent, SUITE, deterministic=True) == run_suite(
        agent, SUITE, deterministic=True
    )
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate_policy_suite("nowhere.pt", SUITE)


def test_an_agent_that_trains_with_others_is_evaluated_alone(agent: MettaAgent, tmp_path: Path) -> None:
    """Also in a world that it has to be fitted to, which only the agent itself can be."""
    fewer = EnvConfig(
        game=DUEL.game, objects=DUEL.objects, actions=DUEL.actions[1:], map_builder=DUEL.map_builder
    )
    suite = SimulationSuite(simulations={"duel/fewer": Simulation(env=fewer)})
    expected = run_suite(agent, suite)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedAgent(agent)
        assert evaluate_policy_suite(wrapped, suite) == expected
        assert generate_replay_simple(wrapped, create_replay_config(fewer), tmp_path).replay.is_file()
    finally:
        torch.distributed.destroy_process_group()


def test_rows_go_into_the_database(agent: MettaAgent, record: PolicyRecord, tmp_path: Path) -> None:
    stats = tmp_path / "stats" / "evaluations.duckdb"
    first = evaluate_policy_suite(record, SUITE, stats_path=stats)
    evaluate_policy_suite(agent, SUITE, stats_path=stats, seed=1)
    evaluate_policy_suite(agent, SUITE, stats_path=stats, seed=2, record=record)
    with StatsDB(stats) as database:
        rows = database.scores()
        assert [row.policy for row in rows] == ["checkpoint_000007", "unnamed", "checkpoint_000007"]
        assert rows[0].score.mean == pytest.approx(first.score.mean)
        assert rows[0].score.half_interval == pytest.approx(first.score.half_interval)
        assert database.query("SELECT seed FROM evaluations ORDER BY evaluation_id") == [(0,), (1,), (2,)]
        metrics = {name for (name,) in database.query("SELECT DISTINCT metric FROM agent_metrics")}
        assert any(name.startswith("action.move.") for name in metrics)
        assert database.query("SELECT count(*) FROM agents") == [(3 * 3 * 3,)]


def test_a_file_that_cannot_take_the_rows_is_refused_before_the_episodes(
    agent: MettaAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stats.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE orders (number INTEGER)")
    monkeypatch.setattr(evaluation, "run_suite", lambda *args, **options: pytest.fail("episodes were played"))
    with pytest.raises(ValueError, match="something else"):
        evaluate_policy_suite(agent, SUITE, stats_path=path)


def test_misfits_can_be_skipped(agent: MettaAgent, tmp_path: Path) -> None:
    strange = Simulation(env=DUEL.with_overrides(observation_width=5, observation_height=5))
    suite = SimulationSuite(simulations={**SUITE.simulations, "duel/narrow": strange})
    with pytest.raises(ValueError, match="cannot play simulation 'duel/narrow'"):
        evaluate_policy_suite(agent, suite)
    stats = tmp_path / "stats.duckdb"
    result = evaluate_policy_suite(agent, suite, on_misfit="skip", stats_path=stats)
    assert list(result.skipped) == ["duel/narrow"]
    with StatsDB(stats) as database:
        assert database.query("SELECT simulation FROM simulations WHERE skipped IS NOT NULL") == [
            ("duel/narrow",)
        ]


CONSTANTS = {"version", "num_agents", "max_steps", "map_size"} | {
    "type_names",
    "action_names",
    "item_names",
    "group_names",
    "objects",
}
OF_OBJECTS = {"type_id", "id", "position", "layer", "rotation", "inventory", "color"}
OF_AGENTS = {
    "agent_id",
    "action_id",
    "action_parameter",
    "action_success",
    "current_reward",
    "total_reward",
    "frozen",
    "frozen_progress",
    "frozen_time",
    "group_id",
}


def test_a_replay_holds_every_documented_field(agent: MettaAgent, tmp_path: Path) -> None:
    config = create_replay_config(DUEL, seed=3)
    files = generate_replay_simple(agent, config, tmp_path / "replays")
    assert (files.replay, files.page) == (
        tmp_path / "replays" / "replay.json.z",
        tmp_path / "replays" / "replay.html",
    )
    data = json.loads(zlib.decompress(files.replay.read_bytes()))
    assert data["version"] == 2
    assert set(data) >= CONSTANTS
    assert data["num_agents"] == 3
    assert data["map_size"] == [9, 9]
    assert data["max_steps"] == 25
    assert list(data["action_names"]) == list(agent.spec.action_names)
    assert list(data["item_names"]) == list(agent.spec.item_names)
    assert "mine_red" in data["type_names"]
    assert data["group_names"] == ["agent"]
    agents = [entry for entry in data["objects"] if "agent_id" in entry]
    assert sorted(entry["agent_id"] for entry in agents) == [0, 1, 2]
    for entry in data["objects"]:
        assert set(entry) >= OF_OBJECTS
        assert set(entry) >= (OF_AGENTS if "agent_id" in entry else set())
        for name, stored in entry.items():
            if is_series(name, stored):  # [[step, value], ...] from the first step on
                steps = [step for step, _ in stored]
                assert steps[0] == 0
                assert steps == sorted(set(steps))
                assert steps[-1] <= 25
    assert any(is_series("position", entry["position"]) for entry in agents), "nobody ever moved"
    assert read_replay(files.replay).num_steps == 25
    assert "<html" in files.page.read_text()


def test_the_recorded_episode_is_the_first_of_its_seed(agent: MettaAgent, tmp_path: Path) -> None:
    files = generate_replay_simple(agent, create_replay_config(DUEL, seed=3), tmp_path)
    (outcome,) = simulation.run_episodes(agent, VecEnv(DUEL), 1, seed=3)
    replay = read_replay(files.replay)
    totals = [replay.series(entry, "total_reward")[-1] for entry in replay.agents]
    assert totals == pytest.approx(outcome.returns.tolist())
    other = generate_replay_simple(agent, create_replay_config(DUEL, seed=4), tmp_path, name="other")
    assert other.replay.read_bytes() != files.replay.read_bytes()
    greedy = create_replay_config(DUEL, seed=3, deterministic=True)
    greedy_files = generate_replay_simple(agent, greedy, tmp_path, name="greedy")
    assert greedy_files.replay.read_bytes() != files.replay.read_bytes()
    short = generate_replay_simple(
        agent, create_replay_config(DUEL, seed=3, max_steps=4), tmp_path, name="short"
    )
    assert read_replay(short.replay).num_steps == 4


def test_files_are_named_by_policy_and_place(agent: MettaAgent, record: PolicyRecord, tmp_path: Path) -> None:
    config = create_replay_config(
        "/env/mettagrid/simple", overrides={"max_steps": 3, "observation_width": 11, "observation_height": 11}
    )
    assert generate_replay_simple(agent, config, tmp_path).replay.name == "simple.json.z"
    files = generate_replay_simple(record.uri, config, tmp_path, device="cpu")
    assert (files.replay.name, files.page.name) == (
        "checkpoint_000007-simple.json.z",
        "checkpoint_000007-simple.html",
    )
    assert generate_replay_simple(record, config, tmp_path, name="mine").page.name == "mine.html"


def test_a_replay_config_takes_a_mapping_and_chooses_a_task() -> None:
    config = create_replay_config({"game": {"num_agents": 2}}, task="task", seed=5)
    assert config.env == EnvConfig(game=GameConfig(num_agents=2))
    assert (config.task, config.seed) == ("task", 5)
    with pytest.raises(ValidationError):
        create_replay_config(max_steps=0)
    with pytest.raises(ValidationError):
        create_replay_config(seed=-1)


def test_a_world_that_the_policy_cannot_play_is_named(agent: MettaAgent, tmp_path: Path) -> None:
    other = EnvConfig(
        game=GameConfig(num_agents=1, width=8, height=8, max_steps=5),
        actions=[ActionConfig(type="change_color", key="change_color")],
    )
    with pytest.raises(ValueError, match="the policy cannot play task 'task': "):
        generate_replay_simple(agent, create_replay_config(other), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="did you mean"):
        generate_replay_simple(agent, create_replay_config("/env/mettagrid/simpel"), tmp_path)
