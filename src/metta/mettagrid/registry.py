"""Named environments: paths such as `/env/mettagrid/simple` and the configurations behind them."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.worlds import simple

SIMPLE = "/env/mettagrid/simple"
SIMPLE_CURRICULUM = "/env/mettagrid/curriculum/simple"
"""A curriculum of one task: the newcomer's world."""

_environments: dict[str, Callable[[], EnvConfig]] = {SIMPLE: simple, SIMPLE_CURRICULUM: simple}


def register_env(path: str, make_config: Callable[[], EnvConfig]) -> None:
    """Give an environment a name that `make_curriculum`, `make_environment` and `run.py` understand.

    Args:
        path: a name starting with "/", for instance "/env/my_lab/maze".
        make_config: returns its configuration; called each time that the name is used.

    Raises:
        ValueError: the path does not start with "/" or is taken.
    """
    if not path.startswith("/"):
        raise ValueError(f"environment name '{path}' does not start with '/'; call it '/{path}'.")
    if path in _environments:
        raise ValueError(f"environment name '{path}' is taken; choose another.")
    _environments[path] = make_config


def env_paths() -> list[str]:
    """All registered names, sorted."""
    return sorted(_environments)


def get_env_config(path: str) -> EnvConfig:
    """The configuration behind a name.

    Raises:
        ValueError: the name is unknown; the sentence lists close matches.
    """
    if path not in _environments:
        close = difflib.get_close_matches(path, _environments, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(env_paths())}."
        raise ValueError(f"no environment is called '{path}'; {hint}")
    return _environments[path]()
