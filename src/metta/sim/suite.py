"""A suite of simulations: a policy plays all of them, and what happened becomes records and scores."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from metta.agent.policy import Policy
from metta.mettagrid.curriculum.base import Curriculum
from metta.mettagrid.rules import compile_rules
from metta.mettagrid.spec import EnvSpec
from metta.sim.config import SimulationSuite
from metta.sim.fitting import fit_policy
from metta.sim.scores import Score, combine, mean_score
from metta.sim.simulation import EVALUATION_SEED, check_ends, play_episodes

OnMisfit = Literal["raise", "skip"]
"""What to do with a simulation whose world the policy cannot play."""


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode of an evaluation.

    Attributes:
        simulation: its name in the suite, `category/name`.
        episode: its number within the simulation, from 0. It depends on nothing but the seed, so two policies evaluated
            with the same seed meet the same map in episodes of the same number.
        task: name of the task that was played.
        seed: of the simulation (`simulation_seed`).
        score: mean over agents of their total reward.
        returns: total reward of each agent.
        length: steps.
        truncated: whether it was cut off rather than ended by the task.
        agent_stats: the engine's statistics of each agent, value by name.
    """

    simulation: str
    episode: int
    task: str
    seed: int
    score: float
    returns: tuple[float, ...]
    length: int
    truncated: bool
    agent_stats: tuple[Mapping[str, float], ...] = ()

    @property
    def category(self) -> str:
        """The first part of the simulation's name."""
        return category_of(self.simulation)


@dataclass(frozen=True)
class SuiteResult:
    """What a policy did in a suite.

    Attributes:
        suite: what was asked for.
        seed: decides, with the policy and the suite, everything below.
        deterministic: whether the likeliest actions were taken.
        episodes: every episode, in the order of the suite and of the episodes' numbers.
        skipped: why a simulation was not played, by its name; such a simulation has no score and no part in one.
    """

    suite: SimulationSuite
    seed: int
    deterministic: bool
    episodes: tuple[EpisodeRecord, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def episodes_of(self, simulation: str) -> tuple[EpisodeRecord, ...]:
        """The episodes of one simulation."""
        return tuple(record for record in self.episodes if record.simulation == simulation)

    @property
    def simulation_scores(self) -> dict[str, Score]:
        """Mean score over the episodes of each simulation that was played, by its name."""
        return {name: mean_score(scores) for name, scores in self._scores().items()}

    @property
    def category_scores(self) -> dict[str, Score]:
        """Mean over the simulations of each category, every simulation counting the same; by category."""
        groups: dict[str, list[list[float]]] = {}
        for name, scores in self._scores().items():
            groups.setdefault(category_of(name), []).append(scores)
        return {category: combine(scores) for category, scores in groups.items()}

    @property
    def score(self) -> Score:
        """Mean over all simulations that were played, every simulation counting the same."""
        return combine(list(self._scores().values()))

    def metrics(self, prefix: str = "eval") -> dict[str, float]:
        """The means as numbers for a tracker: `PREFIX/score`, `PREFIX/CATEGORY/score`, `PREFIX/CATEGORY/NAME`."""
        means = {f"{prefix}/score": self.score.mean}
        means |= {f"{prefix}/{name}/score": score.mean for name, score in self.category_scores.items()}
        return means | {f"{prefix}/{name}": score.mean for name, score in self.simulation_scores.items()}

    def _scores(self) -> dict[str, list[float]]:
        scores: dict[str, list[float]] = {}
        for record in self.episodes:
            scores.setdefault(record.simulation, []).append(record.score)
        return scores


def run_suite(
    policy: Policy,
    suite: SimulationSuite,
    *,
    seed: int = 0,
    deterministic: bool = False,
    on_misfit: OnMisfit = "raise",
    num_threads: int = 1,
) -> SuiteResult:
    """Let a policy play every simulation of a suite, the episodes of each as one batch of worlds.

    The outcome is a function of (policy, suite, seed). A simulation's episodes do not depend on the others in the suite: its
    seed is drawn from the suite's seed and its name. The policy is left as it was.

    A policy that was trained in a world with other actions or features, or the same ones in another order, is fitted to each
    simulation by their names (`metta.agent.remap`, which also says what cannot be fitted).

    Args:
        policy: the policy of every agent.
        suite: what to play.
        seed: decides maps, agent order and sampled actions.
        deterministic: take the likeliest action instead of sampling.
        on_misfit: where the policy cannot play a simulation's world: `raise`, or `skip` it and say so in the result.
        num_threads: threads that step worlds side by side; changes nothing but the speed.

    Raises:
        ValueError: an unknown environment, a task without an end, a negative seed, a simulation that does not fit
            the policy, or none that does. The sentence names the simulation.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; give a number >= 0.")
    if on_misfit not in get_args(OnMisfit):
        raise ValueError(f"on_misfit is {on_misfit!r}; say 'raise' or 'skip'.")
    playable: dict[str, tuple[Policy, Curriculum]] = {}
    skipped: dict[str, str] = {}
    # All of them first: what cannot be played is better refused now than after the episodes of others.
    for name, simulation in suite.simulations.items():
        try:
            tasks = simulation.curriculum()
            check_ends(tasks)
            world = world_spec(tasks)
        except ValueError as error:
            raise ValueError(
                f"simulation '{name}' of suite '{suite.name}' cannot be made: {error}"
            ) from error
        try:
            playable[name] = fit_policy(policy, world, f"simulation '{name}'"), tasks
        except ValueError as error:
            if on_misfit == "raise":
                raise
            skipped[name] = str(error)
    episodes: list[EpisodeRecord] = []
    for name, (player, tasks) in playable.items():
        own_seed = simulation_seed(seed, name)
        try:
            outcomes = play_episodes(
                player,
                tasks,
                suite.simulations[name].num_episodes,
                seed=own_seed,
                deterministic=deterministic,
                num_threads=num_threads,
            )
        except ValueError as error:
            raise ValueError(f"simulation '{name}' of suite '{suite.name}': {error}") from error
        for episode, outcome in sorted(outcomes, key=lambda numbered: numbered[0]):
            episodes.append(
                EpisodeRecord(
                    simulation=name,
                    episode=episode,
                    task=outcome.task,
                    seed=own_seed,
                    score=outcome.score,
                    returns=tuple(float(value) for value in outcome.returns),
                    length=outcome.length,
                    truncated=outcome.truncated,
                    agent_stats=tuple(_numbers(stats) for stats in outcome.stats.get("agent", ())),
                )
            )
    if not episodes:
        raise ValueError(
            f"nothing of suite '{suite.name}' can be played, to begin with: {next(iter(skipped.values()))}"
        )
    return SuiteResult(suite, seed, deterministic, tuple(episodes), skipped)


def simulation_seed(seed: int, name: str) -> int:
    """The seed of one simulation of a suite: as far from the seeds that people train with as every evaluation's."""
    return EVALUATION_SEED + zlib.crc32(f"{seed} {name}".encode()) % EVALUATION_SEED


def category_of(simulation: str) -> str:
    """The category in a simulation's name."""
    return simulation.partition("/")[0]


def world_spec(tasks: Curriculum) -> EnvSpec:
    """The world of some tasks as its agents see it; all tasks of a curriculum share it."""
    return compile_rules(tasks.tasks[0].config.to_world_config()).spec


def _numbers(stats: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in stats.items()}
