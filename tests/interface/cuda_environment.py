"""An `Environment` on a GPU, or in the CUDA simulator, beside one on the processor: everything handed out has to be equal.

The tests run it in a process of its own, as Numba decides at its import what the GPU is.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from metta.interface.environment import Environment
from metta.mettagrid.device import is_simulated
from metta.rl.experience import Experience

SMALL: dict[str, Any] = {"num_agents": 3, "width": 9, "height": 8, "max_steps": 7, "num_envs": 4}


def same(got: Any, wanted: Any, where: str) -> None:
    if isinstance(got, torch.Tensor):
        assert got.device.type == ("cpu" if is_simulated() else "cuda"), f"{where} lie on {got.device}"
        got = got.cpu().numpy()
    assert got.dtype == wanted.dtype, f"{where} are {got.dtype} instead of {wanted.dtype}"
    assert np.array_equal(got, wanted), f"{where} differ"


def compare(gpu: Any, cpu: Any, where: str) -> None:
    for name in ("observations", "rewards", "terminals", "truncations", "final_observations"):
        assert isinstance(getattr(gpu, name), torch.Tensor), f"{where}: {name} are no tensor"
    for name in ("observations", "rewards", "terminals", "truncations", "final_rows", "final_observations"):
        same(getattr(gpu, name), getattr(cpu, name), f"{where}: {name}")
    assert len(gpu.episodes) == len(cpu.episodes), where
    for one, other in zip(gpu.episodes, cpu.episodes, strict=True):
        same(one.returns, other.returns, f"{where}: returns")
        assert (one.world, one.task, one.length, one.truncated, one.stats) == (
            other.world,
            other.task,
            other.length,
            other.truncated,
            other.stats,
        ), where


def play(steps: int, **options: Any) -> None:
    cpu, gpu = (Environment(**SMALL | options, device=device) for device in ("cpu", "cuda"))
    legal = np.array(cpu.spec.legal_actions)
    rng = np.random.default_rng(1)
    same(gpu.reset(), cpu.reset(), "the first observations")
    kept: dict[str, Any] = {}
    for step in range(steps):
        actions = legal[rng.integers(len(legal), size=cpu.num_agents)]
        if step == 2:
            actions[0] = 2**40, -(2**40)
        seen = gpu.observations.data_ptr()
        given = actions if step % 2 else torch.as_tensor(actions).to(gpu.observations.device)
        compare(gpu.step(given), cpu.step(actions), f"{options}, step {step}")
        assert gpu.observations.data_ptr() == seen, "the observations have moved"
        same(gpu.starts, cpu.starts, f"{options}, step {step}: starts")
        if step == steps // 2:
            kept = gpu.state_dict()
            for name, value in cpu.state_dict().items():
                if name not in ("engine", "curriculum"):
                    assert np.array_equal(kept[name], value), f"{name} of the saved state"
    for env in (cpu, gpu):
        env.load_state_dict(kept)
    for step in range(steps // 2):
        actions = legal[rng.integers(len(legal), size=cpu.num_agents)]
        compare(gpu.step(actions), cpu.step(actions), f"{options}, step {step} after the saved state")


def take_turns() -> None:
    cpu, gpu = (Environment(**SMALL, async_factor=2, device=device) for device in ("cpu", "cuda"))
    rows = cpu.num_agents // 2
    for env in (cpu, gpu):
        env.async_reset()
    for turn in range(8):
        one, other = gpu.recv(), cpu.recv()
        compare(one.step, other.step, f"turn {turn}")
        same(one.starts, other.starts, f"turn {turn}: starts")
        for env in (cpu, gpu):
            env.send(np.zeros((rows, 2), np.int64))


def refuse() -> None:
    """What takes environments of the host says so."""
    env: Any = Environment(**SMALL, device="cuda")
    with pytest.raises(ValueError, match="env has its worlds on a GPU"):
        Experience(env, cast(Any, None), cast(Any, None))


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        play(12)
        play(6, num_envs=2, is_training=False, zero_copy=False, max_steps=0, episode_lifetime=3)
        take_turns()
        refuse()
    print("equal", "in the simulator" if is_simulated() else "on the GPU")
