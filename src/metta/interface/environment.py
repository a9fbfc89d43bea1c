"""`make_environment`: from a configuration, or a few numbers, to an environment."""

from __future__ import annotations

from typing import Any

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.env import MettaGridEnv


def make_environment(env_config: EnvConfig | None = None, *, seed: int = 0, **kwargs: Any) -> MettaGridEnv:
    """Create a MettaGrid environment of one world.

    Args:
        env_config: the environment; None: the default one.
        seed: decides maps and agent order of every episode to come.
        **kwargs: single values of the configuration by field name, for instance `num_agents=8, width=16`.

    Raises:
        ValueError: an unknown name, or values that do not fit together.
    """
    config = EnvConfig() if env_config is None else env_config
    return MettaGridEnv(config.with_overrides(**kwargs) if kwargs else config, seed=seed)
