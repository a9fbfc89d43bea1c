"""Options of networks: what an agent says of fixed segments, the gradients of it, and what it does after updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from metta.agent.config import OBSERVATION_TYPES, AgentModelConfig
from metta.agent.graph_config import (
    ActivationConfig,
    AddConfig,
    AgentGraphConfig,
    ConcatConfig,
    Conv2dConfig,
    FlattenConfig,
    LayerNormConfig,
    LinearConfig,
    LSTMConfig,
    ObservationNormalizerConfig,
    ObsTokenToBoxShaperConfig,
    TokenPlanesConfig,
)
from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.spec import EnvSpec, feature_table
from option_schema import Kind, Other, Probe, Refused, other

ITEMS = ("ore_red", "heart")
SPEC = EnvSpec(
    action_names=("get_items", "move", "noop", "rotate"),
    max_action_args=(0, 1, 0, 3),
    features=feature_table(ITEMS, recipe_details=True),
    obs_height=11,
    obs_width=11,
    num_tokens=80,
    object_type_names=("agent", "wall", "mine_red"),
    item_names=ITEMS,
)
BATCH, TICKS = 4, 6


def segments() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Observations with every feature, on the observer's own cell too, where its facing is; ends; legal actions."""
    rng = np.random.default_rng(0)
    shape = (BATCH, TICKS, SPEC.num_tokens)
    tokens = np.empty((*shape, 3), np.uint8)
    tokens[..., 0] = rng.integers(0, 11, shape) * 16 + rng.integers(0, 11, shape)
    tokens[..., 1] = rng.integers(0, len(SPEC.features), shape)
    tokens[..., 2] = rng.integers(0, 9, shape)
    names = {feature.name: feature.id for feature in SPEC.features}
    own = ["agent:orientation", "last_action", "last_action_arg", "last_reward", "episode_completion_pct"]
    for place, name in enumerate(own):
        tokens[..., place, 0], tokens[..., place, 1] = 5 * 16 + 5, names[name]
        tokens[..., place, 2] = rng.integers(1, 4, shape[:2])
    tokens[..., -1, :] = 255  # a full buffer would be taken for one that lacks things
    legal = torch.tensor(SPEC.legal_actions)
    actions = legal[torch.from_numpy(rng.integers(0, len(legal), (BATCH, TICKS)))]
    return torch.from_numpy(tokens), torch.from_numpy(rng.random((BATCH, TICKS)) < 0.2), actions


def judged(config: AgentModelConfig | AgentGraphConfig) -> list[Any]:
    """Outputs and gradients of an agent, and what is left of its weights and its reference after updates."""
    agent = MettaAgent(SPEC, config, generator=torch.Generator().manual_seed(0))
    obs, dones, actions = segments()
    out = agent.evaluate(obs, agent.initial_state(BATCH), dones, actions)
    (out.logprobs.sum() + out.values[:, -1].sum()).backward()  # type: ignore[no-untyped-call]
    seen: list[Any] = [
        tensor.detach().numpy().tobytes() for tensor in (out.values, out.logprobs, out.state.h)
    ]
    weights = dict(agent.named_parameters())
    seen += [(name, tuple(p.shape)) for name, p in weights.items()]
    seen += [None if p.grad is None else p.grad.numpy().tobytes() for p in weights.values()]
    for update in range(1, 4):
        with torch.no_grad():
            for parameter in weights.values():
                parameter.add_(0.3)
        seen.append(sorted(agent.after_update(update).items()))
        seen += [agent.l2_init_loss().item(), agent.l2_reg_loss().item()]
    return seen


def of_same_weights(config: AgentModelConfig | AgentGraphConfig) -> list[Any]:
    """Outputs and gradients of agents whose weights, wherever the shapes are the same, are the same."""
    agent = MettaAgent(SPEC, config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in agent.parameters():
            wave = torch.arange(parameter.numel(), dtype=torch.float32).sin()
            parameter.copy_(wave.view(parameter.shape) * parameter.shape[-1] ** -0.5)
    obs, dones, actions = segments()
    out = agent.evaluate(obs, agent.initial_state(BATCH), dones, actions)
    out.values[:, -1].sum().backward()  # type: ignore[no-untyped-call]
    seen = [out.values.detach().numpy().tobytes(), out.logprobs.detach().numpy().tobytes()]
    return seen + [None if p.grad is None else p.grad.numpy().tobytes() for p in agent.parameters()]


SHARED: dict[str, Other] = {
    "bptt_horizon": other(2),
    "clip_range": other(0.001),
    "weight_clip": other(0.05),
    "use_prev_action": other(False),
    "use_prev_reward": other(False),
    "observation_types": other(
        *([kind for kind in OBSERVATION_TYPES if kind != out] for out in OBSERVATION_TYPES)
    ),
    "dtypes_fp16": other(True),
    "egocentric": other(False),
    "mask_actions": other(False),
    "obs_scale": other(3),
    "analyze_weights_interval": other(3),
    "l2_init_weight_update_interval": other(2),
}
GRAPH: dict[str, Any] = {
    "_obs_": {"layer": "TokenPlanes"},
    "box": {"layer": "ObsTokenToBoxShaper"},
    "normal": {"layer": "ObservationNormalizer", "sources": ["box"]},
    "conv": {"layer": "Conv2d", "sources": ["_obs_"], "out_channels": 6, "kernel_size": 3},
    "flat": {"layer": "Flatten", "sources": ["conv"]},
    "box_flat": {"layer": "Flatten", "sources": ["normal"]},
    "fc_a": {"layer": "Linear", "sources": ["flat"], "out_features": 12, "nonlinearity": None},
    "fc_b": {"layer": "Linear", "sources": ["box_flat"], "out_features": 12, "nonlinearity": None},
    "fc_c": {"layer": "Linear", "sources": ["fc_a"], "out_features": 12, "nonlinearity": None},
}
IMAGES = ("TokenPlanes", "ObsTokenToBoxShaper", "ObservationNormalizer", "Conv2d")


def network(component: Any) -> dict[str, Any]:
    """A graph around a component: what it reads, and both outputs behind it."""
    graph: dict[str, Any] = {**GRAPH, "x": component}
    last = "x"
    if component.layer in IMAGES:
        graph["tail"], last = {"layer": "Flatten", "sources": ["x"]}, "tail"
    graph |= {name: {"layer": "Linear", "sources": [last]} for name in ("_value_", "_action_")}
    used, waiting = {"x"}, ["_value_", "_action_"]
    while waiting:
        used.add(name := waiting.pop())
        waiting += component.sources if name == "x" else graph[name].get("sources", ())
    return {name: part for name, part in graph.items() if name in used}


def in_a_network(component: Any) -> list[Any]:
    """What a component does behind others."""
    return of_same_weights(AgentGraphConfig(components=network(component)))


def over_tokens(component: Conv2dConfig) -> list[Any]:
    """What a convolution does as the first layer, which is computed over tokens."""
    first = "_obs_" if component.sources == ("conv",) else "normal"
    return in_a_network(component.model_copy(update={"sources": (first,)}))


def layer(base: Mapping[str, Any] | None = None, **others: Other) -> Probe:
    return Probe((in_a_network,), others, base or {})


NONE = Refused(("conv",), "takes none")
PROBES: dict[Kind, Probe] = {
    AgentModelConfig: Probe(
        (judged,),
        {
            **SHARED,
            "hidden_dim": other(7),
            "lstm_layers": other(2),
            "mlp_layers": other(1, 3),
            "backbone": other("mlp"),
            "forward_lstm": other(False),
            "obs_process_func": other("pool_obs_dict"),
        },
        {"hidden_dim": 8},
    ),
    AgentGraphConfig: Probe(
        (judged,),
        {**SHARED, "components": other(network(ActivationConfig(layer="ReLU", sources=("fc_a",))))},
        {"components": network(LSTMConfig(sources=("fc_a",), hidden_size=8))},
    ),
    TokenPlanesConfig: layer(sources=other(NONE)),
    ObsTokenToBoxShaperConfig: layer(sources=other(NONE)),
    ObservationNormalizerConfig: layer(
        {"sources": ("box",)}, sources=other(Refused(("conv",), "raw values"))
    ),
    Conv2dConfig: Probe(
        (in_a_network, over_tokens),
        {
            "sources": other(("_obs_",)),
            "out_channels": other(7),
            "kernel_size": other(3, (1, 2)),
            "stride": other(2),
            "padding": other(1),
            "in_channels": other(Refused(99, "in_channels")),
            "nonlinearity": other(None, "Tanh", "Sigmoid", "GELU", "SiLU", "ELU"),
        },
        {"sources": ("conv",), "out_channels": 6, "kernel_size": 2},
    ),
    FlattenConfig: layer({"sources": ("conv",)}, sources=other(("normal",))),
    LayerNormConfig: layer({"sources": ("fc_a",)}, sources=other(("fc_b",))),
    AddConfig: layer({"sources": ("fc_a", "fc_b")}, sources=other(("fc_a", "fc_c"))),
    ConcatConfig: layer({"sources": ("fc_a", "fc_b")}, sources=other(("fc_b", "fc_a"))),
    ActivationConfig: layer(
        {"layer": "Tanh", "sources": ("fc_a",)},
        layer=other("ReLU", "Sigmoid", "GELU", "SiLU", "ELU"),
        sources=other(("fc_b",)),
    ),
    LinearConfig: layer(
        {"sources": ("fc_a",), "out_features": 12},
        sources=other(("fc_b",)),
        out_features=other(13, Refused(None, "out_features")),
        nonlinearity=other(None, "Tanh", "Sigmoid", "GELU", "SiLU", "ELU"),
        in_features=other(Refused(5, "in_features")),
    ),
    LSTMConfig: layer(
        {"sources": ("fc_a",), "hidden_size": 12},
        sources=other(("fc_b",)),
        hidden_size=other(13),
        num_layers=other(2),
        input_size=other(Refused(5, "input_size")),
    ),
}
