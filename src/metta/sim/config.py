"""What to play: one simulation, a suite of them, an episode to record."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from metta.common.config import Config
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Curriculum, SingleTaskCurriculum, make_curriculum
from metta.mettagrid.curriculum.overrides import override_tasks
from metta.mettagrid.registry import SIMPLE


class Simulation(Config):
    """Episodes of one environment, or of the tasks of one curriculum."""

    env: str | EnvConfig = Field(
        description="Name of a registered environment or curriculum, or an environment."
    )
    num_episodes: int = Field(1, ge=1, description="Episodes to play; the interval of one is unknown.")
    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description="Single values of the environment by field name (`EnvConfig.with_overrides`), in every task of a curriculum.",
    )

    def curriculum(self) -> Curriculum:
        """The tasks to play, none of whose outcomes reach anybody else.

        Raises:
            ValueError: an unknown name, or an override that does not fit.
        """
        return tasks_of(self.env, self.overrides)


class SimulationSuite(Config):
    """Named simulations that together say how good a policy is."""

    name: str = Field("evaluation", min_length=1, description="What reports and databases call the suite.")
    simulations: dict[str, Simulation] = Field(
        min_length=1, description="Simulation by name, `category/name`; categories get scores of their own."
    )

    @field_validator("simulations")
    @classmethod
    def _names_have_a_category(cls, simulations: dict[str, Simulation]) -> dict[str, Simulation]:
        for name in simulations:
            category, slash, rest = name.partition("/")
            if not (category and slash and rest):
                raise ValueError(
                    f"simulation '{name}' names no category; call it 'category/name', e.g. 'arena/{name.strip('/')}'."
                )
        return simulations


class ReplayConfig(Config):
    """One episode to record."""

    env: str | EnvConfig = Field(
        SIMPLE, description="Name of a registered environment or curriculum, or an environment."
    )
    task: str | None = Field(
        None, description="Which task of a curriculum to play; None: the one that the seed draws."
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description="Single values of the environment by field name (`EnvConfig.with_overrides`), in every task of a curriculum.",
    )
    seed: int = Field(
        0, ge=0, description="Decides the map, the order of the agents and the sampled actions."
    )
    deterministic: bool = Field(False, description="Take the likeliest action instead of sampling.")
    max_steps: int = Field(10_000, ge=1, description="Stop recording here if the episode has no end before.")

    def curriculum(self) -> Curriculum:
        """The tasks to choose the recorded one from.

        Raises:
            ValueError: an unknown name, or an override that does not fit.
        """
        return tasks_of(self.env, self.overrides)


def tasks_of(env: str | EnvConfig, overrides: dict[str, Any]) -> Curriculum:
    """The tasks behind a registered name or a configuration, for an evaluation.

    Args:
        env: see `Simulation.env`.
        overrides: values that every task takes.

    Raises:
        ValueError: an unknown name, or overrides that do not fit.
    """
    if isinstance(env, EnvConfig):
        return SingleTaskCurriculum(env.with_overrides(**overrides) if overrides else env)
    curriculum = make_curriculum(env).for_evaluation()
    return override_tasks(curriculum, **overrides) if overrides else curriculum
