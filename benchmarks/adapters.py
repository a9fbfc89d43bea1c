"""What each adapter costs: agent-steps per second of the same worlds, beside those of `VecEnv`.

    python -m benchmarks.adapters [--worlds 64] [--seconds 1.0]

All play the same kind of world, with actions drawn beforehand, and take turns, so that a busy machine disturbs them alike. The
libraries come with `make test-peers`; one that is missing is named, not measured.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from metta.mettagrid.tasks import find_tasks
from metta.mettagrid.vec import VecEnv

WORLD = "/env/mettagrid/simple"
STEPS = 64
"""Actions drawn beforehand; they are played round and round."""

ROUNDS = 5

Step = Callable[[int], object]
"""Makes the t-th step."""


def vec_env(num_worlds: int) -> Step:
    env = VecEnv(find_tasks(WORLD), num_worlds, collect_stats=False)
    pairs = np.array(env.spec.legal_actions)
    actions = np.random.default_rng(0).integers(len(pairs), size=(STEPS, env.num_agents))
    chosen = pairs[actions]
    return lambda t: env.step(chosen[t])


def gymnasium_vector(num_worlds: int, *, copy: bool = True) -> Step:
    from metta.adapters.gymnasium_vector import GymnasiumVectorEnv

    env = GymnasiumVectorEnv(WORLD, 4 * num_worlds, seed=0, copy=copy)
    env.reset()
    numbers = np.random.default_rng(0).integers(len(env.action_pairs), size=(STEPS, env.num_envs))
    return lambda t: env.step(numbers[t])


def live_gymnasium_vector(num_worlds: int) -> Step:
    return gymnasium_vector(num_worlds, copy=False)


def stable_baselines(num_worlds: int) -> Step:
    from metta.adapters.stable_baselines_vec_env import StableBaselinesVecEnv

    env = StableBaselinesVecEnv(WORLD, 4 * num_worlds, seed=0)
    env.reset()
    numbers = np.random.default_rng(0).integers(env.action_space.n, size=(STEPS, env.num_envs))
    return lambda t: env.step(numbers[t])


def pufferlib(num_worlds: int) -> Step:
    from metta.adapters.pufferlib_env import PufferLibEnv

    env = PufferLibEnv(WORLD, num_worlds, seed=0)
    env.reset()
    numbers = np.random.default_rng(0).integers(len(env.action_pairs), size=(STEPS, env.num_agents))
    return lambda t: env.step(numbers[t])


def torchrl(num_worlds: int) -> Step:
    import torch

    from metta.adapters.torchrl_env import TorchRLEnv

    torch.set_num_threads(1)
    env = TorchRLEnv(WORLD, num_worlds, seed=0)
    numbers = torch.randint(len(env.action_pairs), (STEPS, num_worlds, 4))
    state: Any = env.reset()

    def step(t: int) -> None:
        nonlocal state
        state["agents", "action"] = numbers[t]
        _, state = env.step_and_maybe_reset(state)

    return step


def pettingzoo(num_worlds: int) -> Step:
    """One world after another: it has no batches."""
    from metta.adapters.pettingzoo_env import PettingZooEnv

    envs = [PettingZooEnv(WORLD, seed=seed) for seed in range(num_worlds)]
    numbers = np.random.default_rng(0).integers(len(envs[0].action_pairs), size=(STEPS, 4))
    for env in envs:
        env.reset()

    def step(t: int) -> None:
        for env in envs:
            if not env.agents:
                env.reset()
            env.step(dict(zip(env.agents, numbers[t], strict=True)))

    return step


WAYS: dict[str, Callable[[int], Step]] = {
    "VecEnv": vec_env,
    "GymnasiumVectorEnv": gymnasium_vector,
    "GymnasiumVectorEnv, copy=False": live_gymnasium_vector,
    "StableBaselinesVecEnv": stable_baselines,
    "PufferLibEnv": pufferlib,
    "TorchRLEnv": torchrl,
    "PettingZooEnv, one by one": pettingzoo,
}


def rate(step: Step, num_agents: int, seconds: float) -> float:
    """Agent-steps per second."""
    steps, start = 0, perf_counter()
    while perf_counter() - start < seconds:
        for t in range(STEPS):
            step(t)
        steps += STEPS
    return steps * num_agents / (perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=64)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of each of the five turns that each way gets"
    )
    options = parser.parse_args()
    ways: dict[str, Step] = {}
    for name, make in WAYS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ways[name] = make(options.worlds)
        except ImportError as error:
            print(f"{name:32} not measured: {error}")
            continue
        ways[name](0)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, step in ways.items():
            rates[name].append(rate(step, 4 * options.worlds, options.seconds / ROUNDS))
    plain = rates["VecEnv"]
    for name, measured in rates.items():
        ratio = median(one / base for one, base in zip(measured, plain, strict=True))
        print(f"{name:32} {median(measured):12,.0f} agent-steps/s   {ratio:5.2f} of VecEnv")


if __name__ == "__main__":
    main()
