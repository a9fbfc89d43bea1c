"""Where a library is not installed, its adapter says so in one sentence, with the remedy."""

from __future__ import annotations

import importlib
import re
import sys

import pytest

EXTRA = "run: pip install 'metta[peers]'"


@pytest.mark.parametrize(
    ("module", "library", "name", "remedy"),
    [
        ("pettingzoo_env", "pettingzoo", "PettingZoo", EXTRA),
        ("stable_baselines_vec_env", "stable_baselines3", "Stable-Baselines3", EXTRA),
        (
            "pufferlib_env",
            "pufferlib",
            "PufferLib",
            "see docs/adapters.md, pip alone cannot install it beside Metta",
        ),
        ("torchrl_env", "tensordict", "TorchRL", EXTRA),
    ],
)
def test_it_is_said_what_is_missing(
    module: str, library: str, name: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"metta.adapters.{module}", raising=False)
    for loaded in [library, *(name for name in sys.modules if name.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, loaded, None)
    with pytest.raises(ImportError) as caught:
        importlib.import_module(f"metta.adapters.{module}")
    said = f"the {name} adapter needs {library}[a-z.]*, which is not installed; {re.escape(remedy)}"
    assert re.fullmatch(said, str(caught.value))
