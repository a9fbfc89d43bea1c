"""The recurrent core: LSTM layers over whole sequences with exact resets at episode ends.

A row of a training segment may hold the end of one episode and the start of the next, and rows end at different
ticks. The usual fast LSTM call knows no such thing; cutting every sequence at every tick where some row ends
loses its speed. Here one pass over the ticks serves all rows: the input products of all ticks are one matrix
product, a tick multiplies only the recurrent state, rows that start anew have theirs zeroed first, and the
backward pass (written by hand) again leaves one matrix product per weight for the end. A segment with
episode ends costs what one without them costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable

from metta.agent.state import PolicyState

CorePath = Literal["fast", "plain"]


class LSTMLayer(nn.Module):
    """One LSTM layer (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    The gates lie in the order input, forget, output, candidate, so that the three sigmoids are one call; `bias`
    is the sum of the two biases that some libraries keep.

    Attributes:
        weight_ih: `[4 * hidden, inputs]`.
        weight_hh: `[4 * hidden, hidden]`.
        bias: `[4 * hidden]`.
    """

    def __init__(self, num_inputs: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_dim, num_inputs))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_dim, hidden_dim))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_dim))

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Orthogonal per gate (norms survive many ticks), forget bias 1 (remember until taught otherwise)."""
        for weight in (self.weight_ih, self.weight_hh):
            for gate in weight.chunk(4):
                nn.init.orthogonal_(gate, generator=generator)
        nn.init.zeros_(self.bias)
        with torch.no_grad():
            self.bias[self.hidden_dim : 2 * self.hidden_dim] = 1.0


class LSTMCore(nn.Module):
    """Stacked LSTM layers."""

    def __init__(self, num_inputs: int, hidden_dim: int, num_layers: int) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.num_layers = num_layers
        self.layers = nn.ModuleList(
            LSTMLayer(num_inputs if i == 0 else hidden_dim, hidden_dim) for i in range(num_layers)
        )

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Initialise every layer; see `LSTMLayer.init_weights`."""
        for layer in self.layers:
            assert isinstance(layer, LSTMLayer)
            layer.init_weights(generator)

    def forward(
        self,
        x: torch.Tensor,
        state: PolicyState,
        resets: torch.Tensor | None = None,
        horizon: int = 0,
        *,
        half: bool = False,
        path: CorePath = "fast",
    ) -> tuple[torch.Tensor, PolicyState]:
        """Run a stretch of ticks.

        Args:
            x: features, `[T, B, inputs]`.
            state: state before the first tick, `[layers, B, hidden]`.
            resets: bool `[T, B]`, rows whose state is zeroed before that tick; None = none.
            horizon: the gradient through the state is cut before every tick that is a multiple of it; 0 = never.
            half: matrix products in bfloat16.
            path: `plain` is one autograd graph tick by tick, the measure for `fast`.

        Returns:
            outputs `[T, B, hidden]` and the state after the last tick.
        """
        ends_h, ends_c = [], []
        recur = _recur_plain if path == "plain" else _recur_fast
        ticks = None if resets is None else resets.any(1).tolist()
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, LSTMLayer)
            gates = nn.functional.linear(x, layer.weight_ih, layer.bias).to(state.h.dtype)
            with torch.autocast(x.device.type, enabled=False):
                x, h, c = recur(gates, state.h[i], state.c[i], layer.weight_hh, resets, ticks, horizon, half)
            ends_h.append(h)
            ends_c.append(c)
        return x, PolicyState(torch.stack(ends_h), torch.stack(ends_c))


def _recur_plain(
    gates: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    weight: torch.Tensor,
    resets: torch.Tensor | None,
    ticks: Sequence[bool] | None,
    horizon: int,
    half: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    outputs = []
    for t in range(gates.shape[0]):
        if horizon and t and t % horizon == 0:
            h, c = h.detach(), c.detach()
        if resets is not None:
            h, c = h.masked_fill(resets[t].unsqueeze(-1), 0), c.masked_fill(resets[t].unsqueeze(-1), 0)
        total = gates[t] + _product(h, weight.t(), half)
        i, f, o, g = total.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs), h, c


def _recur_fast(
    gates: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    weight: torch.Tensor,
    resets: torch.Tensor | None,
    ticks: Sequence[bool] | None,
    horizon: int,
    half: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _Recurrence.apply(gates, h, c, weight, resets, ticks, horizon, half)  # type: ignore[no-untyped-call, no-any-return]


def _product(a: torch.Tensor, b: torch.Tensor, half: bool) -> torch.Tensor:
    return (a.bfloat16() @ b.bfloat16()).to(a.dtype) if half else a @ b


class _Recurrence(torch.autograd.Function):
    """All ticks of one layer, given the products of its inputs."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        gates: torch.Tensor,
        h0: torch.Tensor,
        c0: torch.Tensor,
        weight: torch.Tensor,
        resets: torch.Tensor | None,
        ticks: Sequence[bool] | None,
        horizon: int,
        half: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        num_ticks, batch, width = gates.shape
        hidden = width // 4
        acts = torch.empty_like(gates)
        cells = gates.new_empty(num_ticks, batch, hidden)
        tanh_cells = torch.empty_like(cells)
        outputs = torch.empty_like(cells)
        transposed = (weight.bfloat16() if half else weight).t()
        h, c = h0, c0
        for t in range(num_ticks):
            if resets is not None and ticks is not None and ticks[t]:
                mask = resets[t].unsqueeze(-1)
                h, c = h.masked_fill(mask, 0), c.masked_fill(mask, 0)
            act = acts[t]
            if half:
                torch.add(gates[t], h.bfloat16() @ transposed, out=act)
            else:
                torch.addmm(gates[t], h, transposed, out=act)
            act[:, : 3 * hidden].sigmoid_()
            act[:, 3 * hidden :].tanh_()
            i, f, o, g = act.chunk(4, -1)
            c = torch.mul(f, c, out=cells[t]).addcmul_(i, g)
            h = torch.mul(o, torch.tanh(c, out=tanh_cells[t]), out=outputs[t])
        ctx.save_for_backward(h0, c0, weight, resets, acts, cells, tanh_cells, outputs)
        ctx.options = (ticks, horizon, half)  # type: ignore[attr-defined]
        return outputs, h.clone(), c.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: FunctionCtx, grad_outputs: torch.Tensor, grad_h: torch.Tensor, grad_c: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        h0, c0, weight, resets, acts, cells, tanh_cells, outputs = ctx.saved_tensors  # type: ignore[attr-defined]
        ticks, horizon, half = ctx.options  # type: ignore[attr-defined]
        num_ticks, batch, hidden = cells.shape
        h_before = torch.cat([h0.unsqueeze(0), outputs[:-1]])
        c_before = torch.cat([c0.unsqueeze(0), cells[:-1]])
        if resets is not None:
            h_before.masked_fill_(resets.unsqueeze(-1), 0)
            c_before.masked_fill_(resets.unsqueeze(-1), 0)
        i, f, o, g = acts.chunk(4, -1)
        # How each gate's pre-activation moves the cell (input, forget, candidate) or the output, all ticks at once.
        to_output = tanh_cells * o * (1 - o)
        cell_to_output = o * (1 - tanh_cells * tanh_cells)
        grads = torch.empty_like(acts)
        torch.mul(g * i, 1 - i, out=grads[..., :hidden])
        torch.mul(c_before * f, 1 - f, out=grads[..., hidden : 2 * hidden])
        grads[..., 2 * hidden : 3 * hidden] = to_output
        torch.addcmul(i, i, g * g, value=-1, out=grads[..., 3 * hidden :])
        recurrent = weight.bfloat16() if half else weight
        dh, dc = grad_h + grad_outputs[-1], grad_c.clone()
        for t in range(num_ticks - 1, -1, -1):
            dc.addcmul_(dh, cell_to_output[t])
            grad = grads[t].view(batch, 4, hidden)
            grad[:, :2].mul_(dc.unsqueeze(1))
            grad[:, 2].mul_(dh)
            grad[:, 3].mul_(dc)
            dc.mul_(f[t])
            cut = horizon and t and t % horizon == 0
            if cut:
                dc.zero_()
                dh = grad_outputs[t - 1].clone()
                continue
            dh = _product(grads[t], recurrent, half)
            if resets is not None and ticks is not None and ticks[t]:
                mask = resets[t].unsqueeze(-1)
                dh.masked_fill_(mask, 0)
                dc.masked_fill_(mask, 0)
            if t:
                dh.add_(grad_outputs[t - 1])
        grad_weight = _product(grads.flatten(0, 1).t(), h_before.flatten(0, 1), half)
        return grads, dh, dc, grad_weight, None, None, None, None
