"""Scores of several runs as one number with an interval.

Interquartile mean and stratified bootstrap as in Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the
Statistical Precipice" (arXiv:2108.13264). Its library, rliable, gives the same numbers (a test says so) and brings pandas,
statsmodels, seaborn and arch with it; these are twenty lines of NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DRAWS = 10_000


@dataclass(frozen=True)
class Aggregate:
    """Interquartile mean of some runs, and its 95 % interval; the interval is nan for a single run."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def interquartile_mean(scores: Floats) -> Floats:
    """Mean over the last dimension without the lowest and the highest quarter, each rounded down to whole scores."""
    cut = scores.shape[-1] // 4
    middle: Floats = np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut].mean(-1)
    return middle


def aggregate(runs: Sequence[float], draws: int = DRAWS) -> Aggregate:
    """Aggregate runs of one task.

    Args:
        runs: score of each.
        draws: bootstrap samples; the same for the same number of runs.

    Raises:
        ValueError: there are none.
    """
    if not len(runs):
        raise ValueError("there are no runs to aggregate; give at least one.")
    return aggregate_tasks([runs], draws)


def aggregate_tasks(tasks: Sequence[Sequence[float]], draws: int = DRAWS) -> Aggregate:
    """Aggregate runs of several tasks, whose scores must be of one scale: each sample draws runs within each task.

    Args:
        tasks: scores of each task's runs.
        draws: bootstrap samples.
    """
    rng = np.random.default_rng(0)
    scores = [np.asarray(task, np.float64) for task in tasks]
    mean = float(interquartile_mean(np.concatenate(scores)))
    if max(len(task) for task in scores) < 2:
        return Aggregate(mean, float("nan"), float("nan"))
    drawn = [task[rng.integers(0, len(task), (draws, len(task)))] for task in scores]
    low, high = np.quantile(interquartile_mean(np.concatenate(drawn, axis=1)), [0.025, 0.975])
    return Aggregate(mean, float(low), float(high))
