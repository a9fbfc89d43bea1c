"""Environments on a GPU: in the CUDA simulator, and on one where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metta.interface.environment import Environment

SCRIPT = str(Path(__file__).with_name("cuda_environment.py"))


def run(**environment: str) -> str:
    command = [sys.executable, "-W", "ignore::RuntimeWarning", SCRIPT]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    return done.stdout + done.stderr


def test_in_the_simulator_an_environment_on_a_gpu_is_that_of_the_processor() -> None:
    assert run(NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1") == "equal in the simulator\n"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_on_a_gpu_an_environment_is_that_of_the_processor() -> None:
    assert run() == "equal on the GPU\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device is 'tpu'; worlds live on 'cpu', 'cuda'"),
        ({"device": "cuda", "vectorization": "threads"}, "device is 'cuda' with vectorization='threads'"),
        ({"device": "cuda", "vectorization": "multiprocessing"}, "leave that out"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Environment(num_envs=2, **options)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence_says_so() -> None:
    with pytest.raises(
        RuntimeError, match=r"device is 'cuda', (which takes the package numba-cuda|but no NVIDIA GPU)"
    ):
        Environment(num_envs=2, device="cuda")
