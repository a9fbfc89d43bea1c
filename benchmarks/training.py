"""How fast the whole loop trains, and where its time goes, beside the same loop on plain layers.

    python -m benchmarks.training [--json] [--rounds 3]

A step is one agent's step, collected and trained on: rollout, advantages, update. `metta` is the agent as it comes;
`plain` is the same function on layers that anybody would write: feature planes drawn and convolved, the LSTM one
tick at a time so that episode ends are exact. Both sides take turns on the same worlds; figures are medians.

`newcomer` is what `make train` runs; `default` is the default `AgentModelConfig` in the default kind of world.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from time import perf_counter

import torch

import run
from metta.agent.metta_agent import MettaAgent
from metta.agent.paths import ComputePath
from metta.api import (
    AgentModelConfig,
    EnvConfig,
    ExperienceConfig,
    GameConfig,
    PPOConfig,
    VecEnv,
    compute_advantages,
    get_env_config,
    make_experience_manager,
    make_optimizer,
    rollout,
    train_ppo,
)

PHASES = ("environment", "inference", "rollout_rest", "advantage", "update")


@dataclass(frozen=True)
class Case:
    """One configuration of the loop."""

    name: str
    env: EnvConfig
    num_worlds: int
    agent: AgentModelConfig
    experience: ExperienceConfig
    ppo: PPOConfig


def cases() -> list[Case]:
    arena = EnvConfig(game=GameConfig(num_agents=24, width=25, height=25))
    default = ExperienceConfig(batch_size=12288, minibatch_size=3072, bptt_horizon=64)
    return [
        Case(
            "newcomer",
            get_env_config("/env/mettagrid/simple"),
            run.CONFIG.batch_size // run.CONFIG.bptt_horizon // 4,
            run.AGENT,
            run.CONFIG,
            run.CONFIG.ppo,
        ),
        Case("default", arena, 8, AgentModelConfig(), default, PPOConfig()),
    ]


class Side:
    """One loop that can be advanced batch by batch."""

    def __init__(self, case: Case, path: ComputePath) -> None:
        torch.manual_seed(0)
        self.case = case
        env = VecEnv(case.env, case.num_worlds, seed=0, stagger=True)
        self.agent = MettaAgent(env.spec, case.agent, path=path)
        self.optimizer = make_optimizer(self.agent)
        self.experience = make_experience_manager(env, self.agent, case.experience)

    def advance(self) -> dict[str, float]:
        """One batch; seconds by phase and in all."""
        start = perf_counter()
        batch = rollout(self.experience, self.agent)
        collected = perf_counter()
        compute_advantages(self.experience, self.case.ppo.gamma, self.case.ppo.gae_lambda)
        weighed = perf_counter()
        train_ppo(self.agent, self.optimizer, self.experience, self.case.ppo)
        end = perf_counter()
        return {
            "environment": batch.env_seconds,
            "inference": batch.inference_seconds,
            "rollout_rest": collected - start - batch.env_seconds - batch.inference_seconds,
            "advantage": weighed - collected,
            "update": end - weighed,
            "all": end - start,
        }


def measure(case: Case, rounds: int) -> dict[str, float]:
    sides: dict[str, Side] = {"metta": Side(case, "auto"), "plain": Side(case, "plain")}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            spent = side.advance()
            if number:  # the first round compiles and warms up
                times[name].append(spent)
    figures: dict[str, float] = {}
    steps = case.experience.batch_size
    for name, rows in times.items():
        figures[f"{case.name}_{name}_steps_per_s"] = steps / statistics.median(row["all"] for row in rows)
    figures[f"{case.name}_ratio"] = (
        figures[f"{case.name}_metta_steps_per_s"] / figures[f"{case.name}_plain_steps_per_s"]
    )
    for phase in PHASES:
        shares = [row[phase] / row["all"] for row in times["metta"]]
        figures[f"{case.name}_share_{phase}"] = statistics.median(shares)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Agent-steps per second of the whole training loop.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5, help="batches of each side")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    figures: dict[str, float] = {"torch_threads": arguments.threads}
    for case in cases():
        figures |= measure(case, arguments.rounds)
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
        return
    for name, value in figures.items():
        print(f"{name:40} {value:12,.3f}" if value < 100 else f"{name:40} {value:12,.0f}")


if __name__ == "__main__":
    main()
