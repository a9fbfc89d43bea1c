"""Arithmetic that gives the same bits on every machine.

Sums, quotients and square roots are rounded alike everywhere. A product is not: compilers for GPUs fuse it with a sum that
follows, which leaves out one rounding. Every product of fractions in the rules is therefore written as a call, and
`engine.cuda` puts the multiplication that is never fused in its place. Library functions differ in their last bit too, so the
one that the rules need is written out here.
"""

from __future__ import annotations

import math

import numpy as np

from metta.mettagrid.engine.compile import hot_rule, rule

_LN2 = 6.93147180559945286227e-01
_LN2_HIGH = (
    6.93147180369123816490e-01  # its last 33 bits are 0, so that products with small integers are exact
)
_LN2_LOW = 1.90821492927058770002e-10
_SMALLEST = -708.0  # below this the result would not be a normal number
_SERIES = tuple(1.0 / math.factorial(n) for n in range(14, -1, -1))


@hot_rule
def times(x: np.float32, y: np.float32) -> np.float32:
    """The product of two float32, rounded."""
    return x * y


@hot_rule
def times64(x: float, y: float) -> float:
    """The product of two float64, rounded."""
    return x * y


@rule
def exponential(x: float) -> float:
    """e to the power of `x`, for `x` <= 0, to about 3e-16 of the value; 0 below -708.

    With `x = k ln 2 + r` and `|r| <= ln 2 / 2` it is `2**k e**r`, and the series of `e**r` is short.
    """
    if not x >= _SMALLEST:
        return 0.0
    k = math.floor(x / _LN2 + 0.5)
    r = x - times64(float(k), _LN2_HIGH) - times64(float(k), _LN2_LOW)
    series = 0.0
    for coefficient in _SERIES:
        series = times64(r, series) + coefficient
    for _ in range(-int(k)):
        series = times64(series, 0.5)
    return series
