"""One step at a time collects what `rollout` collects."""

from collections import defaultdict

import numpy as np
import pytest
import torch

from metta.common.stopwatch import NullStopwatch, Stopwatch
from metta.mettagrid.vec import EpisodeOutcome
from metta.rl.advantage import compute_advantages
from metta.rl.rollout import episode_info, perform_rollout_step, rollout
from metta.rl.types import BatchInfo
from metta.stats import accumulate_rollout_stats


def assert_same(a, b) -> None:
    assert a.position == b.position
    count = a.num_filled
    for name, stored in a.stored(0, count).items():
        assert torch.equal(stored, b.stored(0, count)[name]), name
    assert torch.equal(a.bootstrap_values(), b.bootstrap_values())
    assert torch.equal(a.action_generator.get_state(), b.action_generator.get_state())


def steps(agent, experience, count, timer=None, stats=None):
    for _ in range(count):
        num_steps, info = perform_rollout_step(agent, experience.env, experience, "cpu", timer)
        assert num_steps == experience.num_rows
        if stats is not None:
            accumulate_rollout_stats(info, stats)


@pytest.fixture
def twins(make_env, make_agent, make_experience):
    agent = make_agent()
    fields = {"async_factor": 1, "forward_pass_minibatch_target_size": 5}
    return agent, make_experience(make_env(), agent, **fields), make_experience(make_env(), agent, **fields)


@pytest.mark.parametrize("batches", [1, 2])
def test_many_steps_are_one_rollout_bit_for_bit(twins, batches) -> None:
    agent, whole, stepped = twins
    for _ in range(batches):
        rollout(whole, agent)
        steps(agent, stepped, 64)
        assert_same(whole, stepped)
        assert torch.equal(compute_advantages(whole), compute_advantages(stepped))
        for experience in (whole, stepped):
            assert experience.ready_for_training
            experience.mark_used()


@pytest.mark.parametrize("plan", [(5, 59), (8, 56), (-5, 59), (3, -20, 41), (-16, 1, -47)], ids=str)
def test_steps_and_rollouts_take_turns(twins, plan) -> None:
    """Negative: so many steps by `rollout`."""
    agent, whole, mixed = twins
    rollout(whole, agent)
    for count in plan:
        if count < 0:
            rollout(mixed, agent, -count * mixed.num_rows)
        else:
            steps(agent, mixed, count)
    assert_same(whole, mixed)


def test_what_was_trained_on_gives_way_in_the_documented_loop(twins) -> None:
    agent, _, experience = twins
    seen = []
    for _ in range(3):
        count = 0
        while not experience.ready_for_training:
            steps(agent, experience, 1)
            count += 1
        assert count == 64
        seen.append(experience.observations.clone())
        experience.mark_used()
    assert not torch.equal(seen[0], seen[1])
    assert experience.first_chunk == 16


@pytest.mark.parametrize("touched", [5, 8])
def test_a_touched_environment_ends_the_episodes(twins, touched) -> None:
    agent, whole, stepped = twins
    rollout(whole, agent, touched * 8)
    steps(agent, stepped, touched)
    for experience in (whole, stepped):
        experience.env.reset()
    rollout(whole, agent)
    steps(agent, stepped, 64 - touched)
    assert_same(whole, stepped)
    assert bool(stepped.dones[:8, (touched - 1) % 8].all())


def test_starts_say_where_an_episode_begins_with_the_segment(twins) -> None:
    agent, experience, _ = twins
    rollout(experience, agent)
    chunks = experience.starts.reshape(8, 8)
    ended = experience.dones[:, -1].reshape(8, 8)
    assert bool(chunks[0].all())
    assert torch.equal(chunks[1:], ended[:-1])
    assert torch.equal(chunks, (experience.start_h[0] == 0).all(-1).reshape(8, 8))
    experience.mark_used()
    before = experience.dones[-8:, -1].clone()
    rollout(experience, agent)
    assert torch.equal(experience.starts[:8], before)
    experience.mark_used()
    experience.env.reset()
    rollout(experience, agent)
    assert bool(experience.starts[:8].all())


def test_the_episodes_are_those_of_a_rollout(twins) -> None:
    agent, whole, stepped = twins
    info: BatchInfo = rollout(whole, agent)
    stats: dict[str, list[float]] = defaultdict(list)
    steps(agent, stepped, 64, stats=stats)
    assert stats["episode/score"] == info.episode_returns
    assert stats["episode/length"] == info.episode_lengths
    assert stats["episode/truncated"] == [float(episode.truncated) for episode in info.episodes]
    assert stats["task/scripted"] == info.episode_returns
    again: dict[str, list[float]] = {}
    accumulate_rollout_stats(episode_info(info.episodes), again)
    assert stats == again


def test_statistics_are_averaged_over_the_agents() -> None:
    stats = {"game": {"objects.wall": 3.0}, "agent": [{"heart.get": 2.0}, {"heart.get": 4.0, "move": 1.0}]}
    returns = np.array([1, 2], dtype=np.float32)
    one = EpisodeOutcome(0, "a", 10, returns, truncated=False, stats=stats)
    other = EpisodeOutcome(1, "b", 20, returns * 2, truncated=True, stats={})
    assert episode_info([one, other]) == {
        "episode": {"score": [1.5, 3.0], "length": [10, 20], "truncated": [0, 1]},
        "task": {"a": [1.5], "b": [3.0]},
        "game": {"objects.wall": [3.0]},
        "agent": {"heart.get": [3.0], "move": [0.5]},
    }
    assert episode_info([]) == {}


def test_the_clocks_run_while_the_one_and_the_other_is_at_work(twins, monkeypatch) -> None:
    agent, experience, _ = twins
    timer = Stopwatch()
    running: dict[str, set[str]] = {"act": set(), "step": set()}

    def watch(owner, name) -> None:
        plain = getattr(owner, name)

        def watched(*args, **kwargs):
            running[name] |= set(timer._since)
            return plain(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(agent, "act")
    watch(experience.env, "step")
    steps(agent, experience, 1, timer)
    assert running == {"act": {"inference"}, "step": {"env"}}
    assert min(timer.get_elapsed("env"), timer.get_elapsed("inference")) > 0
    steps(agent, experience, 1, NullStopwatch())


def test_another_environment_or_device_is_refused(twins, make_env) -> None:
    agent, experience, _ = twins
    with pytest.raises(ValueError, match="not the environment that the experience was made with"):
        perform_rollout_step(agent, make_env(), experience, "cpu", None)
    with pytest.raises(ValueError, match="device is cuda but the agent lies on cpu"):
        perform_rollout_step(agent, experience.env, experience, "cuda", None)
    assert experience.position == 0
