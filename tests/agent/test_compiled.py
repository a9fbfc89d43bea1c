"""A network that torch compiles: the same function, where a gradient is wanted and nowhere else."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_remap import AWAY, HOME, SMALL
from torch import distributed

from agent_cases import PLAIN_GRAPH, RICH_GRAPH, make_agent, random_segments
from metta.agent.compiled import compiled_networks
from metta.agent.metta_agent import MettaAgent
from metta.agent.remap import remap
from metta.agent.serialize import load_agent, save_agent
from metta.agent.state import PolicyState
from metta.rl.distributed import DistributedAgent


class Graphs:
    """Compiles to nothing faster, and counts: the graphs that torch makes, and how often they are called."""

    def __init__(self) -> None:
        self.made = self.called = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> Callable[..., Any]:
        from torch._dynamo.backends.debugging import aot_eager

        self.made += 1
        run = aot_eager(graph, examples)

        def counted(*arguments: Any) -> Any:
            self.called += 1
            return run(*arguments)

        return counted


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graphs]:
    made = Graphs()
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=made))
    yield made
    torch._dynamo.reset()


def results_of(agent: Any, segments: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Outputs and gradients, from a memory that is not empty."""
    obs, dones, actions = segments
    empty = agent.initial_state(len(obs))
    generator = torch.Generator().manual_seed(5)
    state = PolicyState(*(torch.randn(empty.h.shape, generator=generator).to(empty.h) for _ in range(2)))
    for parameter in agent.parameters():
        parameter.grad = None
    out = agent.evaluate(obs, state, dones, actions)
    (out.logprobs.mean() + out.values.square().mean() + out.entropies.mean()).backward()
    outputs = [out.logprobs, out.entropies, out.values, out.all_logprobs, out.state.h, out.state.c]
    return [tensor.detach() for tensor in outputs] + [p.grad for p in agent.parameters()]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-5) -> None:
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


def compiled_and_not(agent: Any, segments: tuple[torch.Tensor, ...]) -> list[list[torch.Tensor]]:
    plain = results_of(agent, segments)
    with compiled_networks():
        return [results_of(agent, segments), plain]


VARIANTS: list[dict[str, Any]] = [
    {},
    {"lstm_layers": 2, "bptt_horizon": 2},
    {"forward_lstm": False},
    {"backbone": "mlp", "obs_process_func": "pool_obs_dict"},
    {"clip_range": 1e-4},
    {"mask_actions": True},
    {"path": "plain"},
    {"components": RICH_GRAPH},
    {"components": PLAIN_GRAPH},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: ",".join(variant) or "default")
def test_a_compiled_network_is_the_same_function_with_the_same_gradient(
    graphs: Graphs, variant: dict[str, Any]
) -> None:
    agent = make_agent(**variant)
    assert_same(*compiled_and_not(agent, random_segments(agent, np.random.default_rng(0), 5, 4)))
    assert (graphs.made, graphs.called) == (1, 1)
    with compiled_networks():
        results_of(agent, random_segments(agent, np.random.default_rng(1), 5, 4))
    assert (graphs.made, graphs.called) == (1, 2)


def test_in_double_precision_it_is_the_same_to_the_last_digits(graphs: Graphs) -> None:
    agent = make_agent().double()
    assert_same(*compiled_and_not(agent, random_segments(agent, np.random.default_rng(0), 5, 4)), 1e-12)
    assert graphs.called == 1


def test_bfloat16_is_compiled_too(graphs: Graphs) -> None:
    agent = make_agent(dtypes_fp16=True)
    segments = random_segments(agent, np.random.default_rng(0), 5, 4)
    ours, theirs = compiled_and_not(agent, segments)
    assert_same(ours[2:3], theirs[2:3], 0.1)
    exact = results_of(make_agent(), segments)
    assert not torch.allclose(ours[2], exact[2], atol=1e-5), "these are products in bfloat16"
    assert graphs.called == 1


# torch's compiler warns of other parts of torch.
of_torch = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


@of_torch
@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="torch compiles for a CPU with a C++ compiler"
)
def test_torchs_own_compiler_gives_the_same() -> None:
    import torch._inductor.config

    torch._dynamo.reset()
    agent = make_agent(hidden_dim=8, backbone="mlp")
    segments = random_segments(agent, np.random.default_rng(0), 3, 1)
    # In this process and without vectors: getting others ready and trying vectors out takes longer than two small files do.
    quick = {"compile_threads": 1, "cpp.vec_isa_ok": True, "cpp.simdlen": 1}
    with torch._inductor.config.patch(quick):
        assert_same(*compiled_and_not(agent, segments))
    assert torch._dynamo.utils.counters["inductor"], "it was really that compiler"


@of_torch
def test_without_a_compiler_it_says_so_in_a_sentence() -> None:
    import torch._inductor.config

    torch._dynamo.reset()
    agent = make_agent(hidden_dim=9, backbone="mlp")
    segments = random_segments(agent, np.random.default_rng(0), 3, 2)
    with (
        compiled_networks(),
        torch._inductor.config.patch({"cpp.cxx": (None, "/there/is/none")}),
        pytest.raises(FileNotFoundError, match=r"no C\+\+ compiler that works: install"),
    ):
        results_of(agent, segments)
    torch._dynamo.reset()


def test_acting_and_teaching_are_never_compiled(graphs: Graphs) -> None:
    agent = make_agent()
    obs, dones, actions = random_segments(agent, np.random.default_rng(0), 5, 4)
    with compiled_networks():
        agent.act(obs[:, 0], agent.initial_state(5))
        agent.value(obs[:, 0], agent.initial_state(5))
        with torch.no_grad():  # a teacher's lesson is such a call
            agent.evaluate(obs, agent.initial_state(5), dones, actions)
    with compiled_networks(False):
        agent.evaluate(obs, agent.initial_state(5), dones, actions)
    agent.evaluate(obs, agent.initial_state(5), dones, actions)
    assert graphs.made == 0


def test_a_path_that_insists_on_compiled_loops_is_refused(graphs: Graphs) -> None:
    agent = make_agent(path="fast")
    segments = random_segments(agent, np.random.default_rng(0), 3, 2)
    with compiled_networks(), pytest.raises(ValueError, match="path is 'fast' but compile is True"):
        results_of(agent, segments)
    assert graphs.made == 0


def through_a_file(agent: MettaAgent, path: Path) -> MettaAgent:
    save_agent(agent, path, {})
    return load_agent(path)[0]


@pytest.mark.parametrize(
    "carry",
    [lambda agent, path: copy.deepcopy(agent), through_a_file, lambda agent, path: agent.rebuilt_for(AWAY)],
)
def test_copies_files_and_guests_hold_nothing_of_it(graphs: Graphs, carry: Any, tmp_path: Path) -> None:
    agent = make_agent(HOME)
    names = list(agent.state_dict())
    segments = random_segments(agent, np.random.default_rng(0), 3, 2)
    with compiled_networks():
        results_of(agent, segments)
    assert list(agent.state_dict()) == names
    carried = carry(agent, tmp_path / "agent.pt")
    assert list(carried.state_dict()) == names
    assert carried._compiled._compiled is None
    with torch.no_grad():
        next(agent.parameters()).zero_()
    segments = random_segments(carried, np.random.default_rng(0), 3, 2)
    assert_same(*compiled_and_not(carried, segments))
    assert graphs.made == 2


def test_a_guest_in_another_world_is_compiled(graphs: Graphs) -> None:
    guest = remap(make_agent(HOME), SMALL)
    obs, dones, actions = random_segments(guest, np.random.default_rng(2), 5, 4)
    known = guest.translation.possible.nonzero()[:, 0]
    actions = guest.translation.pairs[known[torch.arange(20).view(5, 4) % len(known)]]
    assert_same(*compiled_and_not(guest, (obs, dones, actions)))
    assert graphs.called == 1


def test_other_weights_are_seen_and_other_sizes_make_another_graph(graphs: Graphs) -> None:
    agent, other = make_agent(), make_agent(seed=1)
    assert_same(*compiled_and_not(agent, random_segments(agent, np.random.default_rng(0), 5, 4)))
    agent.load_state_dict(other.state_dict())
    segments = random_segments(agent, np.random.default_rng(0), 5, 4)
    assert_same(*compiled_and_not(agent, segments))
    assert graphs.made == 1
    assert_same(compiled_and_not(agent, segments)[0], results_of(other, segments))
    for rows in (3, 7, 6):
        assert_same(*compiled_and_not(agent, random_segments(agent, np.random.default_rng(0), rows, 4)))
    assert graphs.made == 2, "the second one is for any number of rows"


def test_gradients_are_averaged_over_processes_as_ever(graphs: Graphs, tmp_path: Path) -> None:
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        agent = DistributedAgent(make_agent())
        segments = random_segments(agent, np.random.default_rng(0), 5, 4)
        assert_same(*compiled_and_not(agent, segments))
        assert graphs.called == 1
        assert all(name in make_agent().state_dict() for name in agent.state_dict())
    finally:
        distributed.destroy_process_group()
