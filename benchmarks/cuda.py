"""Steps per second on a GPU against the number of worlds, and how close that is to writing the observations alone.

    python -m benchmarks.cuda [--worlds 1 16 256 ...] [--seconds 1]
    python -m benchmarks.cuda --train [--worlds 1024 4096] [--products bfloat16]

Case (c): 24 agents, 25x25 arena, 11x11 window, 200 tokens, random valid actions drawn on the GPU. "environment" is
`VecEnv.step` with episodes of 1000 steps that end at all times and new maps within the measured time; "kernel" is the step
alone, launched with actions that lie ready, which shows what the host costs. "of memset" is the time that filling the
observations' memory takes, measured in the same run, as a share of an environment's step. "launch" is the time in which the
host comes back from launching a step: few worlds cannot be faster. It takes a GPU; where there is none it says so and
exits with status 2.

With `--train` the default agent learns in such worlds, everything on the GPU, rollout and update in turn. "env" and
"acting" are the GPU's time by events in its queue, "update" is the rest of a batch with all that the host waits for.
TFLOP/s and GB/s are what `benchmarks.roofline` counts for a trained step, times the steps per second: the operations and
the least traffic of the network and its observations, beside the peak of the card.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch

from benchmarks.cuda_training import HEADER, roofline, row, setting, train
from benchmarks.roofline import Peak, known_peak
from metta.agent.config import AgentModelConfig
from metta.bench.cases import CASES
from metta.interface.device_arrays import TorchArrays
from metta.mettagrid.device import is_simulated, require_cuda
from metta.mettagrid.vec import VecEnv

if TYPE_CHECKING:
    from metta.mettagrid.cuda_engine import CudaEngine

WORLDS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
TRAINED_WORLDS = (256, 1024, 4096)
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


def measure_training(num_worlds: int, arguments: argparse.Namespace, peak: Peak | None) -> str:
    """A row of the other table, after the roofline if it is the first."""
    case = CASES[arguments.case].with_worlds(num_worlds)
    gpu = None if is_simulated() else torch.cuda.current_device()
    env, agent, experience = setting(case, gpu, arguments)
    with env:
        if num_worlds == arguments.worlds[0]:
            print(f"{roofline(agent, arguments, peak)}\n{HEADER}")
        return row(
            num_worlds, env.num_agents, train(agent, experience, arguments.batches), agent, arguments, peak
        )


def the_peak(arguments: argparse.Namespace, name: str) -> Peak | None:
    """What the card can do: as stated, else as known."""
    known = known_peak(name)
    if not arguments.peak_flops or not arguments.peak_bandwidth:
        return known
    return Peak({arguments.products: arguments.peak_flops}, arguments.peak_bandwidth)


def why_not() -> str | None:
    """What is missing for a measurement; None: nothing."""
    if is_simulated():
        return "the CUDA simulator says nothing about speed; unset NUMBA_ENABLE_CUDASIM."
    try:
        require_cuda()
    except RuntimeError as error:
        return str(error)
    if not torch.cuda.is_available():
        return "this torch was built without CUDA; install one that was."
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", help="numbers of worlds, one row each")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    parser.add_argument("--train", action="store_true", help="train the default agent, too")
    parser.add_argument("--case", choices=sorted(CASES), default="c", help="worlds of the training")
    parser.add_argument("--batches", type=int, default=5, help="that are trained on and measured")
    parser.add_argument("--horizon", type=int, default=64, help="steps of a segment and of a batch")
    parser.add_argument("--minibatch", type=int, default=65536, help="agent steps of an update, about")
    parser.add_argument("--acting", type=int, default=32768, help="most agents that act at once")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=AgentModelConfig().hidden_dim)
    parser.add_argument("--products", choices=["bfloat16", "tf32", "float32"], default="tf32")
    parser.add_argument("--peak-flops", type=float, help="per second, where the card is not known")
    parser.add_argument("--peak-bandwidth", type=float, help="bytes per second, likewise")
    parser.add_argument(
        "--simulate", action="store_true", help="run in the CUDA simulator; the figures mean nothing"
    )
    arguments = parser.parse_args()
    if (arguments.peak_flops is None) != (arguments.peak_bandwidth is None):
        parser.error("--peak-flops and --peak-bandwidth describe one card; give both, or neither.")
    if not (arguments.simulate and is_simulated()) and (reason := why_not()):
        parser.exit(2, f"nothing is measured: {reason}\n")
    name = "the CUDA simulator" if is_simulated() else torch.cuda.get_device_name()
    if arguments.train:
        torch.set_float32_matmul_precision("highest" if arguments.products == "float32" else "high")
        torch.backends.cudnn.allow_tf32 = arguments.products != "float32"
        arguments.worlds = arguments.worlds or TRAINED_WORLDS
        print(
            f"{name}; trained agent-steps per second, case ({arguments.case}), products in {arguments.products}"
        )
        for num_worlds in arguments.worlds:
            print(measure_training(num_worlds, arguments, the_peak(arguments, name)), flush=True)
        return
    print(f"{name}; million agent-steps per second, case (c)")
    print(
        f"{'worlds':>7} {'agents':>9} {'environment':>12} {'kernel':>10} {'of memset':>12} {'launch':>12} {'memset':>14}"
    )
    for num_worlds in arguments.worlds or WORLDS:
        print(measure(num_worlds, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
