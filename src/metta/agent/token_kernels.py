"""Compiled loops of `TokenLayer`: the first layer as a sum of weight rows. Imported only when first used."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz"})  # type: ignore[untyped-decorator]
def sum_rows(
    tokens: Array, plane: Array, amount: Array, first: Array, where: Array, weight: Array, out: Array
) -> None:
    """Add to `out` `[N, positions, channels]` the weight rows of all tokens; shapes as in `TokenLayer`."""
    num_features, _, num_slots = plane.shape
    num_channels = weight.shape[2]
    for n in range(tokens.shape[0]):
        for k in range(tokens.shape[1]):
            location = tokens[n, k, 0]
            if location == 255:
                break
            feature = np.int64(tokens[n, k, 1])
            if feature >= num_features:
                continue
            value = tokens[n, k, 2]
            for slot in range(num_slots):
                p = plane[feature, value, slot]
                if p < 0:
                    break
                x = weight.dtype.type(amount[feature, value, slot])
                for s in range(first[location], first[np.int64(location) + 1]):
                    source = weight[p, where[s, 1]]
                    target = out[n, where[s, 0]]
                    for j in range(num_channels):
                        target[j] += x * source[j]


@numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz"})  # type: ignore[untyped-decorator]
def add_row_gradients(
    tokens: Array, plane: Array, amount: Array, first: Array, where: Array, grad: Array, grad_weight: Array
) -> None:
    """Add to `grad_weight` `[planes, taps, channels]` what `grad` `[N, positions, channels]` says of its rows."""
    num_features, _, num_slots = plane.shape
    num_channels = grad_weight.shape[2]
    for n in range(tokens.shape[0]):
        for k in range(tokens.shape[1]):
            location = tokens[n, k, 0]
            if location == 255:
                break
            feature = np.int64(tokens[n, k, 1])
            if feature >= num_features:
                continue
            value = tokens[n, k, 2]
            for slot in range(num_slots):
                p = plane[feature, value, slot]
                if p < 0:
                    break
                x = grad.dtype.type(amount[feature, value, slot])
                for s in range(first[location], first[np.int64(location) + 1]):
                    source = grad[n, where[s, 0]]
                    target = grad_weight[p, where[s, 1]]
                    for j in range(num_channels):
                        target[j] += x * source[j]
