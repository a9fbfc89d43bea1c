"""Environments on a GPU: in the CUDA simulator, and on one where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metta.interface import directories, environment
from metta.interface.directories import DeviceSetup
from metta.interface.environment import Environment

SCRIPT = str(Path(__file__).with_name("cuda_environment.py"))


def run(device: str = "cuda", **environment: str) -> str:
    command = [sys.executable, "-W", "ignore::RuntimeWarning", SCRIPT, device]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    return done.stdout + done.stderr


def test_in_the_simulator_an_environment_on_a_gpu_is_that_of_the_processor() -> None:
    assert run(NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1") == "equal in the simulator\n"


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second GPU that torch can use")
def test_on_the_second_gpu_an_environment_is_that_of_the_processor() -> None:
    assert run(device="cuda:1") == "equal on the GPU\n"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_on_a_gpu_an_environment_is_that_of_the_processor() -> None:
    assert run() == "equal on the GPU\n"


STANDIN = str(Path(__file__).with_name("standin_training.py"))


def run_standin(kind: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::RuntimeWarning", STANDIN, kind],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    return done.stdout + done.stderr


def test_no_step_of_worlds_on_a_device_makes_the_host_wait() -> None:
    assert run_standin("worlds", NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1") == "equal\n"


@pytest.mark.slow
def test_an_agent_on_a_device_learns_what_it_learns_on_the_processor() -> None:
    assert run_standin("agent") == "equal\n"


@pytest.mark.parametrize(
    ("device", "current", "wanted"),
    [("cuda", 1, 1), ("cuda:0", 1, 0), (DeviceSetup(torch.device("cuda", 2), True, 1, 0), 0, 2)],
)
def test_worlds_are_on_the_gpu_that_is_named_or_else_on_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch, device: object, current: int, wanted: int
) -> None:
    pretend_gpus(monkeypatch, 3)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    arrays = environment._device_arrays(str(device), "serial")
    assert arrays is not None
    assert arrays.gpu == wanted
    assert arrays.device == torch.device("cuda", wanted)


def test_each_process_of_a_machine_has_worlds_and_agent_on_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_gpus(monkeypatch, 3)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: chosen[-1])
    monkeypatch.setattr(directories, "setup_distributed_vars", lambda timeout: (False, 3, 2))
    monkeypatch.setenv("LOCAL_RANK", "2")
    setup = directories.setup_device_and_distributed("cuda")
    for device in (setup, setup.device, "cuda"):
        arrays = environment._device_arrays(str(device), "serial")
        assert arrays is not None
        assert arrays.device == setup.device == torch.device("cuda", 2)


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(environment, "require_cuda", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(RuntimeError, match="device is 'cuda:2', but torch finds 2 GPUs here"):
        environment._device_arrays("cuda:2", "serial")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="this torch was built without CUDA"):
        environment._device_arrays("cuda", "serial")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:one"}, "device is 'cuda:one'"),
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
