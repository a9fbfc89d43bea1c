"""The recurrent core: LSTM layers over whole sequences with exact resets at episode ends.

A row of a training segment may hold the end of one episode and the start of the next, and rows end at
different ticks. A library's LSTM call knows no such thing, and cutting every sequence wherever some row ends
loses its speed. Here one pass over the ticks serves all rows: the input products of all ticks are one matrix
product, a tick multiplies only the recurrent state, rows that start anew have theirs zeroed first, and the
backward pass, written by hand, again leaves one matrix product per weight for the end. A segment with
episode ends costs what one without them costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from metta.agent.paths import ComputePath, use_fast
from metta.agent.state import PolicyState


class LSTMLayer(nn.Module):
    """One LSTM layer (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    The gates lie in the order input, forget, output, candidate, so that the three sigmoids are one call;
    `bias` is the sum of the two biases that some libraries keep.

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
        self.bias = nn.Parameter(torch.empty(4 * hidden_dim))

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Orthogonal per gate (norms survive many ticks), forget bias 1 (remember until taught otherwise)."""
        for weight in (self.weight_ih, self.weight_hh):
            for gate in weight.chunk(4):
                nn.init.orthogonal_(gate, generator=generator)
        nn.init.zeros_(self.bias)
        with torch.no_grad():
            self.bias[self.hidden_dim : 2 * self.hidden_dim] = 1.0

    def prepared(self, *, half: bool) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The products of a tick: from `[B, inputs]` and the output before, `[B, hidden]`, to `[B, 4 * hidden]`."""
        if half:
            # Both as one product, whose sum is rounded once.
            joined = torch.cat([self.weight_ih, self.weight_hh], 1).bfloat16().t()
            return lambda x, h: torch.cat([x.bfloat16(), h.bfloat16()], 1) @ joined
        return lambda x, h: torch.mm(x.to(h.dtype), self.weight_ih.t()).addmm_(h, self.weight_hh.t())


class LSTMCore(nn.Module):
    """Stacked LSTM layers."""

    def __init__(self, num_inputs: int, hidden_dim: int, num_layers: int, path: ComputePath = "auto") -> None:
        super().__init__()
        self.num_layers = num_layers
        self.path: ComputePath = path
        widths = [num_inputs] + [hidden_dim] * (num_layers - 1)
        self.layers = nn.ModuleList(LSTMLayer(width, hidden_dim) for width in widths)

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
    ) -> tuple[torch.Tensor, PolicyState]:
        """Run a stretch of ticks.

        Args:
            x: features, `[T, B, inputs]`.
            state: state before the first tick, `[layers, B, hidden]`; not changed.
            resets: bool `[T, B]`, rows whose state is zeroed before that tick; None = none.
            horizon: the gradient through the state is cut before every tick that is a multiple of it; 0 =
                never.
            half: matrix products in bfloat16.

        Returns:
            Outputs `[T, B, hidden]` and the state after the last tick.
        """
        recur = _Recurrence.apply if use_fast(self.path, state.h) else _recur_plain
        ends_h, ends_c = [], []
        x = x.to(state.h.dtype)
        with torch.autocast(x.device.type, enabled=False):
            for i, layer in enumerate(self.layers):
                assert isinstance(layer, LSTMLayer)
                weights = (layer.weight_ih, layer.weight_hh, layer.bias)
                x, h, c = recur(x, state.h[i], state.c[i], *weights, resets, horizon, half)
                ends_h.append(h)
                ends_c.append(c)
        return x, PolicyState(torch.stack(ends_h), torch.stack(ends_c))

    def prepared(self, *, half: bool) -> Callable[[torch.Tensor, PolicyState, PolicyState], torch.Tensor]:
        """One tick for acting; see `metta.agent.acting`.

        Returns:
            From features `[B, inputs]` and the state before them to outputs `[B, hidden]`; the state after them is written
            into the last argument.
        """
        from metta.agent.acting_kernels import lstm_step

        layers = [layer for layer in self.layers if isinstance(layer, LSTMLayer)]
        products = [layer.prepared(half=half) for layer in layers]
        biases = [layer.bias.detach().numpy() for layer in layers]

        def apply(x: torch.Tensor, before: PolicyState, after: PolicyState) -> torch.Tensor:
            for i, (product, bias) in enumerate(zip(products, biases, strict=True)):
                gates = product(x, before.h[i]).to(before.h.dtype)
                arrays = [tensor.numpy() for tensor in (gates, before.c[i], after.c[i], after.h[i])]
                lstm_step(bias, *arrays)
                x = after.h[i].bfloat16() if half else after.h[i]
            return x

        return apply


SMALL_PRODUCT = 2**22
"""Operations of a tick's matrix product below which compiled loops beat a library call, as measured."""


def _is_small(batch: int, hidden: int) -> bool:
    """Whether all ticks are best run in one compiled call: a library multiplies faster, but each call takes its time."""
    return 8 * batch * hidden * hidden <= SMALL_PRODUCT


def _product(a: torch.Tensor, b: torch.Tensor, half: bool) -> torch.Tensor:
    return (a.bfloat16() @ b.bfloat16()).to(a.dtype) if half else a @ b


def _recur_plain(
    x: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias: torch.Tensor,
    resets: torch.Tensor | None,
    horizon: int,
    half: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One layer tick by tick: the definition of what `_Recurrence` computes."""
    gates = _product(x, weight_ih.t(), half) + bias
    outputs = []
    for t in range(x.shape[0]):
        if horizon and t % horizon == 0 and t:
            h, c = h.detach(), c.detach()
        if resets is not None:
            mask = resets[t].unsqueeze(-1)
            h, c = h.masked_fill(mask, 0), c.masked_fill(mask, 0)
        i, f, o, g = (gates[t] + _product(h, weight_hh.t(), half)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs), h, c


class _Recurrence(torch.autograd.Function):
    """One layer over all ticks, forward and backward by hand."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        h0: torch.Tensor,
        c0: torch.Tensor,
        weight_ih: torch.Tensor,
        weight_hh: torch.Tensor,
        bias: torch.Tensor,
        resets: torch.Tensor | None,
        horizon: int,
        half: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        from metta.agent.lstm_kernels import lstm_sequence, lstm_tick, pack

        num_ticks, batch, num_inputs = x.shape
        hidden = h0.shape[-1]
        flat = x.reshape(-1, num_inputs)
        if half:
            acts = (flat.bfloat16() @ weight_ih.bfloat16().t()).to(x.dtype).add_(bias)
        else:
            acts = torch.addmm(bias, flat, weight_ih.t())
        acts = acts.view(num_ticks, batch, 4 * hidden)
        cells = x.new_empty(num_ticks, batch, hidden)
        tanh_cells, outputs = torch.empty_like(cells), torch.empty_like(cells)
        if resets is None:
            resets = torch.zeros(num_ticks, batch, dtype=torch.bool)
        ctx.whole = _is_small(batch, hidden)
        c0 = c0.contiguous()
        arrays = [
            tensor.detach().numpy() for tensor in (resets.contiguous(), acts, cells, tanh_cells, outputs)
        ]
        if ctx.whole:
            panels = pack(weight_hh.detach().t().contiguous().numpy())
            given, *made = arrays
            lstm_sequence(given, h0.detach().contiguous().numpy(), c0.detach().numpy(), panels, *made)
        else:
            recurrent = (weight_hh.bfloat16() if half else weight_hh).t()
            h, before = h0, c0.detach().numpy()
            for t in range(num_ticks):
                h = h.masked_fill(resets[t].unsqueeze(-1), 0)
                if half:
                    acts[t].add_(h.bfloat16() @ recurrent)
                else:
                    acts[t].addmm_(h, recurrent)
                reset, act, cell, tanh_cell, out = (array[t] for array in arrays)
                lstm_tick(reset, before, act, cell, tanh_cell, out)
                h, before = outputs[t], cell
        ctx.save_for_backward(x, h0, c0, weight_ih, weight_hh, resets, acts, cells, tanh_cells, outputs)
        ctx.horizon, ctx.half = horizon, half
        return outputs, outputs[-1].clone(), cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_outputs: torch.Tensor, grad_h: torch.Tensor, grad_c: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        from metta.agent.lstm_kernels import lstm_sequence_gradients, lstm_tick_gradients, pack

        x, h0, c0, weight_ih, weight_hh, resets, acts, cells, tanh_cells, outputs = ctx.saved_tensors
        horizon, half = ctx.horizon, ctx.half
        num_ticks = len(cells)
        h_before = torch.cat([h0.unsqueeze(0), outputs[:-1]])
        h_before.masked_fill_(resets.unsqueeze(-1), 0)
        grads = torch.empty_like(acts)
        dh, dc = (grad.clone(memory_format=torch.contiguous_format) for grad in (grad_h, grad_c))
        given = (resets.contiguous(), acts, c0, cells, tanh_cells, grad_outputs.contiguous())
        arrays = [tensor.detach().numpy() for tensor in (*given, dh, dc, grads)]
        if ctx.whole:
            panels = pack(weight_hh.detach().contiguous().numpy())
            lstm_sequence_gradients(horizon, panels, *arrays)
        else:
            recurrent = weight_hh.bfloat16() if half else weight_hh
            for t in range(num_ticks - 1, -1, -1):
                lstm_tick_gradients(t, *arrays)
                if horizon and t % horizon == 0 and t:
                    dh.zero_()
                    dc.zero_()
                elif half:
                    dh.copy_(grads[t].bfloat16() @ recurrent)
                else:
                    torch.mm(grads[t], recurrent, out=dh)
        dh.masked_fill_(resets[0].unsqueeze(-1), 0)
        flat = grads.flatten(0, 1)
        low = flat.bfloat16() if half else flat
        left = low.t()

        def right(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.bfloat16() if half else tensor

        dtype = x.dtype
        grad_x = (low @ right(weight_ih)).to(dtype).view_as(x) if ctx.needs_input_grad[0] else None
        grad_ih = (left @ right(x.reshape(-1, x.shape[-1]))).to(dtype)
        grad_hh = (left @ right(h_before.flatten(0, 1))).to(dtype)
        return grad_x, dh, dc, grad_ih, grad_hh, flat.sum(0), None, None, None
