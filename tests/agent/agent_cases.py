"""Worlds, observations and agents for the tests of this folder."""

import numpy as np
import torch

from metta.agent.any_config import read_agent_config
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


# Every kind of layer, a path around the core, and one that the core's output shares between both outputs.
RICH_GRAPH: dict[str, object] = {
    "_obs_": {"layer": "TokenPlanes"},
    "cnn1": {"layer": "Conv2d", "sources": ["_obs_"], "out_channels": 8, "kernel_size": 5, "stride": 3},
    "cnn2": {"layer": "Conv2d", "sources": ["cnn1"], "out_channels": 12, "kernel_size": [3, 2], "padding": 1},
    "flat": {"layer": "Flatten", "sources": ["cnn2"]},
    "soft": {
        "layer": "Conv2d",
        "sources": ["_obs_"],
        "out_channels": 4,
        "kernel_size": 11,
        "nonlinearity": "Tanh",
    },
    "soft_flat": {"layer": "Flatten", "sources": ["soft"]},
    "box": {"layer": "ObsTokenToBoxShaper"},
    "normal": {"layer": "ObservationNormalizer", "sources": ["box"]},
    "box_cnn": {"layer": "Conv2d", "sources": ["normal"], "out_channels": 6, "kernel_size": 11},
    "box_flat": {"layer": "Flatten", "sources": ["box_cnn"]},
    "all": {"layer": "Concat", "sources": ["flat", "soft_flat", "box_flat"]},
    "norm": {"layer": "LayerNorm", "sources": ["all"]},
    "fc1": {"layer": "Linear", "sources": ["norm"], "out_features": 20},
    "_core_": {"layer": "LSTM", "sources": ["fc1"], "hidden_size": 16, "num_layers": 2},
    "around": {"layer": "Linear", "sources": ["fc1"], "out_features": 16, "nonlinearity": None},
    "both": {"layer": "Add", "sources": ["_core_", "around"]},
    "trunk": {"layer": "Tanh", "sources": ["both"]},
    "critic_1": {"layer": "Linear", "sources": ["trunk"], "out_features": 10, "nonlinearity": "SiLU"},
    "_value_": {"layer": "Linear", "sources": ["critic_1"]},
    "actor_1": {"layer": "Linear", "sources": ["trunk"], "out_features": 18, "nonlinearity": "GELU"},
    "_action_": {"layer": "Linear", "sources": ["actor_1"]},
}

# No memory, and planes that are really drawn.
PLAIN_GRAPH: dict[str, object] = {
    "_obs_": {"layer": "ObsTokenToBoxShaper"},
    "normal": {"layer": "ObservationNormalizer", "sources": ["_obs_"]},
    "flat": {"layer": "Flatten", "sources": ["normal"]},
    "fc": {"layer": "Linear", "sources": ["flat"], "out_features": 24},
    "_value_": {"layer": "Linear", "sources": ["fc"]},
    "_action_": {"layer": "Linear", "sources": ["fc"]},
}

# The standard network of 24 units, component by component.
MIRROR_GRAPH: dict[str, object] = {
    "_obs_": {"layer": "TokenPlanes"},
    "cnn1": {"layer": "Conv2d", "sources": ["_obs_"], "out_channels": 24, "kernel_size": 5, "stride": 3},
    "flat": {"layer": "Flatten", "sources": ["cnn1"]},
    "fc1": {"layer": "Linear", "sources": ["flat"], "out_features": 24},
    "_core_": {"layer": "LSTM", "sources": ["fc1"], "hidden_size": 24},
    "critic_1": {"layer": "Linear", "sources": ["_core_"], "out_features": 24},
    "_value_": {"layer": "Linear", "sources": ["critic_1"]},
    "actor_1": {"layer": "Linear", "sources": ["_core_"], "out_features": 24},
    "_action_": {"layer": "Linear", "sources": ["actor_1"]},
}


def make_agent(spec: EnvSpec = SPEC, *, seed: int = 0, path: str = "auto", **config: object) -> MettaAgent:
    """A small agent with strong opinions: an untrained policy is so close to uniform that it hides mistakes.

    With `components` it is a graph.
    """
    settings = read_agent_config(config if "components" in config else {"hidden_dim": 24, **config})
    agent = MettaAgent(spec, settings, generator=torch.Generator().manual_seed(seed), path=path)  # type: ignore[arg-type]
    with torch.no_grad():
        last_layer(agent).weight.mul_(100.0)
    return agent


def last_layer(agent: MettaAgent) -> torch.nn.Linear:
    """The layer that gives the logits."""
    layer = agent.action_head.layers[-1] if agent.graph is None else agent.graph.components["_action_"]
    assert isinstance(layer, torch.nn.Linear)
    return layer


def random_segments(
    agent: MettaAgent, rng: np.random.Generator, batch: int, ticks: int, end_probability: float = 0.25
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Observations `[B, T, K, 3]`, dones `[B, T]`, legal actions `[B, T, 2]`."""
    obs = random_tokens(rng, batch * ticks, agent.spec).view(batch, ticks, -1, 3)
    dones = torch.from_numpy(rng.random((batch, ticks)) < end_probability)
    legal = torch.tensor(agent.spec.legal_actions)
    actions = legal[torch.from_numpy(rng.integers(0, len(legal), (batch, ticks)))]
    return obs, dones, actions
