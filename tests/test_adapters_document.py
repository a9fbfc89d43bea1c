"""What `docs/adapters.md` shows is run, as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "adapters.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
OF_PEERS = ("pettingzoo", "stable_baselines", "torchrl", "pufferlib")


def adapter_of(block: str) -> str:
    """The module of ours that a block shows."""
    (module,) = re.findall(r"from metta\.adapters\.(\w+) import", block)
    return str(module)


def test_every_adapter_is_shown() -> None:
    shown = {adapter_of(block) for block in BLOCKS}
    modules = {file.stem for file in (ROOT / "src" / "metta" / "adapters").glob("*_*.py")}
    assert modules - {"gymnasium_env", "__init__"} == shown  # which is shown by its id
    assert all(f"metta.adapters.{module}" in PAGE.read_text() for module in modules - {"__init__"})


def run(block: str, folder: Path) -> None:
    script = folder / "block.py"
    script.write_text(block)
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_names_of_other_libraries_are_told_apart() -> None:
    assert sum(adapter_of(block).startswith(OF_PEERS) for block in BLOCKS) == len(OF_PEERS)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(
            block,
            id=adapter_of(block),
            marks=[pytest.mark.peers] if adapter_of(block).startswith(OF_PEERS) else [],
        )
        for block in BLOCKS
    ],
)
def test_block_runs(block: str, tmp_path: Path) -> None:
    run(block, tmp_path)
