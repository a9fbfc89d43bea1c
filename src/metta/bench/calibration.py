"""What the machine can do: the marks that steps per second are compared with."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from metta.bench.cases import Case


def memset_seconds(buffer: npt.NDArray[np.uint8], seconds: float) -> float:
    """Time that C's `memset` takes to fill a buffer, without that of calling it from Python.

    Args:
        buffer: what to fill with 255; C-contiguous.
        seconds: for how long to repeat it.
    """
    return max(_calls(buffer, buffer.nbytes, seconds) - _calls(buffer, 0, seconds / 4), 1e-9)


def _calls(buffer: npt.NDArray[np.uint8], size: int, seconds: float) -> float:
    """Seconds per call."""
    address = ctypes.c_void_p(buffer.ctypes.data)
    count = ctypes.c_size_t(size)
    memset, calls = ctypes.memset, 0
    start = now = time.perf_counter()
    while now - start < seconds:
        for _ in range(16):
            memset(address, 255, count)  # type: ignore[arg-type]
        calls += 16
        now = time.perf_counter()
    return (now - start) / calls


def two_thread_compute(seconds: float) -> float:
    """How much more two threads compute than one, where neither waits for memory or for Python: at best 2."""
    with ThreadPoolExecutor(2) as pool:
        alone = _hash_rate(seconds)
        together = [pool.submit(_hash_rate, seconds) for _ in range(2)]
        return sum(part.result() for part in together) / alone


def _hash_rate(seconds: float) -> float:
    """Blocks per second; hashing does not hold the interpreter's lock."""
    block = bytes(1 << 20)
    blocks = 0
    start = now = time.perf_counter()
    while now - start < seconds:
        hashlib.sha256(block).digest()
        blocks += 1
        now = time.perf_counter()
    return blocks / (now - start)


def interpreted_rate(case: Case, seconds: float) -> float:
    """Agent-steps per second of the same engine as plain Python, in a process of its own, with one world.

    Raises:
        RuntimeError: that process failed.
    """
    program = [sys.executable, "-m", "metta.bench.interpreted", case.name, str(seconds)]
    run = subprocess.run(
        program, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(f"the interpreted engine failed: {run.stderr.strip()}")
    return float(json.loads(run.stdout))
