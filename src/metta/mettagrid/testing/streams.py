"""Playing an environment, and holding every step to what `VecEnv` promises."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.config import GameConfig
from metta.mettagrid.outcomes import EpisodeOutcome, StepBatch
from metta.mettagrid.spec import EnvSpec
from metta.mettagrid.testing.tokens import find_problem, values_of
from metta.mettagrid.vec import VecEnv

Shown = dict[str, Any]
"""What one world showed at one step, by name; compared with ==."""


def _digest(array: NDArray[Any]) -> bytes:
    return hashlib.blake2b(array.tobytes(), digest_size=16).digest()


class CheckError(AssertionError):
    """An environment does not keep a promise; the text says which, where, and what to do."""


class ActionStream:
    """Random legal actions for every world, which do not depend on how many worlds there are.

    Args:
        spec: says what is legal.
        agents: agents of a world.
        seeds: one for every world.
    """

    def __init__(self, spec: EnvSpec, agents: int, seeds: Sequence[int]) -> None:
        self._legal = np.array(spec.legal_actions, np.int32)
        self._agents = agents
        self._generators = [np.random.default_rng(seed) for seed in seeds]

    def draw(self) -> NDArray[np.int32]:
        """int32 `[worlds * agents, 2]`, the next actions."""
        size = len(self._legal)
        return np.concatenate(
            [self._legal[rng.integers(size, size=self._agents)] for rng in self._generators]
        )


class Watch:
    """Plays an environment and writes down what each world shows.

    Args:
        env: what to play; it has been reset from a seed, or put into some state.
        what: how to call it in sentences.
        actions: what its agents do.
        strict: hold every step to what is promised, apart from writing it down.
        begun: whether every world stands at the beginning of an episode.

    Attributes:
        shown: for every reset and every step, what each world showed.
        num_steps: steps that were done.
        num_episodes: episodes that ended.
    """

    def __init__(
        self, env: VecEnv, what: str, actions: ActionStream, *, strict: bool = False, begun: bool = True
    ) -> None:
        self.env = env
        self.what = what
        self.actions = actions
        self.strict = strict
        self.shown: list[list[Shown]] = []
        self.num_steps = 0
        self.num_episodes = 0
        self._games: dict[str, GameConfig] = {task.name: task.config.game for task in env.curriculum.tasks}
        self._tasks = [env.task_name(world) for world in range(env.num_worlds)]
        self._lengths = np.zeros(env.num_worlds, np.int64)
        self._returns = np.zeros(env.num_agents, np.float32)
        self._begun = np.full(env.num_worlds, begun)
        self._last: tuple[StepBatch, tuple[NDArray[Any], ...]] | None = None
        if begun:
            self._look()

    def restart(self) -> None:
        """Begin the next episode in every world."""
        self.env.reset()
        self._begun[:] = True
        self._lengths[:] = 0
        self._returns[:] = 0
        self._tasks = [self.env.task_name(world) for world in range(self.env.num_worlds)]
        self._look()

    def _look(self) -> None:
        """Write down, and check, the first observations of all worlds."""
        env = self.env
        first = env.observations.reshape(env.num_worlds, -1)
        self.shown.append([{"first observations": _digest(seen)} for seen in first])
        if self.strict:
            self._check_observations(env.observations, "after reset")
            self._check_first(np.arange(env.num_agents), env.observations, "after reset")
            if not env.starts.all():
                self.fail("after reset", "env.starts is not all true", "every world has just begun; set it")

    def play(self, steps: int) -> None:
        """Go on for so many steps."""
        for _ in range(steps):
            self.step()

    def step(self) -> StepBatch:
        """Do one step.

        Raises:
            CheckError: the environment breaks a promise.
        """
        actions = self.actions.draw()
        given = actions.copy()
        batch = self.env.step(actions)
        self._lengths += 1
        self.num_episodes += len(batch.episodes)
        where = f"at step {self.num_steps}"
        self.num_steps += 1
        if self.strict:
            if not np.array_equal(actions, given):
                self.fail(where, "the caller's actions were changed", "step reads them; work on a copy")
            self._check_arrays(batch, where)
            self._check_kept(batch, where)
            self._check_ends(batch, where)
            self._check_outcomes(batch, where)
            self._check_observations(batch.observations, where)
            self._check_observations(batch.final_observations, f"in the final observations {where}")
            self._check_last_action(batch, given, where)
        self.shown.append(self._write_down(batch))
        ended = np.unique(batch.final_rows // self.env.agents_per_world)
        self._lengths[ended] = 0
        self._begun[ended] = True
        for world in ended.tolist():
            self._tasks[world] = self.env.task_name(world)
        return batch

    def fail(self, where: str, wrong: str, remedy: str) -> NoReturn:
        """Say what is wrong."""
        raise CheckError(f"{self.what}: {where}, {wrong}; {remedy}.")

    def place(self, row: int) -> str:
        """A row of the batch in words."""
        world, agent = divmod(int(row), self.env.agents_per_world)
        return f"world {world}, agent {agent}"

    def _write_down(self, batch: StepBatch) -> list[Shown]:
        env = self.env
        outcomes = {outcome.world: outcome for outcome in batch.episodes}
        entries = []
        for world in range(env.num_worlds):
            rows = slice(world * env.agents_per_world, (world + 1) * env.agents_per_world)
            shown: Shown = {
                "observations": _digest(batch.observations[rows]),
                "rewards": batch.rewards[rows].tolist(),
                "terminals": batch.terminals[rows].tolist(),
                "truncations": batch.truncations[rows].tolist(),
                "starts": env.starts[rows].tolist(),
                "task": env.task_name(world),
            }
            final = batch.final_observations[batch.final_rows // env.agents_per_world == world]
            shown["final observations"] = _digest(final)
            if world in outcomes:
                outcome = outcomes[world]
                shown["outcome"] = (outcome.task, outcome.length, outcome.returns.tolist(), outcome.truncated)
                shown["statistics"] = outcome.stats
            entries.append(shown)
        return entries

    def _check_arrays(self, batch: StepBatch, where: str) -> None:
        rows, tokens = self.env.num_agents, self.env.spec.num_tokens
        final = len(batch.final_rows)
        for name, array, shape, dtype in (
            ("observations", batch.observations, (rows, tokens, 3), np.uint8),
            ("rewards", batch.rewards, (rows,), np.float32),
            ("terminals", batch.terminals, (rows,), np.bool_),
            ("truncations", batch.truncations, (rows,), np.bool_),
            ("final_observations", batch.final_observations, (final, tokens, 3), np.uint8),
            ("env.starts", self.env.starts, (rows,), np.bool_),
        ):
            if array.shape != shape or array.dtype != dtype:
                self.fail(where, f"{name} is {array.dtype} {array.shape}", f"give {np.dtype(dtype)} {shape}")
        odd = np.flatnonzero(~np.isfinite(batch.rewards))
        if len(odd):
            reward = batch.rewards[odd[0]]
            self.fail(
                where,
                f"the reward of {self.place(odd[0])} is {reward}",
                "no learner survives that; look for a division or an overflow in what is rewarded",
            )

    def _check_kept(self, batch: StepBatch, where: str) -> None:
        """What was handed out at the last step has to stay as it was; only observations are live."""
        if self._last is not None:
            earlier, kept = self._last
            for name, array in zip(("rewards", "terminals", "truncations"), kept, strict=True):
                if not np.array_equal(getattr(earlier, name), array, equal_nan=name == "rewards"):
                    self.fail(where, f"the {name} of the step before were overwritten", "hand out copies")
        self._last = batch, (batch.rewards.copy(), batch.terminals.copy(), batch.truncations.copy())

    def _check_ends(self, batch: StepBatch, where: str) -> None:
        """Flags, final rows and starts belong together, a world ends as one, and when its rules say."""
        env, agents = self.env, self.env.agents_per_world
        both = np.flatnonzero(batch.terminals & batch.truncations)
        if len(both):
            self.fail(
                where,
                f"{self.place(both[0])} is both terminal and truncated",
                "an episode was either over or cut off; set one of the flags",
            )
        terminals, truncations = batch.terminals.reshape(-1, agents), batch.truncations.reshape(-1, agents)
        for name, flags in (("terminals", terminals), ("truncations", truncations)):
            mixed = np.flatnonzero(flags.any(axis=1) != flags.all(axis=1))
            if len(mixed):
                self.fail(
                    where,
                    f"only some agents of world {mixed[0]} have {name}",
                    "a world ends as one; flag all",
                )
        ended = np.zeros(env.num_agents, np.bool_)
        ended[batch.final_rows] = True
        flagged = batch.terminals | batch.truncations
        odd = np.flatnonzero(ended != flagged)
        if len(odd):
            which = (
                "is flagged as ended but has no final observation" if flagged[odd[0]] else "was not flagged"
            )
            self.fail(
                where,
                f"{self.place(odd[0])} {which}",
                "flags and final_rows name the same rows, those whose episode ended in this step",
            )
        odd = np.flatnonzero(env.starts != ended)
        if len(odd):
            self.fail(
                where,
                f"env.starts of {self.place(odd[0])} is {bool(env.starts[odd[0]])}",
                "it is true exactly where a new episode has just begun, so that memories are cleared there",
            )
        for world in np.flatnonzero(self._begun).tolist():
            game = self._games[self._tasks[world]]
            length = int(self._lengths[world])
            over = bool(game.max_steps) and length >= game.max_steps
            cut = bool(game.episode_lifetime) and length >= game.episode_lifetime
            expected = (
                over and not game.episode_truncates,
                (over and game.episode_truncates) or (cut and not over),
            )
            got = (bool(terminals[world, 0]), bool(truncations[world, 0]))
            staggered = (
                env.stagger and got == (False, True) and not any(e.world == world for e in batch.episodes)
            )
            if got != expected and not staggered:
                self.fail(
                    where,
                    f"world {world} has (terminal, truncated) {got} after {length} steps",
                    f"by max_steps {game.max_steps}, episode_lifetime {game.episode_lifetime} and episode_truncates "
                    f"{game.episode_truncates} it should be {expected}",
                )

    def _check_outcomes(self, batch: StepBatch, where: str) -> None:
        agents = self.env.agents_per_world
        self._returns += batch.rewards
        ended = sorted(set((batch.final_rows // agents).tolist()))
        told = [outcome.world for outcome in batch.episodes]
        if told != ended and not (self.env.stagger and set(told) <= set(ended)):
            self.fail(
                where,
                f"worlds {ended} ended but the outcomes are of {told}",
                "give one for every ended episode",
            )
        for outcome in batch.episodes:
            self._check_outcome(outcome, batch, where)
        self._returns[batch.final_rows] = 0
        self._check_first(batch.final_rows, batch.observations[batch.final_rows], where)

    def _check_outcome(self, outcome: EpisodeOutcome, batch: StepBatch, where: str) -> None:
        world, agents = outcome.world, self.env.agents_per_world
        rows = slice(world * agents, (world + 1) * agents)
        if not self._begun[world]:
            return
        truths: tuple[tuple[str, Any, Any], ...] = (
            ("length", outcome.length, int(self._lengths[world])),
            ("task", outcome.task, self._tasks[world]),
            ("returns", outcome.returns.tolist(), self._returns[rows].tolist()),
            ("truncated", outcome.truncated, bool(batch.truncations[rows].any())),
        )
        for name, told, counted in truths:
            if told != counted:
                self.fail(
                    where,
                    f"the outcome of world {world} has {name} {told}",
                    f"what the steps showed comes to {counted}",
                )
        for agent, stats in enumerate(outcome.stats.get("agent", [])):
            for name, value in stats.items():
                if not np.isfinite(value):
                    self.fail(
                        where,
                        f"the statistic {name} of world {world}, agent {agent} is {value}",
                        "count in finite numbers",
                    )
                if name in ("action.invalid_type", "action.invalid_arg"):
                    self.fail(
                        where,
                        f"{value:g} legal actions of world {world}, agent {agent} count as {name}",
                        "spec.max_action_args and the rules disagree on what is legal",
                    )

    def _check_observations(self, observations: NDArray[np.uint8], where: str) -> None:
        problem = find_problem(observations, self.env.spec) if len(observations) else None
        if problem is not None:
            raise CheckError(f"{self.what}: {where}, {self.place(problem[0])}: {problem[1]}.")

    def _check_first(self, rows: NDArray[Any], observations: NDArray[np.uint8], where: str) -> None:
        """A first observation knows of no step before it."""
        for name in ("episode_completion_pct", "last_action", "last_action_arg", "last_reward"):
            odd = np.flatnonzero(values_of(observations, self.env.spec, name) > 0)
            if len(odd):
                self.fail(
                    where,
                    f"the first observation of {self.place(rows[odd[0]])} shows a {name} of an episode before it",
                    "show what the new episode begins with, the old one's last view is its final observation",
                )

    def _check_last_action(self, batch: StepBatch, actions: NDArray[np.int32], where: str) -> None:
        """Every view of a step shows the action that led to it; that of an ended episode is the final one."""
        views = batch.observations.copy()
        views[batch.final_rows] = batch.final_observations
        for part, name in enumerate(("last_action", "last_action_arg")):
            seen = values_of(views, self.env.spec, name)
            odd = np.flatnonzero((seen >= 0) & (seen != actions[:, part] % 256))
            if len(odd):
                row = odd[0]
                kind = "final observation" if row in batch.final_rows else "observation"
                self.fail(
                    where,
                    f"the {kind} of {self.place(row)} shows {name} {seen[row]} after {actions[row].tolist()}",
                    "it has to be what the agent sees after its action",
                )
