"""Worker processes: the same worlds bit for bit, and nothing left behind, whatever happens."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest

from metta.mettagrid import workers
from metta.mettagrid.async_vec import AsyncVecEnv
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.curriculum.base import MultiTaskCurriculum, Task
from metta.mettagrid.engine.streams import STREAM_COLUMNS
from metta.mettagrid.fleet import LocalFleet, TaskSet
from metta.mettagrid.testing import check_env
from metta.mettagrid.vec import StepBatch, VecEnv
from metta.mettagrid.workers import WorkerFleet

SMALL = EnvConfig(game=GameConfig(num_agents=3, width=14, height=12, max_steps=7, num_observation_tokens=60))
TASKS = (
    Task("plain", SMALL),
    Task("short", SMALL.with_overrides(max_steps=4)),
    Task("cut", SMALL.with_overrides(max_steps=0, episode_lifetime=5)),
    Task(
        "large", SMALL.with_overrides(width=19, height=23, max_steps=6, map_objects={"altar": 9, "wall": 40})
    ),
)
TOO_FULL = SMALL.model_copy(
    update={"map_builder": SMALL.map_builder.model_copy(update={"objects": {"wall": 1000}})}
)
"""No map of this can be built, which nobody has checked."""


class Listening(MultiTaskCurriculum):
    """Writes down what it hears, and lets it count: the task of the best outcome so far is drawn more often."""

    def __init__(self, tasks: tuple[Task, ...] = TASKS) -> None:
        super().__init__(tasks)
        self.heard: list[tuple[int, float]] = []

    def update(self, task: int, score: float) -> None:
        self.heard.append((task, score))
        super().update(task, score)

    def sample(self, rng: np.random.Generator) -> int:
        drawn = super().sample(rng)
        scores = self.scores()
        best = max(scores, key=scores.__getitem__, default=self.tasks[drawn].name)
        names = [task.name for task in self.tasks]
        return names.index(best) if rng.random() < 0.3 else drawn


@pytest.fixture(scope="module")
def _workers_of_all() -> Iterator[AsyncVecEnv]:
    with AsyncVecEnv(Listening(), 6, batch_size=2, num_workers=2) as env:
        yield env


@pytest.fixture
def env(_workers_of_all: AsyncVecEnv) -> AsyncVecEnv:
    """Six worlds in two workers at the first episodes of seed 0; tests leave the workers alive."""
    _workers_of_all.curriculum.load_state_dict(Listening().state_dict())
    _workers_of_all.reset(seed=0)
    return _workers_of_all


def some_actions(env: VecEnv, rng: np.random.Generator, rows: int | None = None) -> np.ndarray:
    """Mostly legal actions, and a few of many different illegal ones."""
    legal = np.array(env.spec.legal_actions)
    actions = legal[rng.integers(len(legal), size=rows or env.num_agents)]
    wrong = rng.random(len(actions)) < 0.3
    actions[wrong] = rng.integers(-50, 50, size=(wrong.sum(), 2))
    return actions


def assert_same_step(one: StepBatch, other: StepBatch) -> None:
    for name in (
        "observations",
        "rewards",
        "terminals",
        "truncations",
        "final_rows",
        "final_observations",
    ):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for mine, theirs in zip(one.episodes, other.episodes, strict=True):
        assert np.array_equal(mine.returns, theirs.returns)
        assert (mine.world, mine.task, mine.length, mine.truncated) == (
            theirs.world,
            theirs.task,
            theirs.length,
            theirs.truncated,
        )
        assert mine.stats == theirs.stats


def assert_same_state(one: Any, other: Any, where: str = "state") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_same_state(value, other[key], f"{where}.{key}")
    else:
        assert np.array_equal(one, other), where


def pids(env: VecEnv) -> list[int]:
    fleet = env._fleet
    assert isinstance(fleet, WorkerFleet)
    return [worker._process.pid for worker in fleet._workers]


def is_running(pid: int) -> bool:
    """Whether a process is there; a zombie that nobody waited for counts."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not our child is gone (or nobody waits for it)."""
    for _ in range(6000):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} is still running")


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Fail instead of waiting for ever."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"still waiting after {seconds} s")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("num_workers", [2, 3])
def test_workers_do_the_same_as_this_process(num_workers: int) -> None:
    """Over many episodes of mixed tasks; the state goes back and forth between both kinds on the way."""
    here, there = Listening(), Listening()
    one = VecEnv(here, 5, seed=11, stagger=True)
    with VecEnv(there, 5, seed=11, stagger=True, num_workers=num_workers) as other:
        assert np.array_equal(one.observations, other.observations)
        rng = np.random.default_rng(num_workers)
        for step in range(60):
            actions = some_actions(one, rng)
            assert_same_step(one.step(actions), other.step(actions))
            assert np.array_equal(one.starts, other.starts)
            assert [one.task_name(w) for w in range(5)] == [other.task_name(w) for w in range(5)]
            if step % 15 == 14:
                mine, theirs = one.state_dict(), other.state_dict()
                assert_same_state(mine, theirs)
                for env in (one, other):
                    env.step(some_actions(env, rng))
                    env.reset(seed=step)
                one.load_state_dict(theirs)
                other.load_state_dict(mine)
                assert_same_state(mine, one.state_dict())
                assert_same_state(mine, other.state_dict())
        assert here.heard == there.heard
        assert {task for task, _ in there.heard} == {0, 1, 2, 3}
        assert len(there.heard) > 30
        assert np.array_equal(one.reset(), other.reset())


def test_a_state_goes_on_with_another_number_of_workers() -> None:
    with VecEnv(Listening(), 4, seed=1, num_workers=2, collect_stats=False) as first:
        rng = np.random.default_rng(0)
        ended = [episode for _ in range(9) for episode in first.step(some_actions(first, rng)).episodes]
        assert [episode.stats for episode in ended] == [{}] * len(ended) != []
        saved = first.state_dict()
        plan = [some_actions(first, rng) for _ in range(20)]
        with VecEnv(Listening(), 4, seed=2, num_workers=1, collect_stats=False) as second:
            second.load_state_dict(saved)
            for actions in plan:
                assert_same_step(first.step(actions), second.step(actions))
    with pytest.raises(ValueError, match="make the environment as it was"):
        VecEnv(Listening(), 3).load_state_dict(saved)


def test_many_different_invalid_actions_make_states_alike() -> None:
    """Each worker's table of invalid actions grows by itself; a state shows them as one engine would."""
    one = VecEnv(SMALL.with_overrides(max_steps=0), 2)
    with VecEnv(SMALL.with_overrides(max_steps=0), 2, num_workers=2) as other:
        for step in range(60):
            actions = np.full((6, 2), 99)
            actions[:3] = step * 3 + np.arange(3)[:, None] + 100
            assert_same_step(one.step(actions), other.step(actions))
        state = other.state_dict()
        assert_same_state(one.state_dict(), state)
        other.reset(seed=5)
        other.load_state_dict(state)
        assert_same_state(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("part", [1, 2, 4, 5])
def test_parts_of_the_batch_may_cover_parts_of_several_workers(part: int, env: AsyncVecEnv) -> None:
    one = VecEnv(Listening(), 6)
    rng = np.random.default_rng(0)
    for _ in range(12):
        for lo in range(0, 6, part):
            worlds = slice(lo, min(lo + part, 6))
            actions = some_actions(one, rng, 3 * (worlds.stop - lo))
            before = env.observations.copy()
            assert_same_step(one.step(actions, worlds), env.step(actions, worlds))
            untouched = np.ones(18, bool)
            untouched[3 * lo : 3 * worlds.stop] = False
            assert np.array_equal(before[untouched], env.observations[untouched])
    assert not env.step(np.zeros((0, 2), int), slice(2, 2)).rewards.size


def test_workers_keep_the_promises_of_an_environment(env: AsyncVecEnv) -> None:
    env.curriculum = MultiTaskCurriculum(TASKS)  # check_env plays the same twice, so no outcome may count
    check_env(env, steps=40)
    env.curriculum = Listening()
    assert env.num_threads == 2
    with pytest.raises(RuntimeError, match="live in worker processes"):
        _ = env.engine


def test_equal_rules_are_compiled_once() -> None:
    tasks = TaskSet.of([*TASKS, Task("map", SMALL.with_overrides(map_objects={"altar": 2}))])
    assert (len(tasks.rules), tasks.rule_of) == (4, (0, 1, 2, 3, 0))
    env = VecEnv(
        MultiTaskCurriculum([*TASKS, Task("map", SMALL.with_overrides(map_objects={"altar": 2}))]), 9
    )
    assert "map" in {env.task_name(world) for world in range(9)}
    assert len(env.engine.rules) == 4


def test_a_killed_worker_is_reported_at_once() -> None:
    env = VecEnv(SMALL, 4, num_workers=2)
    running = pids(env)
    os.kill(running[1], signal.SIGKILL)
    actions = some_actions(env, np.random.default_rng(0))
    gone = r"worker process 1 \(worlds 2 to 3\) was killed by signal 9, and its worlds are lost"
    with deadline(120), pytest.raises(RuntimeError, match=gone):
        env.step(actions)
    with deadline(120), pytest.raises(RuntimeError, match=gone):
        env.reset(seed=0)
    with deadline(120):
        env.close()
    assert not any(map(is_running, running))


def test_a_worker_that_dies_in_the_middle_of_a_step_is_reported() -> None:
    env = AsyncVecEnv(SMALL, 2, num_workers=1)
    (pid,) = pids(env)
    env.async_reset()
    env.recv()
    os.kill(pid, signal.SIGSTOP)
    with deadline(120):
        env.send(some_actions(env, np.random.default_rng(0)))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="was killed by signal 9"):
            env.recv()
        env.close()


def test_sending_does_not_wait_for_the_worlds(env: AsyncVecEnv) -> None:
    """A worker that stands still keeps nobody from thinking about the worlds of the other."""
    other = VecEnv(Listening(), 6, seed=6)
    actions = some_actions(env, np.random.default_rng(0), 6)
    first, _ = pids(env)
    env.async_reset(seed=6)
    env.recv()
    os.kill(first, signal.SIGSTOP)
    try:
        with deadline(120):
            env.send(actions)
            assert env.recv().worlds == slice(2, 4)
            assert env.recv().worlds == slice(4, 6)
    finally:
        os.kill(first, signal.SIGCONT)
    env.send(actions)
    env.send(actions)
    for lo in (0, 2, 4):
        received = env.recv()
        assert (received.worlds, received.rows) == (slice(lo, lo + 2), slice(3 * lo, 3 * lo + 6))
        assert_same_step(received.step, other.step(actions, slice(lo, lo + 2)))


def test_episodes_that_end_while_other_groups_are_under_way_do_the_same(env: AsyncVecEnv) -> None:
    """The worker then has a step to do for one group before it begins the episode of another."""
    env.curriculum = MultiTaskCurriculum(TASKS)
    other = AsyncVecEnv(MultiTaskCurriculum(TASKS), 6, batch_size=2)
    rng = np.random.default_rng(0)
    with deadline(120):
        for one in (env, other):
            one.async_reset(seed=3)
        ended = 0
        for _ in range(90):
            mine, theirs = env.recv(), other.recv()
            assert mine.worlds == theirs.worlds
            assert np.array_equal(mine.starts, theirs.starts)
            assert_same_step(mine.step, theirs.step)
            ended += len(mine.step.episodes)
            actions = some_actions(env, rng, 6)
            env.send(actions)
            other.send(actions)
    env.curriculum = Listening()
    assert ended > 20


def test_what_was_sent_is_forgotten_by_a_reset(env: AsyncVecEnv) -> None:
    rng = np.random.default_rng(0)
    env.async_reset(seed=4)
    for _ in range(2):
        env.recv()
        env.send(some_actions(env, rng, 6))
    other = VecEnv(Listening(), 6, seed=5)
    assert np.array_equal(env.reset(seed=5), other.observations)
    assert isinstance(env._fleet, WorkerFleet)
    assert not env._fleet._steps
    actions = some_actions(env, rng)
    assert_same_step(env.step(actions), other.step(actions))


def test_closing_leaves_nothing_behind() -> None:
    before = sorted(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))
    env = VecEnv(SMALL, 4, num_workers=2)
    observations = env.step(some_actions(env, np.random.default_rng(0))).observations
    running = pids(env)
    assert all(map(is_running, running))
    with deadline(120):
        env.close()
        env.close()
    assert not any(map(is_running, running))
    shown = observations.copy()
    with pytest.raises(RuntimeError, match=r"worker process 0 \(worlds 0 to 1\) was closed; make"):
        env.step(np.zeros((12, 2), int))
    assert np.array_equal(shown, observations)
    del env, observations
    gc.collect()
    assert (sorted(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))) == before


def test_an_environment_that_nobody_holds_ends_its_workers() -> None:
    env = VecEnv(SMALL, 2, num_workers=2)
    running = pids(env)
    with deadline(120):
        del env
        gc.collect()
    assert not any(map(is_running, running))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the worker processes that the test starts."""
    ids: list[int] = []
    start = subprocess.Popen

    def note(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = start(*args, **options)
        ids.append(process.pid)
        return process

    monkeypatch.setattr(workers.subprocess, "Popen", note)
    return ids


def test_a_map_that_cannot_be_built_says_the_same_in_a_worker(
    started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "compile_engine", lambda tasks: None)  # which builds a map already
    said = []
    for num_workers in (0, 2):
        with pytest.raises(ValueError, match="do not fit on the") as error:
            VecEnv(TOO_FULL, 3, num_workers=num_workers)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert len(started) == 2
    assert not any(map(is_running, started))


def test_a_command_that_fails_leaves_the_worker_as_it_was(env: AsyncVecEnv) -> None:
    assert isinstance(env._fleet, WorkerFleet)
    with pytest.raises(RuntimeError, match=r"(?s)worker process 0 failed:.*IndexError"):
        env._fleet.begin([0, 5], [7, 0], np.ones((2, STREAM_COLUMNS), np.int64))
    with pytest.raises(ValueError, match=r"reset got worlds \[0, 0\]"):
        env._fleet.begin([0, 0], [0, 0], np.ones((2, STREAM_COLUMNS), np.int64))
    env.reset(seed=0)
    actions = some_actions(env, np.random.default_rng(0))
    assert_same_step(env.step(actions), VecEnv(Listening(), 6).step(actions))


@pytest.mark.parametrize("num_workers", [-1, 4])
def test_a_wrong_number_of_workers_is_refused(num_workers: int) -> None:
    with pytest.raises(
        ValueError, match=f"num_workers is {num_workers}; the 3 worlds can be shared among 1 to 3"
    ):
        VecEnv(SMALL, 3, num_workers=num_workers)


def test_threads_and_workers_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="leave one of them out"):
        VecEnv(SMALL, 3, num_workers=2, num_threads=2)


SCRIPT = """
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.vec import VecEnv
import numpy as np
env = VecEnv(EnvConfig(game=GameConfig(num_agents=2, width=12, height=12)), 4, num_workers=1)
env.step(np.zeros((8, 2), int))
print(*(worker._process.pid for worker in env._fleet._workers), flush=True)
"""
"""No guard and no file: workers do not run the script again that made them."""


@pytest.mark.parametrize("end", ["runs out", "SIGKILL", "SIGINT"])
def test_workers_end_with_the_process_that_made_them(end: str) -> None:
    wait = "import time\nwhile True: time.sleep(1)"
    rest = "" if end == "runs out" else wait
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process, deadline(120), ExitStack() as failed:
        failed.callback(process.kill)  # or leaving would wait for it without end
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(SCRIPT + rest)
        process.stdin.close()
        worker = int(process.stdout.readline())
        if end.startswith("SIG"):
            assert is_running(worker)
            process.send_signal(signal.Signals[end])
        wait_for_end(worker)
        said = process.stderr.read()
        assert said.count("Traceback") == (end == "SIGINT")
        assert "resource_tracker" not in said
        assert "worker" not in said
        process.wait()
        failed.pop_all()
    assert process.returncode == {"runs out": 0, "SIGKILL": -9, "SIGINT": -2}[end]


def test_ctrl_c_reaches_this_process_alone(env: AsyncVecEnv) -> None:
    assert os.getpgrp() not in [os.getpgid(pid) for pid in pids(env)]


def test_everything_is_compiled_before_the_first_worker_starts(
    started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[int] = []
    monkeypatch.setattr(workers, "compile_engine", lambda tasks: before.append(len(started)))
    VecEnv(SMALL, 2, num_workers=2).close()
    assert (before, len(started)) == ([0], 2)


COLD = """
from metta.mettagrid import fleet
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Task
from metta.mettagrid.engine.compile import is_interpreted
from metta.mettagrid.engine.board import do_job
from metta.mettagrid.engine.reset import move_invalid_counts
from metta.mettagrid.engine.streams import open_streams
tasks = fleet.TaskSet.of([Task("a", EnvConfig())])
fleet.compile_engine(tasks)
kernels = (move_invalid_counts, do_job, open_streams)
if is_interpreted():
    print("interpreted")
else:
    counts = [len(kernel.signatures) for kernel in kernels]
    fleet.is_kept = lambda name: False
    fleet.compile_engine(tasks)
    print(counts, [len(kernel.signatures) for kernel in kernels])
"""


def test_a_cold_cache_is_filled_with_all_kernels() -> None:
    workers.compile_engine(TaskSet.of([Task("a", SMALL)]))  # so that the real cache is warm
    done = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[0, 0, 0] [1, 1, 1]", "interpreted")


def test_an_engine_refuses_an_array_that_does_not_fit() -> None:
    tasks = TaskSet.of([Task("a", SMALL)])
    for wrong in (np.zeros((2, 3, 59, 3), np.uint8), np.zeros((2, 3, 60, 3), np.int8)):
        with pytest.raises(ValueError, match="the array for observations is"):
            LocalFleet(tasks, 2, observations=wrong)
