"""`Environment`: what it is made from, and that each of its options does what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from metta.agent.config import AgentModelConfig
from metta.interface.agent import make_agent
from metta.interface.environment import NUM_ENVS, Environment, make_environment
from metta.mettagrid.async_vec import AsyncVecEnv
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.curriculum.base import Curriculum, MultiTaskCurriculum, Task
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.vec import VecEnv, as_vec_env
from metta.mettagrid.workers import WorkerFleet
from metta.rl.experience import make_experience_manager
from metta.rl.rollout import rollout
from metta.rl.trainer_config import ExperienceConfig

SIMPLE = "/env/mettagrid/simple"
SMALL = EnvConfig(game=GameConfig(num_agents=3, width=14, height=12, max_steps=7, num_observation_tokens=60))


def some_actions(env: VecEnv, rng: np.random.Generator, rows: int | None = None) -> np.ndarray:
    legal = np.array(env.spec.legal_actions)
    return legal[rng.integers(len(legal), size=rows or env.num_agents)]


def play(env: Environment, steps: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [env.step(some_actions(env, rng)).observations.copy() for _ in range(steps)]


class Counting(MultiTaskCurriculum):
    """Two tasks; counts what it hears."""

    def __init__(self) -> None:
        super().__init__([Task("plain", SMALL), Task("short", SMALL.with_overrides(max_steps=4))])
        self.heard = 0

    def update(self, task: int, score: float) -> None:
        self.heard += 1
        super().update(task, score)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """The curriculum that is called /test/counting."""
    from metta.mettagrid import tasks

    curriculum = Counting()
    find: Callable[[str], Curriculum] = tasks.make_curriculum

    def make_curriculum(path: str) -> Curriculum:
        return curriculum if path == "/test/counting" else find(path)

    monkeypatch.setattr(tasks, "make_curriculum", make_curriculum)
    return curriculum


class TestWhatItIsMadeFrom:
    def test_nothing(self) -> None:
        env = Environment()
        assert isinstance(env, VecEnv)
        assert as_vec_env(env) is env
        assert env.num_envs == env.num_worlds == env.batch_size == NUM_ENVS
        assert env.num_agents == NUM_ENVS * 64
        assert env.curriculum.tasks[0].config == EnvConfig()

    def test_sizes(self) -> None:
        env = Environment(num_agents=4, width=32, height=30)
        game = env.curriculum.tasks[0].config.game
        assert (game.num_agents, game.width, game.height) == (4, 32, 30)
        assert env.agents_per_world == 4
        assert env.single_observation_space.shape == (200, 3)
        assert env.single_action_space.nvec.tolist() == [7, 9]
        assert env.reset().shape == (4 * NUM_ENVS, 200, 3)

    @pytest.mark.parametrize("given", [SMALL, SMALL.model_dump(exclude_unset=True), SIMPLE])
    def test_a_configuration(self, given: Any) -> None:
        env = Environment(env_config=given, num_envs=2, max_steps=33)
        (task,) = env.curriculum.tasks
        assert task.config == make_environment(given, max_steps=33).config
        assert task.config.game.max_steps == 33

    def test_a_curriculum(self, counting: Counting) -> None:
        env = Environment(curriculum_path="/test/counting", num_envs=8)
        assert env.curriculum is counting
        assert {env.task_name(w) for w in range(8)} == {"plain", "short"}
        by_name = Environment(env_config="/test/counting", num_envs=8)
        assert by_name.curriculum is counting

    def test_a_registered_environment_as_a_curriculum(self) -> None:
        env = Environment(curriculum_path=SIMPLE, num_envs=1)
        assert env.task_name(0) == SIMPLE

    def test_sizes_hold_for_every_task_of_a_curriculum(self, counting: Counting) -> None:
        env = Environment(
            curriculum_path="/test/counting", num_envs=6, num_agents=2, width=17, is_training=False
        )
        assert [task.name for task in env.curriculum.tasks] == ["plain", "short"]
        games = [task.config.game for task in env.curriculum.tasks]
        assert [(g.num_agents, g.width, g.height, g.max_steps) for g in games] == [
            (2, 17, 12, 7),
            (2, 17, 12, 4),
        ]
        assert env.agents_per_world == 2
        assert {env.task_name(w) for w in range(6)} == {"plain", "short"}

    def test_a_resized_curriculum_still_hears_and_remembers(self, counting: Counting) -> None:
        env = Environment(curriculum_path="/test/counting", num_envs=2, num_agents=2)
        play(env, 20)
        assert counting.heard > 0
        assert env.state_dict()["curriculum"] == counting.state_dict()
        env.curriculum.load_state_dict(Counting().state_dict())
        assert counting.scores() == {}

    def test_a_drawn_map_is_not_resized(self, counting: Counting) -> None:
        drawn = EnvConfig.model_validate({"map_builder": {"type": "Ascii", "ascii_map": "####\n#@.#\n####"}})
        counting.tasks = (Task("drawn", drawn),)
        with pytest.raises(ValueError, match=r"^task 'drawn' with num_agents=2: .*\.$"):
            Environment(curriculum_path="/test/counting", num_agents=2)
        with pytest.raises(ValueError, match="task 'drawn' with max_stps=2: 'max_stps' is no setting"):
            Environment(curriculum_path="/test/counting", max_stps=2)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"curriculum_path": "/env/mettagrid/simpel"}, "/env/mettagrid/simple"),
            ({"curriculum_path": SIMPLE, "env_config": SMALL}, "state one of them"),
            ({"widht": 3}, "'widht' is no setting of an environment"),
            ({"vectorization": "fork"}, "vectorization is 'fork'; it is serial, threads or multiprocessing"),
            ({"num_workers": 2}, "choose 'threads' or 'multiprocessing'"),
            ({"num_workers": 0}, "num_workers is 0; give a number >= 1"),
            ({"num_envs": 0}, "num_envs is 0; give a number >= 1"),
            ({"async_factor": 0}, "async_factor is 0; give a number >= 1"),
            ({"num_envs": 6, "batch_size": 4}, "num_envs is 6, which batch_size 4 do not make up"),
            (
                {"num_envs": 6, "async_factor": 4},
                "num_envs is 6, which batch_size 1 and async_factor 4 do not",
            ),
            (
                {"num_envs": 8, "batch_size": 4, "async_factor": 3},
                "num_envs is 8, which batch_size 4 and async",
            ),
            ({"seed": -1}, "seed is -1; give a number >= 0"),
            ({"vectorization": "multiprocessing", "num_envs": 2, "num_workers": 3}, "among 1 to 2 workers"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Environment(**options)

    @pytest.mark.parametrize(
        ("options", "num_envs", "batch_size", "async_factor"),
        [
            ({}, 16, 16, 1),
            ({"async_factor": 2}, 16, 8, 2),
            ({"async_factor": 3}, 15, 5, 3),
            ({"async_factor": 40}, 40, 1, 40),
            ({"batch_size": 3}, 3, 3, 1),
            ({"batch_size": 3, "async_factor": 2}, 6, 3, 2),
            ({"num_envs": 6, "batch_size": 3}, 6, 3, 2),
            ({"num_envs": 6, "async_factor": 3}, 6, 2, 3),
            ({"num_envs": 6, "batch_size": 3, "async_factor": 2}, 6, 3, 2),
        ],
    )
    def test_groups_follow_from_what_is_stated(
        self, options: dict[str, int], num_envs: int, batch_size: int, async_factor: int
    ) -> None:
        env = Environment(env_config=SMALL, **options)
        assert (env.num_envs, env.batch_size, env.async_factor) == (num_envs, batch_size, async_factor)
        env.async_reset()
        assert [env.recv().worlds for _ in range(async_factor)] == [
            slice(n * batch_size, (n + 1) * batch_size) for n in range(async_factor)
        ]


class TestWhatItsOptionsDo:
    def test_vectorization_and_num_workers(self) -> None:
        """How it is done differs, what is done does not."""
        serial = Environment(env_config=SMALL, num_envs=4)
        threads = Environment(env_config=SMALL, num_envs=4, vectorization="threads", num_workers=3)
        assert (serial.num_threads, serial.num_workers) == (1, 0)
        assert (threads.engine.num_threads, threads.num_workers) == (3, 0)
        expected = play(serial, 20)
        assert np.array_equal(play(threads, 20), expected)
        with Environment(
            env_config=SMALL, num_envs=4, vectorization="multiprocessing", num_workers=2
        ) as processes:
            fleet = processes._fleet
            assert isinstance(fleet, WorkerFleet)
            assert [worker.share for worker in fleet._workers] == [range(2), range(2, 4)]
            assert np.array_equal(play(processes, 20), expected)

    def test_seed(self) -> None:
        first, again, other = (Environment(env_config=SMALL, num_envs=2, seed=seed) for seed in (1, 1, 2))
        assert np.array_equal(first.observations, again.observations)
        assert not np.array_equal(first.observations, other.observations)
        assert np.array_equal(first.driver_env.reset()[0], again.driver_env.reset()[0])
        assert not np.array_equal(first.driver_env.reset()[0], other.driver_env.reset()[0])

    @pytest.mark.parametrize("zero_copy", [True, False])
    def test_zero_copy(self, zero_copy: bool) -> None:
        env = Environment(env_config=SMALL, num_envs=2, zero_copy=zero_copy)
        rng = np.random.default_rng(0)
        env.async_reset()
        received = env.recv()
        handed = [
            received.step.observations,
            received.starts,
            env.reset(),
            env.step(some_actions(env, rng)).observations,
        ]
        own = [env.observations, env.starts, env.observations, env.observations]
        assert [np.shares_memory(a, b) for a, b in zip(handed, own, strict=True)] == [zero_copy] * 4
        before = handed[3].copy()
        env.step(some_actions(env, rng))
        assert np.array_equal(handed[3], before) != zero_copy

    def test_is_training(self, counting: Counting) -> None:
        def lengths(is_training: bool) -> tuple[set[int], int]:
            """When first episodes end, and how many outcomes the curriculum has heard of."""
            counting.heard = 0
            env = Environment(curriculum_path="/test/counting", num_envs=24, is_training=is_training)
            assert env.stagger == is_training
            env.async_reset()  # the first episodes are still those that the environment began with
            env.recv()
            rng = np.random.default_rng(0)
            ends: dict[int, int] = {}
            for step in range(1, 8):
                env.send(some_actions(env, rng))
                for world in np.unique(env.recv().step.final_rows // 3):
                    ends.setdefault(int(world), step)
            assert len(ends) == 24
            return set(ends.values()), counting.heard

        assert lengths(False) == ({4, 7}, 0)
        staggered, heard = lengths(True)
        assert staggered == set(range(1, 8))
        assert heard > 0

    def test_a_reset_staggers_anew(self) -> None:
        env = Environment(env_config=SMALL, num_envs=12)
        play(env, 20)
        env.reset()
        rng = np.random.default_rng(0)
        ends = {step for step in range(7) if env.step(some_actions(env, rng)).final_rows.size}
        assert len(ends) > 3


class TestDriverEnv:
    def test_is_a_world_of_its_own(self, counting: Counting) -> None:
        env = Environment(curriculum_path="/test/counting", num_envs=2)
        other = Environment(env_config=SMALL, num_envs=2)
        driver = env.driver_env
        assert isinstance(driver, MettaGridEnv)
        assert driver is env.driver_env
        assert driver is not other.driver_env
        assert driver.single_observation_space == env.single_observation_space
        before = env.state_dict()
        rng = np.random.default_rng(0)
        for _ in range(3):
            driver.reset()
            ended = False
            while not ended:
                ended = bool(driver.step(some_actions(driver.vec, rng))[2].all())
        assert "@" in driver.render()
        assert counting.heard == 0
        after = env.state_dict()
        assert all(np.array_equal(before["engine"][name], array) for name, array in after["engine"].items())
        assert {task.name for task in driver.vec.curriculum.tasks} == {"plain", "short"}

    def test_is_in_this_process_even_where_the_worlds_are_not(self) -> None:
        with Environment(env_config=SMALL, num_envs=1, vectorization="multiprocessing", num_workers=1) as env:
            assert "@" in env.driver_env.render()


class TestTakingTurns:
    def test_groups_take_turns_and_do_what_parts_of_the_batch_do(self, counting: Counting) -> None:
        env = Environment(curriculum_path="/test/counting", num_envs=6, async_factor=3, seed=2)
        other = VecEnv(Counting(), 6, seed=2, stagger=True)
        rng = np.random.default_rng(0)
        plan: dict[int, np.ndarray] = {}
        env.async_reset()
        for turn in range(60):
            received = env.recv()
            lo = turn % 3 * 2
            assert (received.worlds, received.rows) == (slice(lo, lo + 2), slice(3 * lo, 3 * lo + 6))
            assert np.array_equal(received.starts, env.starts[received.rows])
            if turn < 3:
                assert received.starts.all()
                assert not received.step.rewards.any()
                assert not received.step.episodes
                assert np.array_equal(received.step.observations, other.observations[received.rows])
            else:
                step = other.step(plan[lo], slice(lo, lo + 2))
                assert np.array_equal(received.step.observations, step.observations)
                assert np.array_equal(received.step.rewards, step.rewards)
                assert np.array_equal(received.step.final_observations, step.final_observations)
                assert [e.world for e in received.step.episodes] == [e.world for e in step.episodes]
            plan[lo] = some_actions(env, rng, 6)
            env.send(plan[lo])
        assert counting.heard > 5

    def test_misuse_is_refused_in_plain_words(self) -> None:
        env = Environment(env_config=SMALL, num_envs=4, async_factor=2)
        actions = np.zeros((6, 2), int)
        with pytest.raises(
            RuntimeError, match=r"recv\(\) while no group of worlds is under way; begin with async_reset"
        ):
            env.recv()
        env.async_reset()
        with pytest.raises(
            RuntimeError, match=r"send\(\) while no group of worlds waits for actions; recv\(\) one"
        ):
            env.send(actions)
        env.recv()
        with pytest.raises(ValueError, match=r"give integers \[6, 2\]"):
            env.send(np.zeros((12, 2), int))
        env.send(actions)
        with pytest.raises(RuntimeError, match=r"send\(\) while no group"):
            env.send(actions)
        for call in (lambda: env.step(np.zeros((12, 2), int)), env.state_dict):
            with pytest.raises(RuntimeError, match="while 2 groups of worlds are under way; recv"):
                call()
        env.recv()
        env.recv()
        with pytest.raises(RuntimeError, match=r"recv\(\) while no group"):
            env.recv()
        env.step(np.zeros((12, 2), int))

    def test_a_state_remembers_whose_turn_it_is(self, counting: Counting) -> None:
        def take_turns(env: AsyncVecEnv, turns: int) -> list[np.ndarray]:
            seen = []
            for turn in range(turns):
                env.send(plan[turn])
                received = env.recv()
                seen.append(received.step.observations.copy())
            return seen

        env = Environment(curriculum_path="/test/counting", num_envs=6, async_factor=3)
        rng = np.random.default_rng(0)
        plan = [some_actions(env, rng, 6) for _ in range(40)]
        take_turns(env, 4)
        saved = env.state_dict()
        expected = take_turns(env, 40)
        resumed = AsyncVecEnv(Counting(), 6, batch_size=2, seed=9)
        resumed.load_state_dict(saved)
        assert np.array_equal(take_turns(resumed, 40), expected)
        whole = VecEnv(Counting(), 6)
        whole.load_state_dict(saved)
        resumed.load_state_dict(whole.state_dict())
        assert np.array_equal(resumed.observations, whole.observations)


def test_a_rollout_in_worker_processes_is_the_same() -> None:
    def collect(env: Environment, async_factor: int) -> list[np.ndarray]:
        env.reset(seed=0)
        sizes = ExperienceConfig(
            batch_size=18 * 24, minibatch_size=18 * 24, bptt_horizon=8, async_factor=async_factor
        )
        experience = make_experience_manager(env, agent, sizes, seed=1)
        assert len(rollout(experience, agent).episodes) > 10
        kept = (experience.observations, experience.actions, experience.rewards, experience.terminals)
        return [tensor.numpy().copy() for tensor in (*kept, experience.truncations, experience.values)]

    serial = Environment(env_config=SMALL, num_envs=6)
    spaces = serial.single_observation_space, serial.single_action_space
    agent = make_agent(*spaces, [], "cpu", AgentModelConfig(hidden_dim=16, bptt_horizon=8))
    with Environment(
        env_config=SMALL, num_envs=6, vectorization="multiprocessing", num_workers=2
    ) as processes:
        for async_factor in (1, 3):
            expected = collect(serial, async_factor)
            for array, same in zip(collect(processes, async_factor), expected, strict=True):
                assert np.array_equal(array, same)


class TestMakeEnvironment:
    def test_takes_the_name_of_a_curriculum(self, counting: Counting) -> None:
        env = make_environment("/test/counting", num_agents=2)
        assert env.num_agents == 2
        names = {env.reset()[1]["task"] for _ in range(20)}
        assert names == {"plain", "short"}

    def test_close_is_there(self) -> None:
        env = make_environment(SMALL)
        env.close()
        env.close()
