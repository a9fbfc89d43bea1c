"""A curriculum whose tasks are changed in the same way, for instance made smaller."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import ValidationError

from metta.mettagrid.curriculum.base import Curriculum, Task
from metta.mettagrid.world_config import explain


class OverriddenCurriculum:
    """The choices of another curriculum, played as tasks that were changed one by one.

    Attributes:
        source: the curriculum that chooses and hears the outcomes.
        tasks: its tasks as they are played, under their names.

    Args:
        source: see above.
        tasks: one for each of its tasks.
    """

    def __init__(self, source: Curriculum, tasks: tuple[Task, ...]) -> None:
        self.source = source
        self.tasks = tasks

    def sample(self, rng: np.random.Generator) -> int:
        """The source's choice."""
        return self.source.sample(rng)

    def update(self, task: int, score: float) -> None:
        """Tell the source."""
        self.source.update(task, score)

    def for_evaluation(self) -> OverriddenCurriculum:
        """The same tasks, chosen by the source's own `for_evaluation`."""
        return OverriddenCurriculum(self.source.for_evaluation(), self.tasks)

    def state_dict(self) -> dict[str, Any]:
        """The source's."""
        return self.source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the source."""
        self.source.load_state_dict(state)


def override_tasks(curriculum: Curriculum, **overrides: Any) -> Curriculum:
    """The same curriculum over tasks in which single values are replaced.

    Args:
        curriculum: whose tasks to change; it goes on choosing and hearing the outcomes.
        **overrides: as in `EnvConfig.with_overrides`.

    Raises:
        ValueError: a name belongs to no part of a configuration, or a task cannot have the value.
    """
    tasks = []
    for task in curriculum.tasks:
        try:
            tasks.append(Task(task.name, task.config.with_overrides(**overrides)))
        except ValueError as error:
            listed = ", ".join(f"{name}={value!r}" for name, value in overrides.items())
            reason = explain(error, "the changed one") if isinstance(error, ValidationError) else error
            raise ValueError(f"task '{task.name}' with {listed}: {reason}") from None
    return OverriddenCurriculum(curriculum, tuple(tasks))
