"""A world with any number of agents as a PettingZoo `ParallelEnv`."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from metta.adapters.actions import LegalActions
from metta.adapters.gymnasium_env import RENDER_MODES, check_render_mode
from metta.adapters.missing import missing
from metta.adapters.picture import draw
from metta.adapters.seeds import given_or_drawn
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.spec import ObservationSpace
from metta.mettagrid.tasks import EnvLike, find_tasks

try:
    from pettingzoo import ParallelEnv
except ModuleNotFoundError as error:
    raise missing(error, "PettingZoo") from error

Observations = dict[str, npt.NDArray[np.uint8]]


class PettingZooEnv(ParallelEnv):  # type: ignore[misc] # it is Any to a type checker, whether it is installed or not
    """One world; its agents are called `agent_0`, `agent_1`, ... and act at once.

    An observation is uint8 `[K, 3]`, an action is the number of a legal (action id, argument) pair: `action_pairs` lists
    them. All agents live until the episode ends; then `agents` is empty. For agents that take turns use PettingZoo's own
    `parallel_to_aec`.

    Args:
        env_config: the environment, typed, as a mapping of its fields, or the registered name of one or of a curriculum;
            None: the default one.
        render_mode: "rgb_array": `render` returns uint8 `[height, width, 3]`; "ansi": text, a character a cell.
        seed: decides maps and agent order of every episode, until `reset` is given another; None: drawn at random.
        **overrides: single values of the configuration by field name, for instance `num_agents=8`.

    Raises:
        ValueError: values that do not fit together.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "mettagrid_v0",
        "render_modes": list(RENDER_MODES),
        "render_fps": 8,
        "is_parallelizable": True,
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
        self._actions = LegalActions(self._env.vec.spec)
        self.possible_agents = [f"agent_{agent}" for agent in range(self._env.num_agents)]
        self.agents: list[str] = []
        spec = self._env.vec.spec
        self.observation_spaces = dict.fromkeys(self.possible_agents, spec.observation_space)
        self.action_spaces = {agent: self._actions.space() for agent in self.possible_agents}
        self.state_space = gym.spaces.Box(0, 255, (self._env.num_agents, spec.num_tokens, 3), np.uint8)
        self._last = self._env.vec.observations.copy()

    @property
    def action_pairs(self) -> npt.NDArray[np.int32]:
        """int32 `[n, 2]`: (action id, argument) by number of the action."""
        return self._actions.pairs.copy()

    def observation_space(self, agent: str) -> ObservationSpace:
        """The space of an agent's observations."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.spaces.Discrete:
        """The space of an agent's actions."""
        return self.action_spaces[agent]

    def reset(
        self,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 part of the interface; none are known
    ) -> tuple[Observations, dict[str, dict[str, Any]]]:
        """Begin an episode.

        Args:
            seed: restart the stream of episodes from this seed; None: the next episode.
            options: none are known.

        Returns:
            First observations and infos (the task's name) by agent.
        """
        self._last, infos = self._env.reset(seed)
        self.agents = list(self.possible_agents)
        return self._by_agent(), {agent: dict(infos) for agent in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[Observations, dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Step every agent.

        Args:
            actions: number of a legal action for each living agent.

        Returns:
            By agent: observations, rewards, whether the task ended the episode, whether it was cut off, and infos: at an
            episode's end `task`, `episode_return`, `episode_length` and the agent's `stats`.

        Raises:
            RuntimeError: no agent lives; `reset` comes first.
            ValueError: not a legal action for each living agent.
        """
        agents = self.agents
        if not agents:
            raise RuntimeError("no agent lives; call reset() before step().")
        if actions.keys() != set(agents):
            named = sorted(set(agents) ^ actions.keys())
            raise ValueError(
                f"actions lacks, or has too many: {', '.join(named)}; give one for each of env.agents."
            )
        numbers = np.array([actions[agent] for agent in agents])
        pairs = self._actions.pairs_of(numbers, len(agents))
        self._last, rewards, terminals, truncations, ended = self._env.step(pairs)
        infos: dict[str, dict[str, Any]] = {agent: {} for agent in agents}
        if ended:
            self.agents = []
            for place, agent in enumerate(agents):
                infos[agent] = {
                    "task": ended["episode"]["task"],
                    "episode_return": float(ended["episode"]["returns"][place]),
                    "episode_length": ended["episode"]["length"],
                    "stats": ended["stats"]["agent"][place],
                }
        return (
            self._by_agent(),
            dict(zip(agents, rewards.tolist(), strict=True)),
            dict(zip(agents, terminals.tolist(), strict=True)),
            dict(zip(agents, truncations.tolist(), strict=True)),
            infos,
        )

    def _by_agent(self) -> Observations:
        return dict(zip(self.possible_agents, self._last, strict=True))

    def state(self) -> npt.NDArray[np.uint8]:
        """uint8 `[agents, K, 3]`: what all agents together see, for critics that may know it."""
        return self._last.copy()

    def render(self) -> npt.NDArray[np.uint8] | str | None:
        """The world as `render_mode` says; None without one."""
        if self.render_mode == "rgb_array":
            return draw(self._env.vec.engine, 0)
        return self._env.render() if self.render_mode == "ansi" else None

    def close(self) -> None:
        """Nothing is stepped afterwards; closing twice is fine."""
        self._env.close()
