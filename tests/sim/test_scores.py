"""Intervals: the quantile against an integral, the coverage against simulated episodes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metta.sim.scores import Score, combine, mean_score, score_from_moments, student_t


def probability_below(t: float, degrees: float) -> float:
    """Student's distribution function by the trapezoidal rule on its density."""
    x = np.linspace(0, t, 200_001)
    log_norm = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    density = np.exp(log_norm - (degrees + 1) / 2 * np.log1p(x**2 / degrees))
    return 0.5 + float((density.sum() - (density[0] + density[-1]) / 2) * (x[1] - x[0]))


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 4.5, 5, 6, 7.3, 10, 30, 127, 1e6])
def test_the_quantile_leaves_two_and_a_half_percent_above(degrees: float) -> None:
    assert probability_below(student_t(degrees), degrees) == pytest.approx(0.975, abs=2e-5)


@pytest.mark.parametrize("degrees", [1.2, 1.9, 2.5, 3.99])
def test_between_whole_small_numbers_it_errs_to_the_safe_side(degrees: float) -> None:
    assert 0.9749 < probability_below(student_t(degrees), degrees) < 0.982


def test_a_score_by_hand() -> None:
    score = mean_score([1.0, 2.0, 6.0])
    assert score.mean == 3.0
    assert score.half_interval == pytest.approx(4.3027 * math.sqrt(7 / 3))
    assert score.num_episodes == 3
    assert score_from_moments(3.0, math.sqrt(7), 3) == score
    assert str(score) == "3.00 ± 6.57"


def test_one_episode_says_nothing_about_its_spread() -> None:
    assert mean_score([2.0]) == Score(2.0, None, 1)
    assert combine([[1.0, 1.0], [3.0]]) == Score(2.0, None, 3)
    assert str(mean_score([2.0])) == "2.00 ± unknown"


def test_a_combination_by_hand() -> None:
    groups = [[0.0, 2.0], [10.0, 10.0, 13.0]]
    score = combine(groups)
    assert score.mean == 6.0  # of 1 and 11, not 7 as the mean over episodes would be
    variances = [2 / 2, 3 / 3]
    degrees = (1 + 1) ** 2 / (variances[0] ** 2 / 1 + variances[1] ** 2 / 2)
    assert score.half_interval == pytest.approx(student_t(degrees) * math.sqrt(2) / 2)
    assert score.num_episodes == 5
    assert combine([[4.0, 5.0, 9.0]]).half_interval == pytest.approx(
        mean_score([4.0, 5.0, 9.0]).half_interval
    )
    assert combine([[1.0, 1.0], [2.0, 2.0]]) == Score(1.5, 0.0, 4)


@pytest.mark.parametrize("sizes", [(2,), (5,), (3, 8), (2, 4, 20)])
def test_the_interval_covers_the_truth_as_often_as_it_promises(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(len(sizes)) * 10.0
    spreads = 1.0 + np.arange(len(sizes))
    hits = 0
    for _ in range(4000):
        groups = [rng.normal(m, s, n).tolist() for m, s, n in zip(truth, spreads, sizes, strict=True)]
        score = combine(groups)
        assert score.half_interval is not None
        hits += abs(score.mean - truth.mean()) <= score.half_interval
    assert 0.935 < hits / 4000 < 0.985


def test_nothing_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="no episodes"):
        mean_score([])
    for groups in ([], [[1.0], []]):
        with pytest.raises(ValueError, match="no episodes"):
            combine(groups)
