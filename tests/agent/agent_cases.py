"""Worlds, observations and agents for the tests of this folder."""

import numpy as np
import torch

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.spec import EnvSpec, feature_table

ITEMS = ("ore_red", "battery_red", "heart")


def make_spec(height: int = 11, width: int = 11, num_tokens: int = 60) -> EnvSpec:
    return EnvSpec(
        action_names=("attack", "get_items", "move", "noop", "put_items", "rotate", "swap"),
        max_action_args=(8, 0, 1, 0, 0, 3, 0),
        features=feature_table(ITEMS, recipe_details=True),
        obs_height=height,
        obs_width=width,
        num_tokens=num_tokens,
        object_type_names=("agent", "wall", "mine_red"),
        item_names=ITEMS,
    )


SPEC = make_spec()


def random_tokens(
    rng: np.random.Generator, num_rows: int, spec: EnvSpec = SPEC, *, wild: bool = False
) -> torch.Tensor:
    """uint8 `[num_rows, K, 3]`, rows of random length.

    `wild`: also locations outside the window, unknown features, any value, and rubbish after the end.
    """
    shape = (num_rows, spec.num_tokens)
    tokens = np.empty((*shape, 3), np.uint8)
    tokens[..., 0] = rng.integers(0, spec.obs_height, shape) * 16 + rng.integers(0, spec.obs_width, shape)
    tokens[..., 1] = rng.integers(0, len(spec.features), shape)
    tokens[..., 2] = rng.integers(0, 12, shape)
    lengths = rng.integers(0, spec.num_tokens + 1, num_rows)
    if wild:
        odd = rng.random(shape) < 0.3
        tokens[odd] = rng.integers(0, 256, (int(odd.sum()), 3))
    for row, length in zip(tokens, lengths, strict=True):
        if wild:
            row[length : length + 1] = 255
        else:
            row[length:] = 255
    return torch.from_numpy(tokens)


def token(row: int, col: int, feature: str, value: int, spec: EnvSpec = SPEC) -> list[int]:
    return [row * 16 + col, next(f.id for f in spec.features if f.name == feature), value]


def observation(*tokens: list[int], spec: EnvSpec = SPEC) -> torch.Tensor:
    """One row of exactly these tokens, `[1, K, 3]`."""
    obs = torch.full((1, spec.num_tokens, 3), 255, dtype=torch.uint8)
    if tokens:
        obs[0, : len(tokens)] = torch.tensor(tokens, dtype=torch.uint8)
    return obs


def make_agent(spec: EnvSpec = SPEC, *, seed: int = 0, path: str = "auto", **config: object) -> MettaAgent:
    """A small agent with strong opinions: an untrained policy is so close to uniform that it hides mistakes."""
    settings = AgentModelConfig.model_validate({"hidden_dim": 24, **config})
    agent = MettaAgent(spec, settings, generator=torch.Generator().manual_seed(seed), path=path)  # type: ignore[arg-type]
    with torch.no_grad():
        agent.action_head.layers[-1].weight.mul_(100.0)  # type: ignore[operator, union-attr]
    return agent


def random_segments(
    agent: MettaAgent, rng: np.random.Generator, batch: int, ticks: int, end_probability: float = 0.25
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Observations `[B, T, K, 3]`, dones `[B, T]`, legal actions `[B, T, 2]`."""
    obs = random_tokens(rng, batch * ticks, agent.spec).view(batch, ticks, -1, 3)
    dones = torch.from_numpy(rng.random((batch, ticks)) < end_probability)
    legal = torch.tensor(agent.spec.legal_actions)
    actions = legal[torch.from_numpy(rng.integers(0, len(legal), (batch, ticks)))]
    return obs, dones, actions
