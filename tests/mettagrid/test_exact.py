"""Arithmetic that is the same on every machine."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest

from metta.mettagrid.engine.compile import is_interpreted
from metta.mettagrid.engine.exact import exponential


@pytest.mark.parametrize("interpreted", [False, True])
def test_the_exponential_is_right_to_the_last_bits(
    interpreted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [0.0, -0.0, -1e-300, -1e-9, -0.3465735902799727, -1.0, -700.5, -708.0]
    points += [float(x) for x in -np.random.default_rng(0).exponential(20, 3000)]
    if interpreted and not is_interpreted():
        monkeypatch.setitem(exponential.py_func.__globals__, "times64", lambda x, y: x * y)  # type: ignore[attr-defined]
        value = exponential.py_func  # type: ignore[attr-defined]
    else:
        value = numba.njit(lambda x: exponential(x))
    for x in points:
        assert abs(value(x) / math.exp(x) - 1) < 4e-16
    assert value(-708.1) == value(-math.inf) == 0.0
