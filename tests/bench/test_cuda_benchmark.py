"""The benchmark of training on a GPU: what it counts, and that it runs as far as a machine without one goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.roofline import forward_flops, known_peak, training_bytes, training_flops
from metta.agent.config import AgentModelConfig
from metta.agent.graph_config import AgentGraphConfig
from metta.agent.metta_agent import MettaAgent
from metta.interface.environment import make_environment
from metta.rl import device_stopwatch
from metta.rl.device_stopwatch import DeviceStopwatch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def agent() -> MettaAgent:
    spec = make_environment().vec.spec
    config = AgentModelConfig(hidden_dim=16, lstm_layers=2, analyze_weights_interval=0)
    return MettaAgent(spec, config, path="plain")


def test_the_operations_of_a_forward_pass_are_those_counted_by_hand(agent: MettaAgent) -> None:
    # A window of 11 by 11 cells, seen by a kernel of 5 by 5 cells from 3 by 3 places, with 16 channels.
    planes, choices = agent.encoder.tokens.num_planes, len(agent.spec.legal_actions)
    assert forward_flops(agent) == {
        "tokens": 2 * 9 * 25 * planes * 16,
        "project": 2 * (9 * 16) * 16,
        "core": 2 * 2 * (16 + 16) * 64,  # two layers, of four gates each
        "heads": 2 * (16 * 16 + 16 * choices) + 2 * (16 * 16 + 16),
    }
    assert training_bytes(agent, 1, half=False) == {"observations": 7 * 600, "planes": 5 * planes * 121 * 4}
    assert training_bytes(agent, 2, half=True) == {"observations": 10 * 600, "planes": 8 * planes * 121 * 2}


def test_the_operations_of_a_trained_step_are_those_that_torch_counts(agent: MettaAgent) -> None:
    rows, ticks, epochs = 3, 4, 2
    seen = torch.full((rows, ticks, agent.spec.num_tokens, 3), 255, dtype=torch.uint8)
    actions = torch.zeros(rows, ticks, 2, dtype=torch.int64)
    dones = torch.zeros(rows, ticks, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter:
        for tick in range(ticks):
            agent.act(seen[:, tick], agent.initial_state(rows))
        for _ in range(epochs):
            out = agent.evaluate(seen, agent.initial_state(rows), dones, actions)
            (out.logprobs.sum() + out.values.sum()).backward()
    # Nothing flows back into the memory before the first tick.
    first = 2 * 2 * rows * 16 * 64 * epochs
    assert counter.get_total_flops() == training_flops(agent, epochs) * rows * ticks - first


def test_a_graph_of_components_is_not_counted() -> None:
    other = SimpleNamespace(config=AgentGraphConfig.model_construct())
    with pytest.raises(ValueError, match="count those of a standard network"):
        forward_flops(other)  # type: ignore[arg-type]


def test_peaks_are_found_by_the_name_of_the_card() -> None:
    sxm, pcie = known_peak("NVIDIA H100 80GB HBM3"), known_peak("NVIDIA H100 PCIe")
    assert sxm is not None
    assert pcie is not None
    assert sxm.flops["bfloat16"] > pcie.flops["bfloat16"]
    assert known_peak("NVIDIA GeForce RTX 4090") is None


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore::RuntimeWarning", "-m", "benchmarks.cuda", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("mode", ["", "--train"])
def test_without_a_gpu_it_says_so_in_one_sentence(mode: str) -> None:
    done = run(*mode.split())
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("nothing is measured: device is 'cuda', ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("half", ["--peak-flops", "--peak-bandwidth"])
def test_half_a_card_is_refused(half: str) -> None:
    done = run("--train", half, "1e12")
    assert done.returncode == 2
    assert done.stderr.endswith("describe one card; give both, or neither.\n")


def test_in_the_simulator_it_trains_from_end_to_end() -> None:
    options = (
        "--case a --worlds 1 2 --batches 1 --horizon 2 --hidden 16 --minibatch 4 --epochs 2 "
        "--products float32 --peak-flops 1e6 --peak-bandwidth 1e12"
    )
    simulated = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    done = run("--train", "--simulate", *options.split(), **simulated)
    assert done.returncode == 0, done.stderr
    head, forward, cost, bound, names, *rows = done.stdout.splitlines()
    assert "simulator" in head
    assert forward.startswith("forward")
    assert "2 epochs" in cost
    assert bound.startswith("at most")
    assert names.split()[:3] == ["worlds", "agents", "trained/s"]
    for worlds, row in zip((1, 2), rows, strict=True):
        fields = row.replace("%", "").split()
        assert [int(field) for field in fields[:2]] == [worlds, 4 * worlds]
        assert abs(sum(int(share) for share in fields[3:7]) - 100) <= 2
        assert float(fields[8]) > 0, "no share of the peak"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_on_a_gpu_it_trains_from_end_to_end() -> None:
    done = run("--train", "--worlds", "16", "--batches", "1", "--hidden", "64")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 5


def test_the_clock_of_a_gpu_adds_up_its_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 12.0, 100.0, 107.0])
    waited = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.time = next(times)

        def synchronize(self) -> None:
            waited.append(self.time)

        def elapsed_time(self, other: Event) -> float:
            return other.time - self.time

    monkeypatch.setattr(device_stopwatch.torch.cuda, "Event", Event)
    timer = DeviceStopwatch()
    for _ in range(2):
        with timer("env"):
            pass
    assert waited == []
    assert timer.get_elapsed("env") == pytest.approx(9e-3)
    assert waited == [107.0]
    assert timer.get_elapsed("inference") == 0
