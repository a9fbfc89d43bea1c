#!/usr/bin/env python
"""Stable-Baselines3's PPO plays every agent of Metta's worlds; the first layers are Metta's own.

pip install 'metta[peers]'
python examples/stable_baselines.py
"""

from __future__ import annotations

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from metta.adapters.stable_baselines_vec_env import StableBaselinesVecEnv
from metta.agent.config import AgentModelConfig
from metta.agent.encoder import Encoder
from metta.mettagrid.spec import ObservationSpace
from metta.mettagrid.tasks import EnvLike


class TokenFeatures(BaseFeaturesExtractor):  # type: ignore[misc]
    """Tokens `[N, K, 3]` to features `[N, hidden]`."""

    def __init__(self, space: ObservationSpace, hidden: int = 64) -> None:
        super().__init__(space, features_dim=hidden)
        self.encoder = Encoder(space.spec, AgentModelConfig(hidden_dim=hidden))
        self.encoder.init_weights()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """See the class; Stable-Baselines3 hands bytes over as floats."""
        features: torch.Tensor = self.encoder(tokens.to(torch.uint8))
        return features


def train(env_config: EnvLike, num_envs: int, total_steps: int, *, seed: int = 0) -> tuple[float, float]:
    """Train; returns the mean return of an agent before and after."""
    env = StableBaselinesVecEnv(env_config, num_envs)
    model = PPO(
        "MlpPolicy",
        env,
        policy_kwargs={"features_extractor_class": TokenFeatures, "net_arch": []},
        n_steps=64,
        batch_size=16 * num_envs,
        n_epochs=4,
        learning_rate=3e-3,
        gamma=0.95,
        gae_lambda=0.9,
        ent_coef=0.01,
        seed=seed,
    )
    before, _ = evaluate_policy(model, env, n_eval_episodes=2 * num_envs, deterministic=False)
    model.learn(total_steps)
    after, _ = evaluate_policy(model, env, n_eval_episodes=2 * num_envs, deterministic=False)
    return float(before), float(after)


if __name__ == "__main__":
    before, after = train("/env/mettagrid/simple", 64, 400_000)
    print(f"return of an agent: {before:.2f} before, {after:.2f} after")
