"""Many worlds as one `gymnasium.vector.VectorEnv`: every agent is a row."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector.utils import batch_space

from metta.adapters.actions import LegalActions
from metta.adapters.gymnasium_env import RENDER_MODES, check_render_mode
from metta.adapters.picture import draw
from metta.adapters.seeds import given_or_drawn
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Curriculum
from metta.mettagrid.env import world_as_text
from metta.mettagrid.outcomes import EpisodeOutcome, StepBatch
from metta.mettagrid.tasks import EnvLike, find_tasks
from metta.mettagrid.vec import VecEnv

Array = npt.NDArray[Any]


class GymnasiumVectorEnv(gym.vector.VectorEnv[npt.NDArray[np.uint8], npt.NDArray[np.int64], Array]):
    """Worlds that step together; a row of every array is an agent, and agents of a world are side by side.

    One policy plays all agents (parameter sharing); with teams of n agents, rows i*n to i*n+n-1 are those of world i, and
    their episodes begin and end together. Each row's world is reset in the step in which its episode ends
    (`AutoresetMode.SAME_STEP`): the observation is then the first of the next episode, and the old episode's last one and
    its info are `infos["final_obs"]` and `infos["final_info"]`, as Gymnasium's own vector environments give them.

    Args:
        env_config: the environment, typed, as a mapping of its fields, or the registered name of one or of a curriculum;
            None: the default one.
        num_envs: rows; a multiple of the agents in a world.
        render_mode: "rgb_array" or "ansi": `render` returns a frame for each row, that of its world.
        seed: decides maps and agent order of every episode, until `reset` is given another; None: drawn at random.
        copy: observations that are handed out are copies; False: live, and valid until the next step.
        num_threads, num_workers: as in `VecEnv`.
        collect_stats: whether `final_info` has the agents' statistics; building them takes its time.
        **overrides: single values of the configuration by field name, for instance `num_agents=8`.

    Raises:
        ValueError: values that do not fit together.
        RuntimeError: a worker process could not be started.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "autoreset_mode": gym.vector.AutoresetMode.SAME_STEP,
        "render_modes": list(RENDER_MODES),
        "render_fps": 8,
    }

    def __init__(
        self,
        env_config: EnvLike | None = None,
        num_envs: int = 1,
        *,
        render_mode: str | None = None,
        seed: int | None = None,
        copy: bool = True,
        num_threads: int = 1,
        num_workers: int = 0,
        collect_stats: bool = False,
        **overrides: Any,
    ) -> None:
        self.closed = True  # until there is something to close: it is asked even of what could not be made
        check_render_mode(render_mode)
        self.render_mode = render_mode
        tasks = find_tasks(env_config, **overrides)
        self.vec = VecEnv(
            tasks,
            _num_worlds(tasks, num_envs),
            seed=given_or_drawn(seed),
            num_threads=num_threads,
            num_workers=num_workers,
            zero_copy=not copy,
            collect_stats=collect_stats,
        )
        self._actions = LegalActions(self.vec.spec)
        self.num_envs = num_envs
        self.single_observation_space = self.vec.single_observation_space
        self.single_action_space = self._actions.space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.closed = False

    @property
    def action_pairs(self) -> npt.NDArray[np.int32]:
        """int32 `[n, 2]`: (action id, argument) by number of the action."""
        return self._actions.pairs.copy()

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Begin a new episode in every world.

        Args:
            seed: restart the stream of episodes from this seed; None: the next episodes.
            options: none are known.

        Returns:
            uint8 `[N, K, 3]`: the first observations, and infos: `task`, the name of each row's task.

        Raises:
            ValueError: a list of seeds, since one seed is split among the worlds; a mask of rows to reset.
        """
        if isinstance(seed, list):
            raise ValueError(
                f"seed is a list of {len(seed)}; give one number, which is split among the worlds."
            )
        if options and "reset_mask" in options:
            raise ValueError(
                "options has a reset_mask; ended episodes are reset in the same step, so leave it out."
            )
        super().reset(seed=seed, options=options)
        observations = self.vec.reset(seed)
        return observations, self._task_infos(np.ones(self.num_envs, dtype=np.bool_))

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.uint8], Array, Array, Array, dict[str, Any]]:
        """Step every agent.

        Args:
            actions: integers `[N]`: numbers of legal actions.

        Returns:
            Observations uint8 `[N, K, 3]`, rewards float32 `[N]`, terminations bool `[N]`, truncations bool `[N]`, and
            infos: where episodes ended `final_obs` (an array of objects: uint8 `[K, 3]`, or None) and `final_info`
            (`task`, `episode_return`, `episode_length`, perhaps `stats`), each with its mask under `_` and its name.

        Raises:
            ValueError: not a legal action for each agent.
        """
        batch = self.vec.step(self._actions.pairs_of(actions, self.num_envs))
        infos = self._final_infos(batch) if batch.final_rows.size else {}
        return batch.observations, batch.rewards, batch.terminals, batch.truncations, infos

    def _final_infos(self, batch: StepBatch) -> dict[str, Any]:
        """What Gymnasium tells of episodes that ended, and of those that began instead."""
        infos: dict[str, Any] = {}
        final = iter(batch.final_observations)
        for outcome in batch.episodes:
            for agent in range(self.vec.agents_per_world):
                row = outcome.world * self.vec.agents_per_world + agent
                told = {"final_obs": next(final), "final_info": outcome_info(outcome, agent)}
                infos = self._add_info(infos, told, row)
        return infos | self._task_infos(np.isin(np.arange(self.num_envs), batch.final_rows))

    def _task_infos(self, begun: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """The tasks of rows whose episode has just begun."""
        agents = self.vec.agents_per_world
        tasks = np.full(self.num_envs, None, dtype=object)
        for row in np.flatnonzero(begun):
            tasks[row] = self.vec.task_name(int(row) // agents)
        return {"task": tasks, "_task": begun}

    def render(self) -> tuple[Any, ...] | None:
        """A frame for each row, that of its world; None without a `render_mode`."""
        if self.render_mode is None:
            return None
        one = draw if self.render_mode == "rgb_array" else world_as_text
        frames = [one(self.vec.engine, world) for world in range(self.vec.num_worlds)]
        return tuple(frames[row // self.vec.agents_per_world] for row in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:  # noqa: ARG002 Gymnasium hands on what it was given
        """End threads and worker processes."""
        self.vec.close()


def _num_worlds(tasks: EnvConfig | Curriculum, num_envs: int) -> int:
    """How many worlds it takes for so many rows."""
    config = tasks if isinstance(tasks, EnvConfig) else tasks.tasks[0].config
    agents = config.game.num_agents
    if num_envs < 1 or num_envs % agents:
        raise ValueError(
            f"num_envs is {num_envs}; every agent is a row, and a world has {agents}: give a multiple of {agents}."
        )
    return num_envs // agents


def outcome_info(outcome: EpisodeOutcome, agent: int) -> dict[str, Any]:
    """What an ended episode was for one of its agents."""
    told: dict[str, Any] = {
        "task": outcome.task,
        "episode_return": float(outcome.returns[agent]),
        "episode_length": outcome.length,
    }
    return told | {"stats": outcome.stats["agent"][agent]} if outcome.stats else told
