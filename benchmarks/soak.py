"""Whether memory stays flat over a million episodes.

    python -m benchmarks.soak [--json] [--episodes 1000000] [--worlds 1024] [--threads 1] [--workers 0] [--tracemalloc]

Small worlds of unlike rules and maps are played by a curriculum with statistics on; episodes last 4 to 8 steps, and a tenth of
the actions is anything at all. At 1, 10, 50 and 100 % of the episodes it reports the memory of this process and of the worker
processes (RSS), the blocks that Python has allocated and, with `--tracemalloc`, which makes it several times slower, the bytes
that they and numpy's arrays take. It ends with status 1 if anything grew after the first tenth. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from metta.api import EnvConfig, GameConfig, MapBuilderConfig, VariedTerrainConfig
from metta.mettagrid.curriculum.base import Curriculum, Task
from metta.mettagrid.curriculum.learning_progress import LearningProgressCurriculum
from metta.mettagrid.vec import VecEnv

SHARES = (0.01, 0.1, 0.5, 1.0)
"""Of the episodes, after which memory is measured."""

SETTLED = 0.1
"""The share after which nothing may grow any more: by then caches are full and tables as large as they get."""

BYTES_PER_EPISODE = 8
"""Growth of memory that is not yet a leak: the smallest object kept of every episode takes more."""

BLOCKS_PER_EPISODE = 1 / 8
"""Growth in Python's blocks that is not yet a leak: one object kept of every episode is more."""

SLACK = 4 * 2**20
"""Bytes by which an allocator's and the system's pages may come and go."""

SLACK_BLOCKS = 500
"""Blocks by which free lists and caches may come and go."""

ODD = (-(2**31), -1, 9, 255, 2**31 - 1)


@dataclass(frozen=True)
class Sample:
    """Memory after some episodes.

    Attributes:
        episodes: that ended so far.
        seconds: since the beginning.
        rss: bytes of this process and its workers that are in memory; those that they share count once for each.
        blocks: that Python has allocated in this process.
        traced: bytes that `tracemalloc` knows of; 0 if it is off.
    """

    episodes: int
    seconds: float
    rss: int
    blocks: int
    traced: int


def tasks() -> Curriculum:
    """Worlds as unlike as one batch can hold, drawn by learning progress."""
    game = GameConfig(num_agents=2, width=9, height=9, max_steps=8, observation_width=5, observation_height=5)
    field = MapBuilderConfig(objects={"mine_red": (0, 9), "generator_red": 2, "altar": (1, 3), "block": 3})
    config = EnvConfig(game=game, map_builder=field)
    return LearningProgressCurriculum(
        [
            Task("field", config),
            Task("short", config.with_overrides(max_steps=4, episode_truncates=True)),
            Task("cut off", config.with_overrides(max_steps=0, episode_lifetime=6)),
            Task("larger", config.with_overrides(width=12, height=10, stat_rewards={"ore_red.get": 0.1})),
            Task("terrain", EnvConfig(game=game, map_builder=VariedTerrainConfig(objects={"altar": (0, 2)}))),
        ]
    )


def play(env: VecEnv, episodes: int, marks: Sequence[int], seed: int = 0) -> list[Sample]:
    """Play until so many episodes have ended, and measure at the marks."""
    rng = np.random.default_rng(seed)
    legal = np.array(env.spec.legal_actions, np.int64)
    started = time.perf_counter()
    samples: list[Sample] = []
    ended = 0
    while ended < episodes:
        actions = legal[rng.integers(len(legal), size=env.num_agents)]
        odd = rng.random(env.num_agents) < 0.1
        actions[odd] = rng.choice(ODD, size=(int(odd.sum()), 2))
        ended += len(env.step(actions).episodes)
        while len(samples) < len(marks) and ended >= marks[len(samples)]:
            samples.append(measure(env, ended, time.perf_counter() - started))
    return samples


def measure(env: VecEnv, episodes: int, seconds: float) -> Sample:
    """Memory now."""
    gc.collect()
    processes = ["self", *(str(child) for child in children())] if env.num_workers else ["self"]
    traced = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
    return Sample(episodes, seconds, sum(map(resident, processes)), sys.getallocatedblocks(), traced)


def resident(process: str) -> int:
    """Bytes of a process that are in memory."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError(
        f"process {process} does not say how much memory it takes; it has ended, or this is no Linux."
    )


def children() -> list[int]:
    """Processes that this one started."""
    return [
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]


def growth(samples: Sequence[Sample]) -> list[str]:
    """What grew between the settled state and the end, in words; empty if nothing did."""
    whole = samples[-1].episodes
    settled = next(sample for sample in samples if sample.episodes >= SETTLED * whole)
    last = samples[-1]
    allowed = BYTES_PER_EPISODE * (last.episodes - settled.episodes)
    found = []
    if last.rss - settled.rss > allowed + SLACK:
        found.append(f"RSS grew from {settled.rss / 2**20:.1f} to {last.rss / 2**20:.1f} MiB")
    if last.blocks - settled.blocks > BLOCKS_PER_EPISODE * (last.episodes - settled.episodes) + SLACK_BLOCKS:
        found.append(f"Python's blocks grew from {settled.blocks} to {last.blocks}")
    if last.traced - settled.traced > allowed + SLACK / 16:
        found.append(f"traced memory grew from {settled.traced} to {last.traced} bytes")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=1_000_000)
    parser.add_argument("--worlds", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--tracemalloc", action="store_true", help="count the bytes of Python's objects too")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if args.tracemalloc:
        tracemalloc.start()
    with VecEnv(tasks(), args.worlds, num_threads=args.threads, num_workers=args.workers) as env:
        samples = play(env, args.episodes, [int(share * args.episodes) for share in SHARES])
    found = growth(samples)
    if args.json:
        print(json.dumps({"samples": [asdict(sample) for sample in samples], "growth": found}, indent=2))
        return bool(found)
    print(f"{args.worlds} worlds, {args.threads} threads, {args.workers} worker processes")
    print(f"{'episodes':>10} {'seconds':>8} {'RSS MiB':>9} {'blocks':>9} {'traced MiB':>11}")
    for sample in samples:
        print(
            f"{sample.episodes:>10} {sample.seconds:>8.1f} {sample.rss / 2**20:>9.1f} {sample.blocks:>9} "
            f"{sample.traced / 2**20:>11.2f}"
        )
    print("\n".join(found) if found else "memory is flat")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
