"""Steps per second against the number of worlds: one thread, two threads, two worker processes over shared memory.

    python -m benchmarks.scale [--case a c] [--worlds 1 4 16 ...] [--seconds 0.4] [--json FILE] [--plot docs/scale.png]

Every step goes through `VecEnv.step` with random valid actions. Episodes of 1000 steps end at all times and new maps are
built within the measured time, one in a thousand worlds at every step. The three ways take turns; figures are medians of the
turns. How much more two threads compute than one is measured at the same time: much less than 2 means that something else was
running. `--json` adds to what the file already holds, so that cases can be measured one at a time, and `--plot` draws all of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from metta.bench.calibration import two_thread_compute
from metta.bench.cases import CASES, Case, RandomActions
from metta.mettagrid.vec import VecEnv

TURNS = 3
WORLDS = (1, 4, 16, 64, 256, 1024, 4096)
WAYS: dict[str, dict[str, Any]] = {
    "one thread": {},
    "two threads": {"num_threads": 2},
    "two processes": {"num_workers": 2},
}
COMPUTE = "two threads compute"
COLOURS = ("#1f6fb4", "#2a9d5c", "#c4572e")

Table = dict[str, dict[str, dict[str, float]]]
"""Agent-steps per second by case, number of worlds and way."""


def measure(case: Case, seconds: float) -> dict[str, float]:
    """Agent-steps per second of each way of stepping these worlds, and what two threads compute (`COMPUTE`).

    A single world is not shared among processes.
    """
    ways = {way: options for way, options in WAYS.items() if options.get("num_workers", 1) <= case.num_worlds}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    with ExitStack() as stack:
        envs = {
            way: stack.enter_context(VecEnv(case.config(), case.num_worlds, stagger=True, **options))
            for way, options in ways.items()
        }
        actions = RandomActions(envs["one thread"].spec, case.num_agents)
        compute = []
        for turn in range(TURNS + 1):
            compute.append(two_thread_compute(0.05))
            for way, env in envs.items():
                rate = case.num_agents * steps_per_second(env, actions, seconds)
                if turn:  # the first turn warms up
                    rates[way].append(rate)
    return {way: statistics.median(turns) for way, turns in rates.items()} | {
        COMPUTE: statistics.median(compute)
    }


def steps_per_second(env: VecEnv, actions: RandomActions, seconds: float) -> float:
    """Steps of all worlds per second, over at least `seconds` and at least two steps."""
    steps = 0
    start = now = time.perf_counter()
    while now - start < seconds or steps < 2:
        env.step(actions.batch())
        steps += 1
        now = time.perf_counter()
    return steps / (now - start)


def table_lines(table: Table) -> list[str]:
    """Markdown: a row for each number of worlds, the ways of each case side by side, in millions."""
    heads = [f"{name}: {way}" for name in table for way in WAYS]
    lines = ["| worlds | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for count in sorted({int(count) for rows in table.values() for count in rows}):
        rates = [rows.get(str(count), {}).get(way) for rows in table.values() for way in WAYS]
        cells = ["" if rate is None else f"{rate / 1e6:.2f}" for rate in rates]
        lines.append(f"| {count:,} | " + " | ".join(cells) + " |")
    return lines


def plot(table: Table, path: Path) -> None:
    """Draw a panel for each case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullLocator

    with plt.rc_context({"font.size": 12, "axes.spines.top": False, "axes.spines.right": False}):
        top = (
            1.05
            * max(rate for rows in table.values() for row in rows.values() for rate in row.values())
            / 1e6
        )
        figure, axes = plt.subplots(
            1, len(table), figsize=(5.6 * len(table), 4.6), squeeze=False, sharey=True
        )
        for axis, (name, rows) in zip(axes[0], table.items(), strict=True):
            counts = sorted(map(int, rows))
            ends = []
            for way, colour in zip(WAYS, COLOURS, strict=True):
                points = [count for count in counts if way in rows[str(count)]]
                rates = [rows[str(count)][way] / 1e6 for count in points]
                axis.plot(points, rates, color=colour, marker="o", markersize=5, linewidth=2)
                ends.append((rates[-1], way, colour))
            axis.set_xscale("log", base=4)
            axis.set_xticks(counts)
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axis.set_ylim(0, top)
            axis.grid(axis="y", color="#e4e4e4")
            axis.set_axisbelow(True)
            axis.set_xlabel("worlds")
            axis.set_title(CASES[name].about, loc="left", fontsize=13)
            _label_lines(axis, counts[-1], ends)
        axes[0][0].set_ylabel("million agent-steps per second")
        figure.tight_layout()
        figure.savefig(path, dpi=110, facecolor="white")
        plt.close(figure)


def _label_lines(axis: Any, x: int, ends: list[tuple[float, str, str]]) -> None:
    """Write each line's name beside its end, names pushed apart where lines meet."""
    gap = 0.06 * axis.get_ylim()[1]
    at = -gap
    for rate, way, colour in sorted(ends):
        at = max(rate, at + gap)
        axis.annotate(
            way,
            (x, at),
            xytext=(9, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps per second against the number of worlds.")
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=["a", "c"])
    parser.add_argument("--worlds", type=int, nargs="+", default=list(WORLDS))
    parser.add_argument("--seconds", type=float, default=0.4, help="time per turn")
    parser.add_argument("--json", type=Path, help="file to add the figures to")
    parser.add_argument("--plot", type=Path, help="picture to draw of them")
    options = parser.parse_args()
    table: Table = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for name in options.case:
        for count in options.worlds:
            rates = measure(CASES[name].with_worlds(count), options.seconds)
            table.setdefault(name, {})[str(count)] = {way: round(rate, 2) for way, rate in rates.items()}
            if options.json:
                options.json.write_text(json.dumps(table, indent=1) + "\n")
    print("\n".join(table_lines(table)))
    marks = [row[COMPUTE] for rows in table.values() for row in rows.values()]
    print(f"\ntwo threads compute {min(marks):.2f} to {max(marks):.2f} times as much as one")
    if options.plot:
        plot(table, options.plot)


if __name__ == "__main__":
    main()
