"""The description of a graph: the customary form is understood, and what is no network is refused."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from agent_cases import MIRROR_GRAPH, PLAIN_GRAPH, RICH_GRAPH, SPEC, make_spec
from metta.agent.config import AgentSettings
from metta.agent.graph_config import (
    LAYERS,
    AgentGraphConfig,
    Conv2dConfig,
    FlattenConfig,
    LinearConfig,
    LSTMConfig,
    TokenPlanesConfig,
)
from metta.agent.graph_layers import NONLINEARITIES
from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.spec import EnvSpec


def graph(components: dict[str, Any] = MIRROR_GRAPH, **changes: Any) -> AgentGraphConfig:
    """The components with some of them replaced, or with None left out."""
    merged = {**components, **changes}
    return AgentGraphConfig.model_validate({"components": {n: c for n, c in merged.items() if c is not None}})


def build(config: AgentGraphConfig, spec: EnvSpec = SPEC) -> MettaAgent:
    return MettaAgent(spec, config, generator=torch.Generator().manual_seed(0))


CUSTOMARY = {
    "_obs_": {"_target_": "somewhere.lib.obs_token_to_box_shaper.ObsTokenToBoxShaper", "sources": None},
    "normal": {"_target_": "somewhere.lib.ObservationNormalizer", "sources": [{"name": "_obs_"}]},
    "cnn1": {
        "_target_": "somewhere.lib.nn_layer_library.Conv2d",
        "sources": [{"name": "normal"}],
        "nn_params": {"out_channels": 8, "kernel_size": 5, "stride": 3},
    },
    "flat": {"_target_": "Flatten", "sources": [{"name": "cnn1"}]},
    "fc1": {"_target_": "torch.nn.Linear", "sources": "flat", "nn_params": {"out_features": 12}},
    "_core_": {
        "_target_": "somewhere.lib.lstm.LSTM",
        "sources": {"name": "fc1"},
        "output_size": 10,
        "nn_params": {"num_layers": 2},
    },
    "critic_1": {
        "_target_": "Linear",
        "sources": [{"name": "_core_"}],
        "nn_params": {"out_features": 6},
        "nonlinearity": "nn.Tanh",
    },
    "_value_": {
        "_target_": "Linear",
        "sources": ["critic_1"],
        "nn_params": {"out_features": 1},
        "nonlinearity": None,
    },
    "_action_": {"_target_": "Linear", "sources": ["_core_"]},
}

TYPED = {
    "_obs_": {"layer": "ObsTokenToBoxShaper"},
    "normal": {"layer": "ObservationNormalizer", "sources": ["_obs_"]},
    "cnn1": Conv2dConfig(sources=("normal",), out_channels=8, kernel_size=5, stride=3),
    "flat": FlattenConfig(sources=("cnn1",)),
    "fc1": LinearConfig(sources=("flat",), out_features=12),
    "_core_": LSTMConfig(sources=("fc1",), hidden_size=10, num_layers=2),
    "critic_1": LinearConfig(sources=("_core_",), out_features=6, nonlinearity="Tanh"),
    "_value_": LinearConfig(sources=("critic_1",), out_features=1),
    "_action_": LinearConfig(sources=("_core_",)),
}


def test_the_customary_form_and_the_typed_one_are_one() -> None:
    customary, typed = graph(CUSTOMARY), graph(TYPED)
    assert customary == typed
    assert customary.components["_action_"] == LinearConfig(sources=("_core_",), nonlinearity=None)
    assert list(build(customary).initial_state(1).h.shape) == [2, 1, 10]


@pytest.mark.parametrize("components", [RICH_GRAPH, PLAIN_GRAPH, CUSTOMARY, TYPED])
def test_a_description_survives_json(components: dict[str, Any]) -> None:
    config = graph(components)
    assert AgentGraphConfig.model_validate_json(config.model_dump_json()) == config
    assert AgentGraphConfig.model_validate(config.model_dump()) == config


def test_components_may_stand_in_any_order() -> None:
    backwards = graph(dict(reversed(list(RICH_GRAPH.items()))))
    order = backwards.order
    for name, component in backwards.components.items():
        assert all(order.index(source) < order.index(name) for source in component.sources)
    assert build(backwards).initial_state(1).h.shape == (2, 1, 16)


def test_a_layer_is_a_name_and_is_never_imported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    build(graph(fc1={"_target_": "trap.Linear", "sources": ["flat"], "out_features": 24}))
    with pytest.raises(ValidationError, match="unknown layer 'Trap'"):
        graph(fc1={"_target_": "trap.Trap", "sources": ["flat"]})


def test_every_known_layer_is_used_in_a_test_graph() -> None:
    used = {
        component.layer
        for components in (RICH_GRAPH, PLAIN_GRAPH)
        for component in graph(components).components.values()
    }
    nonlinearities = {"ReLU", "Sigmoid", "GELU", "SiLU", "ELU"}  # like Tanh, see below
    assert used | nonlinearities == set(LAYERS)


@pytest.mark.parametrize("name", ["ReLU", "Tanh", "Sigmoid", "GELU", "SiLU", "ELU"])
def test_a_nonlinearity_is_the_same_as_a_layer_and_behind_one(name: str) -> None:
    behind = build(
        graph(fc1={"layer": "Linear", "sources": ["flat"], "out_features": 24, "nonlinearity": name})
    )
    apart = build(
        graph(
            raw={"layer": "Linear", "sources": ["flat"], "out_features": 24, "nonlinearity": None},
            fc1={"layer": name, "sources": ["raw"]},
        )
    )
    assert behind.graph is not None
    assert apart.graph is not None
    state = {key.replace(".fc1.", ".raw."): value for key, value in behind.state_dict().items()}
    apart.load_state_dict(state)
    obs = torch.randint(
        0, 11, (5, SPEC.num_tokens, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    values = [agent.value(obs, agent.initial_state(5)) for agent in (behind, apart)]
    assert torch.equal(*values)
    x = torch.linspace(-3, 3, 24).expand(1, 24)
    raw = build(graph(fc1={"layer": "Linear", "sources": ["flat"], "out_features": 24, "nonlinearity": None}))
    raw.load_state_dict(behind.state_dict())
    assert not torch.equal(raw.value(obs, raw.initial_state(5)), values[0])
    assert torch.equal(NONLINEARITIES[name](x), getattr(torch.nn, name)()(x))  # type: ignore[index]


LINEAR = {"layer": "Linear", "sources": ["_core_"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fc1": {"layer": "Linaer", "sources": ["flat"]}},
            "component 'fc1' has the unknown layer 'Linaer'; known are Linear, ",
        ),
        (
            {"fc1": {"layer": "Dropout", "sources": ["flat"]}},
            "unknown layer 'Dropout'; known are .*TokenPlanes.*LSTM",
        ),
        (
            {"fc1": {"sources": ["flat"], "out_features": 3}},
            "component 'fc1' does not say what its layer is; name one of",
        ),
        ({"fc1": {"layer": "Linear", "_target_": "x.Conv2d"}}, "component 'fc1' says both Conv2d and Linear"),
        ({"fc1": 128}, "component 'fc1' is 128; describe it by a mapping"),
        (
            {"fc1": {"layer": "Linear", "sources": ["flat"], "out_featurs": 3}},
            r"component 'fc1' \(Linear\) has no field 'out_featurs'; its fields are out_features, ",
        ),
        (
            {"fc1": {"layer": "Linear", "sources": ["flat"], "out_features": 0}},
            r"component 'fc1' \(Linear\): out_features is 0: Input should be greater than or equal to 1\.",
        ),
        (
            {"_core_": {"layer": "LSTM", "sources": ["fc1"]}},
            r"component '_core_' \(LSTM\): hidden_size is missing\.",
        ),
        (
            {"fc1": {"layer": "Linear", "sources": ["flat"], "nonlinearity": "nn.Relu"}},
            "component 'fc1' .*nonlinearity is 'Relu': .*'ReLU'",
        ),
        (
            {
                "fc1": {
                    "layer": "Linear",
                    "sources": ["flat"],
                    "out_features": 3,
                    "nn_params": {"out_features": 4},
                }
            },
            "has out_features both in nn_params and beside it",
        ),
        (
            {"fc1": {"layer": "Linear", "sources": ["flat"], "nn_params": 4}},
            "nn_params is 4; it holds the layer's sizes",
        ),
        (
            {"fc1": {"layer": "Linear", "sources": ["flta"]}},
            r"'fc1' \(Linear\) has the unknown source 'flta'; there are flat, ",
        ),
        (
            {"fc1": {"layer": "Linear", "sources": [{"nmae": "flat"}]}},
            r"has the source \{'nmae': 'flat'\}; give the name",
        ),
        ({"fc1": {"layer": "Linear", "sources": 3}}, "has the source 3; give the name"),
        ({"fc1": {"layer": "Linear"}}, r"'fc1' \(Linear\) has no sources; it takes exactly one"),
        ({"fc1": {"layer": "Linear", "sources": ["flat", "_obs_"]}}, "has 2 sources; it takes exactly one"),
        (
            {"fc1": {"layer": "Concat", "sources": ["flat"]}},
            r"'fc1' \(Concat\) has 1 source; it takes two or more",
        ),
        (
            {"_obs_": {"layer": "TokenPlanes", "sources": ["flat"]}},
            "has 1 source; it takes none: it reads the observation",
        ),
        (
            {"flat": {"layer": "Flatten", "sources": ["fc1"]}, "cnn1": None, "_obs_": None},
            "go in a circle: (fc1 -> flat -> fc1|flat -> fc1 -> flat)",
        ),
        ({"fc1": {"layer": "ReLU", "sources": ["fc1"]}}, "in a circle: fc1 -> fc1"),
        (
            {
                "more": {"layer": "LSTM", "sources": ["_core_"], "hidden_size": 3},
                "critic_1": {**LINEAR, "sources": ["more"]},
            },
            "components '_core_' and 'more' are both LSTMs",
        ),
        ({"_value_": None}, "no component '_value_', which gives the value"),
        ({"_action_": None}, "no component '_action_', which gives the logits"),
        (
            {"idle": {**LINEAR, "out_features": 3}},
            r"component 'idle' \(Linear\) leads to neither _value_ nor _action_",
        ),
        ({"a.b": LINEAR}, r"component 'a\.b' \(Linear\) has a name that is not made of letters"),
    ],
)
def test_what_is_no_network_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        graph(**changes)


def layer(kind: str, *sources: str, **fields: Any) -> dict[str, Any]:
    return {"layer": kind, "sources": sources, **fields}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fc1": layer("Linear", "cnn1", out_features=24), "flat": None},
            "reads flat features, but its source gives 24 x 3 x 3; put a Flatten between",
        ),
        (
            {"_core_": layer("LSTM", "cnn1", hidden_size=3), "fc1": None, "flat": None},
            r"'_core_' \(LSTM\) reads flat features",
        ),
        (
            {"fc1": layer("Linear", "flat", out_features=24, in_features=7)},
            r"'fc1' \(Linear\) states in_features=7, but its source gives 216",
        ),
        (
            {"_core_": layer("LSTM", "fc1", hidden_size=24, input_size=7)},
            "states input_size=7, but its source gives 24",
        ),
        (
            {"cnn1": layer("Conv2d", "_obs_", out_channels=3, kernel_size=3, in_channels=2)},
            "states in_channels=2, but its source gives",
        ),
        (
            {"cnn1": layer("Conv2d", "_obs_", out_channels=3, kernel_size=12)},
            "kernel of 12 x 12, but its source with padding 0 is only 11 x 11 cells",
        ),
        (
            {"critic_1": layer("Conv2d", "_core_", out_channels=3, kernel_size=1)},
            r"'critic_1' \(Conv2d\) reads channels x height x width, but its source gives 24 numbers",
        ),
        ({"fc1": layer("Linear", "flat")}, r"'fc1' \(Linear\) has no out_features"),
        (
            {"fc1": layer("Add", "flat", "cnn1")},
            r"'fc1' \(Add\) has sources of 216, 24 x 3 x 3, but only equal shapes",
        ),
        ({"fc1": layer("Concat", "flat", "cnn1")}, r"'fc1' \(Concat\) has sources of 216, 24 x 3 x 3"),
        (
            {"cnn1": layer("ObservationNormalizer", "_obs_")},
            "reads '_obs_', but it divides the raw values of an ObsTokenToBoxShaper",
        ),
        (
            {"_value_": layer("Linear", "critic_1", out_features=2)},
            r"component '_value_' \(Linear\) gives 2 numbers, but it has to give one value",
        ),
        (
            {"_action_": layer("Linear", "actor_1", out_features=5)},
            r"component '_action_' \(Linear\) gives 5 numbers, .* each of the 19 legal actions",
        ),
        (
            {"train": layer("ReLU", "fc1"), "_core_": layer("LSTM", "train", hidden_size=24)},
            r"component 'train' \(ReLU\) needs another name",
        ),
        (
            {"training": layer("ReLU", "fc1"), "_core_": layer("LSTM", "training", hidden_size=24)},
            "component 'training' .* needs another name",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    config = graph(**changes)
    with pytest.raises(ValueError, match=message):
        build(config)


def test_a_graph_fits_any_window_that_its_kernels_fit() -> None:
    assert build(graph(), make_spec(5, 9)).value(
        torch.full((1, 60, 3), 255, dtype=torch.uint8), build(graph()).initial_state(1)
    ).shape == (1,)
    with pytest.raises(ValueError, match="kernel of 5 x 5, but its source with padding 0 is only 3 x 3"):
        build(graph(), make_spec(3, 3))


def test_what_both_kinds_of_agent_share_has_one_default() -> None:
    config = graph()
    for name, field in AgentSettings.model_fields.items():
        assert getattr(config, name) == field.get_default(call_default_factory=True)
    assert set(AgentGraphConfig.model_fields) - set(AgentSettings.model_fields) == {"components"}


def test_a_token_plane_component_needs_nothing() -> None:
    assert TokenPlanesConfig().sources == ()
    with pytest.raises(ValidationError, match="observation_types is empty"):
        AgentGraphConfig.model_validate({"components": MIRROR_GRAPH, "observation_types": []})
