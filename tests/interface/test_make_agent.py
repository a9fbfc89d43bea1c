import gymnasium as gym
import numpy as np
import pytest
import torch

from metta.agent.config import AgentModelConfig
from metta.interface.agent import make_agent
from metta.mettagrid.spec import EnvSpec, feature_table

SPEC = EnvSpec(
    ("move", "noop", "rotate"), (1, 0, 3), feature_table(("ore_red",)), 5, 7, 20, ("agent", "wall")
)
SMALL = AgentModelConfig(hidden_dim=8)


class DeviceLike:
    """What stands for a device in the documents: its text names one."""

    def __str__(self) -> str:
        return "cpu"


@pytest.mark.parametrize("device", [torch.device("cpu"), "cpu", DeviceLike()])
def test_the_spaces_carry_what_an_agent_must_know(device: torch.device) -> None:
    agent = make_agent(SPEC.observation_space, SPEC.action_space, [], device, SMALL)
    assert agent.spec == SPEC
    assert agent.config == SMALL
    assert agent.device == torch.device("cpu")
    obs = torch.full((4, 20, 3), 255, dtype=torch.uint8)
    actions = agent.act(obs, agent.initial_state(4)).actions
    assert all(SPEC.action_space.contains(a) for a in actions.numpy().astype(np.int32))


def test_bare_spaces_are_read_with_the_standard_table() -> None:
    box = gym.spaces.Box(0, 255, (50, 3), np.uint8)
    agent = make_agent(box, gym.spaces.MultiDiscrete([4, 3]), [], torch.device("cpu"), SMALL)
    assert (agent.spec.obs_height, agent.spec.obs_width, agent.spec.num_tokens) == (11, 11, 50)
    assert len(agent.spec.legal_actions) == 12


def test_the_default_is_the_documented_network() -> None:
    agent = make_agent(SPEC.observation_space, SPEC.action_space, [], torch.device("cpu"))
    assert agent.config == AgentModelConfig()
    assert agent.initial_state(1).h.shape == (1, 1, 1024)


def test_a_mapping_is_a_config() -> None:
    agent = make_agent(
        SPEC.observation_space, SPEC.action_space, [], "cpu", {"hidden_dim": 8, "lstm_layers": 2}
    )
    assert agent.config == AgentModelConfig(hidden_dim=8, lstm_layers=2)
    with pytest.raises(ValueError, match="hidden_dims"):
        make_agent(SPEC.observation_space, SPEC.action_space, [], "cpu", {"hidden_dims": 8})


def test_named_global_features_are_the_ones_that_are_seen() -> None:
    obs = torch.full((2, 20, 3), 255, dtype=torch.uint8)
    names = {f.name: f.id for f in SPEC.features}

    def depends_on(agent_features: list[str], feature: str) -> bool:
        torch.manual_seed(0)
        agent = make_agent(SPEC.observation_space, SPEC.action_space, agent_features, "cpu", SMALL)
        obs[:, 0] = torch.tensor([[2 * 16 + 3, names[feature], 1], [2 * 16 + 3, names[feature], 90]])
        values = agent.value(obs, agent.initial_state(2))
        return bool(values[0] != values[1])

    for feature in ("last_reward", "episode_completion_pct"):
        assert depends_on([], feature)
        assert depends_on(["last_reward"], feature) == (feature == "last_reward")
    assert depends_on(["last_reward"], "inv:ore_red")


@pytest.mark.parametrize(
    ("observations", "actions", "features", "message"),
    [
        (
            gym.spaces.Box(0, 255, (50, 4), np.uint8),
            SPEC.action_space,
            [],
            "observation_space is .*reads tokens",
        ),
        (gym.spaces.Box(0, 255, (50, 3), np.uint8), gym.spaces.Discrete(3), [], "action_space is .*pair"),
        (SPEC.observation_space, SPEC.action_space, ["weather"], "contains 'weather', .*last_reward"),
    ],
)
def test_bad_input_is_named(
    observations: gym.Space, actions: gym.Space, features: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(observations, actions, features, torch.device("cpu"), SMALL)
