"""Acting on prepared functions: the same function as the layers, for any rows and threads, and never of older weights."""

import copy

import numpy as np
import pytest
import torch

from agent_cases import MIRROR_GRAPH, PLAIN_GRAPH, RICH_GRAPH, make_agent, random_tokens
from metta.agent import row_parallel
from metta.agent.acting import holding_weights
from metta.agent.heads import draw, sample

VARIANTS: list[dict[str, object]] = [
    {},
    {"lstm_layers": 2, "mlp_layers": 3},
    {"forward_lstm": False, "backbone": "mlp"},
    {"obs_process_func": "pool_obs_dict"},
    {"components": RICH_GRAPH},
    {"components": PLAIN_GRAPH},
    {"components": MIRROR_GRAPH},
]


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request, monkeypatch):
    monkeypatch.setattr(row_parallel, "WORK_PER_PART", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def agent_with_biases(**config):
    """Biases of a new agent are zero, which would hide that they are left out."""
    agent = make_agent(**config)
    with torch.no_grad():
        for parameter in agent.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.linspace(-0.5, 0.5, len(parameter)).flip(0) + 0.1)
    return agent


def episode(agent, num_rows: int, ticks: int = 6) -> list[torch.Tensor]:
    """Everything that acting gives, over episode ends."""
    rng = np.random.default_rng(num_rows)
    generator = torch.Generator().manual_seed(1)
    state = agent.initial_state(num_rows)
    seen: list[torch.Tensor] = []
    for tick in range(ticks):
        obs = random_tokens(rng, num_rows, wild=tick == 2)
        starts = torch.from_numpy(rng.random(num_rows) < 0.3)
        seen.append(agent.value(obs, state))
        out = agent.act(obs, state, starts, generator=generator)
        state = out.state
        seen += [out.actions, out.logprobs, out.values, state.h, state.c]
    return seen


@pytest.mark.parametrize("num_rows", [1, 5, 37])
@pytest.mark.parametrize("variant", VARIANTS)
def test_acting_is_what_the_layers_compute(threads, variant, num_rows) -> None:
    plain = episode(agent_with_biases(path="plain", **variant), num_rows)
    agent = agent_with_biases(**variant)
    with holding_weights():
        ours = episode(agent, num_rows)
    for got, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_in_half_precision_it_stays_as_close_to_the_single_one_as_the_layers_do(threads, variant) -> None:
    single = agent_with_biases(path="plain", **variant)
    obs, state = random_tokens(np.random.default_rng(0), 40), single.initial_state(40)
    exact = single.value(obs, state)
    layers, ours = (
        (agent_with_biases(path=path, dtypes_fp16=True, **variant).value(obs, state) - exact).abs().mean()
        for path in ("plain", "auto")
    )
    assert 0 < ours < 1.5 * layers + 1e-3


def test_neither_threads_nor_what_is_held_change_the_draws(monkeypatch) -> None:
    monkeypatch.setattr(row_parallel, "WORK_PER_PART", 1)
    agent = make_agent()
    before = torch.get_num_threads()
    runs = []
    for number in (1, 2, 2):
        torch.set_num_threads(number)
        runs.append(episode(agent, 37))
    with holding_weights():
        runs.append(episode(agent, 37))
    torch.set_num_threads(before)
    for run in runs[1:]:
        for got, expected in zip(run[1::6], runs[0][1::6], strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_the_compiled_draw_is_the_plain_one(spread) -> None:
    logits = torch.from_numpy(np.random.default_rng(2).normal(0, spread, (4000, 19))).float()
    logits[:, 4] = -torch.inf
    logprobs = torch.log_softmax(logits, -1)
    pairs = torch.stack([torch.arange(19), 100 + torch.arange(19)], 1)
    actions, chosen = draw(logprobs, pairs, torch.Generator().manual_seed(3))
    index = sample(logprobs, torch.Generator().manual_seed(3))
    assert torch.equal(actions, pairs[index])
    assert torch.equal(chosen, logprobs.gather(1, index[:, None])[:, 0])


def test_compiled_draws_follow_the_exact_probabilities() -> None:
    draws = 200_000
    logits = np.random.default_rng(4).normal(0, 2, 12)
    exact = np.exp(logits) / np.exp(logits).sum()
    logprobs = torch.log_softmax(torch.from_numpy(logits).float(), -1).expand(draws, 12).contiguous()
    pairs = torch.arange(24).view(12, 2)
    actions, _ = draw(logprobs, pairs, torch.Generator().manual_seed(5))
    counts = np.bincount(actions[:, 0].numpy() // 2, minlength=12)
    # Pearson's statistic: its mean is 11 and its standard deviation 4.7.
    assert ((counts - draws * exact) ** 2 / (draws * exact)).sum() < 11 + 5 * 4.7


def test_what_is_not_a_number_shows_in_the_log_probability() -> None:
    logprobs = torch.full((3, 5), torch.nan)
    actions, chosen = draw(logprobs, torch.arange(10).view(5, 2), torch.Generator().manual_seed(0))
    assert bool(((actions >= 0) & (actions < 10)).all())
    assert bool(chosen.isnan().all())


@pytest.mark.parametrize("variant", [{}, {"dtypes_fp16": True}, {"components": RICH_GRAPH}])
def test_it_acts_in_inference_mode(threads, variant) -> None:
    agent = make_agent(**variant)
    expected = episode(agent, 37)
    with torch.inference_mode():
        ours = episode(agent, 37)
    for got, wanted in zip(ours, expected, strict=True):
        assert torch.equal(got, wanted)
    assert not ours[2].requires_grad
    assert not expected[2].requires_grad


def change_by_optimizer(agent) -> None:
    for parameter in agent.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.Adam(agent.parameters(), 0.05, fused=True).step()


def change_in_place(agent) -> None:
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.mul_(1.5).add_(0.1)


def change_by_loading(agent) -> None:
    agent.load_state_dict(make_agent(seed=5, dtypes_fp16=True).state_dict())


def change_storage(agent) -> None:
    for parameter in agent.parameters():
        parameter.data = parameter.data * 1.5 + 0.1


def change_by_vector(agent) -> None:
    vector = torch.nn.utils.parameters_to_vector(agent.parameters()) * 1.5
    torch.nn.utils.vector_to_parameters(vector, agent.parameters())


def change_data(agent) -> None:
    for parameter in agent.parameters():
        parameter.data.mul_(1.5)


def change_as_array(agent) -> None:
    for parameter in agent.parameters():
        parameter.detach().numpy()[...] *= 1.5


CHANGES = [
    change_by_optimizer,
    change_in_place,
    change_by_loading,
    change_storage,
    change_by_vector,
    change_data,
    change_as_array,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_act_at_once(change) -> None:
    agent = make_agent(dtypes_fp16=True)
    obs, state = random_tokens(np.random.default_rng(0), 6), agent.initial_state(6)
    before = agent.value(obs, state)
    with holding_weights():
        assert torch.equal(agent.value(obs, state), before)
    change(agent)
    anew = make_agent(dtypes_fp16=True)
    anew.load_state_dict(copy.deepcopy(agent.state_dict()))
    expected = anew.value(obs, state)
    assert not torch.equal(expected, before)
    assert torch.equal(agent.value(obs, state), expected)
    with holding_weights():
        assert torch.equal(agent.value(obs, state), expected)


def test_what_is_held_is_made_once(monkeypatch) -> None:
    agent, calls = make_agent(), []
    made = type(agent)._prepared
    monkeypatch.setattr(type(agent), "_prepared", lambda self: calls.append(1) or made(self))
    obs, state = random_tokens(np.random.default_rng(0), 6), agent.initial_state(6)
    with holding_weights():
        for _ in range(3):
            agent.act(obs, state)
        assert len(calls) == 1
        with holding_weights():  # what a rollout within holds is its own
            agent.act(obs, state)
        assert len(calls) == 2
        agent.act(obs, state)
    assert len(calls) == 2
    agent.act(obs, state)
    agent.act(obs, state)
    assert len(calls) == 4


@pytest.mark.parametrize("variant", [{}, {"components": RICH_GRAPH}])
def test_who_listens_to_a_layer_hears_it(variant) -> None:
    agent, heard = make_agent(**variant), []
    obs, state = random_tokens(np.random.default_rng(0), 6), agent.initial_state(6)
    expected = agent.value(obs, state)
    layer = next(module for module in agent.modules() if isinstance(module, torch.nn.Linear))
    handle = layer.register_forward_hook(lambda module, inputs, output: heard.append(output))
    torch.testing.assert_close(agent.value(obs, state), expected, atol=1e-6, rtol=1e-5)
    assert len(heard) == 1
    handle.remove()


def test_a_layer_of_ones_own_is_called() -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    agent = make_agent()
    obs, state = random_tokens(np.random.default_rng(0), 6), agent.initial_state(6)
    expected = 2 * agent.value(obs, state)
    last = agent.value_head.layers[-1]
    own = Doubled(last.in_features, last.out_features)
    own.load_state_dict(last.state_dict())
    agent.value_head.layers[-1] = own
    torch.testing.assert_close(agent.value(obs, state), expected)


def test_a_state_that_does_not_lie_in_one_piece_is_read_right() -> None:
    agent = make_agent(lstm_layers=2)
    obs = random_tokens(np.random.default_rng(0), 6)
    state = agent.act(obs, agent.initial_state(6)).state
    spread = type(state)(*(part.repeat(1, 2, 1)[:, ::2] for part in (state.h, state.c)))
    expected = agent.value(obs[[0, 2, 4, 0, 2, 4]], state.index(torch.tensor([0, 2, 4, 0, 2, 4])))
    assert torch.equal(agent.value(obs[[0, 2, 4, 0, 2, 4]], spread), expected)
