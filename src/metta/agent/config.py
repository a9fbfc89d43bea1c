"""Settings of the agent's network: the one home of their defaults."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from metta.common.config import Config

OBSERVATION_TYPES: tuple[str, ...] = ("global", "agent", "object", "inventory", "recipe")
"""Families of observation features that `AgentModelConfig.observation_types` chooses from."""


def observation_type(feature_name: str) -> str:
    """The family of an observation feature, by its name.

    `global`: what the observer knows of its episode and its own last step; `agent`: what agents (and, for
    the colour, converters) look like; `inventory`: what an object holds; `recipe`: what a converter takes and
    makes; `object`: everything else, first of all what kind of object it is.
    """
    if feature_name.startswith("inv:"):
        return "inventory"
    if feature_name.startswith(("input:", "output:")):
        return "recipe"
    if feature_name.startswith("agent:"):
        return "agent"
    if feature_name in GLOBAL_FEATURES:
        return "global"
    return "object"


GLOBAL_FEATURES: frozenset[str] = frozenset(
    {"episode_completion_pct", "last_action", "last_action_arg", "last_reward", "resource_rewards"}
)
"""Features that describe the observer or its episode and stand on the observer's own cell."""


class AgentSettings(Config):
    """What every agent has, however its network is described.

    Attributes:
        bptt_horizon: ticks after which the gradient through time is cut inside `evaluate`, counted from the
            start of the segment; what the network computes does not depend on it.
        clip_range: every element of every weight's gradient is clamped to plus or minus this; 0 = not at all.
        weight_clip: after every update each element of a weight matrix or kernel is clamped to plus or minus this, which
            keeps a network able to learn (Elsayed et al. 2024, arXiv:2407.01704); biases are free; 0 = not at all.
        use_prev_action: False hides the observer's last action and its argument.
        use_prev_reward: False hides the observer's last reward.
        observation_types: families of features that the network sees, of `OBSERVATION_TYPES`.
        dtypes_fp16: matrix products in bfloat16; weights, state and the outputs stay in single precision.
        egocentric: the window is turned so that the agent's own facing is up; the world's own orientation otherwise.
            Windows that are not square are never turned.
        mask_actions: what by the observation would fail and change nothing, like walking into a wall, gets probability 0
            (`Legality`); the observation is read as it is, whatever of it the network sees.
        obs_scale: factor on every feature value that the network sees.
        analyze_weights_interval: updates between two weight analyses (`MettaAgent.after_update`); 0 = never.
        l2_init_weight_update_interval: updates after which the reference of the L2-init loss moves to the
            current weights; 0 = it stays at the initial ones.
    """

    bptt_horizon: int = Field(default=8, ge=1)
    clip_range: float = Field(default=0.0, ge=0.0)
    weight_clip: float = Field(default=0.0, ge=0.0)

    use_prev_action: bool = True
    use_prev_reward: bool = True
    observation_types: list[str] = Field(default_factory=lambda: list(OBSERVATION_TYPES))

    dtypes_fp16: bool = False
    egocentric: bool = True
    mask_actions: bool = True
    obs_scale: int = Field(default=1, ge=1)

    analyze_weights_interval: int = Field(default=300, ge=0)
    l2_init_weight_update_interval: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _hidden_once(self) -> Self:
        if "global" not in self.observation_types:
            self.refuse_idle(("use_prev_action", "use_prev_reward"), "observation_types has no 'global'")
        return self

    @field_validator("observation_types")
    @classmethod
    def _known_types(cls, value: list[str]) -> list[str]:
        known = ", ".join(OBSERVATION_TYPES)
        for name in value:
            if name not in OBSERVATION_TYPES:
                raise ValueError(
                    f"observation_types contains {name!r}, which is not a family of features; use some of {known}."
                )
        if not value:
            raise ValueError(
                f"observation_types is empty, so the network would see nothing; choose from {known}."
            )
        return value


class AgentModelConfig(AgentSettings):
    """The standard architecture of a `MettaAgent`: encoder, LSTM core, a head for actions and one for values.

    Attributes:
        hidden_dim: width of the recurrent state, of the features that enter it and of the heads' hidden
            layers.
        lstm_layers: stacked LSTM layers.
        mlp_layers: linear layers of each head, the output layer included.
        backbone: `cnn` convolves the window (5 by 5, stride 3) before one linear layer; `mlp` gives every
            cell of the window its own weights.
        forward_lstm: False leaves the recurrent core out: features go straight to the heads.
        obs_process_func: `flatten_obs_dict` keeps the window's positions apart, `pool_obs_dict` takes the
            mean over them (smaller, but nearly blind to where something is).
    """

    hidden_dim: int = Field(default=1024, ge=1)
    lstm_layers: int = Field(default=1, ge=1, le=64)
    mlp_layers: int = Field(default=2, ge=1, le=64)
    backbone: Literal["cnn", "mlp"] = "cnn"
    forward_lstm: bool = True
    obs_process_func: Literal["flatten_obs_dict", "pool_obs_dict"] = "flatten_obs_dict"

    @model_validator(mode="after")
    def _recurrence(self) -> AgentModelConfig:
        if not self.forward_lstm and self.lstm_layers != 1:
            raise ValueError(
                f"lstm_layers is {self.lstm_layers} but forward_lstm is False, so there is no LSTM to stack; "
                "leave lstm_layers at 1 or set forward_lstm to True."
            )
        if not self.forward_lstm:
            self.refuse_idle(("bptt_horizon",), "forward_lstm is False")
        return self
