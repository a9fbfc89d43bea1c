"""Collecting: what is stored, in which order, and where one episode stops and the next begins."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch

from metta.agent.metta_agent import MettaAgent
from metta.rl.rollout import rollout


def replay(env, agent, actions, num_steps):
    """Act again by hand, row by row and tick by tick: what every stored tensor should hold, `[steps, rows]`."""
    state = agent.initial_state(env.num_agents)
    record = {
        name: [] for name in ("values", "rewards", "terminals", "truncations", "truncation_values", "h")
    }
    for step in range(num_steps):
        state = state.zeroed(torch.from_numpy(env.starts))
        record["h"].append(state.h[0].clone())
        out = agent.act(torch.from_numpy(env.observations), state, deterministic=True)
        record["values"].append(out.values)
        batch = env.step(actions[step].numpy())
        state = out.state
        values = torch.zeros(env.num_agents)
        for row, seen in zip(batch.final_rows, batch.final_observations, strict=True):
            if batch.truncations[row]:
                two = torch.from_numpy(np.stack([seen, seen]))
                values[row] = agent.value(two, state.index(torch.tensor([row, row])))[0]
        record["rewards"].append(torch.from_numpy(batch.rewards))
        record["terminals"].append(torch.from_numpy(batch.terminals))
        record["truncations"].append(torch.from_numpy(batch.truncations))
        record["truncation_values"].append(values)
    return {name: torch.stack(parts) for name, parts in record.items()}, state


def by_step(experience, name):
    """`[S, T, ...]` as `[steps, rows, ...]`."""
    stored = getattr(experience, name)
    rows, horizon = experience.num_rows, experience.horizon
    chunks = stored.reshape(-1, rows, horizon, *stored.shape[2:])
    return chunks.transpose(1, 2).reshape(-1, rows, *stored.shape[2:])


@pytest.mark.parametrize("async_factor", [1, 2, 3, 9])
@pytest.mark.parametrize("target_size", [4096, 3])
def test_stores_what_acting_by_hand_gives(
    make_env, make_agent, make_experience, async_factor, target_size
) -> None:
    agent = make_agent()
    experience = make_experience(
        make_env(), agent, async_factor=async_factor, forward_pass_minibatch_target_size=target_size
    )
    info = rollout(experience, agent)
    expected, state = replay(make_env(), agent, by_step(experience, "actions"), 64)
    for name in ("rewards", "terminals", "truncations"):
        assert torch.equal(by_step(experience, name), expected[name]), name
    for name in ("values", "truncation_values"):
        torch.testing.assert_close(by_step(experience, name), expected[name], msg=name)
    starts = experience.start_h[0].reshape(8, 8, -1)
    torch.testing.assert_close(starts, expected["h"][::8])
    assert bool((starts == 0).all(-1).any()), "no episode begins at a segment's start"
    assert not bool((starts == 0).all(-1).all())
    # The last step is followed by the value of what comes next, given the memory so far.
    going_on = ~(expected["terminals"][-1] | expected["truncations"][-1])
    following = agent.value(torch.from_numpy(experience.env.observations), state)
    torch.testing.assert_close(experience.bootstrap_values()[going_on], following[going_on])

    ends = (expected["terminals"] | expected["truncations"])[:, ::2].sum()
    assert info.total_env_steps == 64 * 8
    assert len(info.episode_returns) == len(info.episode_lengths) == len(info.episodes) == int(ends)


def test_returns_are_means_over_the_agents_of_summed_rewards(make_env, make_agent, make_experience) -> None:
    env, agent = make_env(1, 2), make_agent()
    experience = make_experience(env, agent, async_factor=1)
    info = rollout(experience, agent)
    rewards, ended = by_step(experience, "rewards").mean(1), by_step(experience, "dones")[:, 0]
    bounds = [0, *(torch.nonzero(ended).flatten() + 1).tolist()]
    sums = [float(rewards[a:b].sum()) for a, b in pairwise(bounds)]
    assert info.episode_returns == pytest.approx(sums, abs=1e-5)
    assert info.episode_lengths == [b - a for a, b in pairwise(bounds)]


def test_observations_are_those_before_the_action(make_env, make_agent, make_experience) -> None:
    agent = make_agent()
    experience = make_experience(make_env(), agent)
    rollout(experience, agent)
    env, actions = make_env(), by_step(experience, "actions").numpy()
    for step, seen in enumerate(by_step(experience, "observations").numpy()):
        np.testing.assert_array_equal(seen, env.observations)
        env.step(actions[step])


def test_calls_of_any_length_make_the_same_batch_as_one(make_env, make_agent, make_experience) -> None:
    agent = make_agent()
    whole, parts = make_experience(make_env(), agent), make_experience(make_env(), agent)
    rollout(whole, agent)
    assert [rollout(parts, agent, n).total_env_steps for n in (1, 8, 50, 200)] == [8, 8, 56, 200]
    assert not parts.ready_for_training
    assert rollout(parts, agent).total_env_steps == 512 - 272
    assert parts.ready_for_training
    for name in ("observations", "actions", "logprobs", "values", "rewards", "truncation_values", "dones"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name
    assert torch.equal(whole.start_h, parts.start_h)


def test_a_used_batch_gives_way_but_a_begun_segment_stays(make_env, make_agent, make_experience) -> None:
    agent = make_agent()
    experience = make_experience(make_env(), agent)
    rollout(experience, agent, 20 * 8)
    begun = by_step(experience, "actions")[16:20].clone()
    memory = experience.start_h[:, 16:24].clone()
    assert experience.num_filled == 16
    experience.mark_used()
    assert rollout(experience, agent).total_env_steps == (64 - 4) * 8
    assert torch.equal(by_step(experience, "actions")[:4], begun)
    assert torch.equal(experience.start_h[:, :8], memory)
    assert experience.num_filled == 64


@pytest.mark.parametrize("num_steps", [0, -8, 513])
def test_refuses_a_number_of_steps_that_does_not_fit(
    make_env, make_agent, make_experience, num_steps
) -> None:
    agent = make_agent()
    with pytest.raises(ValueError, match=f"num_steps={num_steps} but the batch takes 1 to 512 more"):
        rollout(make_experience(make_env(), agent), agent, num_steps)


def _reset(env) -> None:
    env.reset()


def _step(env) -> None:
    env.step(np.zeros((env.num_agents, 2), dtype=np.int64))


@pytest.mark.parametrize("disturb", [_reset, _step], ids=["reset", "steps by someone else"])
@pytest.mark.parametrize("steps", [12, 16], ids=["inside a segment", "between segments"])
def test_whoever_touches_the_environment_ends_the_episodes(
    make_env, make_agent, make_experience, disturb, steps
) -> None:
    agent = make_agent()
    env = make_env(lengths=(1000, 1000))
    experience = make_experience(env, agent)
    rollout(experience, agent, steps * 8)
    following = agent.value(torch.from_numpy(env.observations), experience._state)
    assert not bool(experience.dones[:8].any())
    disturb(env)
    seen = env.observations.copy()
    rollout(experience, agent)
    dones = by_step(experience, "dones")
    assert torch.equal(torch.nonzero(dones.any(1)).flatten(), torch.tensor([steps - 1]))
    assert bool(dones[steps - 1].all())
    assert bool(by_step(experience, "truncations")[steps - 1].all())
    assert torch.equal(by_step(experience, "truncation_values")[steps - 1], following)
    fresh = agent.value(torch.from_numpy(seen), agent.initial_state(8))
    torch.testing.assert_close(by_step(experience, "values")[steps], fresh)


def test_an_undisturbed_episode_runs_on_between_calls(make_env, make_agent, make_experience) -> None:
    agent = make_agent()
    experience = make_experience(make_env(lengths=(1000, 1000)), agent)
    for steps in (12, 4, 48):
        rollout(experience, agent, steps * 8)
    assert not bool(experience.dones.any())


def test_agents_whose_world_ends_without_a_flag_of_their_own_are_cut_off(
    make_env, make_agent, make_experience, monkeypatch
) -> None:
    agent, env = make_agent(), make_env(ends=("terminal",))
    experience = make_experience(env, agent, async_factor=1)
    plain = env.step

    def first_agent_only(actions, worlds=None):
        batch = plain(actions, worlds)
        batch.terminals[1::2] = False
        batch.final_terminals[batch.final_rows % 2 == 1] = False
        return batch

    monkeypatch.setattr(env, "step", first_agent_only)
    rollout(experience, agent)
    terminals, truncations = by_step(experience, "terminals"), by_step(experience, "truncations")
    assert bool(terminals[:, ::2].any())
    assert torch.equal(truncations[:, 1::2], terminals[:, ::2])
    assert not bool(truncations[:, ::2].any())
    assert bool((by_step(experience, "truncation_values")[truncations] != 0).all())


def _spy(agent: MettaAgent, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    plain = agent.act

    def act(observations, *args, **kwargs):
        seen.append(observations)
        return plain(observations, *args, **kwargs)

    monkeypatch.setattr(agent, "act", act)
    return seen


class TestSizesAndManner:
    """Exactly what each field of `ExperienceConfig` does; that all of them matter is shown in tests/options."""

    def test_field_batch_size(self, make_env, make_agent, make_experience) -> None:
        agent = make_agent()
        experience = make_experience(make_env(), agent, batch_size=1024)
        assert rollout(experience, agent).total_env_steps == 1024

    def test_field_minibatch_size(self, make_env, make_agent, make_experience) -> None:
        self._count_updates(make_env, make_agent, make_experience, {"minibatch_size": 64}, 8)

    def test_field_update_epochs(self, make_env, make_agent, make_experience) -> None:
        self._count_updates(make_env, make_agent, make_experience, {"update_epochs": 3}, 3 * 4)

    def _count_updates(self, make_env, make_agent, make_experience, fields, expected) -> None:
        from metta.rl.update import train_ppo

        agent = make_agent()
        experience = make_experience(make_env(), agent, **fields)
        rollout(experience, agent)
        optimizer = torch.optim.SGD(agent.parameters(), lr=1e-3)
        assert train_ppo(agent, optimizer, experience)["updates"] == expected

    def test_field_bptt_horizon(self, make_env, make_agent, make_experience) -> None:
        experience = make_experience(make_env(), make_agent(), bptt_horizon=16)
        assert experience.observations.shape[:2] == (32, 16)

    @pytest.mark.parametrize("zero_copy", [True, False])
    def test_field_zero_copy(self, make_env, make_agent, make_experience, monkeypatch, zero_copy) -> None:
        env, agent = make_env(), make_agent()
        experience = make_experience(env, agent, zero_copy=zero_copy, async_factor=1)
        seen = _spy(agent, monkeypatch)
        rollout(experience, agent)
        own = {tensor.data_ptr() == env.observations.ctypes.data for tensor in seen}
        assert own == {zero_copy}

    def test_field_cpu_offload(self, make_env, make_agent, make_experience) -> None:
        with pytest.raises(ValueError, match="cpu_offload"):
            make_experience(make_env(), make_agent(), cpu_offload=True)

    @pytest.mark.parametrize(
        ("factor", "groups", "thread"),
        [
            (1, [slice(0, 4)], None),
            (2, [slice(0, 2), slice(2, 4)], "metta-env"),
            (9, [slice(i, i + 1) for i in range(4)], "metta-env"),
        ],
    )
    def test_field_async_factor(self, make_env, make_agent, make_experience, factor, groups, thread) -> None:
        env, agent = make_env(), make_agent()
        rollout(make_experience(env, agent, async_factor=factor), agent)
        assert [worlds for worlds, _ in env.calls] == groups * 64
        if thread is None:
            assert {name for _, name in env.calls} == {threading.current_thread().name}
        else:
            assert all(name.startswith(thread) for _, name in env.calls)

    @pytest.mark.parametrize(("size", "parts"), [(4096, [8]), (8, [8]), (5, [4, 4]), (3, [2, 3, 3])])
    def test_field_forward_pass_minibatch_target_size(
        self, make_env, make_agent, make_experience, monkeypatch, size, parts
    ) -> None:
        env, agent = make_env(), make_agent()
        experience = make_experience(env, agent, forward_pass_minibatch_target_size=size, async_factor=1)
        seen = _spy(agent, monkeypatch)
        rollout(experience, agent)
        assert [len(tensor) for tensor in seen] == parts * 64


def test_acting_really_overlaps_with_stepping(make_env, make_agent, make_experience, monkeypatch) -> None:
    """A step that waits until the agent has acted for the other group ends only if both run side by side."""
    env, agent = make_env(), make_agent()
    experience = make_experience(env, agent, async_factor=2)
    acted = threading.Semaphore(0)
    plain_act, plain_step = agent.act, env.step

    def act(*args, **kwargs):
        out = plain_act(*args, **kwargs)
        acted.release()
        return out

    def step(actions, worlds=None):
        if worlds.start == 0:
            assert acted.acquire(timeout=20)  # its own group's
            assert acted.acquire(timeout=20), "the agent waits for the environment"  # the other group's
        return plain_step(actions, worlds)

    monkeypatch.setattr(agent, "act", act)
    monkeypatch.setattr(env, "step", step)
    assert rollout(experience, agent).total_env_steps == 512


def test_an_error_in_the_environment_reaches_the_caller(
    make_env, make_agent, make_experience, monkeypatch
) -> None:
    env, agent = make_env(), make_agent()
    experience = make_experience(env, agent)

    def step(actions, worlds=None):
        raise RuntimeError("the world broke")

    monkeypatch.setattr(env, "step", step)
    with pytest.raises(RuntimeError, match="the world broke"):
        rollout(experience, agent)
    assert experience.position == 0


def test_one_seed_one_batch(make_env, make_agent, make_experience) -> None:
    agent = make_agent()

    def actions(seed: int) -> torch.Tensor:
        experience = make_experience(make_env(), agent, seed)
        rollout(experience, agent)
        return experience.actions

    assert torch.equal(actions(0), actions(0))
    assert not torch.equal(actions(0), actions(1))
