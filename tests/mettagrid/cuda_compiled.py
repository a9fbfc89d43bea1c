"""Compile the kernels for a GPU that need not be there, and say what came out as JSON.

`python cuda_compiled.py MAJOR MINOR`, of a compute capability. Exit status 3: something that this takes is missing; the last
line says what.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FLOAT_OPERATION = re.compile(r"\b((?:mul|fma|mad|div|sqrt|rcp|ex2|lg2|sin|cos|tanh)(?:\.\w+)*\.f(?:32|64))\b")


def give_up(reason: str) -> None:
    print(reason)
    sys.exit(3)


def compile_all(capability: tuple[int, int]) -> dict[str, str]:
    """PTX by kernel."""
    if importlib.util.find_spec("numba_cuda") is None:
        give_up("numba-cuda is not installed")
    from numba import cuda
    from numba.cuda import dispatcher

    from cuda_types import kernel_signatures

    class Device:
        compute_capability = capability

    dispatcher.get_current_device = lambda: Device  # it is only asked what it can do
    from metta.mettagrid.engine.cuda import look_around, step_kernel

    def look_kernel(rules: Any, state: Any, shared: Any, actions: Any) -> None:
        look_around(
            rules, state, shared, actions[0], cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x, True
        )

    functions = {kernel.py_func: signature for kernel, signature in kernel_signatures().items()}
    rules, state, _, shared, actions, *_ = functions[step_kernel.py_func]
    functions[look_kernel] = rules, state, shared, actions
    compiled = {}
    for function, signature in functions.items():
        try:
            ptx, _ = cuda.compile(function, signature, device=False, abi="numba", cc=capability)
        except Exception as error:
            if "NotFound" in type(error).__name__:
                give_up(f"the compiler's libraries are missing: {str(error).splitlines()[0]}")
            raise
        compiled[function.__name__] = ptx
    return compiled


def assembled(ptx: str, capability: tuple[int, int]) -> dict[str, int]:
    """Registers, bytes of stack and bytes spilt, as the assembler says; {} without one."""
    assembler = shutil.which("ptxas")
    if assembler is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [
            assembler,
            "-v",
            f"-arch=sm_{capability[0]}{capability[1]}",
            str(path),
            "-o",
            f"{path}.cubin",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    numbers = {}
    for name, pattern in (
        ("registers", r"Used (\d+) registers"),
        ("stack", r"(\d+) bytes stack frame"),
        ("spilt", r"(\d+) bytes spill stores"),
    ):
        numbers[name] = max(int(number) for number in re.findall(pattern, done.stderr))
    return numbers


def report(capability: tuple[int, int]) -> dict[str, Any]:
    return {
        name: {
            "operations": sorted(set(FLOAT_OPERATION.findall(ptx))),
            "wide_stores": sorted(set(re.findall(r"st\.global\.(?:v\d\.)?[a-z]64|st\.global\.v\d\S*", ptx))),
            **assembled(ptx, capability),
        }
        for name, ptx in compile_all(capability).items()
    }


if __name__ == "__main__":
    print(json.dumps(report((int(sys.argv[1]), int(sys.argv[2])))))
