"""Tasks, and the curricula that choose among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from metta.common.reading import repeated
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.map.config import MapBuilderConfig, MapConfig
from metta.mettagrid.map.kinds import MapKind


@dataclass(frozen=True)
class Task:
    """One environment that a curriculum offers, under a name that statistics use."""

    name: str
    config: EnvConfig


@runtime_checkable
class Curriculum(Protocol):
    """Chooses the task of each new episode and hears how it went.

    Attributes:
        tasks: every task that can ever be chosen; the engine compiles the rules of all of them once.
    """

    tasks: tuple[Task, ...]

    def sample(self, rng: np.random.Generator) -> int:
        """The place in `tasks` of the task to play next. Called once per episode, with that episode's generator."""
        ...

    def update(self, task: int, score: float) -> None:
        """Hear that an episode of a task ended with a score (mean over agents of their total reward)."""
        ...

    def for_evaluation(self) -> Curriculum:
        """A curriculum over the same tasks whose outcomes do not reach this one."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on exactly; JSON-ready."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        ...


class SingleTaskCurriculum:
    """Always the same environment."""

    def __init__(self, config: EnvConfig, name: str = "task") -> None:
        self.tasks: tuple[Task, ...] = (Task(name, config),)

    def sample(self, rng: np.random.Generator) -> int:
        """The only task."""
        del rng
        return 0

    def update(self, task: int, score: float) -> None:
        """Nothing to learn from an outcome."""

    def for_evaluation(self) -> SingleTaskCurriculum:
        """Itself: it has no memory."""
        return self

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def check_tasks(tasks: Sequence[Task]) -> None:
    """See to it that there are tasks and that they can be told apart.

    Raises:
        ValueError: they cannot.
    """
    if not tasks:
        raise ValueError("a curriculum needs at least one task; scenes is empty.")
    names = [task.name for task in tasks]
    twice = repeated(names)
    if twice:
        raise ValueError(f"more than one task is called {', '.join(twice)}; give each its own name.")


def shortened(names: Sequence[str]) -> str:
    """The first few of some names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


class MultiTaskCurriculum:
    """Draws each episode's task at random, and keeps count of the outcomes.

    Args:
        tasks: the environments to choose from.
        weights: how often each is drawn, relative to the others; None: all alike.

    Raises:
        ValueError: no tasks, equal names, or weights that do not fit.
    """

    def __init__(self, tasks: Sequence[Task], weights: Sequence[float] | None = None) -> None:
        check_tasks(tasks)
        chances = np.ones(len(tasks)) if weights is None else np.asarray(weights, dtype=np.float64)
        if (
            chances.shape != (len(tasks),)
            or not np.all(chances >= 0)
            or not np.isfinite(chances.sum())
            or not chances.any()
        ):
            raise ValueError(
                f"weights {weights} do not fit {len(tasks)} tasks; give one number >= 0 each, not all 0."
            )
        self.tasks = tuple(tasks)
        self._edges = np.cumsum(chances / chances.sum())
        self._episodes = [0] * len(tasks)
        self._score_sums = [0.0] * len(tasks)

    def sample(self, rng: np.random.Generator) -> int:
        """A task by its weight."""
        return min(int(np.searchsorted(self._edges, rng.random(), side="right")), len(self.tasks) - 1)

    def update(self, task: int, score: float) -> None:
        """Count the episode and its score."""
        self._episodes[task] += 1
        self._score_sums[task] += score

    def for_evaluation(self) -> MultiTaskCurriculum:
        """The same tasks and weights, with counts of its own."""
        return MultiTaskCurriculum(self.tasks, np.diff(self._edges, prepend=0.0).tolist())

    def scores(self) -> dict[str, float]:
        """Mean score by task name, of the tasks that have been played."""
        played = zip(self.tasks, self._episodes, self._score_sums, strict=True)
        return {task.name: total / episodes for task, episodes, total in played if episodes}

    def state_dict(self) -> dict[str, Any]:
        """The counts so far."""
        return {"episodes": list(self._episodes), "score_sums": list(self._score_sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from earlier counts.

        Raises:
            ValueError: they are of another number of tasks.
        """
        if len(state["episodes"]) != len(self.tasks):
            raise ValueError(
                f"the saved curriculum has {len(state['episodes'])} tasks, this one {len(self.tasks)}."
            )
        self._episodes = list(state["episodes"])
        self._score_sums = list(state["score_sums"])


Scene = str | EnvConfig | MapConfig | Task


def make_curriculum(
    env_path: str = "/env/mettagrid/simple", scenes: Sequence[Scene] | None = None
) -> Curriculum:
    """A curriculum over one environment or over several scenes.

    Args:
        env_path: name of a registered environment or curriculum.
        scenes: what to alternate between, each drawn equally often: names of registered environments, complete
            environments, tasks, or map builders (the environment at `env_path` on that map). None: what `env_path` names.

    Raises:
        ValueError: an unknown name (close matches are listed), or no scenes in the list.
    """
    # Imported late: the registry's ready-made curricula are made of the classes here.
    from metta.mettagrid.registry import get_curriculum, get_env_config

    if scenes is None:
        return get_curriculum(env_path)
    base = get_env_config(env_path)
    if isinstance(scenes, str):
        raise ValueError(f"scenes is {scenes!r}; give a list of scenes, [{scenes!r}].")
    tasks = []
    for place, scene in enumerate(scenes):
        if isinstance(scene, Task):
            tasks.append(scene)
        elif isinstance(scene, str):
            tasks.append(Task(scene, get_env_config(scene)))
        elif isinstance(scene, EnvConfig):
            tasks.append(Task(f"scene_{place}", scene))
        elif isinstance(scene, MapKind):
            tasks.append(Task(f"{env_path}#{place}", on_map(base, scene)))
        else:
            raise ValueError(
                f"scene {place} is {scene!r}; give the name of an environment, an EnvConfig, a map builder or a Task."
            )
    return MultiTaskCurriculum(tasks)


def on_map(config: EnvConfig, scene: MapConfig) -> EnvConfig:
    """An environment on another map.

    Whatever the map leaves open follows the environment; the size and agents that it states count for the game too. A
    `Random` map on an environment with one keeps that one's border, objects and seed unless it states others.
    """
    game = config.game.model_dump(exclude_unset=True)
    config.follow(game, scene.model_dump(exclude_unset=True), ())
    field = config.map_builder
    if scene.type == "Random" and isinstance(field, MapBuilderConfig):
        rest = field.model_dump(
            exclude={"width", "height", "agents", "type", "ascii_map"}, exclude_unset=True
        )
        scene = MapBuilderConfig.model_validate({**rest, **scene.model_dump(exclude_unset=True)})
    return EnvConfig.model_validate(
        {"game": game, "objects": config.objects, "actions": config.actions, "map_builder": scene}
    )
