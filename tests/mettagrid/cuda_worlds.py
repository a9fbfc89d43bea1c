"""Random worlds on the processor and on a GPU, or in the CUDA simulator, side by side: every array has to be equal.

`python cuda_worlds.py FIRST_SEED LAST_SEED`; the tests run it in a process of its own, as Numba decides at its import what
the GPU is.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.cuda_engine import CudaEngine
from metta.mettagrid.engine import cuda as kernels
from metta.mettagrid.engine.device_memory import to_host
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.testing.worlds import observable
from random_worlds import random_actions, random_grid, random_rules

SIZE = 24
SHOWN = (
    "observations",
    "rewards",
    "episode_rewards",
    "terminals",
    "truncations",
    "action_success",
    "current_step",
)


def on_host(engine: CudaEngine, world: int) -> dict[str, NDArray[Any]]:
    """What `observable` gives of a `GridEngine`."""

    class Shown:
        def __getattr__(self, name: str) -> Any:
            return host[name] if name in host else getattr(engine, name)

    host = {name: to_host(getattr(engine, name)) for name in SHOWN if name != "current_step"}
    host["current_step"] = engine.snapshot()["worlds"][:, 3]
    return observable(Shown(), world)  # type: ignore[arg-type]


def play(seed: int, steps: int, num_worlds: int, odd: float) -> None:
    """Play random episodes, some cut short, and compare everything after every step."""
    rng = np.random.default_rng(seed)
    rules = [random_rules(rng) for _ in range(2)]
    sizes: dict[str, Any] = {"max_height": SIZE, "max_width": SIZE}
    cpu = GridEngine(rules, num_worlds, **sizes)
    gpu = CudaEngine(rules, num_worlds, **sizes, invalid_per_agent=2)
    left = np.zeros(num_worlds, int)
    for step in range(steps):
        begun = np.flatnonzero(left == 0).tolist()
        if begun:
            chosen = [int(rng.integers(2)) for _ in begun]
            grids = [random_grid(rules[rule], rng) for rule in chosen]
            seeds = [int(rng.integers(2**32)) for _ in begun]
            left[begun] = rng.integers(1, 8, len(begun))
            rng_cut = rng.integers(0, 4, len(begun))
            for engine in (cpu, gpu):
                engine.episodes.cut_at[begun] = rng_cut
                engine.reset(begun, grids, seeds, chosen)
        actions = np.zeros((num_worlds, cpu.max_agents, 2), np.int32)
        for world in range(num_worlds):
            rule = cpu.rule_of(world)
            actions[world, : rule.num_agents] = random_actions(rule, rng, 1, odd)[0]
        left -= 1
        stop = num_worlds if step % 3 else max(1, num_worlds - 1)
        left[stop:] += 1
        where = f"seed {seed}, step {step}"
        rows = actions[:stop].reshape(-1, 2)
        assert gpu.play(rows, 0, stop) == cpu.play(rows, 0, stop), f"{where}: other episodes ended"
        for name, array in cpu.episodes._asdict().items():
            on_device = name in ("actions", "rewards", "terminals", "truncations", "returns")
            got = to_host(getattr(gpu.device_episodes, name)) if on_device else getattr(gpu.episodes, name)
            same(got, array, f"{where}: {name} of the episodes")
        over = np.flatnonzero(cpu.episodes.ended)
        for name in ("terminals", "truncations"):
            mine, known = (getattr(engine.episodes, name)[over] for engine in (cpu, gpu))
            same(known, mine, f"{where}: {name} as the host knows them")
        for world in range(num_worlds):
            mine = observable(cpu, world)
            for name, got in on_host(gpu, world).items():
                same(got, mine[name], f"{where}, world {world}: {name}")
            assert gpu.episode_stats(world) == cpu.episode_stats(world), f"{where}, world {world}: statistics"
            assert gpu.grid_objects(world) == cpu.grid_objects(world), f"{where}, world {world}: objects"
    theirs = gpu.snapshot()
    for name, array in cpu.snapshot().items():
        if name != "invalid":  # these tables have other sizes; `episode_stats` compared what they hold
            same(theirs[name], array, f"seed {seed}: {name} of the snapshot")
    again = CudaEngine(rules, num_worlds, **sizes, invalid_per_agent=2)
    again.restore(theirs)
    for engine in (cpu, gpu, again):
        engine.step(actions)
    same(to_host(again.observations), to_host(gpu.observations), f"seed {seed}: observations after restore")
    same(to_host(again.rewards), cpu.rewards, f"seed {seed}: rewards after restore")


def same(got: NDArray[Any], wanted: NDArray[Any], where: str) -> None:
    assert got.dtype == wanted.dtype, f"{where}: {got.dtype} instead of {wanted.dtype}"
    assert got.tobytes() == wanted.tobytes(), f"{where} differ: {got} instead of {wanted}"


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        for episode_seed in range(int(sys.argv[1]), int(sys.argv[2])):
            play(episode_seed, steps=12, num_worlds=3, odd=0.3 if episode_seed % 2 else 0.02)
    print("equal", "in the simulator" if kernels.is_simulated() else "on the GPU")
