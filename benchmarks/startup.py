"""What it takes until the first step: imports, the engine's compiled code, the very first use that compiles it.

    python -m benchmarks.startup [--json] [--runs 5] [--no-compile]

Every figure is of fresh processes, the median of several; the first use is timed once, with a copy of the package that has never
been used.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import metta

FIRST_STEP = """
import json, time
start = time.perf_counter()
from metta.bench.cases import CASES, RandomActions
from metta.mettagrid.vec import VecEnv
imported = time.perf_counter()
env = VecEnv(CASES["c"].config(), 32)
made = time.perf_counter()
env.step(RandomActions(env.spec, env.num_agents).batch())
stepped = time.perf_counter()
print(json.dumps({"import_engine": imported - start, "make": made - imported, "first_step": stepped - made}))
"""

PROGRAMS = {
    "import_nothing": "pass",
    "import_metta": "import metta",
    "import_api": "import metta.api",
    "to_the_first_step": FIRST_STEP,
}

NAMES = {
    "import_nothing": "python -c pass",
    "import_metta": "python -c 'import metta'",
    "import_api": "python -c 'import metta.api' (with torch)",
    "import_engine": "  import of the engine (numba, numpy, pydantic, gymnasium)",
    "make": "  32 worlds of case c made",
    "first_step": "  first step",
    "to_the_first_step": "a script that steps them once, all in all",
    "first_use": "the same on the very first use, which compiles",
}


def process_seconds(program: str, path: Path) -> tuple[float, str]:
    """Time that a fresh process takes for a program, and what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - start, run.stdout


def measure(runs: int, compile_too: bool) -> dict[str, float]:
    """Seconds by name."""
    source = Path(metta.__file__).parent.parent
    process_seconds(FIRST_STEP, source)  # from here on the compiled code is there
    seconds: dict[str, list[float]] = {}
    for _ in range(runs):
        for name, program in PROGRAMS.items():
            taken, printed = process_seconds(program, source)
            for key, value in {name: taken, **json.loads(printed or "{}")}.items():
                seconds.setdefault(key, []).append(value)
    figures = {name: statistics.median(taken) for name, taken in seconds.items()}
    if compile_too:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "metta"
            shutil.copytree(source / "metta", copy, ignore=shutil.ignore_patterns("__pycache__"))
            figures["first_use"] = process_seconds(FIRST_STEP, copy.parent)[0]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds until the first step.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=5, help="processes per figure")
    parser.add_argument("--no-compile", action="store_true", help="leave the very first use out")
    options = parser.parse_args()
    figures = measure(options.runs, not options.no_compile)
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
        return
    for name, label in NAMES.items():
        if name in figures:
            print(f"{label:64}{figures[name]:>8.2f} s")


if __name__ == "__main__":
    main()
