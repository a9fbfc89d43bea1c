"""The window turned so that the observer faces up."""

import numpy as np
import pytest
import torch

from metta.agent.config import AgentModelConfig
from metta.agent.facing import TurnToFacing
from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.config import EnvConfig, GameConfig, MapBuilderConfig
from metta.mettagrid.spec import PADDING, EnvSpec, feature_table
from metta.mettagrid.vec import VecEnv

# The same little world seen by an observer facing up, and turned by the author of this test, not by the code.
FACING_UP = """
    .....
    ..#..
    .m@n.
    .....
    .._..
"""
FACING_DOWN = """
    .._..
    .....
    .n@m.
    ..#..
    .....
"""
FACING_LEFT = """
    .....
    ..n..
    .#@._
    ..m..
    .....
"""
FACING_RIGHT = """
    .....
    ..m..
    _.@#.
    ..n..
    .....
"""


def observation(text: str, facing: int) -> tuple[EnvSpec, torch.Tensor]:
    """What the agent of a drawn 5 by 5 world sees once it faces so."""
    config = EnvConfig(
        game=GameConfig(observation_width=5, observation_height=5, num_observation_tokens=60),
        map_builder=MapBuilderConfig(type="Ascii", ascii_map=text),
    )
    env = VecEnv(config)
    env.step(np.array([[env.spec.action_names.index("rotate"), facing]]))
    return env.spec, torch.from_numpy(env.observations.copy())


def things(spec: EnvSpec, tokens: torch.Tensor) -> set[tuple[int, int]]:
    """(location, type id) of everything but the observer."""
    return {
        (int(loc), int(value))
        for loc, feature, value in tokens[0]
        if feature == 0 and loc != PADDING and value
    }


@pytest.mark.parametrize(
    ("text", "facing"), [(FACING_UP, 0), (FACING_DOWN, 1), (FACING_LEFT, 2), (FACING_RIGHT, 3)]
)
def test_the_cell_ahead_is_always_up(text: str, facing: int) -> None:
    spec, tokens = observation(text, facing)
    _, reference = observation(FACING_UP, 0)
    turned = TurnToFacing(spec)(tokens)
    assert things(spec, turned) == things(spec, reference)
    assert torch.equal(turned[..., 1:], tokens[..., 1:])


@pytest.mark.parametrize("facing", range(4))
def test_turning_moves_every_cell_to_a_cell_of_its_own(facing: int) -> None:
    spec, tokens = observation(FACING_UP, facing)
    own = tokens[0, (tokens[0, :, 1] == 4).nonzero()[0, 0]]
    cells = torch.tensor([[row * 16 + col, 0, 1] for row in range(5) for col in range(5)], dtype=torch.uint8)
    turned = TurnToFacing(spec)(torch.cat([own[None], cells])[None])[0, 1:, 0]
    assert sorted(turned.tolist()) == sorted(cells[:, 0].tolist())


def test_padding_and_what_cannot_be_turned_stay() -> None:
    spec, tokens = observation(FACING_DOWN, 1)
    turn = TurnToFacing(spec)
    assert torch.equal(turn(tokens)[0, -1], torch.tensor([PADDING] * 3, dtype=torch.uint8))
    blind = tokens[:, tokens[0, :, 1] != 4]
    assert torch.equal(turn(blind), blind)
    tall = EnvSpec(("noop",), (0,), feature_table(("heart",)), 7, 5, 60)
    assert torch.equal(TurnToFacing(tall)(tokens), tokens)


def test_an_agent_that_turns_sees_the_four_worlds_alike() -> None:
    """Values depend on the view and on the observer's own facing token, here hidden from the network."""
    config = AgentModelConfig(hidden_dim=16, egocentric=True, observation_types=["object"])
    spec, _ = observation(FACING_UP, 0)
    torch.manual_seed(0)
    agent = MettaAgent(spec, config)
    worlds = [(FACING_UP, 0), (FACING_DOWN, 1), (FACING_LEFT, 2), (FACING_RIGHT, 3)]
    values = [agent.value(observation(*world)[1], agent.initial_state(1)).item() for world in worlds]
    assert values == pytest.approx([values[0]] * 4, abs=1e-6)
    plain = MettaAgent(spec, config.model_copy(update={"egocentric": False}))
    different = [plain.value(observation(*world)[1], plain.initial_state(1)).item() for world in worlds]
    assert len({round(value, 5) for value in different}) == 4
