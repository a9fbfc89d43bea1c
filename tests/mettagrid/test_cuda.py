"""The engine for GPUs: in the CUDA simulator, compiled without a GPU, and on one where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metta.mettagrid.device import require_cuda

HERE = Path(__file__).parent
SIMULATED = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python file of this folder in a process of its own."""
    command = [sys.executable, "-W", "ignore::RuntimeWarning", str(HERE / script), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_in_the_simulator_random_worlds_are_those_of_the_processor() -> None:
    done = run("cuda_worlds.py", "0", "5", **SIMULATED)
    assert done.stdout == "equal in the simulator\n", done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize("capability", [("8", "0"), ("9", "0")])
def test_the_kernels_compile_round_every_product_and_store_tokens_byte_by_byte(
    capability: tuple[str, str],
) -> None:
    done = run("cuda_compiled.py", *capability)
    if done.returncode == 3:
        pytest.skip(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)
    assert set(kernels) == {"step_kernel", "begin_kernel", "gather_kernel", "rows_kernel", "look_kernel"}
    exact = {f"{name}.rn.f{bits}" for name in ("mul", "div", "sqrt") for bits in (32, 64)}
    for name, facts in kernels.items():
        assert set(facts["operations"]) <= exact, f"{name}: write products of fractions with engine.exact"
        assert facts.get("spilt", 0) == 0, f"{name} does not fit into the registers: {facts}"
    # Whoever looks stores bytes and single numbers. A wider store would be one of tokens, which lie at any byte: a GPU faults.
    assert kernels["look_kernel"]["wide_stores"] == [], "whole words are stored where they may not be aligned"


@pytest.mark.cuda
@needs_gpu
def test_on_a_gpu_random_worlds_are_those_of_the_processor() -> None:
    done = run("cuda_worlds.py", "0", "20")
    assert done.stdout == "equal on the GPU\n", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "0"}, "set NUMBA_DISABLE_JIT=1 too"),
        ({"NUMBA_ENABLE_CUDASIM": "0", "NUMBA_DISABLE_JIT": "1"}, "leaves nothing to run on a GPU"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_refused(environment: dict[str, str], message: str) -> None:
    code = "from metta.mettagrid.device import require_cuda; require_cuda()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said_in_one_sentence() -> None:
    with pytest.raises(
        RuntimeError, match=r"pip install 'metta\[cuda\]'|no NVIDIA GPU with its driver was found"
    ):
        require_cuda()
