"""What a world takes in memory is what `GridEngine.bytes_per_world` says."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from metta.bench.cases import CASES
from metta.bench.memory import bytes_per_world, memory_lines
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.world_config import WorldConfig
from random_worlds import small_config


def memory_of(engine: GridEngine) -> int:
    """Bytes of all numpy arrays that an engine holds, each piece of memory once."""
    owners: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, np.ndarray):
            while isinstance(value.base, np.ndarray):
                value = value.base
            owners[value.ctypes.data] = value.nbytes
        elif isinstance(value, tuple | list):
            for part in value:
                visit(part)
        elif isinstance(value, dict):
            visit(list(value.values()))

    visit(vars(engine))
    return sum(owners.values())


def small_engine(num_worlds: int, **sizes: int) -> GridEngine:
    config = WorldConfig.model_validate(small_config())
    return GridEngine([config], num_worlds, **{"max_height": 9, "max_width": 13, **sizes})


@pytest.mark.parametrize(("few", "many"), [(1, 2), (3, 8)])
def test_what_more_worlds_add_is_what_is_said(few: int, many: int) -> None:
    one, other = small_engine(few), small_engine(many)
    added = memory_of(other) - memory_of(one)
    assert added == (many - few) * sum(other.bytes_per_world.values())
    assert one.bytes_per_world == other.bytes_per_world


def test_it_grows_with_the_map_and_with_what_stands_on_it() -> None:
    engine, wider = small_engine(2), small_engine(2, max_width=40)
    assert sum(wider.bytes_per_world.values()) > sum(engine.bytes_per_world.values())
    before = sum(engine.bytes_per_world.values())
    engine.reserve(50, 0)
    after = engine.bytes_per_world
    assert sum(after.values()) > before
    assert memory_of(engine) - memory_of(small_engine(1)) > sum(after.values())


def test_it_is_by_array() -> None:
    sizes = small_engine(5).bytes_per_world
    engine = small_engine(5)
    assert sizes["observations"] == engine.observations.nbytes // 5
    assert all(isinstance(size, int) for size in sizes.values())


@pytest.mark.slow
def test_the_process_grows_by_as_much() -> None:
    """Whole environments: what `VecEnv` keeps besides the engine and what is freed late is within the tolerance."""
    program = """
import os, subprocess
from pathlib import Path
from metta.bench.cases import CASES
from metta.mettagrid.vec import VecEnv

def resident():
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 1024 * int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())]))

config = CASES["c"].config()
first = VecEnv(config, 8)
before = resident()
env = VecEnv(config, 2048)
print((resident() - before) / 2048 / sum(env.engine.bytes_per_world.values()))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0.8 < float(run.stdout) < 1.3


def test_four_thousand_small_worlds_fit_comfortably() -> None:
    sizes = {name: bytes_per_world(CASES[name]) for name in ("a", "c")}
    assert 4096 * sum(sizes["a"].values()) < 256 * 2**20
    assert 4096 * sum(sizes["c"].values()) < 512 * 2**20
    lines = memory_lines(sizes)
    assert lines[-2].split() == ["all", *(f"{sum(arrays.values()):,}" for arrays in sizes.values())]
