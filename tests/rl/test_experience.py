"""The batch: its sizes, its memory, and what it refuses."""

import copy
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metta.rl.experience import Experience
from metta.rl.experience_checks import choose_storage_device
from metta.rl.rollout import rollout
from metta.rl.sampling import uniform_minibatches
from metta.rl.trainer_config import ExperienceConfig


def resident_bytes() -> int:
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        pytest.skip("no /proc on this system to ask for the memory in use")
    return int(statistics.read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(
    ("fields", "num_worlds", "agents"),
    [({}, 1, 64), ({"batch_size": 8192, "minibatch_size": 512, "bptt_horizon": 8}, 1, 4)],
    ids=["defaults", "typed document"],
)
def test_documented_sizes_construct_without_touching_their_memory(
    make_env, make_agent, fields, num_worlds, agents
) -> None:
    env, agent = make_env(num_worlds, agents), make_agent()
    before = resident_bytes()
    experience = Experience(env, agent, ExperienceConfig(**fields))
    after = resident_bytes()
    config = experience.config
    assert experience.observations.shape[:2] == (
        config.batch_size // config.bptt_horizon,
        config.bptt_horizon,
    )
    assert experience.remaining_steps == config.batch_size
    tokens = env.observations[0].nbytes
    per_step = tokens + 2 * 8 + 4 * 4 + 2  # observation, actions, four floats, two flags
    per_segment = 2 * agent.config.hidden_dim * 4 + 1  # memory, and whether an episode begins
    assert experience.num_bytes == config.batch_size * per_step + experience.num_segments * per_segment
    assert after - before < 3_000_000


def test_agents_that_do_not_share_the_segments_evenly_are_told_what_fits(make_env, make_agent) -> None:
    config = ExperienceConfig(batch_size=8192, minibatch_size=512, bptt_horizon=8)
    env = make_env(1, 24)
    with pytest.raises(
        ValueError, match=r"1024 segments, which the environment's 24 agents .* use batch_size=7680 "
    ):
        Experience(env, make_agent(), config)
    fits = ExperienceConfig(batch_size=7680, minibatch_size=512, bptt_horizon=8)
    assert Experience(env, make_agent(), fits).num_segments == 960


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"batch_size": 1000, "minibatch_size": 300},
            "minibatch_size=300 does not divide batch_size=1000: use batch",
        ),
        ({"batch_size": 1000, "minibatch_size": 500}, "bptt_horizon=64 does not divide minibatch_size=500"),
        ({"bptt_horizon": 0}, "bptt_horizon"),
        ({"horizon": 8}, "horizon"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields, message) -> None:
    with pytest.raises(ValidationError, match=message):
        ExperienceConfig(**fields)


def test_offload_needs_an_accelerator_and_keeps_the_batch_off_it(make_env, make_agent) -> None:
    offload = ExperienceConfig(cpu_offload=True)
    assert choose_storage_device(offload, torch.device("cuda")) == torch.device("cpu")
    assert choose_storage_device(ExperienceConfig(), torch.device("cuda")) == torch.device("cuda")
    with pytest.raises(ValueError, match=r"cpu_offload=True .* this agent is on the CPU"):
        Experience(make_env(1, 64), make_agent(), offload)


def test_every_segment_is_in_one_minibatch_and_the_seed_decides_which() -> None:
    def draw(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [part.tolist() for part in uniform_minibatches(10, 4, generator)]

    assert sorted(index for part in draw(0) for index in part) == list(range(10))
    assert [len(part) for part in draw(0)] == [4, 4, 2]
    assert draw(0) == draw(0) != draw(1)


def test_a_minibatch_is_its_segments(make_env, make_agent, make_experience) -> None:
    env, agent = make_env(), make_agent()
    experience = make_experience(env, agent)
    rollout(experience, agent)
    advantages = torch.randn(experience.num_segments, experience.horizon)
    indices = torch.tensor([5, 2, 40])
    minibatch = experience.minibatch(indices, advantages)
    for name in ("observations", "actions", "logprobs", "values", "dones"):
        assert torch.equal(getattr(minibatch, name), getattr(experience, name)[indices]), name
    assert torch.equal(minibatch.start_state.h, experience.start_h[:, indices])
    assert torch.equal(minibatch.start_state.c, experience.start_c[:, indices])
    assert torch.equal(minibatch.returns, advantages[indices] + experience.values[indices])


def test_a_state_of_other_sizes_is_refused_and_changes_nothing(make_env, make_agent, make_experience) -> None:
    env, agent = make_env(), make_agent()
    experience = make_experience(env, agent)
    rollout(experience, agent)
    other = make_experience(make_env(), make_agent(hidden_dim=8))
    before = other.env.observations.copy()
    with pytest.raises(ValueError, match=r"recurrent state \[1, 8, 16\] .* this one \[1, 8, 8\]"):
        other.load_state_dict(experience.state_dict())
    np.testing.assert_array_equal(other.env.observations, before)
    assert other.position == 0


def spoil_rewards(state) -> None:
    state["segments"]["rewards"] = state["segments"]["rewards"][:5]


def spoil_generator(state) -> None:
    state["action_generator"] = state["action_generator"][:16]


def spoil_environment(state) -> None:
    # Found out only when the environment has taken over the rest.
    state["env"]["starts"] = state["env"]["starts"][:3]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_rewards, r"damaged: its rewards is \[5, 8\] where the rest of it makes \[64, 8\]"),
        (spoil_generator, "another kind of device than this agent's cpu"),
        (spoil_environment, "could not broadcast"),
    ],
)
def test_a_state_that_fits_in_part_is_refused_as_a_whole(
    make_env, make_agent, make_experience, spoil, message
) -> None:
    agent = make_agent()
    saved, other = (make_experience(make_env(seed=seed), agent, seed) for seed in (0, 1))
    for experience in (saved, other):
        rollout(experience, agent)
    state = copy.deepcopy(saved.state_dict())
    spoil(state)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(state)
    after = other.state_dict()
    for name in ("observations", "starts", "clock", "returns"):
        np.testing.assert_array_equal(after["env"][name], before["env"][name], err_msg=name)
    for name, stored in before["segments"].items():
        assert torch.equal(after["segments"][name], stored), name
    for name in ("state_h", "next_values", "action_generator", "shuffle_generator"):
        assert torch.equal(after[name], before[name]), name
    assert after["env"]["rngs"] == before["env"]["rngs"]


def test_a_batch_that_does_not_fit_names_the_batch_size(make_env, make_agent, make_experience) -> None:
    agent = make_agent()
    saved = make_experience(make_env(), agent)
    small = make_experience(make_env(seed=1), agent, batch_size=256)
    rollout(saved, agent)
    before = small.env.observations.copy()
    with pytest.raises(
        ValueError, match=r"64 segments, but batch_size=256 with bptt_horizon=8 makes only 32"
    ):
        small.load_state_dict(saved.state_dict())
    np.testing.assert_array_equal(small.env.observations, before)
    assert small.position == 0
    # Nothing of a batch that was trained on is kept, so there is nothing that would not fit.
    saved.mark_used()
    small.load_state_dict(saved.state_dict())
    np.testing.assert_array_equal(small.env.observations, saved.env.observations)
    rollout(small, agent)
    assert small.ready_for_training
