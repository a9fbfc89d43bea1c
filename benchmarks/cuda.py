"""Steps per second on a GPU against the number of worlds, and how close that is to writing the observations alone.

    python -m benchmarks.cuda [--worlds 1 16 256 ...] [--seconds 1]

Case (c): 24 agents, 25x25 arena, 11x11 window, 200 tokens, random valid actions drawn on the GPU. "environment" is
`VecEnv.step` with episodes of 1000 steps that end at all times and new maps within the measured time; "kernel" is the step
alone, launched with actions that lie ready, which shows what the host costs. "of memset" is the time that filling the
observations' memory takes, measured in the same run, as a share of an environment's step. "launch" is the time in which the
host comes back from launching a step: few worlds cannot be faster. It takes a GPU, and says so where there is none.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch

from metta.bench.cases import CASES
from metta.interface.device_arrays import TorchArrays
from metta.mettagrid.device import is_simulated, require_cuda
from metta.mettagrid.vec import VecEnv

if TYPE_CHECKING:
    from metta.mettagrid.cuda_engine import CudaEngine

WORLDS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
WARM_UP = 20
READY = 16
"""Batches of actions that lie ready."""


def seconds_each(call: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Seconds that a call takes until the GPU is done, and until the host is back; each on average over many in a row."""
    for _ in range(WARM_UP):
        call()
    torch.cuda.synchronize()
    calls = 0
    launching = 0.0
    start = time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        call()
        launching += time.perf_counter() - now
        calls += 1
        if calls % WARM_UP == 0:
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls, launching / calls


def measure(num_worlds: int, seconds: float) -> str:
    """A row of the table."""
    case = CASES["c"].with_worlds(num_worlds)
    with VecEnv(
        case.config(),
        num_worlds,
        stagger=True,
        collect_stats=False,
        device=TorchArrays(torch.cuda.current_device()),
    ) as env:
        legal = torch.tensor(env.spec.legal_actions, dtype=torch.int32, device="cuda")

        def draw() -> torch.Tensor:
            return legal[torch.randint(len(legal), (env.num_agents,), device="cuda")]

        whole, _ = seconds_each(lambda: env.step(cast(Any, draw())), seconds)
        engine = cast("CudaEngine", env.engine)
        ready = [draw().reshape(num_worlds, -1, 2) for _ in range(READY)]
        turn = iter(range(2**62))
        kernel, launch = seconds_each(lambda: engine.step(ready[next(turn) % READY]), seconds)
        shown = torch.as_tensor(engine.observations, device="cuda")
        spare = torch.empty_like(shown)
        fill, _ = seconds_each(lambda: spare.fill_(255), seconds / 4)
    agents = case.num_agents
    return (
        f"{num_worlds:7d} {agents:9d} {agents / whole / 1e6:12.2f} {agents / kernel / 1e6:10.2f} "
        f"{100 * fill / whole:10.1f} % {1e6 * launch:9.0f} us {spare.nbytes / fill / 1e9:9.0f} GB/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", default=list(WORLDS))
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    arguments = parser.parse_args()
    if is_simulated():
        raise SystemExit(
            "nothing is measured: the CUDA simulator says nothing about speed; unset NUMBA_ENABLE_CUDASIM."
        )
    try:
        require_cuda()
    except RuntimeError as error:
        raise SystemExit(f"nothing is measured: {error}") from None
    if not torch.cuda.is_available():
        raise SystemExit("nothing is measured: this torch was built without CUDA; install one that was.")
    print(f"{torch.cuda.get_device_name()}; million agent-steps per second, case (c)")
    print(
        f"{'worlds':>7} {'agents':>9} {'environment':>12} {'kernel':>10} {'of memset':>12} {'launch':>12} {'memset':>14}"
    )
    for num_worlds in arguments.worlds:
        print(measure(num_worlds, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
