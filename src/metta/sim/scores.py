"""Means and their intervals. Pure functions over numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FEW = (12.7062, 4.3027, 3.1824, 2.7764)
"""The quantile for 1 to 4 degrees of freedom, where the expansion is too coarse."""
_NORMAL = 1.959964


@dataclass(frozen=True)
class Score:
    """A mean and how well it is known.

    Attributes:
        mean: of the episodes' scores.
        half_interval: half the width of its 95 % interval; None where that is unknown, as after a single episode. It is 0
            where all episodes scored the same, which after a few of them is no proof.
        num_episodes: how many episodes stand behind it.
    """

    mean: float
    half_interval: float | None
    num_episodes: int

    def __str__(self) -> str:
        half = "unknown" if self.half_interval is None else f"{self.half_interval:.2f}"
        return f"{self.mean:.2f} ± {half}"


def student_t(degrees: float) -> float:
    """The 97.5 % quantile of Student's t distribution, to within a thousandth; between 1 and 4 rather too large.

    Args:
        degrees: of freedom, 1 or more; need not be whole.
    """
    if degrees <= len(_FEW):
        return float(np.interp(degrees, range(1, len(_FEW) + 1), _FEW))
    # Cornish-Fisher expansion around the normal quantile (Abramowitz and Stegun 26.7.5).
    z = _NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def mean_score(scores: Sequence[float]) -> Score:
    """Mean of independent episodes with its t-interval.

    Raises:
        ValueError: there are none.
    """
    if not scores:
        raise ValueError("there are no episodes to score; play at least one.")
    values = np.asarray(scores, dtype=np.float64)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return score_from_moments(float(values.mean()), deviation, len(values))


def score_from_moments(mean: float, deviation: float | None, num_episodes: int) -> Score:
    """The score of episodes of which only the moments are known.

    Args:
        mean: of their scores.
        deviation: standard deviation, the estimate from a sample (n - 1); None for a single episode.
        num_episodes: how many.
    """
    if deviation is None or num_episodes < 2:
        return Score(mean, None, num_episodes)
    half = student_t(num_episodes - 1) * deviation / math.sqrt(num_episodes)
    return Score(mean, half, num_episodes)


def combine(groups: Sequence[Sequence[float]]) -> Score:
    """Mean of the groups' means: every group counts the same, however many episodes it has.

    The groups are taken as they are, not as a sample of possible groups, so the interval says how far the mean might move if
    the same simulations were played again. Its width follows from the variance of each group's mean, with the degrees of
    freedom of Welch and Satterthwaite; it is unknown as soon as one group has a single episode.

    Args:
        groups: the episodes' scores, one sequence per simulation.

    Raises:
        ValueError: there is no group, or an empty one.
    """
    if not groups or not all(groups):
        raise ValueError("there are no episodes to score; play at least one of each simulation.")
    values = [np.asarray(group, dtype=np.float64) for group in groups]
    mean = float(np.mean([group.mean() for group in values]))
    total = sum(len(group) for group in values)
    if any(len(group) < 2 for group in values):
        return Score(mean, None, total)
    variances = np.array([group.var(ddof=1) / len(group) for group in values])
    if not variances.any():
        return Score(mean, 0.0, total)
    shares = variances / variances.sum()
    degrees = 1 / float(np.sum(shares**2 / [len(group) - 1 for group in values]))
    return Score(mean, student_t(degrees) * math.sqrt(variances.sum()) / len(values), total)
