"""Stable-Baselines3's PPO learns in `examples/stable_baselines.py`, and not with weights that stay."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch

from small_worlds import CARRYING_ORE

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def example() -> ModuleType:
    file = Path(__file__).parents[2] / "examples" / "stable_baselines.py"
    spec = importlib.util.spec_from_file_location("stable_baselines", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what importing the library says is its own affair
        spec.loader.exec_module(module)
    return module


def test_it_learns(example: ModuleType) -> None:
    before, after = example.train(CARRYING_ORE, 32, 12 * 64 * 32)
    assert before < 1.5
    assert after > 4.0


def test_weights_that_stay_learn_nothing(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)
    _, after = example.train(CARRYING_ORE, 32, 2 * 64 * 32)
    assert after < 1.5
