"""Episodes of a policy as one batch of worlds, and what they amount to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.vec import EpisodeOutcome, VecEnv, as_vec_env

EVALUATION_SEED = 1 << 31
"""Evaluations draw their episodes from here on, far from the small seeds that people train with."""

MAX_WORLDS = 64
"""Worlds that an evaluation steps side by side."""


def run_episodes(
    agent: MettaAgent,
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
        agent: the policy of every agent.
        env: whose tasks are played.
        num_episodes: how many episodes.
        seed: of the episodes and of the sampled actions.
        deterministic: take the likeliest action instead of sampling.

    Returns:
        The outcomes, in the order in which the episodes ended.

    Raises:
        ValueError: `num_episodes` is below one, or a task has no end.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes is {num_episodes}; play at least one.")
    source = as_vec_env(env)
    for task in source.curriculum.tasks:
        if not task.config.game.longest_episode:
            raise ValueError(
                f"task '{task.name}' never ends (max_steps and episode_lifetime are 0); set one of them to evaluate it."
            )
    num_worlds = min(num_episodes, MAX_WORLDS)
    quota = np.full(num_worlds, num_episodes // num_worlds)
    quota[: num_episodes % num_worlds] += 1
    worlds = VecEnv(source.curriculum.for_evaluation(), num_worlds, seed=seed, num_threads=source.num_threads)
    generator = torch.Generator(device=agent.device).manual_seed(seed)
    state = agent.initial_state(worlds.num_agents)
    outcomes: list[EpisodeOutcome] = []
    was_training = agent.training
    agent.eval()
    try:
        with torch.no_grad():
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
                        outcomes.append(outcome)
    finally:
        agent.train(was_training)
    return outcomes


@dataclass(frozen=True)
class Evaluation:
    """What a set of episodes amounts to.

    Attributes:
        num_episodes: how many.
        mean_reward: mean over episodes of the episode's score (mean over agents of their total reward).
        std_reward: standard deviation of the scores.
        half_interval: half the width of the 95 % interval of the mean (normal approximation).
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
    spread = float(scores.std(ddof=1)) if len(scores) > 1 else math.nan
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
        half_interval=1.96 * spread / math.sqrt(len(scores)),
        mean_length=float(lengths.mean()),
        std_length=float(lengths.std()),
        stats={name: total / len(outcomes) for name, total in sorted(totals.items())},
    )


def eval_policy(agent: MettaAgent, env: MettaGridEnv | VecEnv, num_episodes: int = 10) -> dict[str, float]:
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
