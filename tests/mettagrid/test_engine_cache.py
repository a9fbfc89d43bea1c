"""Compiled kernels on disk: used again, and never after any source has changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.engine import compile as engine_compile
from metta.mettagrid.engine.compile import cache_folder, is_interpreted, source_hash
from metta.mettagrid.vec import VecEnv

KERNEL = """
from small.compile import cache_folder, kernel
from small.helper import plus

@kernel
def add(x):
    return plus(x)

print(add(40), add.stats.cache_hits.total() if hasattr(add, "stats") else -1, cache_folder().name)
"""
HELPER = """
from small.compile import rule

@rule
def plus(x):
    return x + {number}
"""


def run_package(folder: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "small.main"], env=environment, capture_output=True, text=True, check=True
    )
    return [*done.stdout.split(), *done.stderr.splitlines()]


@pytest.mark.skipif(is_interpreted(), reason="nothing is compiled")
def test_a_change_in_a_called_function_is_noticed(tmp_path: Path) -> None:
    package = tmp_path / "small"
    package.mkdir()
    shutil.copy(engine_compile.__file__, package / "compile.py")
    (package / "main.py").write_text(KERNEL)
    (package / "helper.py").write_text(HELPER.format(number=1))
    first = run_package(tmp_path)
    second = run_package(tmp_path)
    (package / "helper.py").write_text(HELPER.format(number=2))
    third = run_package(tmp_path)
    assert [first[0], second[0], third[0]] == ["41", "41", "42"]
    assert [first[1], second[1], third[1]] == ["0", "1", "0"], "only the second run finds a compiled kernel"
    assert first[2] == second[2] != third[2]
    said = ["compiling add of the engine, once, about 3 s"]
    assert (first[3:], second[3:], third[3:]) == (said, [], said), "compiling is never silent"


WHOLE = """
import sys
import numpy as np
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.engine.board import do_job
from metta.mettagrid.engine.streams import open_streams
from metta.mettagrid.vec import VecEnv

if __name__ == "__main__":
    env = VecEnv(EnvConfig(game=GameConfig(num_agents=2, width=9, height=9, max_steps=3)), 2, **eval(sys.argv[1]))
    for dtype in (np.int64, np.int32, np.uint8):
        actions = np.zeros((4, 2), dtype)
        actions.flags.writeable = False
        env.step(actions)
        env.step(np.zeros((2, 4), dtype).T)
    misses = [sum(kernel.stats.cache_misses.values()) for kernel in (do_job, open_streams)]
    print(*misses, len(do_job.signatures))
"""


@pytest.mark.skipif(is_interpreted(), reason="nothing is compiled")
@pytest.mark.parametrize("options", ["{}", "{'num_threads': 2}", "{'num_workers': 2}"])
def test_a_second_process_compiles_nothing(options: str) -> None:
    """Whatever actions look like, there is one version of the engine, and it is found on disk."""
    VecEnv(EnvConfig()).step(np.zeros((EnvConfig().game.num_agents, 2), np.int64))  # so that it is there
    done = subprocess.run([sys.executable, "-c", WHOLE, options], capture_output=True, text=True, check=True)
    used = 0 if "workers" in options else 1
    assert done.stdout.split() == ["0", "0", str(used)]
    assert done.stderr == ""


def test_every_source_of_the_engine_counts(tmp_path: Path) -> None:
    package = Path(engine_compile.__file__).parent
    copied = tmp_path / "engine"
    shutil.copytree(package, copied, ignore=shutil.ignore_patterns("__pycache__"))
    original = source_hash(package)
    assert source_hash(copied) == original
    assert cache_folder().name.endswith(original)
    sources = sorted(copied.glob("*.py"))
    assert len(sources) > 10
    for path in sources:
        text = path.read_text()
        path.write_text(text + "\n# changed\n")
        assert source_hash(copied) != original, path.name
        path.write_text(text)
    (copied / "new.py").write_text("")
    assert source_hash(copied) != original


def test_where_the_package_cannot_be_written_the_home_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(engine_compile, "__file__", str(tmp_path / "file" / "compile.py"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    folder = cache_folder.__wrapped__()
    assert folder.parent == tmp_path / "home" / ".cache" / "metta"
    assert folder.is_dir()
