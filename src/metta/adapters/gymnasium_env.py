"""A world with one agent as a `gymnasium.Env`."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from metta.adapters.actions import LegalActions
from metta.adapters.picture import draw
from metta.adapters.seeds import given_or_drawn
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.tasks import EnvLike, find_tasks

RENDER_MODES = ("rgb_array", "ansi")


class GymnasiumEnv(gym.Env[npt.NDArray[np.uint8], np.int64]):
    """One agent in one world.

    An observation is uint8 `[K, 3]` (`ObservationSpace`: it carries the `EnvSpec`), an action is the number of a legal
    (action id, argument) pair: `action_pairs` lists them.

    Args:
        env_config: the environment, typed, as a mapping of its fields, or the registered name of one or of a curriculum;
            None: the default one.
        render_mode: "rgb_array": `render` returns uint8 `[height, width, 3]`; "ansi": text, a character a cell.
        seed: decides maps and agent order of every episode, until `reset` is given another; None: drawn at random.
        **overrides: single values of the configuration by field name, for instance `max_steps=100`.

    Raises:
        ValueError: values that do not fit together, or a world with several agents.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": list(RENDER_MODES),
        "render_fps": 8,
    }

    def __init__(
        self,
        env_config: EnvLike | None = None,
        *,
        render_mode: str | None = None,
        seed: int | None = None,
        **overrides: Any,
    ) -> None:
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self._env = MettaGridEnv(find_tasks(env_config, **overrides), seed=given_or_drawn(seed))
        if self._env.num_agents != 1:
            raise ValueError(
                f"the world has {self._env.num_agents} agents, and a gymnasium.Env one; use GymnasiumVectorEnv (a row for each "
                "agent), PettingZooEnv, or num_agents=1."
            )
        self._actions = LegalActions(self._env.vec.spec)
        self.observation_space = self._env.single_observation_space
        self.action_space = self._actions.space()

    @property
    def action_pairs(self) -> npt.NDArray[np.int32]:
        """int32 `[n, 2]`: (action id, argument) by number of the action."""
        return self._actions.pairs.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: restart the stream of episodes from this seed; None: the next episode.
            options: none are known.

        Returns:
            The first observation, and an info dict with the task's name.
        """
        super().reset(seed=seed, options=options)
        observations, infos = self._env.reset(seed)
        return observations[0], infos

    def step(self, action: np.int64 | int) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Step the agent.

        Args:
            action: number of a legal action.

        Returns:
            Observation (after an episode's last step: its last), reward, whether the task ended the episode, whether it
            was cut off, and an info dict: at an episode's end `task`, `episode_return`, `episode_length` and the agent's
            `stats`.

        Raises:
            RuntimeError: the episode has ended and `reset` was not called.
            ValueError: there is no such action.
        """
        pairs = self._actions.pairs_of(np.asarray(action)[None], 1)
        observations, rewards, terminals, truncations, ended = self._env.step(pairs)
        infos: dict[str, Any] = {}
        if ended:
            infos = {
                "task": ended["episode"]["task"],
                "episode_return": float(ended["episode"]["returns"][0]),
                "episode_length": ended["episode"]["length"],
                "stats": ended["stats"]["agent"][0],
            }
        return observations[0], float(rewards[0]), bool(terminals[0]), bool(truncations[0]), infos

    def render(self) -> npt.NDArray[np.uint8] | str | None:
        """The world as `render_mode` says; None without one."""
        if self.render_mode == "rgb_array":
            return draw(self._env.vec.engine, 0)
        return self._env.render() if self.render_mode == "ansi" else None

    def close(self) -> None:
        """Nothing is stepped afterwards; closing twice is fine."""
        self._env.close()


def check_render_mode(render_mode: str | None) -> None:
    """See to it that a picture can be drawn like that.

    Raises:
        ValueError: it cannot.
    """
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode is '{render_mode}'; it is None, {' or '.join(RENDER_MODES)}.")
