"""Ids for `gymnasium.make` and `gymnasium.make_vec`."""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

from metta.mettagrid.registry import curriculum_paths, env_paths

ENTRY_POINT = "metta.adapters.gymnasium_env:GymnasiumEnv"
VECTOR_ENTRY_POINT = "metta.adapters.gymnasium_vector:GymnasiumVectorEnv"

ANY_WORLD = "metta/MettaGrid-v0"
"""The id that takes every configuration: `gymnasium.make(ANY_WORLD, env_config=..., num_agents=1)`."""


def register_envs() -> list[str]:
    """Tell Gymnasium of Metta's worlds: `ANY_WORLD`, and one id for each registered environment and curriculum.

    `/env/mettagrid/arena/basic` becomes `metta/arena.basic-v0`, and `/env/my_lab/maze` `metta/my_lab.maze-v0`. Worlds with
    several agents are for `gymnasium.make_vec`, whose rows are agents. Calling it again adds what is new.

    Returns:
        The ids, sorted.

    Raises:
        ValueError: two names become the same id.
    """
    paths: dict[str, str] = {}
    for path in (*env_paths(), *curriculum_paths()):
        other = paths.setdefault(id_of(path), path)
        if other != path:
            raise ValueError(
                f"'{other}' and '{path}' both become '{id_of(path)}'; register one under another name."
            )
    for name in (ANY_WORLD, *paths):
        if name not in registry:
            register(
                id=name,
                entry_point=ENTRY_POINT,
                vector_entry_point=VECTOR_ENTRY_POINT,
                kwargs={"env_config": paths[name]} if name in paths else {},
            )
    return sorted((ANY_WORLD, *paths))


def id_of(path: str) -> str:
    """Gymnasium's id for a registered name, as `register_envs` gives it."""
    name = path.removeprefix("/env/mettagrid/").removeprefix("/env/").strip("/")
    return f"metta/{name.replace('/', '.')}-v0"
