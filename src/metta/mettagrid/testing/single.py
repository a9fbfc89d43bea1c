"""What one environment can be held to, without a second one to compare it with."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np

from metta.mettagrid.testing.legality import check_illegal_actions
from metta.mettagrid.testing.runs import CheckReport, Run, action_seeds, compare, has_engine, run
from metta.mettagrid.testing.streams import ActionStream, CheckError, Watch
from metta.mettagrid.testing.worlds import check_world
from metta.mettagrid.vec import VecEnv

LONGEST_WAIT = 2000
"""Steps that are played at most to see an episode end."""

WORLD_CHECKS = 10
"""How often a run looks into its worlds, which takes longer than a step."""


def check_single(env: VecEnv, name: str, steps: int, seed: int, report: CheckReport) -> Run:
    """Everything that one environment can be held to; it has just been reset from this seed."""
    _check_spaces(env, name)
    report.checks.append("spaces follow the spec")
    seeds = action_seeds(seed, env.num_worlds)
    memory = copy.deepcopy(env.curriculum.state_dict())
    watch = Watch(env, name, ActionStream(env.spec, env.agents_per_world, seeds), strict=True)
    for step in range(steps):
        if step == steps // 2:
            watch.restart()
        watch.step()
        if step % max(1, steps // WORLD_CHECKS) == 0:
            _check_worlds(env, name, f"after step {step}")
    _check_worlds(env, name, f"after step {steps - 1}")
    shown = list(watch.shown)
    watch.play(_steps_to_an_end(env, steps - steps // 2))
    report.num_worlds, report.num_agents = env.num_worlds, env.agents_per_world
    report.num_steps, report.num_episodes = watch.num_steps, watch.num_episodes
    report.checks += [
        "observations are well-formed tokens",
        "rewards, flags, starts, ends and outcomes agree",
    ]
    if not watch.num_episodes:
        report.left_out.append(f"the end of an episode: none came within {watch.num_steps} steps")
    if has_engine(env):
        report.checks.append("agents, cells and items are sound")
        env.reset()
        check_illegal_actions(env, name)
        report.checks.append("legal actions count as legal, illegal ones change nothing but their count")
    else:
        report.left_out.append("the state of the worlds, which is in worker processes")
    env.curriculum.load_state_dict(memory)
    env.reset(seed)
    again = run(env, name, steps, seeds)
    compare(
        shown,
        again,
        range(env.num_worlds),
        name,
        "after a reset to the same seed",
        "either something outlives a reset, or randomness does not come from the generators that are handed out",
    )
    report.checks.append("a reset to the same seed gives the same episodes")
    saved = copy.deepcopy(env.state_dict())
    seeds = action_seeds(seed + 2, env.num_worlds)
    first = run(env, name, steps, seeds)
    env.load_state_dict(saved)
    compare(
        first,
        run(env, name, steps, seeds),
        range(env.num_worlds),
        name,
        "after its state was put back",
        "state_dict has to hold everything that the next step reads",
    )
    report.checks.append("a saved state goes on exactly")
    return shown


def _check_spaces(env: VecEnv, name: str) -> None:
    spec = env.spec
    observation: Any = env.single_observation_space
    action: Any = env.single_action_space
    if (
        not isinstance(observation, gym.spaces.Box)
        or observation.shape != (spec.num_tokens, 3)
        or observation.dtype != np.uint8
    ):
        raise CheckError(
            f"{name}: single_observation_space is {observation}; the spec says Box of uint8 ({spec.num_tokens}, 3)."
        )
    if len(spec.action_names) != len(spec.max_action_args) or min(spec.max_action_args, default=-1) < 0:
        raise CheckError(
            f"{name}: spec.max_action_args is {spec.max_action_args} for the actions {spec.action_names}; give each its "
            "largest argument, at least 0."
        )
    sizes = [len(spec.action_names), max(spec.max_action_args) + 1]
    if not isinstance(action, gym.spaces.MultiDiscrete) or action.nvec.tolist() != sizes:
        raise CheckError(f"{name}: single_action_space is {action}; the spec says MultiDiscrete({sizes}).")
    if env.num_agents != env.num_worlds * env.agents_per_world:
        raise CheckError(
            f"{name}: num_agents is {env.num_agents}, but there are {env.num_worlds} worlds of {env.agents_per_world}; it is "
            "their product."
        )
    rows = (env.num_agents, spec.num_tokens, 3)
    if env.observations.shape != rows or env.observations.dtype != np.uint8:
        raise CheckError(
            f"{name}: env.observations is {env.observations.dtype} {env.observations.shape}; give uint8 {rows}."
        )


def _check_worlds(env: VecEnv, name: str, where: str) -> None:
    if not has_engine(env):
        return
    for world in range(env.num_worlds):
        try:
            check_world(env.engine, world)
        except AssertionError as error:
            raise CheckError(
                f"{name}: {where}, {error}; whatever moves agents or items has to keep cells and statistics in step."
            ) from None


def _steps_to_an_end(env: VecEnv, played: int) -> int:
    """Further steps until every world has seen the end of an episode, or as many as are worth it."""
    longest = [task.config.game.longest_episode for task in env.curriculum.tasks]
    wanted = max(longest) + 2 if all(longest) else LONGEST_WAIT
    return max(0, min(wanted, LONGEST_WAIT) - played)
