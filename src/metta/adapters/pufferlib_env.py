"""Many worlds as one native environment of PufferLib 3."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from metta.adapters.actions import LegalActions
from metta.adapters.missing import missing
from metta.adapters.seeds import given_or_drawn
from metta.mettagrid.outcomes import EpisodeOutcome
from metta.mettagrid.tasks import EnvLike, find_tasks
from metta.mettagrid.vec import VecEnv

try:
    import pufferlib
except ModuleNotFoundError as error:
    raise missing(
        error, "PufferLib", "see docs/adapters.md, pip alone cannot install it beside Metta"
    ) from error

Array = npt.NDArray[Any]


class PufferLibEnv(pufferlib.PufferEnv):  # type: ignore[misc] # it is Any to a type checker, whether it is installed or not
    """Worlds that step together; a row is an agent, and agents of a world are side by side.

    The engine writes observations straight into PufferLib's buffer. Actions are numbers of legal (action id, argument)
    pairs; `action_pairs` lists them. Worlds are reset in the step in which their episode ends; PufferLib has no place for
    the last observation of the old episode. Each ended episode is one info: `episode_return` (mean over its agents) and
    `episode_length`.

    Attributes:
        vec: the worlds.
        episodes: those that ended in the last step.

    `pufferlib.vector` seeds the j-th environment of its i-th worker with seed + i + j, so several in one worker play
    episodes of their neighbours: give each worker one environment of many worlds.

    Args:
        env_config: the environment, typed, as a mapping of its fields, or the registered name of one or of a curriculum;
            None: the default one.
        num_worlds: worlds; the agents of all of them are the rows.
        num_threads: threads that step them.
        buf: PufferLib's buffers; None: its own.
        seed: decides maps and agent order of every episode, until `reset` is given another; None: drawn at random.
        stagger: cut first episodes off at random steps, so that worlds do not march in step; see `VecEnv`.
        collect_stats: whether `episodes` carry the engine's statistics.
        **overrides: single values of the configuration by field name, for instance `num_agents=8`.

    Raises:
        ValueError: values that do not fit together.
    """

    def __init__(
        self,
        env_config: EnvLike | None = None,
        num_worlds: int = 1,
        *,
        num_threads: int = 1,
        buf: dict[str, Array] | None = None,
        seed: int | None = None,
        stagger: bool = False,
        collect_stats: bool = False,
        **overrides: Any,
    ) -> None:
        self.vec = VecEnv(
            find_tasks(env_config, **overrides),
            num_worlds,
            seed=given_or_drawn(seed),
            num_threads=num_threads,
            stagger=stagger,
            collect_stats=collect_stats,
            observations=None if buf is None else buf["observations"],
        )
        self.episodes: list[EpisodeOutcome] = []
        self._actions = LegalActions(self.vec.spec)
        self.single_observation_space = self.vec.single_observation_space
        self.single_action_space = self._actions.space()
        self.num_agents = self.vec.num_agents
        super().__init__(buf)
        self.observations = self.vec.observations

    @property
    def action_pairs(self) -> npt.NDArray[np.int32]:
        """int32 `[n, 2]`: (action id, argument) by number of the action."""
        return self._actions.pairs.copy()

    def reset(self, seed: int | None = None) -> tuple[npt.NDArray[np.uint8], list[dict[str, float]]]:
        """Begin a new episode in every world.

        Args:
            seed: restart the stream of episodes from this seed; None: the next episodes.

        Returns:
            uint8 `[N, K, 3]`: the first observations (the buffer), and no infos.
        """
        self.vec.reset(seed)
        self.rewards[:] = 0
        self.terminals[:] = False
        self.truncations[:] = False
        return self.observations, []

    def step(
        self, actions: npt.NDArray[np.integer[Any]]
    ) -> tuple[npt.NDArray[np.uint8], Array, Array, Array, list[dict[str, float]]]:
        """Step every agent.

        Args:
            actions: integers `[N]`: numbers of legal actions.

        Returns:
            The buffers: observations uint8 `[N, K, 3]`, rewards float32 `[N]`, terminals and truncations bool `[N]`; and an
            info for each episode that ended.

        Raises:
            ValueError: not a legal action for each agent.
        """
        batch = self.vec.step(self._actions.pairs_of(actions, self.num_agents))
        self.rewards[:] = batch.rewards
        self.terminals[:] = batch.terminals
        self.truncations[:] = batch.truncations
        self.episodes = list(batch.episodes)
        infos = [
            {"episode_return": outcome.score, "episode_length": float(outcome.length)}
            for outcome in batch.episodes
        ]
        return self.observations, self.rewards, self.terminals, self.truncations, infos

    def close(self) -> None:
        """End threads."""
        self.vec.close()
