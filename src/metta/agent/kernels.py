"""Compiled loops of the token layer. Imported where they are first used: numba is slow to load.

All arrays are C-contiguous; floating ones share one dtype unless said otherwise. Indices are cast to unsigned
integers because an index that might be negative keeps the compiler from vectorising the loop around it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from metta.agent.legality import (
    AGENT,
    AHEAD,
    ATTACK,
    BACKWARD,
    BEHIND,
    CONVERTER,
    FACING,
    FORWARD,
    GIVE,
    IN_RANGE,
    ITEM,
    LOOSE,
    OWN,
    SWAP,
    TAKE,
    THING,
)

Array = npt.NDArray[Any]

FAST = {"contract", "nsz"}
"""Fused multiply-add; sums keep their order."""


@numba.njit(cache=True, nogil=True)
def _facing(tokens: Array, own_facing: tuple[int, int]) -> int:
    """Where the observer of one row faces, 0 if it does not say; as in `TurnToFacing.forward`."""
    location, feature = own_facing
    if feature >= 0:
        for k in range(tokens.shape[0]):
            if tokens[k, 0] == 255:
                break
            if tokens[k, 0] == location and tokens[k, 1] == feature:
                return int(min(tokens[k, 2], 3))
    return 0


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def sum_rows(
    tokens: Array,
    out: Array,
    own_facing: tuple[int, int],
    turned: Array,
    plane: Array,
    amount: Array,
    first: Array,
    where: Array,
    weight: Array,
    bias: Array,
) -> None:
    """The token layer and its ReLU.

    Args:
        tokens: uint8 `[N, K, 3]`.
        out: `[N, positions, channels]`, overwritten.
        own_facing: location and feature of the observer's facing; feature -1 = windows are not turned.
        turned: uint8 `[4, 256]`, new location by facing and location (`TurnToFacing`).
        plane: int32 `[features, 256, slots]`; amount: float64, same shape (`PlaneTable`).
        first: int32 `[257]`; where: int32 `[sightings, 2]` (`Window.sightings`).
        weight: `[planes, taps, channels]`; bias: `[channels]`.
    """
    num_features, _, num_slots = plane.shape
    num_planes, num_taps, num_channels = weight.shape
    num_rows, num_positions, _ = out.shape
    rows = weight.reshape(num_planes * num_taps, num_channels)
    targets = out.reshape(num_rows * num_positions, num_channels)
    zero = weight.dtype.type(0)
    for n in range(num_rows):
        base = n * num_positions
        for q in range(num_positions):
            target = out[n, q]
            for j in range(num_channels):
                target[j] = bias[j]
        facing = _facing(tokens[n], own_facing)
        for k in range(tokens.shape[1]):
            location = tokens[n, k, 0]
            if location == 255:
                break
            location = turned[facing, location]
            feature = tokens[n, k, 1]
            if feature >= num_features:
                continue
            value = tokens[n, k, 2]
            begin, end = first[location], first[np.uint64(location) + np.uint64(1)]
            for slot in range(num_slots):
                p = plane[feature, value, slot]
                if p < 0:
                    break
                x = weight.dtype.type(amount[feature, value, slot])
                for s in range(begin, end):
                    target = targets[np.uint64(base + where[s, 0])]
                    source = rows[np.uint64(p * num_taps + where[s, 1])]
                    for j in range(num_channels):
                        target[j] += x * source[j]
        for q in range(num_positions):
            target = out[n, q]
            for j in range(num_channels):
                target[j] = max(target[j], zero)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def add_row_gradients(
    tokens: Array,
    out: Array,
    grad: Array,
    grad_weight: Array,
    grad_bias: Array,
    own_facing: tuple[int, int],
    turned: Array,
    plane: Array,
    amount: Array,
    first: Array,
    where: Array,
) -> None:
    """Add to `grad_weight` and `grad_bias` what `grad` says of them; shapes as in `sum_rows`, `out` its result."""
    num_features, _, num_slots = plane.shape
    num_planes, num_taps, num_channels = grad_weight.shape
    num_rows, num_positions, _ = out.shape
    rows = grad_weight.reshape(num_planes * num_taps, num_channels)
    passed = np.empty((num_positions, num_channels), grad.dtype)
    zero = grad.dtype.type(0)
    for n in range(num_rows):
        for q in range(num_positions):
            source, shown, kept = grad[n, q], out[n, q], passed[q]
            for j in range(num_channels):
                kept[j] = source[j] if shown[j] > zero else zero
                grad_bias[j] += kept[j]
        facing = _facing(tokens[n], own_facing)
        for k in range(tokens.shape[1]):
            location = tokens[n, k, 0]
            if location == 255:
                break
            location = turned[facing, location]
            feature = tokens[n, k, 1]
            if feature >= num_features:
                continue
            value = tokens[n, k, 2]
            begin, end = first[location], first[np.uint64(location) + np.uint64(1)]
            for slot in range(num_slots):
                p = plane[feature, value, slot]
                if p < 0:
                    break
                x = grad.dtype.type(amount[feature, value, slot])
                for s in range(begin, end):
                    source = passed[np.uint64(where[s, 0])]
                    target = rows[np.uint64(p * num_taps + where[s, 1])]
                    for j in range(num_channels):
                        target[j] += x * source[j]


@numba.njit(cache=True, nogil=True)
def judge(tokens: Array, allowed: Array, center: int, need: Array, zone: Array, role: Array) -> None:
    """Which actions can have an effect; the plain twin and the tables are those of `Legality`.

    Args:
        tokens: uint8 `[N, K, 3]`.
        allowed: bool `[N, choices]`, overwritten.
        center: location of the observer.
        need: int64 `[choices]`; zone: uint8 `[4, 256]`; role: uint8 `[256]`.
    """
    num_tokens = tokens.shape[1]
    for n in range(tokens.shape[0]):
        used = num_tokens
        facing = -1
        for k in range(num_tokens):
            if tokens[n, k, 0] == 255:
                used = k
                break
            if facing < 0 and tokens[n, k, 0] == center and role[tokens[n, k, 1]] == FACING:
                facing = min(int(tokens[n, k, 2]), 3)
        if facing < 0 or used == num_tokens:
            allowed[n] = True
            continue
        ahead = behind = targets = 0
        converter = stock = held = loose = False
        for k in range(used):
            part = zone[facing, tokens[n, k, 0]]
            if part == 0:
                continue
            what = role[tokens[n, k, 1]]
            some = tokens[n, k, 2] > 0
            if what == ITEM:
                stock |= some and part & AHEAD > 0
                held |= some and part & OWN > 0
            elif what in (THING, AGENT):
                # What is fixed counts 1, an agent, which may step aside, 1 - 1.
                one = 1 if what == THING else -1
                if part & AHEAD:
                    ahead += one
                if part & BEHIND:
                    behind += one
                if what == AGENT and part & IN_RANGE:
                    targets += 1
            elif what == CONVERTER:
                converter |= part & AHEAD > 0
            elif what == LOOSE:
                loose |= some and part & AHEAD > 0
        left = False
        for i in range(need.shape[0]):
            wanted = need[i]
            if wanted == FORWARD:
                able = ahead <= 0
            elif wanted == BACKWARD:
                able = behind <= 0
            elif wanted == TAKE:
                able = converter and stock
            elif wanted == GIVE:
                able = converter and held
            elif wanted == SWAP:
                able = loose
            elif wanted >= ATTACK:
                able = targets > wanted - ATTACK
            else:
                able = True
            allowed[n, i] = able
            left |= able
        if not left:
            allowed[n] = True
