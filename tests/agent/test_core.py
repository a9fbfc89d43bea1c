import itertools

import numba
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.agent import core as core_module
from metta.agent.core import LSTMCore, LSTMLayer
from metta.agent.lstm_kernels import FAST, _tanh, multiply_add, pack
from metta.agent.state import PolicyState


def make_core(num_inputs: int, hidden: int, layers: int, path: str, seed: int = 0) -> LSTMCore:
    core = LSTMCore(num_inputs, hidden, layers, path)  # type: ignore[arg-type]
    core.init_weights(torch.Generator().manual_seed(seed))
    return core.double()


def random_state(layers: int, batch: int, hidden: int, generator: torch.Generator) -> PolicyState:
    shape = (layers, batch, hidden)
    return PolicyState(*(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    ticks=st.integers(1, 9),
    batch=st.integers(1, 5),
    layers=st.integers(1, 3),
    horizon=st.integers(0, 5),
    ends=st.sampled_from([0.0, 0.2, 0.7, 1.0, None]),
)
def test_fast_equals_tick_by_tick_with_all_gradients(
    seed: int, ticks: int, batch: int, layers: int, horizon: int, ends: float | None
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ticks, batch, 3, generator=generator, dtype=torch.float64)
    state = random_state(layers, batch, 4, generator)
    resets = None if ends is None else torch.rand(ticks, batch, generator=generator) < ends
    weigh_out = torch.randn(ticks, batch, 4, generator=generator, dtype=torch.float64)
    weigh_end = random_state(layers, batch, 4, generator)
    results = []
    for path in ("fast", "plain"):
        core = make_core(3, 4, layers, path, seed)
        inputs = x.clone().requires_grad_()
        start = PolicyState(state.h.clone().requires_grad_(), state.c.clone().requires_grad_())
        out, end = core(inputs, start, resets, horizon)
        loss = (out * weigh_out).sum() + (end.h * weigh_end.h).sum() + (end.c * weigh_end.c).sum()
        loss.backward()
        grads = [p.grad for p in (inputs, start.h, start.c, *core.parameters())]
        results.append([out, end.h, end.c, *grads])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("small", [2**22, 0], ids=["one call", "tick by tick"])
@pytest.mark.parametrize("ticks", range(1, 6))
def test_every_pattern_of_ends(monkeypatch: pytest.MonkeyPatch, ticks: int, small: int) -> None:
    monkeypatch.setattr(core_module, "SMALL_PRODUCT", small)
    generator = torch.Generator().manual_seed(ticks)
    patterns = list(itertools.product((False, True), repeat=ticks))
    resets = torch.tensor(patterns).t().contiguous()
    x = torch.randn(ticks, len(patterns), 3, generator=generator, dtype=torch.float64)
    state = random_state(2, len(patterns), 17, generator)  # 68 columns: a panel, and a part of one
    weigh = torch.randn(ticks, len(patterns), 17, generator=generator, dtype=torch.float64)
    results = []
    for path in ("fast", "plain"):
        core = make_core(3, 17, 2, path, 0)
        inputs = x.clone().requires_grad_()
        start = PolicyState(state.h.clone().requires_grad_(), state.c.clone().requires_grad_())
        out, end = core(inputs, start, resets)
        ((out * weigh).sum() + end.h.square().sum() + end.c.square().sum()).backward()
        grads = [p.grad for p in (inputs, start.h, start.c, *core.parameters())]
        results.append([out, end.h, end.c, *grads])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize(("depth", "columns"), [(1, 1), (4, 64), (5, 65), (128, 130)])
def test_the_product_by_panels(rows: int, depth: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    x, weight, out = (rng.normal(size=s) for s in ((rows, depth), (depth, columns), (rows, columns)))
    expected = out + x @ weight
    multiply_add(x, pack(weight), out)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)
    # A row's sum does not depend on its neighbours.
    alone = np.zeros((1, columns))
    many = np.zeros((rows, columns))
    multiply_add(x[-1:], pack(weight), alone)
    multiply_add(x, pack(weight), many)
    assert np.array_equal(alone[0], many[-1])


@numba.njit(fastmath=FAST, error_model="numpy")
def squash(x: npt.NDArray[np.float32]) -> None:
    for j in range(x.shape[0]):
        x[j] = _tanh(x[j])


def test_single_precision_tanh() -> None:
    x = np.linspace(-12, 12, 100_001, dtype=np.float32)
    y = x.copy()
    squash(y)
    np.testing.assert_allclose(y, np.tanh(x.astype(np.float64)), rtol=4e-7, atol=0)
    odd = np.array([np.nan, np.inf, -np.inf], np.float32)
    squash(odd)
    assert np.isnan(odd[0])
    np.testing.assert_allclose(odd[1:], [1, -1], rtol=4e-7)


def test_without_ends_it_is_the_lstm_of_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    core = make_core(3, 4, 2, "fast", 1)
    library = torch.nn.LSTM(3, 4, 2).double()
    with torch.no_grad():
        for i, layer in enumerate(core.layers):
            assert isinstance(layer, LSTMLayer)
            layer.bias.normal_(generator=generator)
            for name, ours in (
                ("weight_ih", layer.weight_ih),
                ("weight_hh", layer.weight_hh),
                ("bias_ih", layer.bias),
            ):
                ins, forget, outs, candidate = ours.chunk(4)
                getattr(library, f"{name}_l{i}").copy_(torch.cat([ins, forget, candidate, outs]))
            getattr(library, f"bias_hh_l{i}").zero_()
    x = torch.randn(7, 5, 3, generator=generator, dtype=torch.float64)
    state = random_state(2, 5, 4, generator)
    out, end = core(x, state)
    expected, (h, c) = library(x, (state.h, state.c))
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(end.h, h, atol=1e-12, rtol=0)
    torch.testing.assert_close(end.c, c, atol=1e-12, rtol=0)


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_nothing_passes_an_episode_end(path: str) -> None:
    generator = torch.Generator().manual_seed(2)
    core = make_core(3, 4, 2, path)
    x = torch.randn(8, 3, 3, generator=generator, dtype=torch.float64)
    resets = torch.zeros(8, 3, dtype=torch.bool)
    resets[5, 1] = True
    start = random_state(2, 3, 4, generator)
    other_x = x.clone()
    other_x[:5, 1] = 1e3
    other_start = start.clone()
    other_start.h[:, 1], other_start.c[:, 1] = 1e3, torch.nan
    out, end = core(x, start, resets)
    other_out, other_end = core(other_x, other_start, resets)
    assert torch.equal(out[5:], other_out[5:])
    assert torch.equal(end.h, other_end.h)
    assert torch.equal(end.c, other_end.c)
    assert not torch.equal(out[4, 1], other_out[4, 1])
    assert torch.equal(out[:, [0, 2]], other_out[:, [0, 2]])


@pytest.mark.parametrize("path", ["fast", "plain"])
@pytest.mark.parametrize(
    ("horizon", "reached"), [(0, range(8)), (3, [6, 7]), (4, [4, 5, 6, 7]), (7, [7]), (8, range(8))]
)
def test_the_gradient_stops_at_the_horizon(path: str, horizon: int, reached: list[int]) -> None:
    core = make_core(3, 4, 1, path)
    x = torch.randn(
        8, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True
    )
    out, _ = core(x, PolicyState.zeros(1, 2, 4, dtype=torch.float64), None, horizon)
    out[7].sum().backward()
    assert x.grad is not None
    assert [t for t in range(8) if x.grad[t].abs().sum() > 0] == list(reached)


def test_the_start_state_is_not_changed() -> None:
    core = make_core(3, 4, 1, "fast")
    start = random_state(1, 2, 4, torch.Generator().manual_seed(4))
    kept = start.clone()
    core(torch.ones(3, 2, 3, dtype=torch.float64), start, torch.ones(3, 2, dtype=torch.bool))
    assert torch.equal(start.h, kept.h)
    assert torch.equal(start.c, kept.c)


def test_fresh_weights_remember_and_keep_norms() -> None:
    core = make_core(6, 8, 1, "fast")
    layer = core.layers[0]
    assert isinstance(layer, LSTMLayer)
    for gate in layer.weight_hh.detach().chunk(4):
        torch.testing.assert_close(gate @ gate.t(), torch.eye(8, dtype=torch.float64), atol=1e-6, rtol=0)
    gates = layer.bias.detach().view(4, 8)
    assert gates[1].eq(1).all()
    assert gates[[0, 2, 3]].eq(0).all()


def test_a_state_is_cut_and_joined_by_rows() -> None:
    state = random_state(2, 5, 3, torch.Generator().manual_seed(5))
    rows = torch.tensor([4, 1])
    part = state.index(rows)
    assert torch.equal(part.h, state.h[:, [4, 1]])
    assert part.batch_size == 2
    assert torch.equal(part.c, state.c[:, [4, 1]])
    mask = torch.tensor([True, False, False, False, True])
    forgot = state.zeroed(mask)
    assert forgot.h[:, mask].eq(0).all()
    assert torch.equal(forgot.h[:, ~mask], state.h[:, ~mask])
    assert state.h[:, mask].ne(0).all()
    state.zero_(mask)
    assert torch.equal(state.h, forgot.h)
    assert torch.equal(state.c, forgot.c)
