"""Combinations that cannot hold are refused where they are written down, in one sentence that names value and remedy."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from metta.agent.config import AgentModelConfig
from metta.mettagrid.config import ActionConfig, GameConfig, MapBuilderConfig, ObjectConfig
from metta.rl.trainer_config import (
    ExperienceConfig,
    InitialPolicyConfig,
    KickstartConfig,
    KickstartTeacherConfig,
    PPOConfig,
    PrioritizedExperienceReplayConfig,
    ScheduleConfig,
    TrainerConfig,
)
from option_schema import Kind

NO_HEARTS = ["ore_red", "battery_red", "armor", "laser"]

# A class, fields that do not hold together, how the sentence begins, and which field, if it is left out, makes them hold.
COMBINATIONS: list[tuple[Kind, dict[str, Any], str, str]] = [
    (ExperienceConfig, {"batch_size": 100, "minibatch_size": 64}, "minibatch_size=64 does not divide", ""),
    (
        ExperienceConfig,
        {"minibatch_size": 64, "batch_size": 128, "bptt_horizon": 48},
        "bptt_horizon=48 does not divide",
        "bptt_horizon",
    ),
    (
        PPOConfig,
        {"clip_vloss": False, "vf_clip_coef": 0.2},
        "clip_vloss is False, so vf_clip_coef=0.2",
        "vf_clip_coef",
    ),
    (
        PPOConfig,
        {"clip_vloss": False, "vf_clip_coef": 0.2},
        "clip_vloss is False, so vf_clip_coef=0.2",
        "clip_vloss",
    ),
    (
        PrioritizedExperienceReplayConfig,
        {"prio_alpha": 0, "prio_beta0": 0.4},
        "prio_alpha is 0, so prio_beta0=0.4",
        "prio_beta0",
    ),
    (
        KickstartConfig,
        {"value_loss_coef": 0.5},
        "teacher_uri is None, so value_loss_coef=0.5",
        "value_loss_coef",
    ),
    (
        KickstartConfig,
        {"kickstart_steps": 500},
        "there is no teacher, so kickstart_steps=500",
        "kickstart_steps",
    ),
    (KickstartConfig, {"anneal_ratio": 0.5}, "there is no teacher, so anneal_ratio=0.5", "anneal_ratio"),
    (InitialPolicyConfig, {"type": "top"}, "uri is None, so type='top'", "type"),
    (InitialPolicyConfig, {"uri": "a", "metric": "speed"}, "type is 'latest', so metric='speed'", "metric"),
    (
        ScheduleConfig,
        {"end": 1, "start_at": 0.5, "end_at": 0.5},
        "start_at=0.5 is not before end_at=0.5",
        "start_at",
    ),
    (
        TrainerConfig,
        {"anneal_lr": False, "warmup_steps": 100},
        "anneal_lr is False, so warmup_steps=100",
        "anneal_lr",
    ),
    (
        TrainerConfig,
        {"anneal_lr": False, "lr_schedule": "cosine"},
        "anneal_lr is False, so lr_schedule='cosine'",
        "lr_schedule",
    ),
    (
        TrainerConfig,
        {"total_timesteps": 1000, "warmup_steps": 1000},
        "warmup_steps=1000 is the whole run",
        "warmup_steps",
    ),
    (
        TrainerConfig,
        {"schedules": {"l2_reg_loss_coef": {"end": 1, "shape": "exponential"}}},
        "the schedule of l2_reg_loss_coef goes from 0 to 1",
        "schedules",
    ),
    (
        TrainerConfig,
        {"schedules": {"clip_coef": {"end": 0}}},
        "the schedule of clip_coef ends at 0",
        "schedules",
    ),
    (
        TrainerConfig,
        {"ppo": {"clip_vloss": False}, "schedules": {"vf_clip_coef": {"end": 1}}},
        "ppo.clip_vloss is False, so a schedule",
        "ppo",
    ),
    (PPOConfig, {"gamma": 0, "gae_lambda": 0.5}, "gamma is 0, so gae_lambda=0.5", "gamma"),
    (
        KickstartConfig,
        {"teacher_uri": "a.pt", "action_loss_coef": 0, "value_loss_coef": 0},
        "the teacher a.pt has action_loss_coef=0 and value_loss_coef=0",
        "value_loss_coef",
    ),
    (
        KickstartTeacherConfig,
        {"teacher_uri": "a.pt", "action_loss_coef": 0, "value_loss_coef": 0},
        "the teacher a.pt has action_loss_coef=0 and value_loss_coef=0",
        "action_loss_coef",
    ),
    (
        TrainerConfig,
        {"batch_size": 64, "minibatch_size": 1, "bptt_horizon": 1},
        "minibatch_size=1 with ppo.norm_adv",
        "",
    ),
    (
        AgentModelConfig,
        {"observation_types": ["object"], "use_prev_reward": False},
        "observation_types has no 'global', so use_prev_reward=False",
        "observation_types",
    ),
    (
        AgentModelConfig,
        {"forward_lstm": False, "lstm_layers": 2},
        "lstm_layers is 2 but forward_lstm is False",
        "lstm_layers",
    ),
    (
        AgentModelConfig,
        {"forward_lstm": False, "bptt_horizon": 4},
        "forward_lstm is False, so bptt_horizon=4",
        "forward_lstm",
    ),
    (
        GameConfig,
        {"similarity_coef": 0.7},
        "diversity_bonus_enabled is False, so similarity_coef=0.7",
        "similarity_coef",
    ),
    (
        GameConfig,
        {"diversity_coef": 0.7},
        "diversity_bonus_enabled is False, so diversity_coef=0.7",
        "diversity_coef",
    ),
    (
        GameConfig,
        {"max_steps": 0, "episode_truncates": True},
        "max_steps is 0, so episode_truncates=True",
        "max_steps",
    ),
    (
        GameConfig,
        {"inventory_item_names": NO_HEARTS, "heart_reward": 5.0},
        "inventory_item_names has no heart, so heart_reward=5.0",
        "heart_reward",
    ),
    (
        GameConfig,
        {"inventory_item_names": NO_HEARTS, "heart_max": 5},
        "inventory_item_names has no heart, so heart_max=5",
        "inventory_item_names",
    ),
    (
        GameConfig,
        {"inventory_item_names": ["heart"], "ore_red_reward": 5.0},
        "inventory_item_names has no ore_red, so ore_red_reward=5.0",
        "ore_red_reward",
    ),
    (
        ObjectConfig,
        {"type": "wall", "name": "wall", "cooldown": 3},
        "object 'wall' is a wall, so it has no cooldown",
        "cooldown",
    ),
    (
        ActionConfig,
        {"type": "move", "key": "m", "delta": 1},
        "action 'm' is of type 'move', and delta is for rotations",
        "delta",
    ),
    (MapBuilderConfig, {"type": "Ascii"}, "ascii_map and type='Ascii' go together", "type"),
]


@pytest.mark.parametrize(
    ("kind", "fields", "sentence", "without"),
    [pytest.param(*case, id=f"{case[0].__name__}: {case[2]}") for case in COMBINATIONS],
)
def test_what_cannot_hold_is_refused_at_construction(
    kind: Kind, fields: dict[str, Any], sentence: str, without: str
) -> None:
    with pytest.raises(ValidationError) as refusal:
        kind(**fields)
    (complaint,) = refusal.value.errors()
    said = complaint["msg"].removeprefix("Value error, ")
    assert said.startswith(sentence), said
    assert "\n" not in said
    assert said.endswith(".")
    if without in fields:
        kind(**{name: value for name, value in fields.items() if name != without})


def test_a_dump_can_be_read_again() -> None:
    """What is refused is a value, not that it is written down."""
    for config in (TrainerConfig(anneal_lr=False, ppo=PPOConfig(clip_vloss=False)), GameConfig(max_steps=0)):
        assert type(config)(**config.model_dump()) == config
