"""Whether a curriculum keeps to what `Curriculum` asks, and whether its tasks can be carried and played."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import yaml

from metta.common.reading import repeated
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Curriculum, Task
from metta.mettagrid.testing.streams import CheckError
from metta.mettagrid.vec import VecEnv

MOST_TASKS = 64
"""Tasks of a curriculum that are looked at one by one."""


class FixedCurriculum:
    """A curriculum that draws as another does but hears of no outcome."""

    def __init__(self, curriculum: Curriculum) -> None:
        self._curriculum = curriculum
        self.tasks = curriculum.tasks

    def sample(self, rng: np.random.Generator) -> int:
        """As the other one draws."""
        return self._curriculum.sample(rng)

    def update(self, task: int, score: float) -> None:
        """The outcome is dropped."""

    def for_evaluation(self) -> Curriculum:
        """As the other one's."""
        return self._curriculum.for_evaluation()

    def state_dict(self) -> dict[str, Any]:
        """As the other one's."""
        return self._curriculum.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Into the other one."""
        self._curriculum.load_state_dict(state)


def check_tasks(tasks: Sequence[Task], name: str) -> None:
    """See that configurations come back from files and other processes as they were, and that each can be played.

    Raises:
        CheckError: one does not.
    """
    names = [task.name for task in tasks]
    if twice := repeated(names):
        raise CheckError(f"{name}: more than one task is called '{twice[0]}'; give each its own name.")
    for task in tasks[:MOST_TASKS]:
        config, text = task.config, task.config.model_dump(mode="json")
        ways: dict[str, Any] = {
            "JSON": lambda config=config: EnvConfig.model_validate_json(config.model_dump_json()),
            "YAML": lambda text=text: EnvConfig.model_validate(yaml.safe_load(yaml.safe_dump(text))),
            "pickling, as on the way to a worker process": lambda config=config: ForkingPickler.loads(
                ForkingPickler.dumps(config)
            ),
        }
        for way, travel in ways.items():
            try:
                back = travel()
            except Exception as error:
                raise CheckError(
                    f"{name}: the configuration of '{task.name}' does not survive {way}: {type(error).__name__}: {error}; use "
                    "the fields of EnvConfig, plain values and classes of a module."
                ) from error
            if back.model_dump() != config.model_dump() or back.to_world_config() != config.to_world_config():
                raise CheckError(
                    f"{name}: the configuration of '{task.name}' is another one after {way}; everything that it means has to be "
                    "in its fields."
                )
        with VecEnv(config) as env:
            env.step(np.zeros((env.num_agents, 2), np.int32))


def check_curriculum(curriculum: Curriculum, *, seed: int = 0, episodes: int = 200) -> None:
    """Hold a curriculum to what `VecEnv` asks of it; it is left as it was.

    It draws tasks that there are, from the generator that it is handed and nothing else; it hears outcomes; its state is plain
    data that another one goes on from exactly; and what its form for evaluation hears does not reach it.

    Args:
        curriculum: the curriculum.
        seed: of the draws and of the scores that it hears.
        episodes: how many episodes it draws and hears of.

    Raises:
        CheckError: it breaks one of these; one sentence says which.
        TypeError: it is no curriculum.
    """
    name = type(curriculum).__name__
    given: object = curriculum
    if not isinstance(given, Curriculum):
        raise TypeError(
            f"curriculum is a {name}, not a Curriculum; make_curriculum turns names and files into one."
        )
    if not curriculum.tasks:
        raise CheckError(f"{name} has no tasks; list every task that it can choose.")
    mine = copy.deepcopy(curriculum)
    drawn = _teach(mine, name, seed, episodes)
    if _teach(copy.deepcopy(curriculum), name, seed, episodes) != drawn:
        raise CheckError(
            f"{name} draws other tasks from the same generator after the same outcomes; take randomness from rng alone."
        )
    try:
        text = json.dumps(mine.state_dict(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckError(
            f"{name}.state_dict() cannot be written as JSON ({error}); use plain numbers, text and lists."
        ) from None
    other = copy.deepcopy(curriculum)
    other.load_state_dict(json.loads(text))
    ahead = _teach(copy.deepcopy(mine), name, seed + 1, episodes)
    if _teach(other, name, seed + 1, episodes) != ahead:
        raise CheckError(
            f"{name} goes on otherwise after load_state_dict(state_dict()); the state has to hold all that sample and "
            "update read."
        )
    _teach(mine.for_evaluation(), name, seed + 2, episodes)
    if json.dumps(mine.state_dict()) != text:
        raise CheckError(
            f"{name}.for_evaluation() passes outcomes on to the original; give it a memory of its own."
        )


def _teach(curriculum: Curriculum, name: str, seed: int, episodes: int) -> list[int]:
    """The tasks that a curriculum draws over some episodes with random outcomes."""
    scores = np.random.default_rng(seed)
    drawn = []
    for episode in range(episodes):
        task: Any = curriculum.sample(np.random.default_rng([seed, episode]))
        if (
            isinstance(task, bool)
            or not isinstance(task, int | np.integer)
            or not 0 <= task < len(curriculum.tasks)
        ):
            raise CheckError(
                f"{name}.sample() returned {task!r}; return a place in its {len(curriculum.tasks)} tasks."
            )
        curriculum.update(int(task), float(scores.normal()))
        drawn.append(int(task))
    return drawn
