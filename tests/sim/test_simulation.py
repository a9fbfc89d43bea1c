"""Evaluation: whole episodes in worlds of their own, the same ones for every policy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, MapBuilderConfig
from metta.mettagrid.curriculum.base import MultiTaskCurriculum, Task
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.replay_format import read_replay
from metta.mettagrid.vec import EpisodeOutcome, VecEnv
from metta.sim.replays import record_replay
from metta.sim.simulation import MAX_WORLDS, eval_policy, play_episodes, run_episodes, summarize

SMALL = EnvConfig(
    game=GameConfig(
        num_agents=2, width=10, height=10, max_steps=6, num_observation_tokens=40, time_punishment=-0.5
    ),
    map_builder=MapBuilderConfig(border_width=1),
    actions=[ActionConfig(type="noop", key="noop"), ActionConfig(type="rotate", key="rotate")],
)


def agent_for(env: VecEnv | MettaGridEnv) -> MettaAgent:
    torch.manual_seed(0)
    spec = env.spec if isinstance(env, VecEnv) else env.vec.spec
    return MettaAgent(spec, AgentModelConfig(hidden_dim=8))


def outcome(returns: list[float], length: int) -> EpisodeOutcome:
    stats = {"agent": [{"heart.get": value} for value in returns]}
    return EpisodeOutcome(0, "task", length, np.array(returns, dtype=np.float32), False, stats)


def test_summary_by_hand() -> None:
    result = summarize([outcome([1, 3], 10), outcome([4, 4], 20), outcome([6, 0], 30)])
    assert result.num_episodes == 3
    assert result.mean_reward == 3.0  # of 2, 4 and 3
    assert result.std_reward == pytest.approx(np.std([2, 4, 3]))
    assert result.half_interval == pytest.approx(4.3027 / np.sqrt(3))  # t of two degrees of freedom
    assert (result.mean_length, result.std_length) == (20, pytest.approx(np.std([10, 20, 30])))
    assert result.stats == {"heart.get": 3.0}
    assert str(result) == "3.00 ± 2.48"
    assert np.isnan(summarize([outcome([1, 3], 10)]).half_interval)
    with pytest.raises(ValueError, match="no episodes"):
        summarize([])


def test_eval_policy_reports_the_documented_numbers() -> None:
    env = MettaGridEnv(SMALL)
    result = eval_policy(agent_for(env), env, num_episodes=3)
    assert result == {"mean_reward": -3.0, "std_reward": 0.0, "mean_length": 6.0, "std_length": 0.0}


def test_evaluation_leaves_environment_agent_and_random_streams_alone() -> None:
    env = VecEnv(SMALL, 3, seed=1)
    agent = agent_for(env).train()
    env.step(np.zeros((6, 2), dtype=np.int64))
    before = (
        env.observations.copy(),
        env.starts.copy(),
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),  # noqa: NPY002
    )
    run_episodes(agent, env, 5)
    assert np.array_equal(env.observations, before[0])
    assert np.array_equal(env.starts, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert np.array_equal(np.random.get_state()[1], before[3])  # noqa: NPY002
    assert agent.training


@pytest.mark.parametrize("num_episodes", [1, 7, 64, 70])
def test_exactly_so_many_episodes_are_played(num_episodes: int) -> None:
    env = VecEnv(SMALL, 1)
    outcomes = run_episodes(agent_for(env), env, num_episodes)
    assert len(outcomes) == num_episodes
    per_world = np.bincount([o.world for o in outcomes])
    assert per_world.max() - per_world.min() <= 1


def test_short_episodes_do_not_crowd_out_long_ones() -> None:
    tasks = [
        Task("short", SMALL.with_overrides(max_steps=2)),
        Task("long", SMALL.with_overrides(max_steps=50)),
    ]
    env = VecEnv(MultiTaskCurriculum(tasks), 1)
    outcomes = run_episodes(agent_for(env), env, 400)
    assert (
        140 < sum(o.task == "long" for o in outcomes) < 260
    )  # taking the first 400 to finish would give about 60


def test_an_episode_is_numbered_by_its_world_not_by_when_it_ended() -> None:
    tasks = [Task(f"of_{n}", SMALL.with_overrides(max_steps=n)) for n in (2, 9, 30)]
    outcomes = play_episodes(agent_for(VecEnv(SMALL)), MultiTaskCurriculum(tasks), 150, seed=5)
    assert sorted(number for number, _ in outcomes) == list(range(150))
    assert [number for number, _ in outcomes] != list(range(150))
    rounds = [0] * MAX_WORLDS
    for number, outcome in outcomes:
        assert (number % MAX_WORLDS, number // MAX_WORLDS) == (outcome.world, rounds[outcome.world])
        rounds[outcome.world] += 1


def test_the_same_seed_means_the_same_episodes() -> None:
    env = VecEnv(EnvConfig(game=GameConfig(num_agents=2, width=12, height=12, max_steps=30)), 1)
    agent = agent_for(env)

    def scores(seed: int) -> list[list[float]]:
        return [[*o.returns.tolist(), o.stats["agent"]] for o in run_episodes(agent, env, 4, seed=seed)]

    assert scores(1) == scores(1)
    assert scores(1) != scores(2)


def test_a_policy_from_another_world_is_fitted_or_refused(tmp_path: Path) -> None:
    """`SMALL` knows noop and rotate; without noop, rotate has another id."""
    turning = EnvConfig(game=SMALL.game, map_builder=SMALL.map_builder, actions=SMALL.actions[1:])
    agent = agent_for(VecEnv(SMALL))
    for done in run_episodes(agent, VecEnv(turning), 2):
        assert all("action.rotate.success" in stats for stats in done.stats["agent"])
        assert not any("action.invalid_type" in stats for stats in done.stats["agent"])
    record_replay(agent, VecEnv(turning), tmp_path / "replay.json.z")
    replay = read_replay(tmp_path / "replay.json.z")
    assert all(all(replay.series(entry, "action_success")[1:]) for entry in replay.agents)
    narrow = VecEnv(SMALL.with_overrides(observation_width=5))
    with pytest.raises(ValueError, match="the policy cannot play task 'task': "):
        run_episodes(agent, narrow, 2)
    with pytest.raises(ValueError, match="the policy cannot play task 'task': "):
        record_replay(agent, narrow, tmp_path / "narrow.json.z")
    assert not (tmp_path / "narrow.json.z").exists()


def test_no_episodes_are_refused() -> None:
    env = VecEnv(SMALL, 1)
    with pytest.raises(ValueError, match="play at least one"):
        run_episodes(agent_for(env), env, 0)


def test_a_recorded_episode_is_whole(tmp_path: Path) -> None:
    env = VecEnv(SMALL, 3, seed=2)
    before = env.observations.copy()
    page = record_replay(agent_for(env), env, tmp_path / "replay.json.z")
    assert page == tmp_path / "replay.html"
    assert "<html" in page.read_text()
    replay = read_replay(tmp_path / "replay.json.z")
    assert replay.num_agents == 2
    assert replay.num_steps == 6
    totals = [replay.series(agent, "total_reward")[-1] for agent in replay.agents]
    assert totals == [-3.0, -3.0]
    assert np.array_equal(env.observations, before)


def test_a_task_can_be_chosen_by_name(tmp_path: Path) -> None:
    tasks = [Task(f"of_{n}", SMALL.with_overrides(max_steps=n)) for n in (2, 3, 4, 5)]
    curriculum = MultiTaskCurriculum(tasks)
    env = VecEnv(curriculum, 1)
    for source in (env, curriculum):
        for task in ("of_2", "of_5"):
            record_replay(agent_for(env), source, tmp_path / "replay.json.z", task=task)
            replay = read_replay(tmp_path / "replay.json.z")
            assert (replay.num_steps, replay.data["file_name"]) == (int(task[-1]), task)
    with pytest.raises(ValueError, match="no task is called 'of_7'; did you mean of_"):
        record_replay(agent_for(env), env, tmp_path / "replay.json.z", task="of_7")


def test_a_world_without_an_end_cannot_be_evaluated() -> None:
    env = VecEnv(SMALL.with_overrides(max_steps=0, episode_lifetime=0), 1)
    with pytest.raises(ValueError, match="task 'task' never ends"):
        run_episodes(agent_for(env), env, 1)
