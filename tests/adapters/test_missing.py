"""Where a library is not installed, its adapter says so in one sentence, with the remedy."""

from __future__ import annotations

import importlib
import sys

import pytest

EXTRA = "pip install 'metta[peers]'"


@pytest.mark.parametrize(
    ("module", "library", "name", "remedy"),
    [
        ("pettingzoo_env", "pettingzoo", "PettingZoo", EXTRA),
        ("torchrl_env", "tensordict", "TorchRL", EXTRA),
    ],
)
def test_it_is_said_what_is_missing(
    module: str, library: str, name: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"metta.adapters.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError) as caught:
        importlib.import_module(f"metta.adapters.{module}")
    said = f"the {name} adapter needs {library}, which is not installed; run: {remedy}"
    assert str(caught.value) == said
