"""`make_agent`: from the environment's spaces to a policy on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import torch

from metta.agent.config import GLOBAL_FEATURES, AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.spec import standard_spec


def make_agent(
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    global_features: Sequence[str],
    device: torch.device | str,
    config: AgentModelConfig | Mapping[str, Any] | None = None,
) -> MettaAgent:
    """Create a neural network agent.

    Args:
        observation_space: `env.single_observation_space`; a bare `Box` of shape `(tokens, 3)` is read with
            the standard feature table and an 11 by 11 window.
        action_space: `env.single_action_space`.
        global_features: names of the global features (`episode_completion_pct`, `last_action`, ...) that
            the network sees; empty = all that the world shows. Features left out keep their ids.
        device: a `torch.device`, its name, or anything whose text is one.
        config: the architecture, typed or as a mapping; None = the defaults.

    Raises:
        ValueError: the spaces are not those of a token world, a name or a config value is unknown.
    """
    spec = standard_spec(observation_space, action_space)
    if global_features:
        known = [f.name for f in spec.features if f.name in GLOBAL_FEATURES]
        for name in global_features:
            if name not in known:
                raise ValueError(
                    f"global_features contains {name!r}, which this world does not show; use some of "
                    f"{', '.join(known)}, or none for all of them."
                )
        kept = tuple(f for f in spec.features if f.name not in GLOBAL_FEATURES or f.name in global_features)
        spec = replace(spec, features=kept)
    if config is None:
        config = AgentModelConfig()
    elif not isinstance(config, AgentModelConfig):
        config = AgentModelConfig.model_validate(dict(config))
    return MettaAgent(spec, config).to(torch.device(str(device)))
