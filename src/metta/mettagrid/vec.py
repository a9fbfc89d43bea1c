"""Many worlds in one engine call, with automatic reset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Curriculum, SingleTaskCurriculum
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.map.builder import make_map_builder
from metta.mettagrid.rules import compile_rules
from metta.mettagrid.spec import EnvSpec

if TYPE_CHECKING:
    from metta.mettagrid.env import MettaGridEnv

INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class EpisodeOutcome:
    """One finished episode.

    Attributes:
        world: its place in the batch.
        task: name of the task that was played.
        length: steps.
        returns: float32 `[agents]`: the sum of the rewards that each agent received.
        truncated: whether it was cut off rather than ended by the task.
        stats: the engine's statistics (game, agent, converter), {} if they are switched off.
    """

    world: int
    task: str
    length: int
    returns: npt.NDArray[np.float32]
    truncated: bool
    stats: dict[str, Any]

    @property
    def score(self) -> float:
        """Mean over agents of their total reward."""
        return float(np.mean(self.returns, dtype=np.float64))


@dataclass(frozen=True)
class StepBatch:
    """What one step of the worlds gives. R = rows stepped, agents of a world side by side, K = tokens.

    Attributes:
        observations: uint8 `[R, K, 3]`, live: valid until the next step. Where an episode ended this is already
            the first observation of the next one.
        rewards: float32 `[R]`.
        terminals: bool `[R]`: the task ended the episode; nothing follows, so nothing is bootstrapped.
        truncations: bool `[R]`: the episode was cut off; the value of its final observation stands for the rest.
        final_rows: int64 `[F]`: rows of the whole batch whose episode ended in this step.
        final_observations: uint8 `[F, K, 3]`: the last observation of those agents' old episode.
        episodes: the episodes that ended.
    """

    observations: npt.NDArray[np.uint8]
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]
    truncations: npt.NDArray[np.bool_]
    final_rows: npt.NDArray[np.int64]
    final_observations: npt.NDArray[np.uint8]
    episodes: list[EpisodeOutcome]


class VecEnv:
    """B worlds that step together; each is reset by itself, in the same step in which its episode ends.

    Row `world * agents_per_world + agent` of every array belongs to that agent. What happens in a world is a
    function of (tasks, seed, world, actions) alone: its e-th episode draws task, map and agent order from the seed split by
    (world, e), so it depends neither on its neighbours nor on `num_threads`.

    Args:
        tasks: an environment, or a curriculum that chooses one for each episode. All of them must have
            the same number of agents and the same actions, features and window.
        num_worlds: B.
        seed: see above.
        num_threads: threads that step worlds side by side.
        stagger: cut every world's first episode off at a random step, so that worlds whose episodes are equally long do
            not march in step: a batch of training then sees every phase of an episode. A cut is a truncation, and no
            outcome is reported for it.
        collect_stats: whether finished episodes carry the engine's statistics (a dict built at each end of an episode).

    Raises:
        ValueError: tasks that do not fit together, or a map that cannot be built.
    """

    def __init__(
        self,
        tasks: EnvConfig | Curriculum,
        num_worlds: int = 1,
        *,
        seed: int = 0,
        num_threads: int = 1,
        stagger: bool = False,
        collect_stats: bool = True,
    ) -> None:
        if num_worlds < 1:
            raise ValueError(f"num_worlds is {num_worlds}; a batch needs at least one world.")
        self.curriculum: Curriculum = SingleTaskCurriculum(tasks) if isinstance(tasks, EnvConfig) else tasks
        configs = [task.config for task in self.curriculum.tasks]
        rules = [compile_rules(config.to_world_config()) for config in configs]
        self.spec: EnvSpec = rules[0].spec
        for task, table in zip(self.curriculum.tasks, rules, strict=True):
            if table.spec != self.spec or table.num_agents != rules[0].num_agents:
                raise ValueError(
                    f"task '{task.name}' differs from '{self.curriculum.tasks[0].name}' in its agents, actions, features or "
                    "window; tasks of one batch must have these in common."
                )
        self._builders = [
            make_map_builder(config, table.cell_codes) for config, table in zip(configs, rules, strict=True)
        ]
        self.engine = GridEngine(
            rules,
            num_worlds,
            max_height=max(config.map_builder.height for config in configs),
            max_width=max(config.map_builder.width for config in configs),
            num_threads=num_threads,
        )
        self.num_worlds = num_worlds
        self.agents_per_world: int = rules[0].num_agents
        self.num_agents = num_worlds * self.agents_per_world
        self.single_observation_space = self.spec.observation_space
        self.single_action_space = self.spec.action_space
        self.stagger = stagger
        self.collect_stats = collect_stats
        self.observations = self._rows(self.engine.observations)
        self.starts = np.ones(self.num_agents, dtype=np.bool_)
        self._episode = np.full(num_worlds, -1, dtype=np.int64)
        self._task = np.zeros(num_worlds, dtype=np.int64)
        self._returns = np.zeros((num_worlds, self.agents_per_world), dtype=np.float32)
        self._lengths = np.zeros(num_worlds, dtype=np.int64)
        self._cut_at = np.zeros(
            num_worlds, dtype=np.int64
        )  # step at which to cut an episode off; 0: not at all
        self._actions = np.zeros((num_worlds, self.agents_per_world, 2), dtype=np.int32)
        self.seed = seed
        self.reset(seed)

    @property
    def num_threads(self) -> int:
        """Threads that step worlds side by side."""
        return self.engine.num_threads

    def _rows(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An engine array `[B, A, ...]` as `[B * A, ...]`, without a copy."""
        return array.reshape(self.num_agents, *array.shape[2:])

    def reset(self, seed: int | None = None) -> npt.NDArray[np.uint8]:
        """Begin a new episode in every world.

        Args:
            seed: restart the stream of episodes from this seed, at once; None: go on with the next episodes.

        Returns:
            uint8 `[N, K, 3]`: the first observations, live.
        """
        if seed is not None:
            if seed < 0:
                raise ValueError(f"seed is {seed}; give a number >= 0.")
            self.seed = seed
            self._episode[:] = -1
        self._begin(list(range(self.num_worlds)))
        return self.observations

    def _begin(self, worlds: list[int]) -> None:
        """Start the next episode of these worlds."""
        grids, seeds, tasks = [], [], []
        for world in worlds:
            episode = int(self._episode[world]) + 1
            rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(world, episode)))
            task = self.curriculum.sample(rng)
            grids.append(self._builders[task](rng))
            seeds.append(int(rng.integers(2**32)))
            tasks.append(task)
            steps = self.curriculum.tasks[task].config.game.longest_episode
            self._cut_at[world] = rng.integers(1, steps + 1) if self.stagger and episode == 0 and steps else 0
        self.engine.reset(worlds, grids, seeds, tasks)
        self._episode[worlds] += 1
        self._task[worlds] = tasks
        self._returns[worlds] = 0
        self._lengths[worlds] = 0
        self.starts.reshape(self.num_worlds, -1)[worlds] = True

    def step(self, actions: npt.NDArray[np.integer[Any]], worlds: slice | None = None) -> StepBatch:
        """Step the worlds once, and begin a new episode wherever one ended.

        Args:
            actions: integers `[R, 2]`: (action id, argument) of each agent of the stepped worlds.
            worlds: step only this contiguous part of the batch; None: all of it.

        Returns:
            The rows of the stepped worlds; `final_rows` are numbered over the whole batch.

        Raises:
            ValueError: `actions` has the wrong shape or is not made of integers.
        """
        lo, hi, stride = (worlds or slice(None)).indices(self.num_worlds)
        if stride != 1:
            raise ValueError(f"worlds is {worlds}; step a contiguous part of the batch.")
        agents = self.agents_per_world
        rows = slice(lo * agents, hi * agents)
        actions = np.asarray(actions)
        if actions.shape != ((hi - lo) * agents, 2) or actions.dtype.kind not in "iu":
            raise ValueError(
                f"actions is {actions.dtype} {list(actions.shape)}; give integers [{(hi - lo) * agents}, 2]: "
                "(action id, argument) for each agent."
            )
        # int32 extremes are merely invalid actions; numbers beyond them must not wrap round into valid ones.
        self._actions[lo:hi] = np.clip(actions, INT32.min, INT32.max).reshape(hi - lo, agents, 2)
        self.engine.step(self._actions, slice(lo, hi))

        engine = self.engine
        rewards = engine.rewards[lo:hi].copy()
        terminals = engine.terminals[lo:hi].copy()
        truncations = engine.truncations[lo:hi].copy()
        self._returns[lo:hi] += rewards
        self._lengths[lo:hi] += 1
        self.starts[rows] = False
        cut = (self._lengths[lo:hi] == self._cut_at[lo:hi]) & ~(terminals | truncations).any(axis=1)
        truncations[cut] = True
        ended = [lo + int(w) for w in np.flatnonzero((terminals | truncations).any(axis=1))]
        episodes = [
            self._outcome(world, bool(truncations[world - lo].any()))
            for world in ended
            if not cut[world - lo]
        ]
        final_observations = engine.observations[ended].reshape(-1, *self.observations.shape[1:])
        if ended:
            for outcome in episodes:
                self.curriculum.update(int(self._task[outcome.world]), outcome.score)
            self._begin(ended)
        return StepBatch(
            observations=self.observations[rows],
            rewards=rewards.reshape(-1),
            terminals=terminals.reshape(-1),
            truncations=truncations.reshape(-1),
            final_rows=(np.asarray(ended, dtype=np.int64)[:, None] * agents + np.arange(agents)).reshape(-1),
            final_observations=final_observations,
            episodes=episodes,
        )

    def task_name(self, world: int) -> str:
        """Name of the task that a world is playing."""
        return self.curriculum.tasks[int(self._task[world])].name

    def _outcome(self, world: int, truncated: bool) -> EpisodeOutcome:
        return EpisodeOutcome(
            world=world,
            task=self.task_name(world),
            length=int(self._lengths[world]),
            returns=self._returns[world].copy(),
            truncated=truncated,
            stats=self.engine.episode_stats(world) if self.collect_stats else {},
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly: engine arrays, clocks, seed and curriculum."""
        return {
            "engine": self.engine.snapshot(),
            "seed": self.seed,
            "episode": self._episode.copy(),
            "task": self._task.copy(),
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "starts": self.starts.copy(),
            "cut_at": self._cut_at.copy(),
            "curriculum": self.curriculum.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict` of an environment of the same tasks and size.

        Raises:
            ValueError: the state is of another number of worlds or agents.
        """
        if np.shape(state["returns"]) != self._returns.shape:
            raise ValueError(
                f"the saved environment has {np.shape(state['returns'])} (worlds, agents), this one {self._returns.shape}; "
                "make the environment as it was."
            )
        self.engine.restore(state["engine"])
        self.seed = int(state["seed"])
        self._episode[:] = state["episode"]
        self._task[:] = state["task"]
        self._returns[:] = state["returns"]
        self._lengths[:] = state["lengths"]
        self.starts[:] = state["starts"]
        self._cut_at[:] = state["cut_at"]
        self.curriculum.load_state_dict(state["curriculum"])


def as_vec_env(env: MettaGridEnv | VecEnv) -> VecEnv:
    """The vectorised form of either kind of environment; of a single world, the batch of one behind it."""
    return env if isinstance(env, VecEnv) else env.vec
