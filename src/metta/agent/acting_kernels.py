"""Compiled loops of acting. Imported where they are first used: numba is slow to load.

All arrays are C-contiguous; floating ones share one dtype.
"""

from __future__ import annotations

import numba

from metta.agent.kernels import FAST, Array
from metta.agent.lstm_kernels import _tanh


@numba.njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def lstm_step(bias: Array, gates: Array, before: Array, cell: Array, out: Array) -> None:
    """One tick of an LSTM layer, all but its products.

    Args:
        bias: `[4 * hidden]`.
        gates: `[B, 4 * hidden]`, what the products give: input, forget, output, candidate; overwritten.
        before: `[B, hidden]`, cell before the tick.
        cell, out: `[B, hidden]`, overwritten with cell and output after it.
    """
    batch, hidden = cell.shape
    half = gates.dtype.type(0.5)
    for b in range(batch):
        row, now, result, old = gates[b], cell[b], out[b], before[b]
        for j in range(3 * hidden):
            row[j] = half + half * _tanh(half * (row[j] + bias[j]))
        for j in range(3 * hidden, 4 * hidden):
            row[j] = _tanh(row[j] + bias[j])
        i, f, o, g = row[:hidden], row[hidden : 2 * hidden], row[2 * hidden : 3 * hidden], row[3 * hidden :]
        for j in range(hidden):
            now[j] = i[j] * g[j] + f[j] * old[j]
        for j in range(hidden):
            result[j] = o[j] * _tanh(now[j])


@numba.njit(cache=True, nogil=True)
def draw(
    logprobs: Array, probabilities: Array, shares: Array, pairs: Array, actions: Array, chosen: Array
) -> None:
    """Draw a choice per row, the one that `metta.agent.heads.sample` draws.

    Args:
        logprobs, probabilities: `[B, choices]`.
        shares: `[B, 1]`, from 0 to below 1: where in the running sum of the probabilities the choice lies.
        pairs: int64 `[choices, 2]`, what each choice stands for.
        actions: int64 `[B, 2]`, overwritten with the pairs of the choices.
        chosen: `[B]`, overwritten with their log probabilities.
    """
    num_choices = logprobs.shape[1]
    rounded = logprobs.dtype.type
    for b in range(logprobs.shape[0]):
        total = 0.0
        for j in range(num_choices):
            total += probabilities[b, j]
        goal = shares[b, 0] * rounded(total)
        running = 0.0
        choice = 0
        for j in range(num_choices):
            running += probabilities[b, j]
            if not rounded(running) <= goal:
                break
            choice = j + 1
        choice = min(choice, num_choices - 1)
        actions[b, 0], actions[b, 1] = pairs[choice, 0], pairs[choice, 1]
        chosen[b] = logprobs[b, choice]
