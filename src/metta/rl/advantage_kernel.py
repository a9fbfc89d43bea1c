"""The compiled loop of the advantages. Imported where it is first used: numba is slow to load."""

from __future__ import annotations

from typing import Any

import numba
import numpy.typing as npt

Array = npt.NDArray[Any]


@numba.njit(cache=True, nogil=True)
def vtrace(
    gamma: float,
    gae_lambda: float,
    rho_clip: float,
    c_clip: float,
    dones: Array,
    values: Array,
    rewards: Array,
    ratios: Array,
    truncation_values: Array,
    bootstrap_values: Array,
    bootstrap_advantages: Array,
    advantages: Array,
) -> None:
    """`compute_advantage` on arrays `[S, T]`, bootstraps `[S]`: one pass backwards over each segment.

    The floating arrays share one dtype; sums are made in double precision. `advantages` is overwritten.
    """
    num_segments, horizon = values.shape
    for s in range(num_segments):
        following = float(bootstrap_values[s])
        later = float(bootstrap_advantages[s])
        for t in range(horizon - 1, -1, -1):
            # What is not a number passes through both clips.
            ratio = float(ratios[s, t])
            rho = rho_clip if ratio > rho_clip else ratio
            c = c_clip if ratio > c_clip else ratio
            value = float(values[s, t])
            if dones[s, t]:
                following = float(truncation_values[s, t])
                later = 0.0
            later = rho * (rewards[s, t] + gamma * following - value) + gamma * gae_lambda * c * later
            advantages[s, t] = later
            following = value
