"""The config of a whole run, and the parts of it that have a reader of their own."""

import gzip
import json

import pytest
import torch
from pydantic import ValidationError

from metta.agent.policy_store import PolicyStore
from metta.rl.initial_policy import load_initial_policy
from metta.rl.profiler import TorchProfiler
from metta.rl.trainer_config import (
    CheckpointConfig,
    ExperienceConfig,
    InitialPolicyConfig,
    KickstartConfig,
    OptimizerConfig,
    PPOConfig,
    PrioritizedExperienceReplayConfig,
    TorchProfilerConfig,
    TrainerConfig,
    VTraceConfig,
    due,
)


def test_the_documented_call() -> None:
    config = TrainerConfig(
        total_timesteps=10_000_000, batch_size=16384, ppo=PPOConfig(gamma=0.99, gae_lambda=0.95)
    )
    assert isinstance(config, ExperienceConfig)
    assert (config.total_timesteps, config.batch_size, config.minibatch_size) == (10_000_000, 16384, 16384)
    assert config.ppo == PPOConfig(gamma=0.99, gae_lambda=0.95)
    assert config.ppo.clip_coef == PPOConfig().clip_coef
    assert config.optimizer == OptimizerConfig()


def test_nested_mappings_are_accepted_and_survive_json() -> None:
    config = TrainerConfig(
        ppo={"gamma": 0.5},
        checkpoint={"checkpoint_dir": "here"},
        kickstart={
            "teacher_uri": "a.pt",
            "additional_teachers": [{"teacher_uri": "b.pt", "value_loss_coef": 0}],
        },
        vtrace=None,
    )
    assert config.ppo == PPOConfig(gamma=0.5)
    assert config.checkpoint == CheckpointConfig(checkpoint_dir="here")
    assert [(t.teacher_uri, t.action_loss_coef, t.value_loss_coef) for t in config.kickstart.teachers] == [
        ("a.pt", 1, 1),
        ("b.pt", 1, 0),
    ]
    assert TrainerConfig.model_validate_json(config.model_dump_json()) == config
    assert TrainerConfig(**config.model_dump()) == config


def test_the_settled_defaults() -> None:
    assert PrioritizedExperienceReplayConfig() == PrioritizedExperienceReplayConfig(
        prio_alpha=0.0, prio_beta0=0.6
    )
    assert VTraceConfig() == VTraceConfig(vtrace_rho_clip=1.0, vtrace_c_clip=1.0)
    kickstart = KickstartConfig()
    assert (kickstart.anneal_ratio, kickstart.kickstart_steps) == (0.65, 1_000_000_000)
    assert (kickstart.action_loss_coef, kickstart.value_loss_coef, kickstart.teachers) == (1, 1, [])


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"total_steps": 5}, "total_steps"),
        ({"total_timesteps": 0}, "total_timesteps"),
        ({"ppo": {"gama": 0.9}}, "gama"),
        ({"batch_size": 1000, "minibatch_size": 300}, "minibatch_size=300 does not divide batch_size=1000"),
        ({"vtrace": {"vtrace_rho_clip": 0}}, "vtrace_rho_clip"),
        ({"kickstart": {"anneal_ratio": 1.5}}, "anneal_ratio"),
        ({"initial_policy": {"type": "best"}}, "'latest' or 'top'"),
        ({"lr_schedule": "step"}, "lr_schedule"),
    ],
)
def test_mistakes_are_refused(fields, name) -> None:
    with pytest.raises(ValidationError, match=name):
        TrainerConfig(**fields)


def test_due() -> None:
    assert [epoch for epoch in range(10) if due(epoch, 4)] == [0, 4, 8]
    assert [epoch for epoch in range(5) if due(epoch, 1)] == [0, 1, 2, 3, 4]
    assert not any(due(epoch, 0) for epoch in range(5))
    with pytest.raises(ValueError, match="interval=-3"):
        due(1, -3)


def test_a_profile_of_every_nth_epoch(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "profiles"
    profiler = TorchProfiler(TorchProfilerConfig(interval_epochs=2, profile_dir=str(folder)), "cpu")
    for epoch in (1, 2, 3, 4):
        with profiler.epoch(epoch):
            torch.ones(8, 8) @ torch.ones(8, 8)
    assert sorted(file.name for file in folder.iterdir()) == ["trace_000002.json.gz", "trace_000004.json.gz"]
    trace = json.loads(gzip.decompress((folder / "trace_000002.json.gz").read_bytes()))
    assert "aten::mm" in {event.get("name") for event in trace["traceEvents"]}

    def fail() -> None:
        with profiler.epoch(6):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(list(folder.iterdir())) == 2

    monkeypatch.setattr("metta.rl.profiler.get_rank", lambda: 1)
    with profiler.epoch(4):
        torch.ones(2) + 1
    assert (folder / "trace_000004_rank_1.json.gz").is_file(), "no process takes the place of another's"


def test_no_profile_unless_asked_for(tmp_path) -> None:
    profiler = TorchProfiler(TorchProfilerConfig(profile_dir=str(tmp_path)), "cpu")
    with profiler.epoch(0):
        torch.ones(2) + 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_starts_from_the_policy_that_is_named(make_agent, tmp_path) -> None:
    store = PolicyStore(tmp_path)
    agents = [make_agent(seed) for seed in range(3)]
    for epoch, (agent, score, speed) in enumerate(zip(agents, (1.0, 5.0, 2.0), (9.0, 3.0, 4.0), strict=True)):
        store.save(agent, epoch, {"score": score, "speed": speed})
    spec = agents[0].spec

    def chosen(**fields) -> int:
        loaded = load_initial_policy(InitialPolicyConfig(**fields), "cpu", spec, store)
        assert loaded is not None
        assert all(p.requires_grad for p in loaded.parameters())
        assert loaded.training
        (number,) = [
            i
            for i, a in enumerate(agents)
            if torch.equal(a.value_head.layers[0].weight, loaded.value_head.layers[0].weight)
        ]
        return number

    assert chosen(uri=str(tmp_path)) == 2
    assert chosen(uri=str(tmp_path), type="top") == 1
    assert chosen(uri=str(tmp_path), type="top", metric="speed") == 0
    assert chosen(uri=str(tmp_path / "checkpoint_000001.pt")) == 1
    assert load_initial_policy(InitialPolicyConfig(), "cpu", spec) is None
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_initial_policy(InitialPolicyConfig(uri=str(tmp_path / "nowhere")), "cpu", spec)


def test_an_initial_policy_of_another_world_is_translated(make_agent, tmp_path) -> None:
    from dataclasses import replace

    agent = make_agent()
    PolicyStore(tmp_path).save(agent, 1)
    spec = replace(agent.spec, action_names=("right", "left"), max_action_args=(1, 0))
    loaded = load_initial_policy(InitialPolicyConfig(uri=str(tmp_path)), "cpu", spec)
    assert loaded is not None
    assert loaded.spec == spec
    assert loaded.trained_on == agent.spec
