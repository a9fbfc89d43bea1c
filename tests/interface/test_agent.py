"""`Agent(env, config, device)`: every documented form of a configuration, and what is refused."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from metta.agent.config import AgentModelConfig
from metta.agent.graph_config import AgentGraphConfig
from metta.agent.metta_agent import MettaAgent
from metta.interface.agent import Agent, make_agent
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.vec import VecEnv

SMALL = EnvConfig(game=GameConfig(num_agents=2, width=8, height=8))

# A user's file in the customary form, names of classes that exist nowhere included.
YAML = """
width: 12
agent:
  _target_: nowhere.agent.MettaAgent
  clip_range: 0
  l2_init_weight_update_interval: 5
  components:
    _obs_:
      _target_: nowhere.lib.obs_token_to_box_shaper.ObsTokenToBoxShaper
      sources: null
    obs_normalizer:
      _target_: nowhere.lib.observation_normalizer.ObservationNormalizer
      sources: [{name: _obs_}]
    cnn1:
      _target_: nowhere.lib.nn_layer_library.Conv2d
      sources:
        - name: obs_normalizer
      nn_params: {out_channels: 8, kernel_size: 5, stride: 3}
    flat:
      _target_: nowhere.lib.nn_layer_library.Flatten
      sources: [{name: cnn1}]
    fc1:
      _target_: nowhere.lib.nn_layer_library.Linear
      sources: [{name: flat}]
      nn_params:
        out_features: ${width}
    _core_:
      _target_: nowhere.lib.lstm.LSTM
      sources: [{name: fc1}]
      output_size: ${width}
      nn_params: {num_layers: 2}
    _value_:
      _target_: nowhere.lib.nn_layer_library.Linear
      sources: [{name: _core_}]
      nn_params: {out_features: 1}
      nonlinearity: null
    _action_:
      _target_: nowhere.lib.nn_layer_library.Linear
      sources: [{name: _core_}]
"""


class Frozen(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class DeviceLike:
    """What stands for a device in the documents: its text names one."""

    def __str__(self) -> str:
        return "cpu"


@pytest.fixture(scope="module")
def env() -> VecEnv:
    return VecEnv(SMALL, 2)


def acts(agent: MettaAgent, env: VecEnv) -> bool:
    rows = torch.from_numpy(env.observations.copy())
    actions = agent.act(rows, agent.initial_state(len(rows))).actions.numpy().astype(np.int32)
    return all(env.single_action_space.contains(action) for action in actions)


def test_without_a_config_it_is_the_default_agent(env: VecEnv) -> None:
    agent = Agent(env)
    assert type(agent) is MettaAgent
    assert agent.config == AgentModelConfig()
    assert agent.spec == env.spec
    assert agent.device == torch.device("cpu")
    assert acts(agent, env)


@pytest.mark.parametrize("make", [lambda: VecEnv(SMALL, 1), lambda: MettaGridEnv(SMALL)])
def test_any_environment_with_spaces_will_do(make: Any) -> None:
    environment = make()
    agent = Agent(environment, AgentModelConfig(hidden_dim=8))
    assert agent.spec == environment.single_observation_space.spec


def below_agent(fields: dict[str, Any]) -> dict[str, Any]:
    return {"agent": fields}


@pytest.mark.parametrize("wrap", [dict, below_agent])
@pytest.mark.parametrize("mapping", [dict, Frozen, OmegaConf.create])
def test_a_mapping_of_any_kind_is_a_config(env: VecEnv, wrap: Any, mapping: Any) -> None:
    config = mapping(wrap({"hidden_dim": 8, "observation_types": ["object", "agent"], "bptt_horizon": 4}))
    agent = Agent(env, config=config)
    assert agent.config == AgentModelConfig(
        hidden_dim=8, observation_types=["object", "agent"], bptt_horizon=4
    )
    assert acts(agent, env)


def test_a_customary_file_is_a_graph(env: VecEnv) -> None:
    loaded = OmegaConf.create(YAML)
    config = OmegaConf.masked_copy(loaded, ["agent"])
    assert isinstance(config, Mapping)
    config._set_parent(loaded)  # where ${width} is found
    agent = Agent(env, config=config)
    assert isinstance(agent.config, AgentGraphConfig)
    assert agent.config.l2_init_weight_update_interval == 5
    assert list(agent.initial_state(3).h.shape) == [2, 3, 12]
    assert acts(agent, env)
    as_dict = OmegaConf.to_container(loaded, resolve=True)
    assert isinstance(as_dict, dict)
    for same in (as_dict["agent"], {"agent": as_dict["agent"]}, agent.config, {"agent": agent.config}):
        assert Agent(env, config=same).config == agent.config


def test_both_ways_to_an_agent_are_one(env: VecEnv) -> None:
    config = {"agent": {"hidden_dim": 8}}
    agents = []
    for make in (
        lambda: Agent(env, config),
        lambda: make_agent(env.single_observation_space, env.single_action_space, [], "cpu", config),
    ):
        torch.manual_seed(0)
        agents.append(make())
    for ours, theirs in zip(agents[0].parameters(), agents[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), DeviceLike()])
def test_a_device_is_whatever_names_one(env: VecEnv, device: object) -> None:
    assert Agent(env, {"hidden_dim": 8}, device=device).device == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "count", "message"),
    [
        (
            "cuda",
            0,
            "device is 'cuda', but torch finds no CUDA devices on this machine; pass device='cpu', or install",
        ),
        ("cuda:1", 1, "device is 'cuda:1', but torch finds 1 CUDA device on this machine"),
        ("gpu", 0, "device is 'gpu', which torch does not know; pass 'cpu' or 'cuda'"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    env: VecEnv, device: str, count: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ValueError, match=message):
        Agent(env, device=device)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"hiden_dim": 8},
            "unknown field 'hiden_dim'; AgentModelConfig knows hidden_dim, .*, or components for a graph",
        ),
        ({"agent": {"lstm_layer": 2}}, "unknown field 'lstm_layer'; AgentModelConfig knows lstm_layers, "),
        (
            {"components": {}, "clip_rang": 1},
            "unknown field 'clip_rang'; AgentGraphConfig knows clip_range, ",
        ),
        ({"components": {}, "hidden_dim": 8}, "unknown field 'hidden_dim'; AgentGraphConfig knows"),
        (
            {"hidden_dim": 0, "backbone": "vit"},
            "hidden_dim is 0: .* equal to 1; backbone is 'vit': .*'cnn' or 'mlp'",
        ),
        (
            {"lstm_layers": 2, "forward_lstm": False},
            "^config cannot be used: lstm_layers is 2 but forward_lstm is False",
        ),
        (
            {"agent": {"hidden_dim": 8}, "trainer": {}},
            "config has trainer beside 'agent', which no agent reads",
        ),
        ({"_target_": "nowhere.Other"}, "unknown field '_target_'"),
        ({"components": {}}, "^config cannot be used: there is no component '_value_'"),
        ({"components": ["fc1"]}, r"components is \['fc1'\]; it holds the components by name"),
        (
            "default.yaml",
            "config is 'default.yaml'; pass an AgentModelConfig, an AgentGraphConfig, or a mapping",
        ),
        ({"agent": 3}, "config is 3; pass"),
    ],
)
def test_a_wrong_config_is_named_in_one_sentence(env: VecEnv, config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Agent(env, config)
    assert "\n" not in str(error.value)
