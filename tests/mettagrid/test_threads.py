"""Threads that share the work of an engine: the same worlds bit for bit, asleep while nothing is done, gone at the end."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from metta.mettagrid import stepping
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.engine import board
from metta.mettagrid.engine.compile import is_interpreted
from metta.mettagrid.vec import VecEnv

SMALL = EnvConfig(game=GameConfig(num_agents=3, width=14, height=12, max_steps=7, num_observation_tokens=60))

compiled = pytest.mark.skipif(is_interpreted(), reason="interpreted there are no threads")


def crew(env: VecEnv) -> list[threading.Thread]:
    return env.engine._crew._helpers


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def assert_alike(one: VecEnv, other: VecEnv, steps: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        actions = rng.integers(-2, 12, size=(one.num_agents, 2))
        mine, theirs = one.step(actions), other.step(actions)
        for name in (
            "observations",
            "rewards",
            "terminals",
            "truncations",
            "final_rows",
            "final_observations",
        ):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name)), name
        assert [o.stats for o in mine.episodes] == [o.stats for o in theirs.episodes]
    ours, others = one.engine.snapshot(), other.engine.snapshot()
    assert all(np.array_equal(array, others[name]) for name, array in ours.items())


@pytest.mark.parametrize("num_threads", [2, 3, 5])
@pytest.mark.parametrize("num_worlds", [1, 2, 37])
def test_any_number_of_threads_gives_the_same_worlds(num_threads: int, num_worlds: int) -> None:
    """Episodes end at different steps, and the table of invalid actions grows on the way."""
    with (
        VecEnv(SMALL, num_worlds, stagger=True) as one,
        VecEnv(SMALL, num_worlds, stagger=True, num_threads=num_threads) as other,
    ):
        assert_alike(one, other, 60)


@compiled
def test_helpers_do_a_part_of_the_work() -> None:
    with VecEnv(SMALL, 64, num_threads=2) as env:
        shared = env.engine._crew._shift.shared
        actions = np.zeros((env.num_agents, 2), np.int64)

        def helped() -> bool:
            """The caller takes what the helper leaves from behind: only the helper itself takes its first part."""
            for _ in range(200):
                env.step(actions)
                if int(shared[board.TICKETS + board.LINE] >> 16 & 0xFFFF) > board.PARTS:
                    return True
            return False

        wait_until(helped)


@compiled
def test_an_idle_environment_sleeps() -> None:
    with VecEnv(SMALL, 16, num_threads=3) as env:
        env.step(np.zeros((env.num_agents, 2), np.int64))
        assert len(crew(env)) == 2
        wait_until(lambda: env.engine._crew.idle)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.15, "somebody looks for work all the time"


@compiled
@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_helpers_go_with_their_environment(how: str) -> None:
    env = VecEnv(SMALL, 8, num_threads=3)
    env.step(np.zeros((env.num_agents, 2), np.int64))
    helpers = list(crew(env))
    assert all(helper.is_alive() for helper in helpers)
    if how == "closed":
        env.close()
        env.close()
    else:
        there = weakref.ref(env.engine)
        del env
        gc.collect()
        assert there() is None
    wait_until(lambda: not any(helper.is_alive() for helper in helpers))


@compiled
def test_after_a_fork_the_child_goes_on_alone() -> None:
    script = """
import os, sys
import numpy as np
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.vec import VecEnv
small = EnvConfig(game=GameConfig(num_agents=3, width=14, height=12, max_steps=7, num_observation_tokens=60))
env = VecEnv(small, 16, num_threads=2)
actions = np.random.default_rng(0).integers(-2, 12, size=(9, 48, 2))
for step in range(3):
    env.step(actions[step])
read, write = os.pipe()
child = os.fork() == 0
for step in range(3, 9):
    env.step(actions[step])
env.engine.reserve(99, 0)
if child:
    os.write(write, env.observations.tobytes())
    env.close()
    os._exit(0)
os.close(write)
theirs = b""
while part := os.read(read, 1 << 20):
    theirs += part
print(theirs == env.observations.tobytes(), os.wait()[1])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == ["True", "0"]


@pytest.mark.parametrize("end", ["", "raise KeyboardInterrupt", "sys.exit(3)"])
def test_a_process_ends_with_helpers_at_work(end: str) -> None:
    script = f"""
import sys
import numpy as np
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.vec import VecEnv
small = EnvConfig(game=GameConfig(num_agents=3, width=14, height=12, max_steps=7, num_observation_tokens=60))
env = VecEnv(small, 16, num_threads=3)
for _ in range(30):
    env.step(np.zeros((48, 2), np.int64))
{end}
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == {"": 0, "sys.exit(3)": 3}.get(end, -2)
    assert ("KeyboardInterrupt" in done.stderr) == (end.startswith("raise"))
    assert done.stderr.count("Traceback") == end.startswith("raise")


@compiled
def test_a_caller_that_others_hold_up_goes_on_alone() -> None:
    with VecEnv(SMALL, 16, num_threads=2) as env, VecEnv(SMALL, 16) as plain:
        env.step(np.zeros((env.num_agents, 2), np.int64))
        plain.step(np.zeros((env.num_agents, 2), np.int64))
        shared = env.engine._crew._shift.shared
        shared[board.ALONE] = 3
        number = int(shared[board.NUMBER])
        assert_alike(env, plain, 3)
        assert (shared[board.ALONE], shared[board.NUMBER]) == (0, number)
        env.step(np.zeros((env.num_agents, 2), np.int64))
        assert shared[board.NUMBER] == number + 1


def test_patience_does_not_count_what_loading_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first engine of a process loads its code where the second has it; helpers of both look equally long."""
    now = [0.0]
    took = iter([0.5, 3e-5, 2e-5, 9e-5])

    def job(*arguments: object) -> int:
        now[0] += next(took)
        return 0

    monkeypatch.setattr(stepping, "do_job", job)
    monkeypatch.setattr(stepping, "PATIENCE", 1e-4)
    monkeypatch.setattr(stepping.time, "perf_counter", lambda: now[0])
    assert stepping.pauses_of_patience(None, np.zeros(1, np.int64)) in (5000, 5001)


@compiled
def test_threads_that_cannot_be_had_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with VecEnv(SMALL, 8) as plain, VecEnv(SMALL, 8) as env:
        monkeypatch.setattr(threading.Thread, "start", start)
        env.engine.num_threads = 3
        with pytest.raises(RuntimeError, match=r"thread 2 of 3 .*can't start new thread.* lower num_threads"):
            env.step(np.zeros((env.num_agents, 2), np.int64))
        monkeypatch.undo()
        assert_alike(env, plain, 20)


@compiled
@pytest.mark.parametrize("at", ["start", "recall"])
def test_an_interrupt_while_threads_are_got_ready_does_no_harm(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody works twice in one place, and nobody looks at arrays that are gone."""
    start = threading.Thread.start

    def begin(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    def recall(crew: stepping.Crew) -> None:
        raise KeyboardInterrupt

    with VecEnv(SMALL, 40) as plain, VecEnv(SMALL, 40) as env:
        env.engine.num_threads = 3
        if at == "recall":
            env.reset(1)
        with monkeypatch.context() as patch:
            if at == "start":
                patch.setattr(threading.Thread, "start", begin)
            else:
                patch.setattr(stepping.Crew, "_recall", recall)
                env.engine.reserve(50, 600)
            with pytest.raises(KeyboardInterrupt):
                env.reset(1)
        plain.engine.reserve(50, 600)
        env.engine.reserve(50, 600)
        env.reset(1)
        plain.reset(1)
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("metta-")]
        assert sorted(names) == ["metta-1", "metta-2"]
        assert_alike(env, plain, 30)


def test_importing_metta_starts_nothing() -> None:
    code = "import sys, threading, metta; print(threading.active_count(), 'numba' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.split() == ["1", "False"]
