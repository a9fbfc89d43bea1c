"""TorchRL: its own check is content, and every number is that of `VecEnv`, over ends of episodes too."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from adapter_cases import MIXED_ALONE, MIXED_TEAM, SEED, Played, play, small_world
from metta.adapters.actions import LegalActions
from metta.mettagrid.vec import StepBatch, VecEnv

pytestmark = pytest.mark.peers

B, A = 4, 3


def make(*args: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what importing the library says is its own affair
        from metta.adapters.torchrl_env import TorchRLEnv

    return TorchRLEnv(*args, **options)


@pytest.mark.parametrize("world", [MIXED_TEAM, MIXED_ALONE, small_world(max_steps=1)])
@pytest.mark.parametrize("num_worlds", [1, 4])
def test_torchrl_s_own_check_is_content(world: Any, num_worlds: int) -> None:
    env = make(world, num_worlds)
    from torchrl.envs import check_env_specs

    check_env_specs(env, break_when_any_done="both", seed=0)
    check_env_specs(env)


def numbered(played: Played) -> Callable[[Any], Any]:
    """A policy that plays these actions."""
    left = iter(played.numbers)

    def policy(tensordict: Any) -> Any:
        tensordict["agents", "action"] = torch.tensor(next(left)).reshape(tensordict["agents"].batch_size)
        return tensordict

    return policy


def rows(tensor: torch.Tensor) -> np.ndarray:
    """[B, T, A, ...] or [B, T] as a list over time of what `VecEnv` has per agent."""
    array = np.moveaxis(tensor.numpy(), 1, 0)
    return array.reshape(array.shape[0], B * A, *array.shape[3:])


def follow(played: Played, **options: Any) -> None:
    """A rollout of the same actions, compared with everything."""
    env = make(MIXED_TEAM, B, seed=SEED, **options)
    out = env.rollout(len(played.steps), numbered(played), break_when_any_done=False)
    assert tuple(out.batch_size) == (B, len(played.steps))
    seen, following = rows(out["agents", "observation"]), rows(out["next", "agents", "observation"])
    rewards = rows(out["next", "agents", "reward"])[..., 0]
    flags = {
        name: np.repeat(out["next", name][..., 0].numpy().T, A, axis=1)
        for name in ("done", "terminated", "truncated")
    }
    starts = ~np.vstack([np.zeros((1, B * A), bool), flags["done"][:-1]])
    shown = played.first
    for t, step in enumerate(played.steps):
        last = step.observations.copy()
        last[step.final_rows] = step.final_observations
        assert np.array_equal(seen[t], shown)
        assert np.array_equal(following[t], last)
        assert np.array_equal(rewards[t], step.rewards)
        assert np.array_equal(flags["terminated"][t], step.terminals)
        assert np.array_equal(flags["truncated"][t], step.truncations)
        assert np.array_equal(flags["done"][t], step.terminals | step.truncations)
        shown = step.observations
    assert starts.any()
    assert not out["done"].any()
    env.close()


@pytest.fixture
def played() -> Played:
    played = play(MIXED_TEAM, B, 40)
    assert {bool(step.truncations.any()) for step in played.steps if step.final_rows.size} == {True, False}
    return played


def test_a_rollout_shows_what_vec_env_shows(played: Played) -> None:
    follow(played)


def test_worker_processes_give_the_same(played: Played) -> None:
    follow(played, num_workers=2)


def _flags_swapped(batch: StepBatch) -> StepBatch:
    return dataclasses.replace(batch, terminals=batch.truncations, truncations=batch.terminals)


def _stale_final(batch: StepBatch) -> StepBatch:
    first = batch.observations[batch.final_rows]
    return dataclasses.replace(batch, final_observations=first)


def _rewards_rotated(batch: StepBatch) -> StepBatch:
    return dataclasses.replace(batch, rewards=np.roll(batch.rewards, 1))


@pytest.mark.parametrize("fault", [_flags_swapped, _stale_final, _rewards_rotated])
def test_a_broken_step_is_noticed(
    fault: Callable[[StepBatch], StepBatch], played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = VecEnv.step
    monkeypatch.setattr(VecEnv, "step", lambda self, *args: fault(plain(self, *args)))
    with pytest.raises(AssertionError):
        follow(played)


def test_actions_of_other_agents_are_noticed(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = LegalActions.pairs_of
    monkeypatch.setattr(LegalActions, "pairs_of", lambda self, *args: np.roll(plain(self, *args), 1, axis=0))
    with pytest.raises(AssertionError):
        follow(played)


def test_an_episode_more_than_needed_is_noticed(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset that begins an episode anew where the batch has begun it already."""
    plain = VecEnv.restart
    monkeypatch.setattr(VecEnv, "restart", lambda self, worlds: plain(self, range(self.num_worlds)))
    with pytest.raises(AssertionError):
        follow(played)


def test_a_rollout_that_stops_leaves_the_other_worlds_a_new_episode() -> None:
    env, fresh = make(small_world(max_steps=0, lifetime=6), 2, seed=0), VecEnv(small_world(), 2)
    assert env.rollout(10).shape == (2, 6)
    env.rollout(3)
    fresh.reset()
    for _ in range(2):
        fresh.reset()
    assert np.array_equal(env.reset()["agents", "observation"].reshape(6, -1, 3), fresh.observations)


def test_worlds_are_cut_off_by_a_transform_of_torchrl() -> None:
    """It resets worlds in the middle of an episode, each by itself."""
    env = make(small_world(max_steps=50), 3, seed=0)
    from torchrl.envs import StepCounter, TransformedEnv

    counted = TransformedEnv(env, StepCounter(max_steps=5))
    out = counted.rollout(17, break_when_any_done=False)
    assert out["next", "truncated"][:, 4::5].all()
    assert out["next", "truncated"].sum() == 3 * 3
    fresh = VecEnv(small_world(max_steps=50), 3)
    for episode in range(4):
        first = out["agents", "observation"][:, 5 * episode].reshape(9, -1, 3)
        assert np.array_equal(first, fresh.reset()), episode


def test_some_worlds_can_wait_for_the_others() -> None:
    """`break_when_all_done` steps the worlds that are not done yet, and leaves the rest as they were."""
    env = make(MIXED_TEAM, B, seed=SEED)
    torch.manual_seed(0)
    out = env.rollout(20, break_when_all_done=True, break_when_any_done=False)
    lengths = out["next", "done"][..., 0].to(torch.int8).argmax(1) + 1
    assert len(set(lengths.tolist())) > 1
    assert out.shape[1] == lengths.max()
    reference = VecEnv(make_tasks(), B, seed=SEED)
    reference.reset()
    actions = np.array(reference.spec.legal_actions)[out["agents", "action"].numpy()]
    for world in range(B):
        for t in range(int(lengths[world])):
            batch = reference.step(actions[world, t], slice(world, world + 1))
            last = batch.final_observations if batch.final_rows.size else batch.observations
            assert np.array_equal(out["next", "agents", "observation"][world, t], last)
            assert np.array_equal(out["next", "agents", "reward"][world, t, :, 0], batch.rewards)
        assert batch.final_rows.size


def make_tasks() -> Any:
    from metta.mettagrid.tasks import find_tasks

    return find_tasks(MIXED_TEAM)


def test_an_action_alone_is_enough_for_a_step() -> None:
    env, same = make(small_world(), 2, seed=0), make(small_world(), 2, seed=0)
    env.reset()
    whole = same.rand_step(same.reset())
    bare = env.step(whole.select(("agents", "action")))
    assert torch.equal(bare["next", "agents", "observation"], whole["next", "agents", "observation"])


def test_seeds_decide() -> None:
    env, other = make(MIXED_TEAM, B, seed=SEED), make(MIXED_TEAM, B, seed=1)
    first = env.reset()["agents", "observation"]
    assert not torch.equal(first, other.reset()["agents", "observation"])
    assert not torch.equal(make(MIXED_TEAM, B).reset()["agents", "observation"], first)
    other.set_seed(SEED)
    assert torch.equal(first, other.reset()["agents", "observation"])


def test_memories_are_told_where_episodes_begin() -> None:
    """`InitTracker` is what recurrent policies of TorchRL clear their memory by."""
    env = make(MIXED_TEAM, B, seed=SEED)
    from torchrl.envs import InitTracker, TransformedEnv

    out = TransformedEnv(env, InitTracker()).rollout(30, break_when_any_done=False)
    begins, ends = out["is_init"][..., 0], out["next", "done"][..., 0]
    assert begins[:, 0].all()
    assert torch.equal(begins[:, 1:], ends[:, :-1])
    assert ends.sum() > B


def test_torchrl_s_own_batches_of_environments() -> None:
    env = make(MIXED_TEAM, 2)
    from torchrl.envs import SerialEnv, check_env_specs

    several = SerialEnv(3, lambda: type(env)(MIXED_TEAM, 2))
    check_env_specs(several)
    out = several.rollout(12, break_when_any_done=False)
    assert out.shape == (3, 2, 12)
    first = out["agents", "observation"][:, 0, 0]
    assert not torch.equal(first[0], first[1])
    several.close()


def test_stepping_on_after_the_end_is_refused() -> None:
    env = make(small_world(max_steps=1), 2)
    tensordict = env.rand_step(env.reset())
    with pytest.raises(RuntimeError, match=r"worlds \[0, 1\] are over"):
        env.rand_step(tensordict["next"])


def test_every_number_is_a_legal_action() -> None:
    env = make(small_world(), 2)
    legal = list(env.vec.spec.legal_actions)
    assert [tuple(pair) for pair in env.action_pairs.tolist()] == legal
    assert env.full_action_spec["agents", "action"].space.n == len(legal)
    assert set(env.full_action_spec.rand((500,))["agents", "action"].unique().tolist()) == set(
        range(len(legal))
    )


def test_what_is_handed_out_stays_as_it_was() -> None:
    env = make(small_world(), 2)
    first = env.reset()
    before = first["agents", "observation"].clone()
    step = env.rand_step(first.clone())
    after = step["next", "agents", "observation"].clone()
    env.rand_step(step["next"].exclude("agents", "reward").update(first))
    assert torch.equal(first["agents", "observation"], before)
    assert torch.equal(step["next", "agents", "observation"], after)
