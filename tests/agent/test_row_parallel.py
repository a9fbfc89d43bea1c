"""Rows shared out among threads: the same function and the same gradients."""

import copy

import numpy as np
import pytest
import torch

from agent_cases import RICH_GRAPH, make_agent, random_segments
from metta.agent import row_parallel
from metta.agent.row_parallel import RowThreads, by_rows, row_parts, sharing_rows


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(row_parallel, "WORK_PER_PART", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def evaluate(agent, segments):
    obs, dones, actions = segments
    return agent.evaluate(obs, agent.initial_state(len(obs)), dones, actions)


def results_of(agent, segments, again: bool = False) -> list[torch.Tensor]:
    agent.zero_grad()
    out = evaluate(agent, segments)
    loss = out.logprobs.square().sum() + out.values.square().sum() + out.entropies.sum()
    if again:
        loss.backward(retain_graph=True)
        agent.zero_grad()
    loss.backward()
    grads = [p.grad for p in agent.parameters()]
    return [out.logprobs, out.entropies, out.values, out.state.h, out.state.c, out.all_logprobs, *grads]


@pytest.mark.parametrize("config", [{}, {"components": RICH_GRAPH}, {"clip_range": 0.01}])
@pytest.mark.parametrize("again", [False, True])
def test_shared_rows_are_the_plain_function(two_threads, monkeypatch, config, again) -> None:
    agent = make_agent(**config).double()
    plain = make_agent(path="plain", **config).double()
    segments = random_segments(agent, np.random.default_rng(0), 7, 5)
    calls = []
    run = RowThreads.run
    monkeypatch.setattr(RowThreads, "run", lambda self, todo: calls.append(len(todo)) or run(self, todo))
    ours = results_of(agent, segments, again)
    # A clamp of a gradient has to see the whole of it.
    assert calls == ([] if config.get("clip_range") else [2] * (3 if again else 2))
    for got, expected in zip(ours, results_of(plain, segments, again), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-8)


def test_a_hook_of_the_callers_sees_the_whole_gradient_once(two_threads) -> None:
    agent, plain = make_agent().double(), make_agent(path="plain").double()
    for each in (agent, plain):
        for parameter in each.parameters():
            parameter.register_hook(lambda gradient: 0.5 * gradient)
    segments = random_segments(agent, np.random.default_rng(0), 7, 5)
    for got, expected in zip(results_of(agent, segments), results_of(plain, segments), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-8)


def test_the_features_of_all_rows_are_analysed(two_threads) -> None:
    agent, alone = (
        make_agent(analyze_weights_interval=1),
        make_agent(path="plain", analyze_weights_interval=1),
    )
    segments = random_segments(agent, np.random.default_rng(0), 6, 4)
    for each in (agent, alone):
        evaluate(each, segments)
    assert agent.after_update(1)["weights/dead_units"] == alone.after_update(1)["weights/dead_units"]


def test_what_a_thread_raises_arrives(two_threads) -> None:
    weight = torch.ones(1, requires_grad=True)

    def refuse(rows: slice) -> tuple[torch.Tensor, ...]:
        if rows.start:
            raise ValueError("the second part")
        return (weight * 1,)

    with pytest.raises(ValueError, match="the second part"):
        by_rows(RowThreads(), refuse, [slice(0, 1), slice(1, 2)], (0,), [weight])


def test_who_shares_rows_takes_torchs_threads(two_threads) -> None:
    weights = torch.empty(10)
    with sharing_rows():
        assert torch.get_num_threads() == 1
        assert row_parts("auto", weights, 4, 40) == [slice(0, 2), slice(2, 4)]
        with sharing_rows():
            assert len(row_parts("auto", weights, 4, 40)) == 2
    assert len(row_parts("plain", weights, 4, 40)) == 1
    assert len(row_parts("auto", weights, 1, 40)) == 1
    assert len(row_parts("auto", weights.to("meta"), 4, 40)) == 1


def test_a_copied_agent_starts_threads_of_its_own(two_threads) -> None:
    agent = make_agent()
    segments = random_segments(agent, np.random.default_rng(0), 4, 3)
    results_of(agent, segments)
    results_of(copy.deepcopy(agent), segments)
    assert isinstance(copy.deepcopy(RowThreads()), RowThreads)
