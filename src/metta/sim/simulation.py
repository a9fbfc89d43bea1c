"""Episodes of a policy as one batch of worlds, and what they amount to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from metta.agent.acting import holding_weights
from metta.agent.policy import Policy
from metta.mettagrid.curriculum.base import Curriculum
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.outcomes import EpisodeOutcome
from metta.mettagrid.vec import VecEnv, as_vec_env
from metta.sim.fitting import fit_policy
from metta.sim.scores import mean_score

EVALUATION_SEED = 1 << 31
"""Evaluations draw their episodes from here on, far from the small seeds that people train with."""

MAX_WORLDS = 64
"""Worlds that an evaluation steps side by side."""


def run_episodes(
    agent: Policy,
    env: MettaGridEnv | VecEnv,
    num_episodes: int = 10,
    *,
    seed: int = EVALUATION_SEED,
    deterministic: bool = False,
) -> list[EpisodeOutcome]:
    """Let a policy play whole episodes in worlds of its own; `env` and the policy are left as they were.

    Which episodes are played is decided by `seed` beforehand, so that short episodes do not crowd out long ones, and two
    policies compared with the same seed meet the same maps.

    Args:
        agent: the policy of every agent; one from another world is fitted to this one by names.
        env: whose tasks are played.
        num_episodes: how many episodes.
        seed: of the episodes and of the sampled actions.
        deterministic: take the likeliest action instead of sampling.

    Returns:
        The outcomes, in the order in which the episodes ended.

    Raises:
        ValueError: `num_episodes` is below one, a task has no end, or the policy cannot be fitted.
    """
    source = as_vec_env(env)
    outcomes = play_episodes(
        agent,
        source.curriculum.for_evaluation(),
        num_episodes,
        seed=seed,
        deterministic=deterministic,
        num_threads=source.num_threads,
    )
    return [outcome for _, outcome in outcomes]


def play_episodes(
    agent: Policy,
    tasks: Curriculum,
    num_episodes: int,
    *,
    seed: int = EVALUATION_SEED,
    deterministic: bool = False,
    num_threads: int = 1,
) -> list[tuple[int, EpisodeOutcome]]:
    """`run_episodes` on the tasks of a curriculum, which hears the outcomes.

    Returns:
        The number of each episode, from 0, and its outcome, in the order in which they ended. Episode e is the
        (e // W)-th of world e % W among the W worlds that are stepped, min(num_episodes, MAX_WORLDS).

    Raises:
        ValueError: as `run_episodes`.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes is {num_episodes}; play at least one.")
    check_ends(tasks)
    num_worlds = min(num_episodes, MAX_WORLDS)
    quota = np.full(num_worlds, num_episodes // num_worlds)
    quota[: num_episodes % num_worlds] += 1
    worlds = VecEnv(tasks, num_worlds, seed=seed, num_threads=num_threads)
    agent = fit_policy(agent, worlds.spec, f"task '{worlds.task_name(0)}'")
    generator = torch.Generator(device=agent.device).manual_seed(seed)
    state = agent.initial_state(worlds.num_agents)
    played = [0] * num_worlds
    outcomes: list[tuple[int, EpisodeOutcome]] = []
    was_training = agent.training
    agent.eval()
    try:
        with torch.no_grad(), holding_weights():
            while quota.any():
                observations = torch.from_numpy(worlds.observations).to(agent.device)
                starts = torch.from_numpy(worlds.starts).to(agent.device)
                output = agent.act(
                    observations, state, starts, deterministic=deterministic, generator=generator
                )
                state = output.state
                for outcome in worlds.step(output.actions.cpu().numpy()).episodes:
                    if quota[outcome.world]:
                        quota[outcome.world] -= 1
                        outcomes.append((outcome.world + played[outcome.world] * num_worlds, outcome))
                        played[outcome.world] += 1
    finally:
        agent.train(was_training)
    return outcomes


def check_ends(tasks: Curriculum) -> None:
    """See to it that every episode of some tasks ends.

    Raises:
        ValueError: one does not.
    """
    for task in tasks.tasks:
        if not task.config.game.longest_episode:
            raise ValueError(
                f"task '{task.name}' never ends (max_steps and episode_lifetime are 0); set one of them to evaluate it."
            )


@dataclass(frozen=True)
class Evaluation:
    """What a set of episodes amounts to.

    Attributes:
        num_episodes: how many.
        mean_reward: mean over episodes of the episode's score (mean over agents of their total reward).
        std_reward: standard deviation of the scores.
        half_interval: half the width of the 95 % t-interval of the mean; nan for a single episode.
        mean_length: steps.
        std_length: steps.
        stats: statistics per agent and episode, averaged; by the engine's names.
    """

    num_episodes: int
    mean_reward: float
    std_reward: float
    half_interval: float
    mean_length: float
    std_length: float
    stats: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.mean_reward:.2f} ± {self.half_interval:.2f}"


def summarize(outcomes: Sequence[EpisodeOutcome]) -> Evaluation:
    """Means, deviations and the 95 % interval of a set of episodes.

    Raises:
        ValueError: there are no episodes.
    """
    if not outcomes:
        raise ValueError("there are no episodes to summarize; play at least one.")
    scores = np.array([outcome.score for outcome in outcomes])
    lengths = np.array([outcome.length for outcome in outcomes], dtype=np.float64)
    half = mean_score(scores.tolist()).half_interval
    totals: dict[str, float] = defaultdict(float)
    for outcome in outcomes:
        agents = outcome.stats.get("agent", [])
        for stats in agents:
            for name, value in stats.items():
                totals[name] += float(value) / len(agents)
    return Evaluation(
        num_episodes=len(outcomes),
        mean_reward=float(scores.mean()),
        std_reward=float(scores.std()),
        half_interval=math.nan if half is None else half,
        mean_length=float(lengths.mean()),
        std_length=float(lengths.std()),
        stats={name: total / len(outcomes) for name, total in sorted(totals.items())},
    )


def eval_policy(agent: Policy, env: MettaGridEnv | VecEnv, num_episodes: int = 10) -> dict[str, float]:
    """Evaluate a policy on the tasks of an environment. Neither the environment nor a training on it is disturbed.

    Args:
        agent: the policy of every agent.
        env: whose tasks are played, on maps of the evaluation's own seed.
        num_episodes: how many episodes.

    Returns:
        `mean_reward`, `std_reward` (of an episode's reward: the mean over its agents of their total), `mean_length`,
        `std_length` (steps).
    """
    result = summarize(run_episodes(agent, env, num_episodes))
    return {
        "mean_reward": result.mean_reward,
        "std_reward": result.std_reward,
        "mean_length": result.mean_length,
        "std_length": result.std_length,
    }
