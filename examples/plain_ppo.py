#!/usr/bin/env python
"""Recurrent PPO as everybody writes it: one file, torch's own layers, Metta's worlds and nothing else of Metta.

    python examples/plain_ppo.py

The choices are those of CleanRL's `ppo_atari_lstm.py` (Huang et al. 2022, "CleanRL: High-quality Single-file Implementations
of Deep Reinforcement Learning Algorithms"): Adam whose rate falls to 0, orthogonal weights, an LSTM that is stepped tick by
tick and reset where an episode begins, minibatches of whole rows. Where it differs: observations are tokens, drawn as one
plane for each feature; and an episode that was cut off counts on with the value of its last observation, where CleanRL
takes every end for the end.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributions import Categorical

from metta.common.config import Config
from metta.mettagrid.outcomes import EpisodeOutcome
from metta.mettagrid.registry import get_env_config
from metta.mettagrid.spec import PADDING, EnvSpec
from metta.mettagrid.vec import VecEnv

State = tuple[torch.Tensor, torch.Tensor]


class PlainConfig(Config):
    """The numbers of `ppo_atari_lstm.py`, by its names.

    Attributes:
        num_worlds: worlds; a row is an agent of one.
        num_steps: of each row, in a batch.
        hidden_dim: width of the features, of the LSTM and of the heads' hidden layers.
    """

    num_worlds: int = 8
    num_steps: int = 128
    num_minibatches: int = 4
    update_epochs: int = 4
    learning_rate: float = 2.5e-4
    anneal_lr: bool = True
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_coef: float = 0.1
    clip_vloss: bool = True
    norm_adv: bool = True
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    hidden_dim: int = 128


def layer(linear: nn.Linear | nn.Conv2d, gain: float = 2**0.5) -> nn.Linear | nn.Conv2d:
    """Orthogonal weights, no bias at first."""
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)  # type: ignore[arg-type]
    return linear


class Planes(nn.Module):
    """Tokens uint8 `[N, K, 3]` to planes float32 `[N, features, height, width]`, by one scatter."""

    cell: torch.Tensor
    plane: torch.Tensor
    scale: torch.Tensor

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.shape = (len(spec.features), spec.obs_height, spec.obs_width)
        self.size = self.shape[0] * self.shape[1] * self.shape[2]
        cells = spec.obs_height * spec.obs_width
        cell, plane, scale = (
            torch.full((256,), self.size),
            torch.zeros(256, dtype=torch.int64),
            torch.ones(256),
        )
        for row in range(spec.obs_height):
            for column in range(spec.obs_width):
                cell[row * 16 + column] = row * spec.obs_width + column
        for place, feature in enumerate(spec.features):
            plane[feature.id], scale[feature.id] = place * cells, 1 / feature.normalization
        self.register_buffer("cell", cell, persistent=False)
        self.register_buffer("plane", plane, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """See the class."""
        longest = int((tokens[..., 0] != PADDING).sum(1).max())
        location, feature, value = tokens[:, :longest].long().unbind(-1)
        place = (self.cell[location] + self.plane[feature]).clamp(max=self.size)  # padding: one past the end
        planes = torch.zeros(len(tokens), self.size + 1).scatter_(1, place, value * self.scale[feature])
        return planes[:, : self.size].view(-1, *self.shape)


class Net(nn.Module):
    """Planes, a convolution, a layer, an LSTM, and a head each for actions and value: alike in size to `AgentModelConfig`'s."""

    def __init__(self, spec: EnvSpec, hidden: int = 128) -> None:
        super().__init__()
        self.spec = spec
        self.planes = Planes(spec)
        border = max(0, 5 - min(spec.obs_height, spec.obs_width))  # of a window smaller than the kernel
        convolve = nn.Sequential(
            layer(nn.Conv2d(len(spec.features), 64, 5, 3, border)), nn.ReLU(), nn.Flatten()
        )
        width = convolve(torch.zeros(1, *self.planes.shape)).shape[1]
        self.features = nn.Sequential(convolve, layer(nn.Linear(width, hidden)), nn.ReLU())
        self.lstm = nn.LSTM(hidden, hidden)
        for name, weights in self.lstm.named_parameters():
            nn.init.zeros_(weights) if "bias" in name else nn.init.orthogonal_(weights, 1.0)
        num_actions = len(spec.legal_actions)
        self.actor = nn.Sequential(
            layer(nn.Linear(hidden, hidden)), nn.ReLU(), layer(nn.Linear(hidden, num_actions), 0.01)
        )
        self.critic = nn.Sequential(
            layer(nn.Linear(hidden, hidden)), nn.ReLU(), layer(nn.Linear(hidden, 1), 1.0)
        )

    def initial_state(self, num_rows: int) -> State:
        """An empty memory, two times float32 `[1, N, hidden]`."""
        return torch.zeros(1, num_rows, self.lstm.hidden_size), torch.zeros(
            1, num_rows, self.lstm.hidden_size
        )

    def forward(
        self, tokens: torch.Tensor, state: State, starts: torch.Tensor
    ) -> tuple[Categorical, torch.Tensor, State]:
        """Some ticks of some rows.

        Args:
            tokens: uint8 `[T, N, K, 3]`.
            state: the memory before the first tick.
            starts: bool `[T, N]`: the observation begins an episode, so the memory is emptied before it.

        Returns:
            Distribution over the numbers of legal actions and values, `[T, N]`, and the memory after the last tick.
        """
        features = self.features(self.planes(tokens.flatten(0, 1))).view(*starts.shape, -1)
        outputs = []
        for tick, begun in zip(features, starts, strict=True):
            kept = (~begun).float().unsqueeze(-1)
            output, state = self.lstm(tick.unsqueeze(0), (state[0] * kept, state[1] * kept))
            outputs.append(output)
        seen = torch.cat(outputs)
        return Categorical(logits=self.actor(seen)), self.critic(seen).squeeze(-1), state


def advantages_of(
    rewards: torch.Tensor,
    values: torch.Tensor,
    ends: torch.Tensor,
    last_value: torch.Tensor,
    gamma: float,
    gae_lambda: float,
) -> torch.Tensor:
    """Generalized advantage estimates (Schulman et al. 2016).

    Args:
        rewards: float `[T, N]`; of a step in which an episode was cut off with the discounted value of its last observation.
        values: float `[T, N]`, before each step.
        ends: bool `[T, N]`: the episode ended with this step.
        last_value: float `[N]`, after the last step.
        gamma: discount.
        gae_lambda: trade of bias (0) for variance (1).
    """
    advantages, later, following = torch.zeros_like(rewards), torch.zeros_like(last_value), last_value
    for t in reversed(range(len(rewards))):
        going = gamma * (~ends[t]).to(rewards.dtype)
        later = rewards[t] + going * following - values[t] + going * gae_lambda * later
        advantages[t], following = later, values[t]
    return advantages


class PlainPPO:
    """The loop, batch by batch.

    Args:
        env: the worlds.
        config: see there.
        total_steps: agent steps of the run, over which the learning rate falls.
    """

    def __init__(self, env: VecEnv, config: PlainConfig, total_steps: int) -> None:
        self.env, self.config = env, config
        self.net = Net(env.spec, config.hidden_dim)
        self.optimizer = torch.optim.Adam(self.net.parameters(), config.learning_rate, eps=1e-5)
        self.batch_size = config.num_steps * env.num_agents
        self.num_batches = -(-total_steps // self.batch_size)
        self.batch = 0
        self.legal = torch.tensor(env.spec.legal_actions)
        self.state = self.net.initial_state(env.num_agents)
        size = (config.num_steps, env.num_agents)
        self.tokens = torch.zeros(*size, *env.observations.shape[1:], dtype=torch.uint8)
        self.actions = torch.zeros(size, dtype=torch.int64)
        self.starts, self.ends = torch.zeros(2, *size, dtype=torch.bool)
        self.logprobs, self.rewards, self.values = torch.zeros(3, *size)

    def advance(self) -> list[EpisodeOutcome]:
        """Collect a batch and learn from it; returns the episodes that ended meanwhile."""
        if self.config.anneal_lr:
            self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * (
                1 - self.batch / self.num_batches
            )
        self.batch += 1
        before = self.state
        with torch.no_grad():
            episodes = self.collect()
            last_value = self.judge(torch.from_numpy(self.env.observations), slice(None), self.env.starts)
            given = (self.rewards, self.values, self.ends, last_value)
            advantages = advantages_of(*given, self.config.gamma, self.config.gae_lambda)
        self.update(before, advantages)
        return episodes

    def collect(self) -> list[EpisodeOutcome]:
        """Fill the batch."""
        episodes: list[EpisodeOutcome] = []
        for t in range(self.config.num_steps):
            self.tokens[t] = torch.from_numpy(self.env.observations)
            self.starts[t] = torch.from_numpy(self.env.starts)
            choice, values, self.state = self.net(self.tokens[t : t + 1], self.state, self.starts[t : t + 1])
            chosen = choice.sample()
            self.actions[t], self.values[t], self.logprobs[t] = (
                chosen[0],
                values[0],
                choice.log_prob(chosen)[0],
            )
            step = self.env.step(self.legal[chosen[0]].numpy())
            self.rewards[t] = torch.from_numpy(step.rewards)
            self.ends[t] = torch.from_numpy(step.terminals | step.truncations)
            cut = step.truncations[step.final_rows]
            if cut.any():
                rows = torch.from_numpy(step.final_rows[cut])
                final = self.judge(torch.from_numpy(step.final_observations[cut]), rows)
                self.rewards[t, rows] += self.config.gamma * final
            episodes += step.episodes
        return episodes

    def judge(self, tokens: torch.Tensor, rows: torch.Tensor | slice, starts: object = None) -> torch.Tensor:
        """Values float32 `[R]` of what some rows see, with the memory that they have now."""
        state = self.state[0][:, rows], self.state[1][:, rows]
        begun = torch.zeros(len(tokens), dtype=torch.bool) if starts is None else torch.as_tensor(starts)
        values: torch.Tensor = self.net(tokens.unsqueeze(0), state, begun.unsqueeze(0))[1][0]
        return values

    def update(self, before: State, advantages: torch.Tensor) -> None:
        """Epochs of minibatches.

        Args:
            before: the memory before the batch.
            advantages: float32 `[T, N]`.
        """
        config = self.config
        returns = advantages + self.values
        for _ in range(config.update_epochs):
            for rows in torch.randperm(self.env.num_agents).chunk(config.num_minibatches):
                state = before[0][:, rows], before[1][:, rows]
                choice, value, _ = self.net(self.tokens[:, rows], state, self.starts[:, rows])
                ratio = (choice.log_prob(self.actions[:, rows]) - self.logprobs[:, rows]).exp()
                gain = advantages[:, rows]
                if config.norm_adv:
                    gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                clipped = ratio.clamp(1 - config.clip_coef, 1 + config.clip_coef)
                policy_loss = -torch.min(ratio * gain, clipped * gain).mean()
                value_loss = (value - returns[:, rows]).square()
                if config.clip_vloss:
                    old = self.values[:, rows]
                    near = old + (value - old).clamp(-config.clip_coef, config.clip_coef)
                    value_loss = torch.max(value_loss, (near - returns[:, rows]).square())
                entropy = choice.entropy().mean()
                loss = policy_loss + config.vf_coef * 0.5 * value_loss.mean() - config.ent_coef * entropy
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.net.parameters(), config.max_grad_norm)
                self.optimizer.step()


def main(name: str = "/env/mettagrid/simple", total_steps: int = 2_000_000, seed: int = 0) -> None:
    """Train and print the mean score of the episodes that ended in each batch."""
    torch.manual_seed(seed)
    config = PlainConfig(num_worlds=64)
    env = VecEnv(get_env_config(name), config.num_worlds, seed=seed, stagger=True)
    ppo = PlainPPO(env, config, total_steps)
    for _ in range(ppo.num_batches):
        scores = [episode.score for episode in ppo.advance()]
        print(f"{ppo.batch * ppo.batch_size:9,} steps  score {sum(scores) / max(1, len(scores)):6.2f}")


if __name__ == "__main__":
    main()
