"""What a minibatch costs: compiled loops, plain layers or `torch.compile`; and threads that are shared out once or every time.

    python -m benchmarks.update [--json] [--rounds 15] [--without-compile]

`loops`, `plain` and `compiled` judge one minibatch, 32 rows of 32 ticks, with a standard network of width 128, forward and
backward, on one torch thread: with the compiled loops, with plain operations of torch, and with those compiled by torch,
which is what `TrainerConfig(compile=True)` does. The sides take turns; figures are medians. What torch takes until its graph
has run for the first time is told in seconds of processor time of this process, which is less where it finds files of an
earlier time.

`inside` and `outside` are the update of a loop of one's own on two torch threads: the loss as `process_minibatch_update`
computes it, with rows shared among the threads, then `loss.backward()` and a step of torch's Adam, which are inside of
`sharing_rows`, too, or outside of it. They take turns of some minibatches each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from time import perf_counter, process_time

import numpy as np
import torch

from benchmarks.reference_network import SPEC, random_tokens
from metta.agent.compiled import compiled_networks
from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.paths import ComputePath
from metta.agent.row_parallel import sharing_rows

ROWS, TICKS, WIDTH = 32, 32, 128
IN_A_TURN = 5
"""Minibatches that follow one another before the other way of sharing has its turn."""


class Update:
    """A network and one minibatch for it.

    Args:
        path: how the network computes.
        rows: segments of the minibatch.
        width: of the network.
    """

    def __init__(self, path: ComputePath, rows: int = ROWS, width: int = WIDTH) -> None:
        rng = np.random.default_rng(0)
        generator = torch.Generator().manual_seed(0)
        self.agent = MettaAgent(SPEC, AgentModelConfig(hidden_dim=width), generator=generator, path=path)
        self.optimizer = torch.optim.Adam(self.agent.parameters())
        self.obs = torch.from_numpy(random_tokens(rows * TICKS, rng)).view(rows, TICKS, -1, 3)
        self.dones = torch.from_numpy(rng.random((rows, TICKS)) < 0.01)
        legal = torch.tensor(SPEC.legal_actions)
        self.actions = legal[torch.from_numpy(rng.integers(0, len(legal), (rows, TICKS)))]
        self.start = self.agent.initial_state(rows)

    def loss(self) -> torch.Tensor:
        """Something with a gradient by every output."""
        out = self.agent.evaluate(self.obs, self.start, self.dones, self.actions)
        return out.logprobs.mean() + out.values.square().mean() + out.entropies.mean()

    def judge(self) -> None:
        """Forward and backward."""
        self.agent.zero_grad()
        self.loss().backward()  # type: ignore[no-untyped-call]

    def judge_compiled(self) -> None:
        """Forward and backward through a graph of torch's."""
        with compiled_networks():
            self.judge()

    def step(self) -> None:
        """An update; the loss shares rows, whatever is around it."""
        with sharing_rows():
            loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def paths(rounds: int, *, compiled: bool = True, rows: int = ROWS, width: int = WIDTH) -> dict[str, float]:
    """Milliseconds of a minibatch by the way in which it is computed.

    Args:
        rounds: how often each has its turn.
        compiled: whether torch compiles, too.
        rows: segments of the minibatch.
        width: of the network.

    Raises:
        FileNotFoundError: there is no compiler that torch could use.
    """
    sides: dict[str, Callable[[], None]] = {
        "loops": Update("auto", rows, width).judge,
        "plain": Update("plain", rows, width).judge,
    }
    figures: dict[str, float] = {}
    if compiled:
        sides["compiled"] = Update("auto", rows, width).judge_compiled
        before = process_time()
        sides["compiled"]()
        figures["compiling_cpu_s"] = process_time() - before
    return figures | {f"{name}_ms": value for name, value in in_turns(sides, rounds).items()}


def sharing(rounds: int, rows: int = ROWS, width: int = WIDTH) -> dict[str, float]:
    """Milliseconds of an update by how much of it shares threads; the arguments are those of `paths`."""
    update = Update("auto", rows, width)

    def outside() -> None:
        for _ in range(IN_A_TURN):
            update.step()

    def inside() -> None:
        with sharing_rows():
            outside()

    spent = in_turns({"inside": inside, "outside": outside}, rounds)
    return {f"{name}_ms": value / IN_A_TURN for name, value in spent.items()}


def in_turns(sides: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Milliseconds of each call, the median of its turns; the first of each does not count."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, call in sides.items():
            begin = perf_counter()
            call()
            spent[name].append(1e3 * (perf_counter() - begin))
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Milliseconds of a minibatch, computed in several ways.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each side")
    parser.add_argument("--without-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        figures = paths(options.rounds, compiled=not options.without_compile)
    except FileNotFoundError as error:
        sys.exit(f"benchmarks.update: {error} Or leave it out with --without-compile.")
    torch.set_num_threads(2)
    figures |= sharing(options.rounds)
    if options.json:
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
        return
    for name, value in figures.items():
        print(f"{name:16} {value:10.2f}")


if __name__ == "__main__":
    main()
