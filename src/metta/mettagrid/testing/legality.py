"""What illegal actions may do: nothing."""

from __future__ import annotations

import numpy as np

from metta.mettagrid.testing.streams import CheckError
from metta.mettagrid.vec import VecEnv

FAR = 2**31 - 1


def check_illegal_actions(env: VecEnv, name: str) -> None:
    """Try every kind of illegal action with all agents, and see that nobody changes and that it is counted.

    Args:
        env: an environment in this process, at the beginning of episodes.
        name: how to call it in sentences.

    Raises:
        CheckError: an illegal action did something, or was not counted.
    """
    spec, engine = env.spec, env.engine
    past = len(spec.action_names)
    tries = [(-1, 0), (past, 0), (FAR, FAR)]
    tries += [(action, most + 1) for action, most in enumerate(spec.max_action_args)]
    tries += [(action, FAR) for action in range(past)]
    for action, arg in tries:
        before = [
            (engine.agent_state(w), engine.agent_inventory(w), _invalid(env, w))
            for w in range(env.num_worlds)
        ]
        batch = env.step(np.tile(np.array([action, arg], np.int32), (env.num_agents, 1)))
        ended = set((batch.final_rows // env.agents_per_world).tolist())
        for world in set(range(env.num_worlds)) - ended:
            state, items, counted = before[world]
            place = f"{name}: the illegal action ({action}, {arg}) in world {world}"
            if engine.action_success[world].any():
                raise CheckError(
                    f"{place} succeeded; the spec's action_names and max_action_args have to say all that is legal."
                )
            if not np.array_equal(engine.agent_state(world), state) or not np.array_equal(
                engine.agent_inventory(world), items
            ):
                raise CheckError(f"{place} changed an agent; refuse it before anything happens.")
            if any(now <= then for now, then in zip(_invalid(env, world), counted, strict=True)):
                raise CheckError(
                    f"{place} was not counted as action.invalid_type or action.invalid_arg; count it."
                )


def _invalid(env: VecEnv, world: int) -> list[float]:
    """How many invalid actions each agent has tried."""
    return [
        stats.get("action.invalid_type", 0.0) + stats.get("action.invalid_arg", 0.0)
        for stats in env.engine.episode_stats(world)["agent"]
    ]
