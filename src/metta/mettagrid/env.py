"""One world behind the familiar interface."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Curriculum
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.objects import MAP_CHARACTERS
from metta.mettagrid.spec import Feature
from metta.mettagrid.vec import VecEnv

Infos = dict[str, Any]

GROUP_MARKS = "123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class MettaGridEnv:
    """One world of agents: `reset`, `step`, spaces. Every array has one row per agent.

    It is a batch of one (`env.vec`), so whatever trains or evaluates many worlds takes it too.

    Args:
        tasks: an environment, or a curriculum that chooses one for each episode; None: the default `EnvConfig`.
        seed: decides maps and agent order of every episode to come.

    Raises:
        ValueError: the configuration or its map cannot be built.
    """

    def __init__(self, tasks: EnvConfig | Curriculum | None = None, *, seed: int = 0) -> None:
        self.vec = VecEnv(EnvConfig() if tasks is None else tasks, 1, seed=seed)
        self._ended = False
        self._fresh = False  # an episode ended, and the batch behind has begun the next one already

    @property
    def config(self) -> EnvConfig:
        """The environment's configuration (the first one, where a curriculum has several)."""
        return self.vec.curriculum.tasks[0].config

    @property
    def num_agents(self) -> int:
        """Agents in the world."""
        return self.vec.num_agents

    @property
    def single_observation_space(self) -> Any:
        """Space of one agent's observation: `ObservationSpace` `(tokens, 3)`, uint8."""
        return self.vec.single_observation_space

    @property
    def single_action_space(self) -> Any:
        """Space of one agent's action: `MultiDiscrete([actions, largest argument + 1])`."""
        return self.vec.single_action_space

    @property
    def action_names(self) -> tuple[str, ...]:
        """Name of each action, by action id."""
        return self.vec.spec.action_names

    @property
    def max_action_args(self) -> tuple[int, ...]:
        """Largest legal argument of each action, by action id."""
        return self.vec.spec.max_action_args

    @property
    def features(self) -> tuple[Feature, ...]:
        """The observation features, by feature id."""
        return self.vec.spec.features

    def reset(self, seed: int | None = None) -> tuple[npt.NDArray[np.uint8], Infos]:
        """Begin an episode.

        Args:
            seed: restart the stream of episodes from this seed, taking effect now; None: the next episode.

        Returns:
            Observations uint8 `[A, K, 3]` and an info dict with the task's name.
        """
        if seed is not None or not self._fresh:
            self.vec.reset(seed)
        self._ended = self._fresh = False
        return self.vec.observations.copy(), {"task": self.task_name}

    @property
    def task_name(self) -> str:
        """Name of the task that is being played."""
        return self.vec.task_name(0)

    def step(
        self, actions: npt.NDArray[np.integer[Any]]
    ) -> tuple[
        npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.bool_], Infos
    ]:
        """Step every agent once.

        Args:
            actions: integers `[A, 2]`: (action id, argument) of each agent.

        Returns:
            Observations uint8 `[A, K, 3]`, rewards float32 `[A]`, terminals bool `[A]`, truncations bool `[A]`, and an
            info dict, which at the end of an episode holds `episode` (returns, length, task) and `stats`.

        Raises:
            RuntimeError: the episode has ended and `reset` was not called.
            ValueError: actions of the wrong shape or type.
        """
        if self._ended:
            raise RuntimeError("the episode has ended; call reset() before the next step().")
        batch = self.vec.step(actions)
        self._fresh = bool(batch.final_rows.size)
        infos: Infos = {}
        observations = batch.observations
        if batch.episodes:
            self._ended = True
            observations = batch.final_observations
            outcome = batch.episodes[0]
            infos = {
                "episode": {"returns": outcome.returns, "length": outcome.length, "task": outcome.task},
                "stats": outcome.stats,
            }
        return observations.copy(), batch.rewards, batch.terminals, batch.truncations, infos

    def render(self) -> str:
        """The world as text, one character a cell: agents `@`, or the number of their group if there are several."""
        return world_as_text(self.vec.engine, 0)

    def close(self) -> None:
        """Nothing is stepped afterwards."""
        self.vec.close()


def world_as_text(engine: GridEngine, world: int) -> str:
    """A world as text, one character a cell: agents `@`, or the number of their group if there are several.

    Args:
        engine: that steps it.
        world: its place in the batch.
    """
    names = {name: character for character, name in reversed(MAP_CHARACTERS.items())}
    types = engine.rule_of(world).spec.object_type_names
    height, width = engine.map_size(world)
    things = engine.grid_objects(world)
    rows = [["."] * width for _ in range(height)]
    groups = {thing["group_id"] for thing in things.values() if "group_id" in thing}
    for thing in things.values():
        if "agent_id" in thing:
            character = "@" if len(groups) < 2 else GROUP_MARKS[thing["group_id"] % len(GROUP_MARKS)]
        else:
            character = names.get(types[thing["type"]], "?")
        rows[thing["r"]][thing["c"]] = character
    return "\n".join("".join(row) for row in rows)
