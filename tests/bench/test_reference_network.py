"""The reference network: fast and plain are one function, and every loop of the benchmark runs."""

import numpy as np
import pytest
import torch

from benchmarks.reference_network import BATCH, NETWORK, PHASES, SIDES, SPEC, random_tokens
from metta.agent.any_config import read_agent_config
from metta.agent.metta_agent import MettaAgent


def test_it_is_the_network_of_the_description() -> None:
    agent = MettaAgent(SPEC, read_agent_config(NETWORK))
    shapes = {name: tuple(p.shape) for name, p in agent.named_parameters() if name.endswith("weight")}
    assert len(SPEC.features) == 22
    assert len(SPEC.legal_actions) == 30
    assert shapes["graph.components.cnn1.weight"] == (22, 25, 64)
    assert shapes["graph.components.cnn2.weight"] == (64, 64, 3, 3)
    assert shapes["graph.components.fc1.weight"] == (128, 64)
    assert shapes["graph.components.critic_1.weight"] == (1024, 128)
    assert shapes["graph.components.actor_1.weight"] == (512, 128)
    assert agent.core is not None
    assert agent.core.num_layers == 2


def test_fast_and_plain_are_one_function_in_single_precision() -> None:
    rng = np.random.default_rng(0)
    segments, ticks = 16, 8
    obs = torch.from_numpy(random_tokens(segments * ticks, rng)).view(segments, ticks, -1, 3)
    dones = torch.from_numpy(rng.random((segments, ticks)) < 0.1)
    legal = torch.tensor(SPEC.legal_actions)
    actions = legal[torch.from_numpy(rng.integers(0, len(legal), (segments, ticks)))]
    results = []
    for path in ("fast", "plain"):
        agent = MettaAgent(
            SPEC,
            read_agent_config(NETWORK),
            generator=torch.Generator().manual_seed(0),
            path=path,  # type: ignore[arg-type]
        )
        out = agent.evaluate(obs, agent.initial_state(segments), dones, actions)
        (out.logprobs.mean() + out.values.square().mean() + out.entropies.mean()).backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for p in agent.parameters()]
        results.append([out.logprobs, out.values, out.entropies, out.state.h, out.state.c, *grads])
    for fast, plain in zip(*results, strict=True):
        scale = max(1.0, float(plain.detach().abs().max()))
        torch.testing.assert_close(fast / scale, plain / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", list(SIDES))
def test_every_loop_runs(side: str) -> None:
    spent = SIDES[side]().advance()
    assert set(spent) == {*PHASES, "all"}
    assert spent["all"] >= spent["update"] > 0
    assert BATCH == 16384
