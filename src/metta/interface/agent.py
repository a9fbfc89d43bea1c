"""`Agent` and `make_agent`: from an environment or its spaces to a policy on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import gymnasium as gym
import torch

from metta.agent.any_config import AgentConfig, read_agent_config
from metta.agent.config import GLOBAL_FEATURES
from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.spec import standard_spec


class HasSpaces(Protocol):
    """An environment: `Environment`, `VecEnv` or `MettaGridEnv`."""

    @property
    def single_observation_space(self) -> Any:
        """Space of one agent's observation."""
        ...

    @property
    def single_action_space(self) -> Any:
        """Space of one agent's action."""
        ...


def Agent(
    env: HasSpaces,
    config: AgentConfig | Mapping[str, Any] | None = None,
    device: object = "cpu",
) -> MettaAgent:
    """Create an agent for an environment.

    Args:
        env: its spaces are read; the agent does not keep it.
        config: the architecture: an `AgentModelConfig`, an `AgentGraphConfig`, or any mapping (a dict, an OmegaConf
            `DictConfig`) with the key `agent` and the fields of one of them below it, or with these fields directly.
            With `components` it is a graph. None = the default CNN-LSTM.
        device: a `torch.device`, its name, or anything whose text is one.

    Raises:
        ValueError: an unknown field, sizes that do not fit, or a device that this machine lacks.
    """
    return make_agent(env.single_observation_space, env.single_action_space, [], device, config)


def make_agent(
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    global_features: Sequence[str],
    device: object,
    config: AgentConfig | Mapping[str, Any] | None = None,
) -> MettaAgent:
    """Create an agent for an environment's spaces.

    Args:
        observation_space: `env.single_observation_space`; a bare `Box` of shape `(tokens, 3)` is read with
            the standard feature table and an 11 by 11 window.
        action_space: `env.single_action_space`.
        global_features: names of the global features (`episode_completion_pct`, `last_action`, ...) that
            the network sees; empty = all that the world shows. Features left out keep their ids.
        device: as in `Agent`.
        config: as in `Agent`.

    Raises:
        ValueError: the spaces are not those of a token world, a name or a config value is unknown, or the machine
            lacks the device.
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
    target = _device(device)
    return MettaAgent(spec, read_agent_config(config)).to(target)


def _device(device: object) -> torch.device:
    try:
        target = torch.device(str(device))
    except RuntimeError as error:
        raise ValueError(
            f"device is {str(device)!r}, which torch does not know; pass 'cpu' or 'cuda'."
        ) from error
    if target.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (target.index or 0) >= count:
            raise ValueError(
                f"device is {str(device)!r}, but torch finds {count or 'no'} CUDA device{'s' * (count != 1)} on this "
                "machine; pass device='cpu', or install a driver and a build of torch with CUDA."
            )
    return target
