"""A suite: its records, its seeds, its scores; and what happens to a policy from another world."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.mettagrid import registry
from metta.mettagrid.config import EnvConfig, GameConfig, MapBuilderConfig
from metta.mettagrid.curriculum.base import MultiTaskCurriculum, SingleTaskCurriculum, Task
from metta.mettagrid.vec import VecEnv
from metta.sim import simulation
from metta.sim import suite as suite_module
from metta.sim.config import ReplayConfig, Simulation, SimulationSuite
from metta.sim.scores import mean_score
from metta.sim.simulation import EVALUATION_SEED, run_episodes
from metta.sim.suite import SuiteResult, run_suite, simulation_seed, world_spec

GATHER = EnvConfig(
    game=GameConfig(
        num_agents=2,
        width=8,
        height=8,
        max_steps=12,
        num_observation_tokens=60,
        inventory_item_names=["ore_red"],
    ),
    map_builder=MapBuilderConfig(border_width=1, objects={"mine_red": 6}),
)
SHORT = GATHER.with_overrides(max_steps=5)
SUITE = SimulationSuite(
    name="small",
    simulations={
        "field/long": Simulation(env=GATHER, num_episodes=5),
        "field/short": Simulation(env=GATHER, num_episodes=3, overrides={"max_steps": 5}),
        "other/one": Simulation(env=SHORT),
    },
)


def agent_for(env: EnvConfig, seed: int = 0) -> MettaAgent:
    torch.manual_seed(seed)
    return MettaAgent(VecEnv(env).spec, AgentModelConfig(hidden_dim=8))


@pytest.fixture(scope="module")
def agent() -> MettaAgent:
    return agent_for(GATHER)


@pytest.fixture(scope="module")
def result(agent: MettaAgent) -> SuiteResult:
    return run_suite(agent, SUITE)


def test_every_episode_has_its_record(result: SuiteResult) -> None:
    names = [(record.simulation, record.episode) for record in result.episodes]
    assert names == [
        *(("field/long", i) for i in range(5)),
        *(("field/short", i) for i in range(3)),
        ("other/one", 0),
    ]
    for record in result.episodes:
        assert record.length == (12 if record.simulation == "field/long" else 5)
        assert record.category == record.simulation.split("/")[0]
        assert record.score == pytest.approx(np.mean(record.returns))
        assert len(record.returns) == len(record.agent_stats) == 2
        assert not record.truncated
        assert record.seed == simulation_seed(0, record.simulation) >= EVALUATION_SEED
    assert {name for record in result.episodes for stats in record.agent_stats for name in stats} & {
        "action.move.success",
        "ore_red.get",
    }
    assert result.skipped == {}


def test_a_record_is_what_was_played(agent: MettaAgent, result: SuiteResult) -> None:
    outcomes = run_episodes(agent, VecEnv(GATHER), 5, seed=simulation_seed(0, "field/long"))
    by_world = sorted(outcomes, key=lambda outcome: outcome.world)  # five worlds, one episode each
    assert [o.returns.tolist() for o in by_world] == [
        list(r.returns) for r in result.episodes_of("field/long")
    ]
    assert [o.stats["agent"] for o in by_world] == [
        list(r.agent_stats) for r in result.episodes_of("field/long")
    ]


def test_scores_are_means_and_every_simulation_counts_the_same(result: SuiteResult) -> None:
    long = [r.score for r in result.episodes[:5]]
    short = [r.score for r in result.episodes[5:8]]
    one = result.episodes[8].score
    assert result.simulation_scores["field/long"] == mean_score(long)
    assert list(result.simulation_scores) == ["field/long", "field/short", "other/one"]
    assert result.category_scores["field"].mean == pytest.approx((np.mean(long) + np.mean(short)) / 2)
    assert result.category_scores["field"].half_interval is not None
    assert result.category_scores["other"].half_interval is None
    assert result.score.mean == pytest.approx((np.mean(long) + np.mean(short) + one) / 3)
    assert (result.score.half_interval, result.score.num_episodes) == (None, 9)
    metrics = result.metrics()
    assert set(metrics) == {
        "eval/score",
        "eval/field/score",
        "eval/other/score",
        "eval/field/long",
        "eval/field/short",
        "eval/other/one",
    }
    assert metrics["eval/field/long"] == pytest.approx(np.mean(long))


def test_the_result_is_a_function_of_policy_suite_and_seed(agent: MettaAgent, result: SuiteResult) -> None:
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert run_suite(agent, SUITE).episodes == result.episodes
    assert run_suite(agent, SUITE, num_threads=2).episodes == result.episodes
    assert run_suite(agent, SUITE, seed=1).episodes != result.episodes
    assert run_suite(only_moves(), SUITE).episodes != result.episodes
    sampled = [r.agent_stats for r in result.episodes]
    assert [r.agent_stats for r in run_suite(agent, SUITE, deterministic=True).episodes] != sampled


def test_a_simulation_does_not_depend_on_its_company(agent: MettaAgent, result: SuiteResult) -> None:
    alone = SimulationSuite(simulations={"field/short": SUITE.simulations["field/short"]})
    assert run_suite(agent, alone).episodes == result.episodes_of("field/short")


def test_the_same_number_is_the_same_episode_in_batches_of_any_size(
    agent: MettaAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deterministic, so that the draws of the neighbours' actions play no part."""
    suite = SimulationSuite(simulations={"a/b": Simulation(env=GATHER, num_episodes=7)})
    whole = run_suite(agent, suite, deterministic=True)
    monkeypatch.setattr(simulation, "MAX_WORLDS", 3)
    parts = run_suite(agent, suite, deterministic=True)
    assert [r.episode for r in parts.episodes] == list(range(7))
    # The first episode of each world is the same; later ones are other episodes of the same worlds.
    assert [r.agent_stats for r in parts.episodes[:3]] == [r.agent_stats for r in whole.episodes[:3]]


def test_the_policy_is_left_as_it_was(agent: MettaAgent) -> None:
    agent.train()
    before = torch.get_rng_state()
    run_suite(agent, SUITE)
    assert agent.training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["plain", "/x", "x/", "", "/"])
def test_a_simulation_needs_a_category(name: str) -> None:
    with pytest.raises(ValidationError, match="names no category"):
        SimulationSuite(simulations={name: Simulation(env=SHORT)})


def test_a_suite_is_a_value() -> None:
    assert SimulationSuite.model_validate_json(SUITE.model_dump_json()) == SUITE
    with pytest.raises(ValidationError, match="at least 1 item"):
        SimulationSuite(simulations={})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Simulation(env=SHORT, num_episodes=0)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Simulation(env=SHORT, episodes=3)  # type: ignore[call-arg]


def only(**fields: Any) -> SimulationSuite:
    return SimulationSuite(name="s", simulations={"a/b": Simulation(**fields)})


@pytest.mark.parametrize(
    ("suite", "sentence"),
    [
        (
            only(env="/env/mettagrid/simpel"),
            "simulation 'a/b' of suite 's' cannot be made.*simpel.*did you mean",
        ),
        (
            only(env=SHORT, overrides={"speed": 3}),
            "simulation 'a/b' of suite 's' cannot be made: 'speed' is no",
        ),
        (
            only(env=SHORT, overrides={"max_steps": 0, "episode_lifetime": 0}),
            "simulation 'a/b' of suite 's'.* never ends",
        ),
    ],
)
def test_what_cannot_be_played_is_named(agent: MettaAgent, suite: SimulationSuite, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run_suite(agent, suite)


def test_nothing_is_played_before_all_is_found_playable(
    agent: MettaAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(*_: Any, **__: Any) -> Any:
        raise AssertionError("an episode was played")

    monkeypatch.setattr(suite_module, "play_episodes", play)
    for last in (
        Simulation(env="/env/mettagrid/simpel"),
        Simulation(env=SHORT, overrides={"max_steps": 0, "episode_lifetime": 0}),
        Simulation(env=WINDOWED),
    ):
        late = SimulationSuite(simulations={"a/first": Simulation(env=SHORT), "a/last": last})
        with pytest.raises(ValueError, match="simulation 'a/last'"):
            run_suite(agent, late)


def test_an_unknown_answer_to_misfits_is_refused(agent: MettaAgent) -> None:
    with pytest.raises(ValueError, match="on_misfit is 'ignore'; say 'raise' or 'skip'"):
        run_suite(agent, MIXED, on_misfit="ignore")  # type: ignore[arg-type]


def test_a_negative_seed_is_refused(agent: MettaAgent) -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        run_suite(agent, SUITE, seed=-1)


WINDOWED = GATHER.with_overrides(observation_width=5, observation_height=5)
MIXED = SimulationSuite(
    name="mixed",
    simulations={"field/fits": Simulation(env=SHORT), "field/window": Simulation(env=WINDOWED)},
)


def test_a_misfit_is_named_or_skipped_but_never_silent(agent: MettaAgent) -> None:
    with pytest.raises(ValueError, match="the policy cannot play simulation 'field/window': "):
        run_suite(agent, MIXED)
    skipping = run_suite(agent, MIXED, on_misfit="skip")
    assert list(skipping.simulation_scores) == ["field/fits"]
    assert list(skipping.skipped) == ["field/window"]
    assert len(skipping.skipped["field/window"]) > 20
    nothing = SimulationSuite(name="none", simulations={"a/window": Simulation(env=WINDOWED)})
    with pytest.raises(
        ValueError, match="nothing of suite 'none' can be played, to begin with: the policy cannot play"
    ):
        run_suite(agent, nothing, on_misfit="skip")


def test_a_policy_from_a_world_with_other_numbers_plays_by_names(agent: MettaAgent) -> None:
    """Without the first action all others have other ids: by its numbers the policy would not move."""
    fewer = EnvConfig(
        game=GATHER.game,
        actions=[action for action in GATHER.actions if action.key != "get_items"],
        map_builder=GATHER.map_builder,
        objects=GATHER.objects,
    )
    here, there = agent.spec.action_names, world_spec(SingleTaskCurriculum(fewer)).action_names
    assert here.index("move") != there.index("move")
    result = run_suite(only_moves(), only(env=fewer, num_episodes=4))
    taken: dict[str, float] = {}
    for stats in (stats for record in result.episodes for stats in record.agent_stats):
        for name, value in stats.items():
            if name.startswith("action.") and name.endswith((".success", ".failed")):
                action = name.split(".")[1]
                taken[action] = taken.get(action, 0) + value
    assert taken == {"move": 4 * 2 * 12}


def only_moves() -> MettaAgent:
    """A policy that wants to move and nothing else."""
    mover = MettaAgent(VecEnv(GATHER).spec, AgentModelConfig(hidden_dim=8, mask_actions=False))
    legal = mover.spec.legal_actions
    move = mover.spec.action_names.index("move")
    last = [m for m in mover.action_head.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([50.0 if action == move else -50.0 for action, _ in legal]))
    return mover


@pytest.fixture
def two_tasks(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a curriculum of two tasks."""
    name = "/env/for_tests/two"
    tasks = [Task("long", GATHER), Task("short", SHORT)]
    monkeypatch.setattr(registry, "_curricula", dict(registry._curricula))
    registry.register_curriculum(name, lambda: MultiTaskCurriculum(tasks))
    return name


def test_a_simulation_may_be_a_curriculum(agent: MettaAgent, two_tasks: str) -> None:
    result = run_suite(agent, only(env=two_tasks, num_episodes=20))
    lengths = {(record.task, record.length) for record in result.episodes}
    assert lengths == {("long", 12), ("short", 5)}
    shortened = run_suite(agent, only(env=two_tasks, num_episodes=20, overrides={"max_steps": 3}))
    assert {(record.task, record.length) for record in shortened.episodes} == {("long", 3), ("short", 3)}


def test_a_replay_config_chooses_among_tasks() -> None:
    assert [t.name for t in ReplayConfig().curriculum().tasks] == ["/env/mettagrid/simple"]
    short = ReplayConfig(overrides={"max_steps": 9}).curriculum().tasks[0]
    assert (short.name, short.config.game.max_steps) == ("/env/mettagrid/simple", 9)


def test_a_wrapped_policy_that_cannot_be_fitted_is_told_so(agent: MettaAgent) -> None:
    class Wrapper:
        spec = replace(agent.spec, action_names=agent.spec.action_names[::-1])

    with pytest.raises(ValueError, match="a Wrapper cannot be fitted by name; pass the MettaAgent itself"):
        run_suite(Wrapper(), SUITE)  # type: ignore[arg-type]
