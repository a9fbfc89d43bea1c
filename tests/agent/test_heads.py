import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_cases import SPEC
from metta.agent.heads import ActionTable, Head, entropy, sample


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), choices=st.integers(1, 30), spread=st.floats(0.0, 4.0))
def test_draws_follow_the_probabilities(seed: int, choices: int, spread: float) -> None:
    draws = 20_000
    logits = np.random.default_rng(seed).normal(0.0, spread, choices)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    logprobs = torch.log_softmax(torch.from_numpy(logits).float(), -1).expand(draws, choices)
    found = sample(logprobs, torch.Generator().manual_seed(seed))
    counts = np.bincount(found.numpy(), minlength=choices)
    # Five standard deviations of a binomial count, and a little for the tiniest probabilities.
    allowed = 5 * np.sqrt(draws * probabilities * (1 - probabilities)) + 5
    assert counts.sum() == draws
    assert (np.abs(counts - draws * probabilities) <= allowed).all()


def test_the_impossible_is_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, -torch.inf, 1.0, -torch.inf])
    found = sample(torch.log_softmax(logits, -1).expand(50_000, 6), torch.Generator().manual_seed(0))
    assert set(found.tolist()) == {1, 4}


def test_a_generator_decides_the_draws() -> None:
    logprobs = torch.log_softmax(torch.zeros(200, 17), -1)
    draws = [sample(logprobs, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), choices=st.integers(1, 40), spread=st.floats(0.0, 8.0))
def test_entropy_against_double_precision(seed: int, choices: int, spread: float) -> None:
    logits = np.random.default_rng(seed).normal(0.0, spread, (6, choices))
    found = entropy(torch.log_softmax(torch.from_numpy(logits).float(), -1))
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    np.testing.assert_allclose(found.numpy(), -(probabilities * logs).sum(-1), atol=2e-5)


def test_places_and_pairs_are_inverse() -> None:
    table = ActionTable(SPEC)
    assert len(table) == 9 + 1 + 2 + 1 + 1 + 4 + 1
    assert table.pairs.tolist() == [list(pair) for pair in SPEC.legal_actions]
    assert table.index(table.pairs).tolist() == list(range(len(table)))


@pytest.mark.parametrize("bad", [(7, 0), (-1, 0), (3, 1), (0, 9), (2, -1), (2, 100)])
def test_an_illegal_action_is_named(bad: tuple[int, int]) -> None:
    actions = torch.tensor([[[3, 0], [2, 1]], [[5, 3], list(bad)]])
    message = rf"actions contains \({bad[0]}, {bad[1]}\), which is not legal here; .*\(2, 0\.\.1\) move"
    with pytest.raises(ValueError, match=message):
        ActionTable(SPEC).index(actions)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_head_has_its_layers_and_its_gain(num_layers: int) -> None:
    head = Head(8, 3, num_layers, 0.01)
    head.init_weights(torch.Generator().manual_seed(0))
    weights = [layer.weight.detach() for layer in head.layers]
    assert [list(w.shape) for w in weights] == [[8, 8]] * (num_layers - 1) + [[3, 8]]
    torch.testing.assert_close(weights[-1] @ weights[-1].t(), 1e-4 * torch.eye(3), atol=1e-8, rtol=0)
    for w in weights[:-1]:
        torch.testing.assert_close(w @ w.t(), 2 * torch.eye(8), atol=1e-5, rtol=0)
