"""Worlds for the adapters' tests, and what `VecEnv` gives for the same seed and actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.curriculum.base import MultiTaskCurriculum, Task
from metta.mettagrid.tasks import EnvLike, find_tasks
from metta.mettagrid.vec import StepBatch, VecEnv

MIXED_ALONE = "/env/adapter_tests/mixed_alone"
MIXED_TEAM = "/env/adapter_tests/mixed_team"
"""Curricula of one agent and of three, with episodes of different lengths, some ended by the task and some cut off."""

SEED = 5


def small_world(num_agents: int = 3, *, max_steps: int = 7, lifetime: int = 0, **fields: Any) -> EnvConfig:
    """Every failed action costs something, so rewards differ; an episode is soon over."""
    return EnvConfig(
        game=GameConfig(
            num_agents=num_agents,
            width=10,
            height=8,
            observation_width=5,
            observation_height=5,
            num_observation_tokens=30,
            max_steps=max_steps,
            episode_lifetime=lifetime,
            action_failure_penalty=0.25,
            **fields,
        )
    )


def mixed(num_agents: int) -> MultiTaskCurriculum:
    """Episodes of 3 and 7 steps that end, and of 4 that are cut off."""
    return MultiTaskCurriculum(
        [
            Task("short", small_world(num_agents, max_steps=3)),
            Task("cut", small_world(num_agents, max_steps=0, lifetime=4)),
            Task("long", small_world(num_agents, max_steps=7)),
        ]
    )


@dataclass(frozen=True)
class Played:
    """What a batch of worlds showed, copied.

    Attributes:
        env: the batch.
        first: uint8 `[N, K, 3]`: its first observations.
        numbers: int64 `[T, N]`: the actions, as numbers of legal pairs.
        steps: what each step gave.
    """

    env: VecEnv
    first: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.int64]
    steps: list[StepBatch]


def play(tasks: EnvLike, num_worlds: int, num_steps: int, seed: int = SEED) -> Played:
    """Play random legal actions."""
    env = VecEnv(find_tasks(tasks), num_worlds, seed=seed, zero_copy=False)
    pairs = np.array(env.spec.legal_actions)
    numbers = np.random.default_rng(17).integers(len(pairs), size=(num_steps, env.num_agents))
    first = env.reset()
    played = Played(env, first, numbers, [env.step(pairs[row]) for row in numbers])
    ends = [step for step in played.steps if step.final_rows.size]
    assert ends, "no episode ends; this would test little"
    assert len({step.rewards.tobytes() for step in played.steps}) > 1, "rewards never differ"
    return played
