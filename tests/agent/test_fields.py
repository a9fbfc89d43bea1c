"""Every field of `AgentModelConfig` does something: one demonstration for each, and none may be missing."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agent_cases import (
    MIRROR_GRAPH,
    PLAIN_GRAPH,
    SPEC,
    last_layer,
    make_agent,
    observation,
    random_segments,
    token,
)
from metta.agent.config import OBSERVATION_TYPES, AgentModelConfig
from metta.agent.graph_config import AgentGraphConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.tokens import TokenLayer

Make = Callable[..., MettaAgent]


def first_layer(agent: MettaAgent) -> TokenLayer:
    layer = agent.encoder.tokens if agent.graph is None else agent.graph.components["cnn1"]
    assert isinstance(layer, TokenLayer)
    return layer


def values(agent: MettaAgent, *tokens: list[int]) -> torch.Tensor:
    return agent.value(observation(*tokens), agent.initial_state(1))


def sees(agent: MettaAgent, feature: str) -> bool:
    """Whether the output depends on a feature."""
    wall = token(5, 5, "type_id", 1), token(5, 5, "converting", 1), token(5, 5, "inv:heart", 2)
    wall += token(5, 5, "agent:frozen", 1), token(5, 5, "input:heart", 1)
    with_it = [values(agent, *wall, token(5, 5, feature, value)) for value in (1, 3)]
    return not torch.equal(*with_it)


def gradients(agent: MettaAgent, end_only: bool = False) -> dict[str, torch.Tensor]:
    obs, dones, actions = random_segments(agent, np.random.default_rng(0), 4, 8, 0.0)
    judged = agent.evaluate(obs, agent.initial_state(4), dones, actions)
    (judged.values[:, -1].sum() if end_only else judged.values.sum() + judged.logprobs.sum()).backward()
    return {name: p.grad for name, p in agent.named_parameters() if p.grad is not None}


def hidden_dim() -> None:
    assert make_agent(hidden_dim=7).initial_state(2).h.shape == (1, 2, 7)


def lstm_layers() -> None:
    agent = make_agent(lstm_layers=3)
    state = agent.act(observation(token(5, 5, "type_id", 1)), agent.initial_state(1)).state
    assert state.h.shape[0] == 3
    assert len({tuple(layer.flatten().tolist()) for layer in state.h}) == 3


def mlp_layers() -> None:
    for layers in (1, 2, 4):
        names = {n for n, _ in make_agent(mlp_layers=layers).named_parameters()}
        assert f"action_head.layers.{layers - 1}.weight" in names
        assert f"value_head.layers.{layers - 1}.weight" in names
        assert f"value_head.layers.{layers}.weight" not in names


def backbone() -> None:
    """Only a convolution has the same response to the same thing three cells further on."""
    here, there = token(5, 5, "type_id", 1), token(5, 8, "type_id", 1)
    for name, shifted in (("cnn", True), ("mlp", False)):
        layer = make_agent(backbone=name).encoder.tokens
        a, b = layer(observation(here)), layer(observation(there))
        if shifted:
            assert torch.equal(a[0, 4], b[0, 5])
        assert not torch.equal(a, b)
    assert make_agent(backbone="mlp").encoder.tokens.window.num_positions == 1


def bptt_horizon(make: Make) -> None:
    short, long = (gradients(make(bptt_horizon=h), end_only=True) for h in (2, 8))
    assert any(not torch.allclose(short[name], long[name]) for name in long)
    obs, dones, actions = random_segments(make(), np.random.default_rng(0), 4, 8)
    outputs = []
    for horizon in (2, 8):
        agent = make(bptt_horizon=horizon)
        outputs.append(agent.evaluate(obs, agent.initial_state(4), dones, actions).values)
    assert torch.equal(*outputs)


def forward_lstm() -> None:
    for recurrent in (True, False):
        agent = make_agent(forward_lstm=recurrent)
        obs = observation(token(5, 5, "type_id", 1))
        first = agent.act(obs, agent.initial_state(1))
        second = agent.act(obs, first.state)
        assert torch.equal(first.values, second.values) != recurrent


def clip_range(make: Make) -> None:
    free, clipped = gradients(make()), gradients(make(clip_range=0.01))
    assert max(g.abs().max().item() for g in free.values()) > 0.1
    for name, gradient in free.items():
        torch.testing.assert_close(clipped[name], gradient.clamp(-0.01, 0.01))


def weight_clip(make: Make) -> None:
    free, clipped = make(), make(weight_clip=0.05)
    for agent in (free, clipped):
        agent.after_update(1)
    for (name, weight), other in zip(free.named_parameters(), clipped.parameters(), strict=True):
        assert torch.equal(other, weight.clamp(-0.05, 0.05) if weight.ndim > 1 else weight), name
    assert max(float(p.detach().abs().max()) for p in free.parameters() if p.ndim > 1) > 0.1


def use_prev_action(make: Make) -> None:
    for use in (True, False):
        agent = make(use_prev_action=use)
        assert sees(agent, "last_action") == sees(agent, "last_action_arg") == use
        assert sees(agent, "last_reward")
        assert sees(agent, "type_id")


def use_prev_reward(make: Make) -> None:
    for use in (True, False):
        agent = make(use_prev_reward=use)
        assert sees(agent, "last_reward") == use
        assert sees(agent, "last_action")


def observation_types(make: Make) -> None:
    examples = {
        "global": "episode_completion_pct",
        "agent": "agent:orientation",
        "object": "type_id",
        "inventory": "inv:ore_red",
        "recipe": "output:heart",
    }
    assert set(examples) == set(OBSERVATION_TYPES)
    everything = make()
    for hidden, feature in examples.items():
        agent = make(observation_types=[kind for kind in OBSERVATION_TYPES if kind != hidden])
        for kind, other in examples.items():
            assert sees(everything, other)
            assert sees(agent, other) == (kind != hidden), (hidden, feature, other)


def dtypes_fp16(make: Make) -> None:
    tokens = [token(5, c, "type_id", 1) for c in range(11)]
    single, half = (make(dtypes_fp16=flag) for flag in (False, True))
    a, b = values(single, *tokens), values(half, *tokens)
    assert a.dtype == b.dtype == torch.float32
    assert a != b
    assert torch.allclose(a, b, atol=0.1)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    taken: list[torch.dtype] = []
    for agent in (half, single):
        last_layer(agent).register_forward_hook(lambda module, inputs, output: taken.append(output.dtype))
        agent.act(observation(*tokens), agent.initial_state(1))
    assert taken == [torch.bfloat16, torch.float32]


def obs_scale(make: Make) -> None:
    wall = token(5, 5, "inv:heart", 7)
    with torch.no_grad():
        layers = [first_layer(make(obs_scale=scale)) for scale in (1, 3)]
        for layer in layers:
            layer.bias.fill_(100.0)
        once, thrice = (layer(observation(wall)) - 100.0 for layer in layers)
    torch.testing.assert_close(thrice, 3 * once, atol=1e-4, rtol=1e-4)
    assert once.abs().max() > 0


def egocentric(make: Make) -> None:
    # A wall to the right of an agent that faces right is a wall ahead; at the center stands the agent.
    facing_right, facing_up = token(5, 5, "agent:orientation", 3), token(5, 5, "agent:orientation", 0)
    right, ahead = token(5, 6, "type_id", 1), token(4, 5, "type_id", 1)
    only_objects = {"observation_types": ["object"]}
    turned, fixed = make(egocentric=True, **only_objects), make(egocentric=False, **only_objects)
    assert values(turned, facing_right, right) == values(turned, facing_up, ahead)
    assert values(fixed, facing_right, right) != values(fixed, facing_up, ahead)


def mask_actions(make: Make) -> None:
    facing_up, wall = token(5, 5, "agent:orientation", 0), token(4, 5, "type_id", 1)
    forward = SPEC.legal_actions.index((SPEC.action_names.index("move"), 0))
    dones, actions = torch.zeros(1, 1, dtype=torch.bool), torch.tensor([[[3, 0]]])
    for masked in (True, False):
        agent = make(mask_actions=masked)
        obs = observation(facing_up, wall).unsqueeze(1)
        chances = agent.evaluate(obs, agent.initial_state(1), dones, actions).all_logprobs.exp()
        assert bool(chances[0, 0, forward] == 0) == masked


def obs_process_func() -> None:
    here, there = token(1, 1, "type_id", 1), token(9, 8, "type_id", 1)
    for function, knows in (("flatten_obs_dict", True), ("pool_obs_dict", False)):
        agent = make_agent(backbone="mlp", obs_process_func=function)
        assert (values(agent, here) != values(agent, there)) == knows
        # Three cells on, the convolution's positions see the same thing, and pooled it is the same mean.
        agent = make_agent(backbone="cnn", obs_process_func=function)
        a, b = values(agent, token(5, 4, "type_id", 1)), values(agent, token(5, 7, "type_id", 1))
        assert torch.allclose(a, b, atol=1e-6) != knows


def analyze_weights_interval(make: Make) -> None:
    agent = make(analyze_weights_interval=3)
    assert [bool(agent.after_update(i)) for i in range(1, 7)] == [False, False, True, False, False, True]
    assert "weights/norm" in agent.after_update(9)
    silent = make(analyze_weights_interval=0)
    assert not any(silent.after_update(i) for i in range(1, 7))


def l2_init_weight_update_interval(make: Make) -> None:
    for interval, expected in ((0, [True] * 4), (2, [True, False, False, False])):
        agent = make(l2_init_weight_update_interval=interval)
        agent.update_reference()
        with torch.no_grad():
            last_layer(agent).weight.add_(1.0)
        distances = []
        for i in range(1, 5):
            agent.after_update(i)
            distances.append(agent.l2_init_loss().item() > 0)
        assert distances == expected


OWN: dict[str, Callable[[], None]] = {
    demonstration.__name__: demonstration
    for demonstration in (hidden_dim, lstm_layers, mlp_layers, backbone, forward_lstm, obs_process_func)
}
SHARED: dict[str, Callable[[Make], None]] = {
    demonstration.__name__: demonstration
    for demonstration in (
        bptt_horizon,
        clip_range,
        weight_clip,
        use_prev_action,
        use_prev_reward,
        observation_types,
        dtypes_fp16,
        egocentric,
        mask_actions,
        obs_scale,
        analyze_weights_interval,
        l2_init_weight_update_interval,
    )
}


@pytest.mark.parametrize("field", list(AgentModelConfig.model_fields))
def test_every_field_changes_something(field: str) -> None:
    assert field in OWN or field in SHARED, f"show what {field} does: add a demonstration to this file"
    if field in OWN:
        OWN[field]()
    else:
        SHARED[field](make_agent)


@pytest.mark.parametrize("field", [name for name in AgentGraphConfig.model_fields if name != "components"])
def test_every_field_changes_something_in_a_graph_too(field: str) -> None:
    assert field in SHARED, f"show what {field} does: add a demonstration to this file"
    SHARED[field](functools.partial(make_agent, components=MIRROR_GRAPH))


def test_planes_that_are_drawn_are_turned_too() -> None:
    egocentric(functools.partial(make_agent, components=PLAIN_GRAPH))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"observation_types": ["objects"]},
            "contains 'objects', which is not a family .* global, agent, object",
        ),
        ({"observation_types": []}, "observation_types is empty"),
        ({"forward_lstm": False, "lstm_layers": 2}, "lstm_layers is 2 but forward_lstm is False"),
        ({"backbone": "transformer"}, "'cnn' or 'mlp'"),
        ({"hidden_dim": 0}, "hidden_dim"),
        ({"hiden_dim": 8}, "hiden_dim"),
        ({"clip_range": -1.0}, "clip_range"),
    ],
)
def test_bad_values_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AgentModelConfig.model_validate(settings)
