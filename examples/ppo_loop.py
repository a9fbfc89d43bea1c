#!/usr/bin/env python
"""PPO in one function, on Gymnasium's vector interface: every agent is a row, and one network plays all of them.

    python examples/ppo_loop.py

The network has no memory; `examples/own_loop.py` trains one that has. What it needs beside the textbook: where an episode
was cut off, its last observation (`final_obs`) is worth something, and where the task ended it is not.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

from metta.adapters.gymnasium_vector import GymnasiumVectorEnv
from metta.agent.config import AgentModelConfig
from metta.agent.encoder import Encoder


class Net(nn.Module):
    """Tokens `[N, K, 3]` to a distribution over actions and values `[N]`."""

    def __init__(self, env: GymnasiumVectorEnv, hidden: int = 64) -> None:
        super().__init__()
        self.encoder = Encoder(env.vec.spec, AgentModelConfig(hidden_dim=hidden))
        self.encoder.init_weights()
        self.actor = nn.Linear(hidden, len(env.action_pairs))
        self.critic = nn.Linear(hidden, 1)

    def forward(self, tokens: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        """See the class."""
        features = self.encoder(tokens)
        return Categorical(logits=self.actor(features)), self.critic(features)[:, 0]


def train(
    env: GymnasiumVectorEnv, num_updates: int, *, steps: int = 64, gamma: float = 0.95, lam: float = 0.9
) -> list[float]:
    """Train a new network; returns the mean return of the episodes that ended before each update."""
    net, size = Net(env), (steps, env.num_envs)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, eps=1e-5)
    seen = torch.zeros((*size, *env.single_observation_space.shape), dtype=torch.uint8)  # type: ignore[misc]
    actions = torch.zeros(size, dtype=torch.int64)
    logprobs, rewards, dones, values, advantages = torch.zeros(5, *size)
    observation, _ = env.reset(seed=0)
    scores = []
    for update in range(num_updates):
        returns: list[float] = []
        for t in range(steps):
            seen[t] = torch.from_numpy(observation)
            with torch.no_grad():
                choice, values[t] = net(seen[t])
            actions[t] = choice.sample()
            logprobs[t] = choice.log_prob(actions[t])
            observation, reward, terminated, truncated, info = env.step(actions[t].numpy())
            rewards[t], dones[t] = torch.from_numpy(reward), torch.from_numpy(terminated | truncated)
            if "final_obs" in info:
                returns += info["final_info"]["episode_return"][terminated | truncated].tolist()
            if truncated.any():
                with torch.no_grad():
                    final = net(torch.from_numpy(np.stack(info["final_obs"][truncated])))[1]
                rewards[t, torch.from_numpy(truncated)] += gamma * final
        with torch.no_grad():
            following = net(torch.from_numpy(observation))[1]
        advantage = torch.zeros(env.num_envs)
        for t in reversed(range(steps)):
            going = gamma * (1 - dones[t])
            advantage = rewards[t] + going * following - values[t] + going * lam * advantage
            advantages[t], following = advantage, values[t]
        flat = [x.flatten(0, 1) for x in (seen, actions, logprobs, advantages, advantages + values)]
        for _ in range(4):
            for rows in torch.randperm(flat[0].shape[0]).chunk(4):
                tokens, chosen, old, gain, target = (x[rows] for x in flat)
                choice, value = net(tokens)
                ratio = (choice.log_prob(chosen) - old).exp()
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                policy_loss = -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
                loss = policy_loss + 0.5 * (value - target).pow(2).mean() - 0.01 * choice.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                optimizer.step()
        scores.append(float(np.mean(returns)) if returns else float("nan"))
        print(
            f"update {update + 1:3}  {(update + 1) * seen.shape[0] * env.num_envs:8,} steps  return {scores[-1]:.2f}"
        )
    return scores


if __name__ == "__main__":
    torch.manual_seed(0)
    train(GymnasiumVectorEnv("/env/mettagrid/simple", num_envs=64, max_steps=64), 100)
