"""`make_environment`: from a configuration, or a few numbers, to an environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.registry import get_env_config


def make_environment(
    env_config: EnvConfig | Mapping[str, Any] | str | None = None, *, seed: int = 0, **kwargs: Any
) -> MettaGridEnv:
    """Create a MettaGrid environment of one world.

    Args:
        env_config: the environment, typed, as a mapping of its fields or as a registered name; None: the default one.
        seed: decides maps and agent order of every episode to come.
        **kwargs: single values of the configuration by field name, for instance `num_agents=8, width=16`; `map_objects`
            are the map's objects. See `EnvConfig.with_overrides`.

    Raises:
        ValueError: an unknown name, or values that do not fit together.
    """
    if env_config is None:
        config = EnvConfig()
    elif isinstance(env_config, str):
        config = get_env_config(env_config)
    else:
        config = EnvConfig.model_validate(env_config)
    return MettaGridEnv(config.with_overrides(**kwargs) if kwargs else config, seed=seed)
