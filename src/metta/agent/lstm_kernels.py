"""Compiled loops of the LSTM. Imported where they are first used: numba is slow to load.

A tick of a minibatch is a small matrix product and a few sums: called one by one from Python, the calls would cost
more than the work. So one call runs all ticks of a layer, and the products are written out here, blocked so that they
stay in registers and in the first cache. All arrays are C-contiguous; floating ones share one dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import overload

from metta.agent.kernels import FAST, Array

PANEL = 64
"""Columns of a panel of `pack`: few enough that four rows of sums and a stretch of the panel fit the first cache."""

ROWS = 4
"""Rows that are multiplied together, so that a number of the panel, once read, is used so many times."""


def _tanh(x: Any) -> Any:
    return np.tanh(x)


@overload(_tanh)
def _overload_tanh(x: Any) -> Callable[[Any], Any]:
    def exact(x: Any) -> Any:
        return math.tanh(x)

    def rational(x: Any) -> Any:
        # The quotient of polynomials that Eigen uses, within a few units of the last place: unlike a call of the C
        # library, the compiler can vectorise it. Beyond the bound the result would be 1 in single precision anyway.
        bound = np.float32(7.90531110763549805)
        below = bound if x > bound else x
        inside = -bound if below < -bound else below  # what is not a number stays so
        y = inside * inside
        top = np.float32(-2.76076847742355e-16)
        top = top * y + np.float32(2.00018790482477e-13)
        top = top * y + np.float32(-8.60467152213735e-11)
        top = top * y + np.float32(5.12229709037114e-08)
        top = top * y + np.float32(1.48572235717979e-05)
        top = top * y + np.float32(6.37261928935436e-04)
        top = top * y + np.float32(4.89352455891786e-03)
        bottom = np.float32(1.19825839466702e-06)
        bottom = bottom * y + np.float32(1.18534705686654e-04)
        bottom = bottom * y + np.float32(2.26843463243900e-03)
        bottom = bottom * y + np.float32(4.89352518554385e-03)
        return inside * top / bottom

    return rational if x == numba.float32 else exact


@numba.njit(cache=True, nogil=True)
def pack(weight: Array) -> Array:
    """A matrix `[depth, columns]` cut into panels `[panels, depth * PANEL]`, row by row, filled up with zeros."""
    depth, columns = weight.shape
    panels = np.zeros((-(-columns // PANEL), depth * PANEL), weight.dtype)
    for n in range(panels.shape[0]):
        for k in range(depth):
            for j in range(min(PANEL, columns - n * PANEL)):
                panels[n, k * PANEL + j] = weight[k, n * PANEL + j]
    return panels


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def multiply_add(x: Array, panels: Array, out: Array) -> None:
    """`out += x @ weight`. The sum of a row does not depend on which other rows there are.

    Args:
        x: `[rows, depth]`.
        panels: of the weight, from `pack`.
        out: `[rows, columns]`.
    """
    num_rows, depth = x.shape
    columns = out.shape[1]
    whole = num_rows - num_rows % ROWS
    deep = depth - depth % 4
    sums = np.empty((ROWS, PANEL), x.dtype)
    one = np.empty(PANEL, x.dtype)
    for n in range(panels.shape[0]):
        panel = panels[n]
        left = n * PANEL
        width = min(PANEL, columns - left)
        for b in range(0, whole, ROWS):
            for r in range(ROWS):
                for j in range(width):
                    sums[r, j] = out[b + r, left + j]
                for j in range(width, PANEL):
                    sums[r, j] = 0
            for k in range(0, deep, 4):
                a0, a1, a2, a3 = x[b, k], x[b, k + 1], x[b, k + 2], x[b, k + 3]
                b0, b1, b2, b3 = x[b + 1, k], x[b + 1, k + 1], x[b + 1, k + 2], x[b + 1, k + 3]
                c0, c1, c2, c3 = x[b + 2, k], x[b + 2, k + 1], x[b + 2, k + 2], x[b + 2, k + 3]
                d0, d1, d2, d3 = x[b + 3, k], x[b + 3, k + 1], x[b + 3, k + 2], x[b + 3, k + 3]
                base = np.uint64(k * PANEL)
                for j in range(PANEL):
                    place = base + np.uint64(j)
                    w0 = panel[place]
                    w1 = panel[place + np.uint64(PANEL)]
                    w2 = panel[place + np.uint64(2 * PANEL)]
                    w3 = panel[place + np.uint64(3 * PANEL)]
                    sums[0, j] = sums[0, j] + a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                    sums[1, j] = sums[1, j] + b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                    sums[2, j] = sums[2, j] + c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                    sums[3, j] = sums[3, j] + d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
            for k in range(deep, depth):
                for r in range(ROWS):
                    a0 = x[b + r, k]
                    for j in range(PANEL):
                        sums[r, j] += a0 * panel[k * PANEL + j]
            for r in range(ROWS):
                for j in range(width):
                    out[b + r, left + j] = sums[r, j]
        for b in range(whole, num_rows):
            for j in range(width):
                one[j] = out[b, left + j]
            for j in range(width, PANEL):
                one[j] = 0
            for k in range(0, deep, 4):
                a0, a1, a2, a3 = x[b, k], x[b, k + 1], x[b, k + 2], x[b, k + 3]
                base = np.uint64(k * PANEL)
                for j in range(PANEL):
                    place = base + np.uint64(j)
                    w0 = panel[place]
                    w1 = panel[place + np.uint64(PANEL)]
                    w2 = panel[place + np.uint64(2 * PANEL)]
                    w3 = panel[place + np.uint64(3 * PANEL)]
                    one[j] = one[j] + a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
            for k in range(deep, depth):
                a0 = x[b, k]
                for j in range(PANEL):
                    one[j] += a0 * panel[k * PANEL + j]
            for j in range(width):
                out[b, left + j] = one[j]


@numba.njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def lstm_tick(resets: Array, before: Array, act: Array, cell: Array, tanh_cell: Array, out: Array) -> None:
    """What is elementwise in a tick of the LSTM.

    Args:
        resets: bool `[B]`, rows whose cell counts as zero.
        before: `[B, hidden]`, cell before the tick.
        act: `[B, 4 * hidden]`, gates before their nonlinearities (input, forget, output, candidate); overwritten with
            the gates.
        cell, tanh_cell, out: `[B, hidden]`, overwritten.
    """
    batch, hidden = cell.shape
    half = act.dtype.type(0.5)
    for b in range(batch):
        row, now, squashed, result, old = act[b], cell[b], tanh_cell[b], out[b], before[b]
        for j in range(3 * hidden):
            row[j] = half + half * _tanh(half * row[j])
        for j in range(3 * hidden, 4 * hidden):
            row[j] = _tanh(row[j])
        i, f, o, g = row[:hidden], row[hidden : 2 * hidden], row[2 * hidden : 3 * hidden], row[3 * hidden :]
        for j in range(hidden):
            now[j] = i[j] * g[j]
        if not resets[b]:
            for j in range(hidden):
                now[j] += f[j] * old[j]
        for j in range(hidden):
            squashed[j] = _tanh(now[j])
        for j in range(hidden):
            result[j] = o[j] * squashed[j]


@numba.njit(cache=True, nogil=True)
def lstm_sequence(
    resets: Array,
    h0: Array,
    c0: Array,
    panels: Array,
    acts: Array,
    cells: Array,
    tanh_cells: Array,
    outputs: Array,
) -> None:
    """All ticks of a layer.

    Args:
        resets: bool `[T, B]`, rows whose state is zeroed before a tick.
        h0, c0: `[B, hidden]`, state before the first tick.
        panels: `[hidden, 4 * hidden]`, the recurrent weights, from `pack`.
        acts: `[T, B, 4 * hidden]`, the input's part of the gates; overwritten with the gates.
        cells, tanh_cells, outputs: `[T, B, hidden]`, overwritten.
    """
    h = np.empty_like(h0)
    for t in range(acts.shape[0]):
        h[:] = h0 if t == 0 else outputs[t - 1]
        for b in range(h.shape[0]):
            if resets[t, b]:
                h[b] = 0
        multiply_add(h, panels, acts[t])
        before = c0 if t == 0 else cells[t - 1]
        lstm_tick(resets[t], before, acts[t], cells[t], tanh_cells[t], outputs[t])


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def lstm_tick_gradients(
    t: int,
    resets: Array,
    acts: Array,
    c0: Array,
    cells: Array,
    tanh_cells: Array,
    grad_outputs: Array,
    dh: Array,
    dc: Array,
    grads: Array,
) -> None:
    """One tick of the LSTM's backward pass, all that is elementwise in it.

    Args:
        t: the tick.
        resets: bool `[T, B]`, rows whose state was zeroed before a tick.
        acts: `[T, B, 4 * hidden]`, gates after their nonlinearities: input, forget, output, candidate.
        c0: `[B, hidden]`, cell before the first tick; cells, tanh_cells: `[T, B, hidden]` after each tick.
        grad_outputs: `[T, B, hidden]`.
        dh: `[B, hidden]`, gradient that tick `t + 1` sends to the output of `t`, before its resets.
        dc: `[B, hidden]`, gradient of the cell after `t` from later ticks; becomes that of the cell before `t`.
        grads: `[T, B, 4 * hidden]`; row `t` becomes the gradient of the gates before their nonlinearities.
    """
    num_ticks, batch, hidden = cells.shape
    zero = acts.dtype.type(0)
    one = acts.dtype.type(1)
    for b in range(batch):
        if t + 1 < num_ticks and resets[t + 1, b]:
            dh[b, :] = zero
        reset = resets[t, b]
        before = c0[b] if t == 0 else cells[t - 1, b]
        i, f = acts[t, b, :hidden], acts[t, b, hidden : 2 * hidden]
        o, g = acts[t, b, 2 * hidden : 3 * hidden], acts[t, b, 3 * hidden :]
        di, df = grads[t, b, :hidden], grads[t, b, hidden : 2 * hidden]
        do, dg = grads[t, b, 2 * hidden : 3 * hidden], grads[t, b, 3 * hidden :]
        squashed, outside, later, cell = tanh_cells[t, b], grad_outputs[t, b], dh[b], dc[b]
        # One short loop per result: with all arrays in one loop the compiler cannot rule out that they overlap.
        for j in range(hidden):
            cell[j] += (outside[j] + later[j]) * o[j] * (one - squashed[j] * squashed[j])
        for j in range(hidden):
            do[j] = (outside[j] + later[j]) * squashed[j] * o[j] * (one - o[j])
        for j in range(hidden):
            di[j] = cell[j] * g[j] * i[j] * (one - i[j])
        for j in range(hidden):
            dg[j] = cell[j] * i[j] * (one - g[j] * g[j])
        for j in range(hidden):
            df[j] = cell[j] * before[j] * f[j] * (one - f[j])
        for j in range(hidden):
            cell[j] *= f[j]
        if reset:
            df[:] = zero
            cell[:] = zero


@numba.njit(cache=True, nogil=True)
def lstm_sequence_gradients(
    horizon: int,
    panels: Array,
    resets: Array,
    acts: Array,
    c0: Array,
    cells: Array,
    tanh_cells: Array,
    grad_outputs: Array,
    dh: Array,
    dc: Array,
    grads: Array,
) -> None:
    """The backward pass of `lstm_sequence`.

    Args:
        horizon: the gradient through the state is cut before every tick that is a multiple of it; 0: never.
        panels: `[4 * hidden, hidden]`, the recurrent weights the other way round, from `pack`.
        resets, acts, c0, cells, tanh_cells: as that left them.
        grad_outputs: `[T, B, hidden]`.
        dh, dc: `[B, hidden]`, gradient of the state after the last tick; become that of the state before the first, resets
            of that tick left out of `dh`.
        grads: `[T, B, 4 * hidden]`, overwritten with the gradient of the gates before their nonlinearities.
    """
    for t in range(acts.shape[0] - 1, -1, -1):
        lstm_tick_gradients(t, resets, acts, c0, cells, tanh_cells, grad_outputs, dh, dc, grads)
        dh[:] = 0
        if horizon and t % horizon == 0 and t:
            dc[:] = 0
        else:
            multiply_add(grads[t], panels, dh)
