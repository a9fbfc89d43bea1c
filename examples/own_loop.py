#!/usr/bin/env python
"""A training loop of your own, from the parts that the library gives. Nothing is hidden in a trainer.

    python examples/own_loop.py

Started again it goes on where it stopped. `run.py` is the same with everything that a long run wants.
"""

from __future__ import annotations

from typing import Any

import torch

from metta.agent.config import AgentModelConfig
from metta.agent.policy import Policy
from metta.common.stopwatch import Stopwatch
from metta.interface.agent import Agent
from metta.interface.environment import Environment
from metta.rl.advantage import compute_advantage
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.experience import Experience
from metta.rl.kickstarter import Kickstarter
from metta.rl.losses import Losses, process_minibatch_update
from metta.rl.optimizer import Optimizer
from metta.rl.rollout import perform_rollout_step
from metta.rl.trainer_config import CheckpointConfig, PPOConfig, TrainerConfig, due
from metta.stats import accumulate_rollout_stats, process_training_stats

CONFIG = TrainerConfig(
    total_timesteps=4_000_000,
    batch_size=8192,
    minibatch_size=1024,
    bptt_horizon=32,
    update_epochs=2,
    anneal_lr=False,
    ppo=PPOConfig(gamma=0.99, gae_lambda=0.95, clip_coef=0.2, ent_coef=0.01, clip_vloss=False),
    checkpoint=CheckpointConfig(checkpoint_interval=50, checkpoint_dir="runs/own_loop"),
)


def train(env: Environment, agent: Policy, optimizer: Optimizer, config: TrainerConfig) -> None:
    """Train an agent in an environment, from scratch or from the checkpoint in the config's folder."""
    device, ppo, folder = agent.device, config.ppo, config.checkpoint.checkpoint_dir
    experience = Experience(env, agent, config)
    kickstarter = Kickstarter(config.kickstart, device)  # no teacher, unless the config names one
    timer, losses = Stopwatch(), Losses()
    stats: dict[str, list[float]] = {}
    run: dict[str, Any] = {"optimizer": optimizer, "experience": experience, "stopwatch": timer}
    run["kickstarter"] = kickstarter
    agent_step, epoch, _ = load_checkpoint(agent, checkpoint_dir=folder, **run)
    while agent_step < config.total_timesteps:
        with timer("rollout"):
            while not experience.ready_for_training:
                num_steps, info = perform_rollout_step(agent, env, experience, device, timer)
                accumulate_rollout_stats(info, stats)
                agent_step += num_steps
        with timer("train"):
            advantages = compute_advantage(
                experience.values,
                experience.rewards,
                experience.dones,
                torch.ones_like(experience.values),  # the actions are this very policy's
                torch.zeros_like(experience.values),
                ppo.gamma,
                ppo.gae_lambda,
                device=device,
                truncation_values=experience.truncation_values,
                bootstrap_values=experience.following_values(),
            )
            for _ in range(config.update_epochs):
                for minibatch in experience.minibatches(advantages, config, agent_step):
                    loss = process_minibatch_update(
                        agent,
                        experience,
                        minibatch,
                        advantages,
                        config,
                        kickstarter,
                        agent_step,
                        losses,
                        device,
                    )
                    optimizer.step(loss, epoch)
        epoch += 1
        report = process_training_stats(stats, losses.stats(), timer, agent_step)
        score, entropy = report.get("episode/score", float("nan")), report["losses/entropy"]
        print(f"epoch {epoch:4}  {agent_step:9,} steps  score {score:6.2f}  entropy {entropy:.2f}")
        stats.clear()
        losses.clear()
        if due(epoch, config.checkpoint.checkpoint_interval) or agent_step >= config.total_timesteps:
            now: dict[str, Any] = {"epoch": epoch, "agent_step": agent_step, "checkpoint_path": folder}
            save_checkpoint(agent, **run, **now, policy_store=None, checkpoint_interval=1)


if __name__ == "__main__":
    env = Environment(curriculum_path="/env/mettagrid/simple", num_envs=64)
    agent = Agent(env, AgentModelConfig(hidden_dim=128, bptt_horizon=16))
    train(env, agent, Optimizer("adam", policy=agent, learning_rate=1e-3, eps=1e-5), CONFIG)
