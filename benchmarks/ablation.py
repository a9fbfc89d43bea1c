"""What makes the newcomer world learnable: the run of `run.py`, shortened, with one choice at a time taken back.

    python -m benchmarks.ablation [--steps N] [--seed S] [--only NAME ...]

Prints for each variant the score and, since the variants reward different things, what an agent did in an episode: ore put
into generators, batteries and hearts taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

import run
from metta.api import (
    ActionConfig,
    AgentModelConfig,
    EnvConfig,
    VecEnv,
    compute_advantages,
    get_env_config,
    make_agent,
    make_experience_manager,
    make_lr_scheduler,
    make_optimizer,
    rollout,
    run_episodes,
    summarize,
    train_ppo,
)

Variant = Callable[[EnvConfig, AgentModelConfig], tuple[EnvConfig, AgentModelConfig, bool]]

HELD = {"stat_rewards": {}, "ore_red_reward": 0.01, "battery_red_reward": 0.02}
ABSOLUTE = [ActionConfig(type=t, key=t) for t in ("noop", "move", "rotate", "put_items", "get_items")]


def _unturned(agent: AgentModelConfig) -> AgentModelConfig:
    return agent.model_copy(update={"egocentric": False})


VARIANTS: dict[str, Variant] = {
    "as it is": lambda env, agent: (env, agent, True),
    "products rewarded while held": lambda env, agent: (env.with_overrides(**HELD), agent, True),
    "the same, 50 of an item": lambda env, agent: (
        env.with_overrides(**HELD, default_item_max=50),
        agent,
        True,
    ),
    "50 of an item": lambda env, agent: (env.with_overrides(default_item_max=50), agent, True),
    "window not turned": lambda env, agent: (env, _unturned(agent), True),
    "the same, directions by name": lambda env, agent: (
        env.with_overrides(actions=ABSOLUTE),
        _unturned(agent),
        True,
    ),
    "worlds in step": lambda env, agent: (env, agent, False),
}


def train(name: str, steps: int, seed: int) -> str:
    config, agent_config, stagger = VARIANTS[name](get_env_config(run.ENV), run.AGENT)
    torch.manual_seed(seed)
    env = VecEnv(
        config,
        run.CONFIG.batch_size // run.CONFIG.bptt_horizon // config.game.num_agents,
        seed=seed,
        stagger=stagger,
    )
    agent = make_agent(env.single_observation_space, env.single_action_space, [], "cpu", agent_config)
    optimizer = make_optimizer(agent, run.CONFIG.optimizer)
    scheduler = make_lr_scheduler(optimizer, steps, run.CONFIG.batch_size)
    assert scheduler is not None  # it anneals
    experience = make_experience_manager(env, agent, run.CONFIG, seed=seed)
    done = 0
    while done < steps:
        done += rollout(experience, agent).total_env_steps
        compute_advantages(experience, run.CONFIG.ppo.gamma, run.CONFIG.ppo.gae_lambda)
        train_ppo(agent, optimizer, experience, run.CONFIG.ppo, run.CONFIG.update_epochs)
        scheduler.step()
    result = summarize(run_episodes(agent, env, run.EVAL_EPISODES))
    ore, batteries, hearts = (result.stats.get(s, 0) for s in ("ore_red.put", "battery_red.get", "heart.get"))
    return f"{name:30} score {result!s:>14}  ore {ore:5.2f}  batteries {batteries:5.2f}  hearts {hearts:5.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="The newcomer world with one choice at a time taken back.")
    parser.add_argument("--steps", type=int, default=1_200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only:
        print(train(name, arguments.steps, arguments.seed), flush=True)


if __name__ == "__main__":
    main()
