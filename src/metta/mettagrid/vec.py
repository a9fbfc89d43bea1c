"""Many worlds in one engine call, with automatic reset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.cuda_fleet import CudaFleet, DeviceArrays
from metta.mettagrid.curriculum.base import Curriculum, SingleTaskCurriculum
from metta.mettagrid.engine.board import ENDED
from metta.mettagrid.engine.streams import (
    STREAM_COLUMNS,
    as_generator,
    open_streams,
    save_stream,
    seed_words,
)
from metta.mettagrid.fleet import Fleet, LocalFleet, TaskSet
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.outcomes import EpisodeOutcome, LateOutcomes, StepBatch
from metta.mettagrid.spec import EnvSpec
from metta.mettagrid.workers import WorkerFleet

if TYPE_CHECKING:
    from metta.mettagrid.env import MettaGridEnv


class VecEnv:
    """B worlds that step together; each is reset by itself, in the same step in which its episode ends.

    Row `world * agents_per_world + agent` of every array belongs to that agent. What happens in a world is a
    function of (tasks, seed, world, actions) alone: its e-th episode draws task, map and agent order from the seed split by
    (world, e), so it depends neither on its neighbours nor on threads or worker processes.

    Args:
        tasks: an environment, or a curriculum that chooses one for each episode. All of them must have
            the same number of agents and the same actions, features and window.
        num_worlds: B.
        seed: see above.
        num_threads: threads that step worlds side by side in this process.
        num_workers: processes that build maps and step worlds, each its share of them; 0: this process does it.
        zero_copy: observations that are handed out are live, and valid until the next step of their worlds; False: they
            are copies.
        stagger: cut the episodes that begin with the environment or a `reset` off at a random step, so that worlds whose
            episodes are equally long do not march in step: a batch of training then sees every phase of an episode. A cut
            is a truncation, and no outcome is reported for it.
        collect_stats: whether finished episodes carry the engine's statistics (a dict built at each end of an episode).
        observations: the array uint8 `[N, K, 3]` to write observations into; None: one of its own.
        device: the worlds live on a GPU, and arrays that are handed out (observations, rewards, terminals, truncations)
            lie there, in the form that `device` gives them; actions may. A step does not wait for the GPU: outcomes are
            fetched, and the curriculum hears of them, when one of `StepBatch.episodes` is looked at (`rollout` does in
            the end), at a `reset` or `state_dict`, or when more than `num_worlds` wait. None: on the host.

    Raises:
        ValueError: tasks or numbers that do not fit together, or a map that cannot be built.
        RuntimeError: a worker process could not be started, or there is no GPU to be used.
    """

    def __init__(
        self,
        tasks: EnvConfig | Curriculum,
        num_worlds: int = 1,
        *,
        seed: int = 0,
        num_threads: int = 1,
        num_workers: int = 0,
        zero_copy: bool = True,
        stagger: bool = False,
        collect_stats: bool = True,
        observations: npt.NDArray[np.uint8] | None = None,
        device: DeviceArrays | None = None,
    ) -> None:
        if num_worlds < 1:
            raise ValueError(f"num_worlds is {num_worlds}; a batch needs at least one world.")
        if device is not None and (num_workers or num_threads > 1 or observations is not None):
            raise ValueError(
                f"device is given with num_threads {num_threads} and num_workers {num_workers}: worlds on a GPU are stepped and "
                "observed there, so leave num_threads, num_workers and observations out."
            )
        if num_workers and num_threads > 1:
            raise ValueError(
                f"num_threads is {num_threads} and num_workers is {num_workers}; the worlds are stepped by threads of this "
                "process or by worker processes, so leave one of them out."
            )
        if num_workers and observations is not None:
            raise ValueError(
                f"num_workers is {num_workers}, and worker processes write into memory of their own; leave observations out."
            )
        self.curriculum: Curriculum = SingleTaskCurriculum(tasks) if isinstance(tasks, EnvConfig) else tasks
        task_set = TaskSet.of(self.curriculum.tasks)
        self.spec: EnvSpec = task_set.spec
        self.num_worlds = num_worlds
        self.agents_per_world: int = task_set.num_agents
        self.num_agents = num_worlds * self.agents_per_world
        self.num_workers = num_workers
        self.zero_copy = zero_copy
        self.single_observation_space = self.spec.observation_space
        self.single_action_space = self.spec.action_space
        self.stagger = stagger
        self.collect_stats = collect_stats
        self._episode = np.full(num_worlds, -1, dtype=np.int64)
        self._task = np.zeros(num_worlds, dtype=np.int64)
        self._device = device
        self._fleet: Fleet
        if num_workers:
            self._fleet = WorkerFleet(task_set, num_worlds, num_workers, collect_stats=collect_stats)
        elif device is not None:
            self._fleet = fleet = CudaFleet(task_set, num_worlds, device)
            self._late_results = fleet.late_results
        else:
            self._fleet = LocalFleet(
                task_set,
                num_worlds,
                num_threads=num_threads,
                observations=None if observations is None else self._by_world(observations),
            )
        self.observations: npt.NDArray[np.uint8] = self._fleet.observations.reshape(
            self.num_agents, *self._fleet.observations.shape[2:]
        )
        episodes = self._fleet.episodes
        self.starts: npt.NDArray[np.bool_] = episodes.starts.reshape(-1)
        self._returns = episodes.returns
        # Of a device, what the host knows without asking: of ended episodes also how they ended.
        self._known = episodes if device is None else self.engine.episodes
        self._unheard: list[LateOutcomes] = []
        self._lengths = episodes.lengths
        # The step at which to cut an episode off; 0: not at all.
        self._cut_at = episodes.cut_at
        self._rewards = episodes.rewards.reshape(-1)
        self._terminals = episodes.terminals.reshape(-1)
        self._truncations = episodes.truncations.reshape(-1)
        self._agents = np.arange(self.agents_per_world)
        self._no_rows = np.zeros(0, dtype=np.int64)
        self._no_flags = np.zeros(0, dtype=np.bool_)
        self._no_observations = self._copied(self.observations[:0])
        self._draws_tasks = type(self.curriculum) is not SingleTaskCurriculum
        self.seed = seed
        try:
            self.reset(seed)
            self._untouched = True  # nobody has asked for these episodes yet
        except BaseException:
            self.close()
            raise

    def _by_world(self, observations: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The caller's array as `[B, A, K, 3]`, without a copy.

        Raises:
            ValueError: it is not that large, or not in one piece.
        """
        shape = (self.num_agents, self.spec.num_tokens, 3)
        if observations.shape != shape or not observations.flags.c_contiguous:
            raise ValueError(
                f"observations is {observations.dtype} {list(observations.shape)}; give uint8 {list(shape)} in one piece."
            )
        return observations.reshape(self.num_worlds, self.agents_per_world, *shape[1:])

    @property
    def engine(self) -> GridEngine:
        """The engine, where it is in this process.

        Raises:
            RuntimeError: the worlds live in worker processes.
        """
        if not isinstance(self._fleet, LocalFleet):
            raise RuntimeError(
                "this environment's worlds live in worker processes, which have the engines; make one without "
                "num_workers to look into its engine."
            )
        return self._fleet.engine

    @property
    def num_threads(self) -> int:
        """Threads or worker processes that step worlds side by side."""
        return self.num_workers or self.engine.num_threads

    def reset(self, seed: int | None = None) -> npt.NDArray[np.uint8]:
        """Begin a new episode in every world.

        Args:
            seed: restart the stream of episodes from this seed, at once; None: go on with the next episodes, the very
                first of which begin with the environment itself.

        Returns:
            uint8 `[N, K, 3]`: the first observations.
        """
        if seed is not None:
            if seed < 0:
                raise ValueError(f"seed is {seed}; give a number >= 0.")
            self.seed = seed
            self._episode[:] = -1
        self._hear()
        if seed is not None or not self._untouched:
            self._begin(np.arange(self.num_worlds), stagger=self.stagger)
        self._untouched = False
        return self._shown(slice(None))

    def restart(self, worlds: Sequence[int]) -> None:
        """Begin the next episode in some worlds only; what they were playing is left unfinished, and no outcome is reported.

        Args:
            worlds: their places in the batch, each once. `observations` and `starts` then show their new episodes.

        Raises:
            ValueError: a world that is not there, or stated twice.
        """
        chosen = [int(world) for world in worlds]
        if len(set(chosen)) < len(chosen) or not all(0 <= world < self.num_worlds for world in chosen):
            raise ValueError(f"worlds is {chosen}; state different worlds from 0 to {self.num_worlds - 1}.")
        if chosen:
            self._begin(np.array(chosen))
            self._untouched = False

    def _shown(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Observations in the form in which they are handed out."""
        return self.observations[rows] if self.zero_copy else self._copied(self.observations[rows])

    def _copied(self, array: Any) -> Any:
        return array.copy() if self._device is None else self._device.copy(array)

    def _begin(self, worlds: npt.NDArray[np.int64], stagger: bool = False) -> None:
        """Start the next episode of these worlds; `stagger` says whether it is cut off somewhere."""
        episodes = self._episode[worlds] + 1
        streams = np.empty((len(worlds), STREAM_COLUMNS), np.int64)
        open_streams(seed_words(self.seed), worlds, episodes, streams)
        tasks = [0] * len(worlds)
        self._cut_at[worlds] = 0
        if self._draws_tasks or stagger:
            for i, world in enumerate(worlds):
                rng = as_generator(streams[i])
                tasks[i] = self.curriculum.sample(rng)
                steps = self.curriculum.tasks[tasks[i]].config.game.longest_episode
                if stagger and steps:
                    self._cut_at[world] = rng.integers(1, steps + 1)
                save_stream(rng, streams[i])
        self._fleet.begin(worlds.tolist(), tasks, streams)
        self._episode[worlds] = episodes
        self._task[worlds] = tasks

    def step(self, actions: npt.NDArray[np.integer[Any]], worlds: slice | None = None) -> StepBatch:
        """Step the worlds once, and begin a new episode wherever one ended.

        Args:
            actions: integers `[R, 2]`: (action id, argument) of each agent of the stepped worlds.
            worlds: step only this contiguous part of the batch; None: all of it.

        Returns:
            The rows of the stepped worlds; `final_rows` are numbered over the whole batch.

        Raises:
            ValueError: `actions` has the wrong shape or is not made of integers.
            RuntimeError: a worker process is gone.
        """
        if worlds is None:
            lo, hi = 0, self.num_worlds
        else:
            lo, hi, stride = worlds.indices(self.num_worlds)
            hi = max(lo, hi)
            if stride != 1:
                raise ValueError(f"worlds is {worlds}; step a contiguous part of the batch.")
        self._launch(actions, lo, hi)
        return self._land(lo, hi)

    def _launch(self, actions: npt.NDArray[np.integer[Any]], lo: int, hi: int) -> None:
        """Have the worlds from `lo` to `hi` stepped."""
        if self._device is None:
            actions = np.asarray(actions)
            integers = actions.dtype.kind in "iu"
        else:
            actions = self._device.as_actions(actions)
            integers = True
        if tuple(actions.shape) != ((hi - lo) * self.agents_per_world, 2) or not integers:
            raise ValueError(
                f"actions is {actions.dtype} {list(actions.shape)}; give integers "
                f"[{(hi - lo) * self.agents_per_world}, 2]: (action id, argument) for each agent."
            )
        self._fleet.launch(actions, lo, hi)
        self._untouched = False

    def _land(self, lo: int, hi: int) -> StepBatch:
        """Take in the step that these worlds were launched on, and begin new episodes where one ended."""
        ended = self._fleet.wait(lo, hi)
        rewards, terminals, truncations = self._rewards, self._terminals, self._truncations
        observations = self.observations
        if hi - lo < self.num_worlds:
            rows = slice(lo * self.agents_per_world, hi * self.agents_per_world)
            rewards, terminals, truncations = rewards[rows], terminals[rows], truncations[rows]
            observations = observations[rows]
        if self._device is None:
            rewards, terminals, truncations = rewards.copy(), terminals.copy(), truncations.copy()
        else:
            rewards, terminals, truncations = map(self._device.copy, (rewards, terminals, truncations))
        final_rows, final_terminals, final_observations = self._no_rows, self._no_flags, self._no_observations
        episodes: Sequence[EpisodeOutcome] = []
        if ended:
            how = self._known.ended[lo:hi]
            over = lo + np.flatnonzero(how)
            episodes = self._outcomes([lo + int(w) for w in np.flatnonzero(how == ENDED)])
            final_rows = (over[:, None] * self.agents_per_world + self._agents).reshape(-1)
            final_terminals = self._known.terminals[over].reshape(-1)
            if self._device is None:
                final_observations = self.observations[final_rows]
            else:
                final_observations = self._device.take(self.observations, final_rows)
            self._begin(over)
        return StepBatch(
            observations=observations if self.zero_copy else self._copied(observations),
            rewards=rewards,
            terminals=terminals,
            truncations=truncations,
            final_rows=final_rows,
            final_terminals=final_terminals,
            final_observations=final_observations,
            episodes=episodes,
        )

    def task_name(self, world: int) -> str:
        """Name of the task that a world is playing."""
        return self.curriculum.tasks[int(self._task[world])].name

    def _outcomes(self, worlds: list[int]) -> Sequence[EpisodeOutcome]:
        """The episodes that just ended in some worlds, and word of them to the curriculum: at once, or of a device later."""
        if not worlds:
            return []
        tasks = self._task[worlds].tolist()
        known = [
            (
                world,
                self.task_name(world),
                int(self._lengths[world]),
                bool(self._known.truncations[world].any()),
            )
            for world in worlds
        ]

        def tell(returns: npt.NDArray[np.float32], stats: list[dict[str, Any]]) -> list[EpisodeOutcome]:
            episodes = [
                EpisodeOutcome(world, task, length, own, truncated, counted)
                for (world, task, length, truncated), own, counted in zip(known, returns, stats, strict=True)
            ]
            for task, episode in zip(tasks, episodes, strict=True):
                self.curriculum.update(task, episode.score)
            return episodes

        if self._device is None:
            stats = self._fleet.episode_stats(worlds) if self.collect_stats else [{} for _ in worlds]
            return tell(self._returns[worlds], stats)
        fetch = self._late_results(worlds, self.collect_stats)
        late = LateOutcomes(len(worlds), lambda: tell(*fetch()))
        if self._draws_tasks:
            self._unheard.append(late)
            if sum(map(len, self._unheard)) > self.num_worlds:
                self._hear()
        return late

    def _hear(self) -> None:
        """Let the curriculum hear of all episodes that have ended."""
        while self._unheard:
            self._unheard.pop(0)[:]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly: engine arrays, clocks, seed and curriculum."""
        self._hear()
        return {
            "engine": self._fleet.snapshot(),
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
        """Go on from `state_dict` of an environment of the same tasks and size, with any number of workers.

        Raises:
            ValueError: the state is of another number of worlds or agents.
        """
        if np.shape(state["returns"]) != self._returns.shape:
            raise ValueError(
                f"the saved environment has {np.shape(state['returns'])} (worlds, agents), this one {self._returns.shape}; "
                "make the environment as it was."
            )
        self._hear()
        self._fleet.restore(state["engine"])
        self._untouched = False
        self.seed = int(state["seed"])
        self._episode[:] = state["episode"]
        self._task[:] = state["task"]
        self._returns[:] = state["returns"]
        self._lengths[:] = state["lengths"]
        self.starts[:] = state["starts"]
        self._cut_at[:] = state["cut_at"]
        self.curriculum.load_state_dict(state["curriculum"])

    def close(self) -> None:
        """End threads and worker processes. Closing twice is fine; stepping afterwards is not."""
        self._fleet.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def as_vec_env(env: MettaGridEnv | VecEnv) -> VecEnv:
    """The vectorised form of either kind of environment; of a single world, the batch of one behind it."""
    return env if isinstance(env, VecEnv) else env.vec
