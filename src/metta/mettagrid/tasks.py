"""What is to be played: from a name, a mapping or a few numbers to an environment or a curriculum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Curriculum, make_curriculum
from metta.mettagrid.curriculum.overrides import override_tasks

EnvLike = EnvConfig | Mapping[str, Any] | str
"""An environment: typed, as a mapping of its fields, or the registered name of one or of a curriculum."""


def find_tasks(env_config: EnvLike | None = None, **overrides: Any) -> EnvConfig | Curriculum:
    """The environment or curriculum that is meant.

    Args:
        env_config: typed, as a mapping of fields, or a registered name; None: the default environment.
        **overrides: single values by field name, for every task.

    Raises:
        ValueError: an unknown name, or values that do not fit together.
    """
    if isinstance(env_config, str):
        curriculum = make_curriculum(env_config)
        return override_tasks(curriculum, **overrides) if overrides else curriculum
    config = EnvConfig() if env_config is None else EnvConfig.model_validate(env_config)
    return config.with_overrides(**overrides) if overrides else config
