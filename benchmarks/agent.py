"""How fast the agent acts and learns, its compiled layers beside the plain ones that define them.

    python -m benchmarks.agent [--json] [--seconds 1]

`act` is one observation of 128 agents, `train` the forward and backward pass of 64 segments of 32 ticks, both in
agent-steps per second, for a network of width 128 that sees 40 to 60 tokens in an 11 by 11 window. `lstm` is the
core alone, forward and backward, with an episode ending at every fiftieth step: beside it torch's own LSTM, which
cannot know of episode ends, as the mark to reach, and the definition, tick by tick. All sides of a comparison take
turns; figures are medians of the turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from metta.agent.config import AgentModelConfig
from metta.agent.core import LSTMCore
from metta.agent.metta_agent import MettaAgent
from metta.agent.paths import ComputePath
from metta.agent.state import PolicyState
from metta.mettagrid.objects import STANDARD_ITEMS
from metta.mettagrid.spec import EnvSpec, feature_table

HIDDEN = 128
ROWS, SEGMENTS, TICKS = 128, 64, 32
END_PROBABILITY = 0.02
TURNS = 9

SPEC = EnvSpec(
    action_names=("attack", "get_items", "move", "noop", "put_items", "rotate", "swap"),
    max_action_args=(8, 0, 1, 0, 0, 3, 0),
    features=feature_table(STANDARD_ITEMS),
    obs_height=11,
    obs_width=11,
    num_tokens=200,
    item_names=STANDARD_ITEMS,
)


def random_tokens(num_rows: int, rng: np.random.Generator) -> torch.Tensor:
    """uint8 `[num_rows, 200, 3]`: walls, machines, agents and items at random cells."""
    tokens = np.full((num_rows, SPEC.num_tokens, 3), 255, np.uint8)
    for row, used in zip(tokens, rng.integers(40, 61, num_rows), strict=True):
        row[:used, 0] = rng.integers(0, 11, used) * 16 + rng.integers(0, 11, used)
        row[:used, 1] = np.where(rng.random(used) < 0.5, 0, rng.integers(1, len(SPEC.features), used))
        row[:used, 2] = rng.integers(0, 9, used)
    return torch.from_numpy(tokens)


def agent_sides(
    path: ComputePath, rng: np.random.Generator, *, half: bool = False
) -> dict[str, Callable[[], None]]:
    """`act` and `train` of one kind of agent."""
    config = AgentModelConfig(hidden_dim=HIDDEN, dtypes_fp16=half)
    agent = MettaAgent(SPEC, config, generator=torch.Generator().manual_seed(0), path=path)
    rows = random_tokens(ROWS, rng)
    state, starts = agent.initial_state(ROWS), torch.zeros(ROWS, dtype=torch.bool)
    obs = random_tokens(SEGMENTS * TICKS, rng).view(SEGMENTS, TICKS, -1, 3)
    dones = torch.from_numpy(rng.random((SEGMENTS, TICKS)) < END_PROBABILITY)
    legal = torch.tensor(SPEC.legal_actions)
    actions = legal[torch.from_numpy(rng.integers(0, len(legal), (SEGMENTS, TICKS)))]
    start = agent.initial_state(SEGMENTS)

    def act() -> None:
        agent.act(rows, state, starts)

    def train() -> None:
        agent.zero_grad()
        out = agent.evaluate(obs, start, dones, actions)
        (out.logprobs.mean() + out.values.square().mean() + out.entropies.mean()).backward()  # type: ignore[no-untyped-call]

    return {"act": act, "train": train}


def lstm_sides() -> dict[str, Callable[[], None]]:
    """Forward and backward of the core alone."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TICKS, SEGMENTS, HIDDEN, generator=generator).requires_grad_()
    resets = torch.rand(TICKS, SEGMENTS, generator=generator) < END_PROBABILITY
    zero = PolicyState.zeros(1, SEGMENTS, HIDDEN)
    library = torch.nn.LSTM(HIDDEN, HIDDEN)
    fast, plain = (LSTMCore(HIDDEN, HIDDEN, 1, path) for path in ("fast", "plain"))
    fast.init_weights(generator)
    plain.init_weights(generator)
    return {
        "fast": lambda: fast(x, zero, resets)[0].sum().backward(),
        "fast_without_ends": lambda: fast(x, zero)[0].sum().backward(),
        "torch_ignoring_ends": lambda: library(x, (zero.h, zero.c))[0].sum().backward(),
        "tick_by_tick": lambda: plain(x, zero, resets)[0].sum().backward(),
    }


def compare(sides: dict[str, Callable[[], None]], steps: int, seconds: float) -> dict[str, float]:
    """Agent-steps per second of each side, the median of turns."""
    for call in sides.values():
        call()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(TURNS):
        for name, call in sides.items():
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds / TURNS:
                call()
                count += 1
            rates[name].append(count * steps / (time.perf_counter() - start))
    return {name: statistics.median(turns) for name, turns in rates.items()}


def run(seconds: float) -> dict[str, float]:
    """All figures by name."""
    figures: dict[str, float] = {}
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rng = np.random.default_rng(0)
        agents = {
            "fast": agent_sides("fast", rng),
            "fast_bfloat16": agent_sides("fast", rng, half=True),
            "plain": agent_sides("plain", rng),
        }
        comparisons = {
            "act": ({name: sides["act"] for name, sides in agents.items()}, ROWS),
            "train": ({name: sides["train"] for name, sides in agents.items()}, SEGMENTS * TICKS),
            "lstm": (lstm_sides(), SEGMENTS * TICKS),
        }
        for what, (sides, steps) in comparisons.items():
            for name, rate in compare(sides, steps, seconds).items():
                figures[f"{what}/{threads}_threads/{name}"] = round(rate)
    torch.set_num_threads(before)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the agent.")
    parser.add_argument("--json", action="store_true", help="print one JSON object of named figures")
    parser.add_argument("--seconds", type=float, default=1.0, help="time per figure")
    options = parser.parse_args()
    figures = run(options.seconds)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:50} {value:>14,.0f}")


if __name__ == "__main__":
    main()
