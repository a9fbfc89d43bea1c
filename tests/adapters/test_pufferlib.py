"""PufferLib: its vectorisation runs the worlds, in this process and in others, and every number is that of `VecEnv`."""

from __future__ import annotations

import dataclasses
import gc
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from adapter_cases import MIXED_TEAM, SEED, Played, mixed, play, small_world
from metta.adapters.actions import LegalActions
from metta.mettagrid.vec import StepBatch, VecEnv

pytestmark = pytest.mark.peers


@pytest.fixture(autouse=True)
def vector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`pufferlib.vector`. Importing it leaves a link in the working folder, and has much to say."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pufferlib.vector

        gc.collect()
    return pufferlib.vector


def make(*args: Any, **options: Any) -> Any:
    from metta.adapters.pufferlib_env import PufferLibEnv

    return PufferLibEnv(*args, **options)


@pytest.fixture
def played() -> Played:
    return play(MIXED_TEAM, 4, 60)


def follow(env: Any, played: Played) -> None:
    observations, _ = env.reset(SEED)
    assert np.array_equal(observations, played.first)
    for numbers, step in zip(played.numbers, played.steps, strict=True):
        observations, rewards, terminals, truncations, infos = env.step(numbers.astype(np.int32))
        assert np.array_equal(observations, step.observations)
        assert np.array_equal(rewards, step.rewards)
        assert np.array_equal(terminals, step.terminals)
        assert np.array_equal(truncations, step.truncations)
        assert infos == [
            {"episode_return": outcome.score, "episode_length": outcome.length} for outcome in step.episodes
        ]
    env.close()


def test_native(vector: ModuleType, played: Played) -> None:
    follow(vector.make(make, env_kwargs={"env_config": MIXED_TEAM, "num_worlds": 4}), played)


def test_serial(vector: ModuleType, played: Played) -> None:
    options = {"env_config": MIXED_TEAM, "num_worlds": 4}
    env = vector.make(make, env_kwargs=options, backend=vector.Serial, num_envs=1)
    assert np.shares_memory(env.observations, env.envs[0].vec.observations)
    follow(env, played)


def test_serial_with_several(vector: ModuleType) -> None:
    """Each has its part of the buffers and of the actions, and the next seed."""
    options = {"env_config": MIXED_TEAM, "num_worlds": 2}
    env = vector.make(make, env_kwargs=options, backend=vector.Serial, num_envs=3)
    alone = [VecEnv(mixed(3), 2, seed=SEED + place) for place in range(3)]
    pairs = np.array(alone[0].spec.legal_actions)
    rng = np.random.default_rng(0)
    observations, _ = env.reset(seed=SEED)
    assert np.array_equal(observations, np.concatenate([vec.reset() for vec in alone]))
    ended = 0
    for _ in range(20):
        numbers = rng.integers(len(pairs), size=18).astype(np.int32)
        observations, rewards, terminals, truncations, infos = env.step(numbers)
        steps = [vec.step(pairs[numbers[6 * i : 6 * i + 6]]) for i, vec in enumerate(alone)]
        assert np.array_equal(observations, np.concatenate([step.observations for step in steps]))
        assert np.array_equal(rewards, np.concatenate([step.rewards for step in steps]))
        assert np.array_equal(terminals, np.concatenate([step.terminals for step in steps]))
        assert np.array_equal(truncations, np.concatenate([step.truncations for step in steps]))
        assert len(infos) == sum(len(step.episodes) for step in steps)
        ended += len(infos)
    assert ended > 6


MULTIPROCESSING = """
import sys
sys.path[:0] = sys.argv[1:]
from functools import partial
import numpy as np
import pufferlib.vector
from adapter_cases import SEED, mixed, MIXED_TEAM
from metta.adapters.pufferlib_env import PufferLibEnv
from metta.mettagrid.registry import register_curriculum
from metta.mettagrid.vec import StepBatch, VecEnv

register_curriculum(MIXED_TEAM, partial(mixed, 3))
env = pufferlib.vector.make(
    PufferLibEnv, env_kwargs={"env_config": MIXED_TEAM, "num_worlds": 2},
    backend=pufferlib.vector.Multiprocessing, num_envs=2, num_workers=2, overwork=True,
)
alone = [VecEnv(mixed(3), 2, seed=SEED + place) for place in range(2)]
pairs = np.array(alone[0].spec.legal_actions)
rng = np.random.default_rng(0)
observations, _ = env.reset(seed=SEED)
assert np.array_equal(observations, np.concatenate([vec.reset() for vec in alone]))
ended = 0
for _ in range(40):
    numbers = rng.integers(len(pairs), size=12)
    observations, rewards, terminals, truncations, infos = env.step(numbers)
    steps = [vec.step(pairs[numbers[6 * i : 6 * i + 6]]) for i, vec in enumerate(alone)]
    assert np.array_equal(observations, np.concatenate([step.observations for step in steps]))
    assert np.array_equal(rewards, np.concatenate([step.rewards for step in steps]))
    assert np.array_equal(terminals, np.concatenate([step.terminals for step in steps]))
    assert np.array_equal(truncations, np.concatenate([step.truncations for step in steps]))
    ended += len(infos)
env.close()
print("ended", ended)
"""


def test_multiprocessing(tmp_path: Path) -> None:
    """In a process of its own, since PufferLib forks the one that it is in."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "src")]
    done = subprocess.run(
        [sys.executable, "-c", MULTIPROCESSING, *paths],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split("ended")[1]) > 10


def _rewards_rotated(patch: pytest.MonkeyPatch) -> None:
    plain = VecEnv.step

    def step(self: VecEnv, *args: Any) -> StepBatch:
        batch = plain(self, *args)
        return dataclasses.replace(batch, rewards=np.roll(batch.rewards, 1))

    patch.setattr(VecEnv, "step", step)


def _other_agents(patch: pytest.MonkeyPatch) -> None:
    plain = LegalActions.pairs_of
    patch.setattr(LegalActions, "pairs_of", lambda self, *args: np.roll(plain(self, *args), 1, axis=0))


def _own_memory(patch: pytest.MonkeyPatch) -> None:
    """The engine does not write into PufferLib's buffer."""
    plain = VecEnv.__init__

    def init(self: VecEnv, *args: Any, observations: Any = None, **options: Any) -> None:
        plain(self, *args, **options)

    patch.setattr(VecEnv, "__init__", init)


@pytest.mark.parametrize("fault", [_rewards_rotated, _other_agents, _own_memory])
def test_faults_are_noticed(
    fault: Callable[[pytest.MonkeyPatch], None],
    vector: ModuleType,
    played: Played,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        test_serial(vector, played)


def test_what_is_no_action_is_refused() -> None:
    env = make(small_world(), 2)
    env.reset()
    with pytest.raises(ValueError, match="actions has a 4096"):
        env.step(np.full(6, 4096))
