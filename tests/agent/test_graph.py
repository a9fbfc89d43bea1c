"""Networks made of components: that they compute what their description says."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from agent_cases import (
    MIRROR_GRAPH,
    PLAIN_GRAPH,
    RICH_GRAPH,
    SPEC,
    make_agent,
    make_spec,
    observation,
    random_segments,
    random_tokens,
    token,
)
from metta.agent.config import AgentModelConfig
from metta.agent.core import LSTMLayer
from metta.agent.facing import TurnToFacing
from metta.agent.graph_config import AgentGraphConfig, Conv2dConfig
from metta.agent.graph_layers import make_token_convolution
from metta.agent.heads import POLICY_GAIN
from metta.agent.layers import convolution
from metta.agent.metta_agent import MettaAgent
from metta.agent.state import PolicyState
from metta.agent.tokens import PlaneTable, Window, draw_planes, make_box_table, make_plane_table


def graph_weights(agent: MettaAgent, name: str) -> dict[str, torch.Tensor]:
    assert agent.graph is not None
    return {key: value.detach() for key, value in agent.graph.components[name].named_parameters()}


def without(graph: dict[str, object], *names: str, **others: object) -> dict[str, object]:
    return {**{name: c for name, c in graph.items() if name not in names}, **others}


def mirrored(agent: MettaAgent, path: str = "auto") -> tuple[MettaAgent, dict[str, str]]:
    """The standard agent as a graph with the same weights, and the name of each there."""
    names = {
        "graph.components.cnn1": "encoder.tokens",
        "graph.components.fc1": "encoder.project",
        "core.layers.0": "core.layers.0",
        "graph.components.critic_1": "value_head.layers.0",
        "graph.components._value_": "value_head.layers.1",
        "graph.components.actor_1": "action_head.layers.0",
        "graph.components._action_": "action_head.layers.1",
    }
    twin = make_agent(components=MIRROR_GRAPH, path=path)
    ours = dict(agent.named_parameters())
    theirs = {}
    with torch.no_grad():
        for name, p in twin.named_parameters():
            prefix, _, kind = name.rpartition(".")
            theirs[name] = f"{names[prefix]}.{kind}"
            p.copy_(channels_first(name, ours[theirs[name]]))
    return twin, theirs


def channels_first(name: str, weight: torch.Tensor) -> torch.Tensor:
    """The standard agent flattens position by position, `Flatten` channel by channel."""
    if name == "graph.components.fc1.weight":
        return weight.view(24, 9, 24).transpose(1, 2).reshape(24, -1)
    return weight


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_a_graph_like_the_standard_agent_is_the_standard_agent(path: str) -> None:
    agent = make_agent(path=path, seed=3)
    twin, names = mirrored(agent, path)
    obs, dones, actions = random_segments(agent, np.random.default_rng(0), 6, 9)
    start = PolicyState(*(torch.randn(1, 6, 24, generator=torch.Generator().manual_seed(i)) for i in (1, 2)))
    results = []
    for one in (agent, twin):
        judged = one.evaluate(obs, start, dones, actions)
        (judged.logprobs.mean() + judged.values.square().mean() + judged.entropies.mean()).backward()
        results.append(judged)
    ours, theirs = results
    for field in ("logprobs", "values", "entropies", "all_logprobs"):
        torch.testing.assert_close(getattr(theirs, field), getattr(ours, field), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(theirs.state.h, ours.state.h, atol=1e-5, rtol=1e-5)
    gradients = dict(agent.named_parameters())
    for name, p in twin.named_parameters():
        grad = gradients[names[name]].grad
        assert grad is not None
        torch.testing.assert_close(p.grad, channels_first(name, grad), atol=1e-5, rtol=1e-4)
    acted = [
        one.act(obs[:, 0], start, dones[:, 0], generator=torch.Generator().manual_seed(0))
        for one in (agent, twin)
    ]
    assert torch.equal(acted[0].actions, acted[1].actions)
    torch.testing.assert_close(twin.value(obs[:, 0], start), agent.value(obs[:, 0], start), atol=1e-5, rtol=0)


def lstm_tick(layer: LSTMLayer, x: torch.Tensor) -> torch.Tensor:
    """One tick from an empty memory."""
    i, _, o, g = (x @ layer.weight_ih.detach().t() + layer.bias.detach()).chunk(4, -1)
    return o.sigmoid() * (i.sigmoid() * g.tanh()).tanh()


def test_every_layer_does_what_it_is_called() -> None:
    """The rich graph once more, written out by hand."""
    agent = make_agent(components=RICH_GRAPH, seed=2).double()
    assert agent.core is not None
    tokens = random_tokens(np.random.default_rng(1), 7, wild=True)

    def w(name: str) -> dict[str, torch.Tensor]:
        return graph_weights(agent, name)

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, w(name)["weight"], w(name)["bias"])

    turned = TurnToFacing(SPEC)(tokens)
    window = Window.whole(11, 11, pooled=False)

    def planes(table: PlaneTable) -> torch.Tensor:
        arrays = torch.from_numpy(table.plane), torch.from_numpy(table.amount)
        return draw_planes(turned, *arrays, len(table.names), window, dtype=torch.float64)

    def over_planes(name: str, table: PlaneTable, kernel: int, stride: int = 1) -> torch.Tensor:
        weight = w(name)["weight"].permute(2, 0, 1).unflatten(2, (kernel, kernel))  # type: ignore[no-untyped-call]
        return F.conv2d(planes(table), weight, w(name)["bias"], stride)

    config = AgentModelConfig()
    table = make_plane_table(SPEC, config)
    cnn1 = over_planes("cnn1", table, 5, 3).relu()
    cnn2 = F.conv2d(cnn1, w("cnn2")["weight"], w("cnn2")["bias"], padding=1).relu()
    assert list(cnn2.shape) == [7, 12, 3, 4]
    soft = over_planes("soft", table, 11).tanh()
    box = over_planes("box_cnn", make_box_table(SPEC, config, normalized=True), 11).relu()
    joined = torch.cat([cnn2.flatten(1), soft.flatten(1), box.flatten(1)], 1)
    norm = F.layer_norm(joined, joined.shape[1:], w("norm")["weight"], w("norm")["bias"])
    fc1 = linear("fc1", norm).relu()
    first, second = agent.core.layers
    assert isinstance(first, LSTMLayer)
    assert isinstance(second, LSTMLayer)
    trunk = (lstm_tick(second, lstm_tick(first, fc1)) + linear("around", fc1)).tanh()
    value = linear("_value_", F.silu(linear("critic_1", trunk))).squeeze(-1)
    logits = linear("_action_", F.gelu(linear("actor_1", trunk)))

    out = agent.evaluate(
        tokens.unsqueeze(1),
        agent.initial_state(7),
        torch.zeros(7, 1, dtype=torch.bool),
        torch.tensor(SPEC.legal_actions[:7]).unsqueeze(1),
    )
    torch.testing.assert_close(out.values[:, 0], value, atol=1e-10, rtol=0)
    torch.testing.assert_close(out.all_logprobs[:, 0], logits.log_softmax(-1), atol=1e-10, rtol=0)
    torch.testing.assert_close(agent.value(tokens, agent.initial_state(7)), value, atol=1e-10, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([(11, 11), (5, 9), (7, 7)]),
    kernel=st.one_of(st.integers(1, 5), st.tuples(st.integers(1, 5), st.integers(1, 5))),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
    nonlinearity=st.sampled_from(["ReLU", "Tanh", None]),
    path=st.sampled_from(["fast", "plain"]),
)
def test_a_convolution_over_tokens_is_one_over_planes(
    seed: int,
    size: tuple[int, int],
    kernel: int | tuple[int, int],
    stride: int,
    padding: int,
    nonlinearity: str | None,
    path: str,
) -> None:
    spec = make_spec(*size)
    component = Conv2dConfig.model_validate(
        {
            "sources": ["_obs_"],
            "out_channels": 3,
            "kernel_size": kernel,
            "stride": stride,
            "padding": padding,
            "nonlinearity": nonlinearity,
        }
    )
    table, turn = make_plane_table(spec, AgentModelConfig()), TurnToFacing(spec)
    layer, shape = make_token_convolution(component, "it", table, size, turn, path)  # type: ignore[arg-type]
    layer.init_weights(torch.Generator().manual_seed(seed))
    layer = layer.double()
    tokens = random_tokens(np.random.default_rng(seed), 4, spec, wild=True)
    pair = (kernel, kernel) if isinstance(kernel, int) else kernel
    weight = layer.weight.detach().permute(2, 0, 1).reshape(3, len(table.names), *pair)
    expected = F.conv2d(layer.draw(turn(tokens)), weight, layer.bias.detach(), stride, padding)
    if nonlinearity == "ReLU":
        expected = expected.relu()
    found = layer(tokens)
    assert tuple(found.shape[1:]) == shape
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_a_box_holds_raw_values_and_the_normaliser_divides_them() -> None:
    config = AgentModelConfig(obs_scale=2, use_prev_reward=False)
    seen = [f for f in SPEC.features if f.name != "last_reward"]
    for normalized in (False, True):
        table = make_box_table(SPEC, config, normalized=normalized)
        assert table.names == tuple(f.name for f in seen)
        tokens = observation(
            token(2, 3, "inv:heart", 7), token(9, 0, "hp", 30), token(5, 5, "last_reward", 9)
        )
        arrays = torch.from_numpy(table.plane), torch.from_numpy(table.amount)
        window = Window.whole(11, 11, pooled=False)
        box = draw_planes(tokens, *arrays, len(table.names), window, dtype=torch.float64)
        expected = torch.zeros(1, len(seen), 11, 11, dtype=torch.float64)
        expected[0, table.names.index("inv:heart"), 2, 3] = 2 * 7 / (100.0 if normalized else 1.0)
        expected[0, table.names.index("hp"), 9, 0] = 2 * 30 / (30.0 if normalized else 1.0)
        torch.testing.assert_close(box, expected, atol=1e-12, rtol=0)


def test_planes_are_drawn_only_for_those_who_need_them() -> None:
    only = make_agent(components=MIRROR_GRAPH)
    others = without(MIRROR_GRAPH, "fc1")
    others["planes"] = {"layer": "Flatten", "sources": ["_obs_"]}
    others["both"] = {"layer": "Concat", "sources": ["flat", "planes"]}
    others["fc1"] = {"layer": "Linear", "sources": ["both"], "out_features": 24}
    drawn = make_agent(components=others)
    assert only.graph is not None
    assert drawn.graph is not None
    assert "_obs_" not in only.graph.components
    assert "_obs_" in drawn.graph.components
    # With no weight on the drawn planes the two are one function.
    state = {name: p for name, p in only.state_dict().items() if name not in ("reference",)}
    fc1 = torch.zeros_like(drawn.graph.components["fc1"].weight)  # type: ignore[arg-type]
    fc1[:, : 24 * 9] = state["graph.components.fc1.weight"]
    state["graph.components.fc1.weight"] = fc1
    drawn.load_state_dict(state, strict=False)
    tokens = random_tokens(np.random.default_rng(2), 5)
    values = [a.value(tokens, a.initial_state(5)) for a in (only, drawn)]
    torch.testing.assert_close(*values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("graph", [RICH_GRAPH, PLAIN_GRAPH])
def test_a_copy_is_the_same_function_with_weights_of_its_own(graph: dict[str, object]) -> None:
    agent = make_agent(components=graph, clip_range=1e-6)
    twin = copy.deepcopy(agent)
    obs, dones, actions = random_segments(agent, np.random.default_rng(3), 3, 4)
    judged = [a.evaluate(obs, a.initial_state(3), dones, actions) for a in (agent, twin)]
    assert torch.equal(judged[0].values, judged[1].values)
    judged[1].values.sum().backward()
    assert all(p.grad is None for p in agent.parameters())
    largest = max(p.grad.abs().max().item() for p in twin.parameters() if p.grad is not None)
    assert largest == pytest.approx(1e-6)


def test_a_generator_draws_all_weights() -> None:
    config = AgentGraphConfig.model_validate({"components": RICH_GRAPH})
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    one, same, other = (
        MettaAgent(SPEC, config, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(2), expected)
    for (name, a), b, c in zip(one.named_parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c) == (a.ndim == 1), name
    assert one.l2_init_loss().item() == 0.0


def test_fresh_weights_have_the_gain_of_what_follows_them() -> None:
    agent = MettaAgent(
        SPEC, AgentGraphConfig.model_validate({"components": RICH_GRAPH, "mask_actions": False})
    )
    for name, gain in (
        ("fc1", 2**0.5),
        ("around", 1.0),
        ("critic_1", 2**0.5),
        ("_value_", 1.0),
        ("_action_", POLICY_GAIN),
    ):
        weight = graph_weights(agent, name)["weight"]
        torch.testing.assert_close(
            torch.linalg.svdvals(weight), torch.full((min(weight.shape),), gain), rtol=1e-4, atol=1e-6
        )
        assert graph_weights(agent, name)["bias"].eq(0).all()
    obs = random_tokens(np.random.default_rng(4), 50)
    probabilities = agent.act(obs, agent.initial_state(50)).logprobs.exp()
    legal = len(SPEC.legal_actions)
    assert (probabilities * legal - 1).abs().max() < 0.2, "a fresh policy explores"


def test_outer_weights_are_those_next_to_the_observation_and_to_the_outputs() -> None:
    def names(agent: MettaAgent) -> set[str]:
        outer = {id(p) for p in agent.outer_parameters()}
        return {
            name.removesuffix(".weight")
            for name, p in agent.named_parameters()
            if id(p) in outer and p.ndim > 1
        }

    assert names(make_agent()) == {"encoder.tokens", "action_head.layers.1", "value_head.layers.1"}
    rich = {f"graph.components.{name}" for name in ("cnn1", "soft", "box_cnn", "_value_", "_action_")}
    assert names(make_agent(components=RICH_GRAPH)) == rich
    plain = {f"graph.components.{name}" for name in ("fc", "_value_", "_action_")}
    assert names(make_agent(components=PLAIN_GRAPH)) == plain
    summed = without(
        MIRROR_GRAPH,
        "_action_",
        left={"layer": "Linear", "sources": ["actor_1"], "out_features": len(SPEC.legal_actions)},
        right={"layer": "Linear", "sources": ["critic_1"], "out_features": len(SPEC.legal_actions)},
        _action_={"layer": "Add", "sources": ["left", "right"]},
    )
    agent = MettaAgent(SPEC, AgentGraphConfig.model_validate({"components": summed}))
    assert names(agent) == {f"graph.components.{name}" for name in ("cnn1", "_value_", "left", "right")}


def test_dead_units_are_counted_where_a_relu_feeds_the_core() -> None:
    for nonlinearity, counted in (("ReLU", True), ("Tanh", False)):
        fc1 = {"layer": "Linear", "sources": ["flat"], "out_features": 24, "nonlinearity": nonlinearity}
        agent = make_agent(components={**MIRROR_GRAPH, "fc1": fc1}, analyze_weights_interval=1)
        assert agent.graph is not None
        with torch.no_grad():
            agent.graph.components["fc1"].bias[:6] = -1e6  # type: ignore[index, operator]
        obs, dones, actions = random_segments(agent, np.random.default_rng(5), 3, 4)
        agent.evaluate(obs, agent.initial_state(3), dones, actions)
        stats = agent.after_update(1)
        assert stats.get("weights/dead_units", 0.0) >= (6 / 24 if counted else 0.0)
        assert ("weights/dead_units" in stats) == counted
        assert "weights/graph.components.fc1.weight/norm" in stats


def test_a_state_has_the_shape_of_the_core() -> None:
    assert list(make_agent(components=RICH_GRAPH).initial_state(5).h.shape) == [2, 5, 16]
    plain = make_agent(components=PLAIN_GRAPH)
    assert plain.initial_state(5).h.shape[:2] == (0, 5)
    obs = random_tokens(np.random.default_rng(6), 5)
    first = plain.act(obs, plain.initial_state(5), deterministic=True)
    again = plain.act(obs, first.state, deterministic=True)
    assert torch.equal(first.values, again.values)


def test_a_kernel_as_large_as_its_image_is_a_product_of_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    for padding, kernel in ((0, (3, 2)), (1, (5, 4)), (0, (2, 2))):
        layers = [convolution(5, 7, kernel, 1, padding, path).double() for path in ("auto", "plain")]
        results = []
        for layer in layers:
            with torch.no_grad():
                for weight in layer.parameters():
                    weight.copy_(torch.randn(weight.shape, generator=generator.manual_seed(1)))
            image = torch.randn(4, 5, 3, 2, generator=generator.manual_seed(2), dtype=torch.float64)
            image.requires_grad_()
            out = layer(image)
            out.square().sum().backward()
            results.append([out, image.grad, *(p.grad for p in layer.parameters())])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-10)
