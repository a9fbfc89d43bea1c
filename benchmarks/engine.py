"""How fast the engine steps worlds, beside what writing its observations alone would cost.

    python -m benchmarks.engine [--json] [--seconds 2] [--worlds 32]

Every case steps a batch of worlds with random valid actions and reports agent-steps per second, on one thread and
on two, as the median of several stretches. In the same stretches a plain fill of the same observation buffers is
timed: no engine that writes its observations can be faster, so the quotient says how far there is to go and
depends little on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.objects import EMPTY, OBJECT_TYPE_IDS, STANDARD_ITEMS
from metta.mettagrid.rules import RuleTable, compile_rules
from metta.mettagrid.world_config import WorldConfig

STRETCHES = 9


@dataclass(frozen=True)
class Case:
    """One kind of world: its size and what stands in it."""

    name: str
    agents: int
    size: int
    things: dict[str, int]


ARENA = {"mine_red": 10, "generator_red": 5, "altar": 5, "block": 20, "wall": 20}

CASES = (
    Case("4_agents_32x32", 4, 32, ARENA),
    Case("64_agents_64x64", 64, 64, {name: 6 * count for name, count in ARENA.items()}),
    Case("24_agents_25x25_arena", 24, 25, ARENA),
)


def world_config(agents: int) -> WorldConfig:
    """The arena's rules: a 11 by 11 window, 200 tokens, all actions but the changes of looks."""

    def converter(
        name: str, inputs: dict[str, int], outputs: dict[str, int], cooldown: int
    ) -> dict[str, Any]:
        return {
            "type_id": OBJECT_TYPE_IDS[name],
            "input_resources": inputs,
            "output_resources": outputs,
            "max_output": 5,
            "conversion_ticks": 1,
            "cooldown": cooldown,
            "initial_resource_count": 0,
        }

    actions: dict[str, Any] = {
        name: {"enabled": True} for name in ("noop", "move", "rotate", "put_items", "get_items", "swap")
    }
    actions["attack"] = {
        "enabled": True,
        "consumed_resources": {"laser": 1},
        "defense_resources": {"armor": 1},
    }
    return WorldConfig.model_validate(
        {
            "inventory_item_names": list(STANDARD_ITEMS),
            "num_agents": agents,
            "max_steps": 0,
            "obs_width": 11,
            "obs_height": 11,
            "num_observation_tokens": 200,
            "agent": {
                "default_resource_limit": 50,
                "resource_limits": {"heart": 255},
                "freeze_duration": 10,
                "rewards": {"inventory": {"heart": 1}},
            },
            "groups": {"agent": {"id": 0}},
            "actions": actions,
            "objects": {
                "wall": {"type_id": OBJECT_TYPE_IDS["wall"]},
                "block": {"type_id": OBJECT_TYPE_IDS["block"], "swappable": True},
                "mine_red": converter("mine_red", {}, {"ore_red": 1}, 50),
                "generator_red": converter("generator_red", {"ore_red": 1}, {"battery_red": 1}, 25),
                "altar": converter("altar", {"battery_red": 3}, {"heart": 1}, 10),
            },
            "track_movement_metrics": True,
        }
    )


def random_grid(case: Case, rng: np.random.Generator) -> NDArray[np.str_]:
    """A map with a wall around it and everything else at random places."""
    inner = (case.size - 2) ** 2
    names = [name for name, count in case.things.items() for _ in range(count)] + [
        "agent.agent"
    ] * case.agents
    cells = np.array(names + [EMPTY] * (inner - len(names)))
    grid = np.full((case.size, case.size), "wall", cells.dtype)
    grid[1:-1, 1:-1] = rng.permutation(cells).reshape(case.size - 2, case.size - 2)
    return grid


def random_actions(rules: RuleTable, rng: np.random.Generator, steps: int, worlds: int) -> NDArray[np.int32]:
    """Legal actions, every legal pair of action and argument alike: int32 `[steps, worlds, agents, 2]`."""
    legal = np.array(rules.spec.legal_actions, np.int32)
    return legal[rng.integers(len(legal), size=(steps, worlds, rules.num_agents))]


def measure(case: Case, num_worlds: int, num_threads: int, seconds: float) -> dict[str, float]:
    """Agent-steps per second of the engine and of a plain fill of its observations."""
    rng = np.random.default_rng(0)
    rules = compile_rules(world_config(case.agents))
    engine = GridEngine(
        [rules], num_worlds, max_height=case.size, max_width=case.size, num_threads=num_threads
    )
    engine.reset(range(num_worlds), [random_grid(case, rng) for _ in range(num_worlds)], range(num_worlds))
    actions = random_actions(rules, rng, 64, num_worlds)
    plain = np.zeros_like(engine.observations)
    agents = num_worlds * case.agents
    for step in range(200):
        engine.step(actions[step % len(actions)])
    rates, fills = [], []
    for _ in range(STRETCHES):
        rates.append(
            agents * _rate(lambda step: engine.step(actions[step % len(actions)]), seconds / STRETCHES)
        )
        fills.append(agents * _rate(lambda _: plain.fill(255), seconds / STRETCHES / 4))
    return {
        "agent_steps_per_second": statistics.median(rates),
        "memset_agent_steps_per_second": statistics.median(fills),
        "share_of_memset": statistics.median(rate / fill for rate, fill in zip(rates, fills, strict=True)),
    }


def _rate(call: Any, seconds: float) -> float:
    """Calls per second."""
    count = 0
    start = now = time.perf_counter()
    while now - start < seconds:
        for _ in range(8):
            call(count)
            count += 1
        now = time.perf_counter()
    return count / (now - start)


def run(num_worlds: int, seconds: float) -> dict[str, float]:
    """All figures by name."""
    figures: dict[str, float] = {}
    for case in CASES:
        for threads in (1, 2):
            for name, value in measure(case, num_worlds, threads, seconds).items():
                figures[f"{case.name}/{threads}_threads/{name}"] = round(value, 4 if value < 1 else 0)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the engine.")
    parser.add_argument("--json", action="store_true", help="print one JSON object of named figures")
    parser.add_argument("--seconds", type=float, default=2.0, help="time per figure")
    parser.add_argument("--worlds", type=int, default=32, help="worlds per batch")
    options = parser.parse_args()
    figures = run(options.worlds, options.seconds)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:70} {value:>14,.4g}" if value < 1 else f"{name:70} {value:>14,.0f}")


if __name__ == "__main__":
    main()
