"""Measures every table of `docs/performance.md` and writes it there; the figures are kept in `docs/performance.json`.

    python -m benchmarks.performance [--only engine phases memory scale_a scale_c startup] [--quick] [--write-only]

A few minutes in all; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import scale, startup
from benchmarks.pages import table, write_between
from metta.bench.cases import CASES
from metta.bench.memory import MANY, bytes_per_world
from metta.bench.phases import PHASES, measure_phases
from metta.bench.stepping import Figures, measure

DOCS = Path(__file__).parent.parent / "docs"
PAGE, FIGURES, PICTURE = DOCS / "performance.md", DOCS / "performance.json", DOCS / "scale.png"
PARTS = ("engine", "phases", "memory", "scale_a", "scale_c", "startup")


def engine_table(figures: dict[str, Figures]) -> str:
    head = ["case", "`VecEnv.step`, one thread", "of the original", "of memset", "of plain Python"]
    head += ["two threads", "of one", "engine alone, one thread", "of memset", "two threads", "of one"]
    rows = []
    for name, row in figures.items():
        cells = [f"{name}: {CASES[name].about}"]
        for side in ("env", "engine"):
            rate = row[f"{side}_1/agent_steps_per_second"]
            cells.append(f"{rate / 1e6:.2f} M")
            if side == "env":
                cells.append(f"{row['env_1/of_original']:.1f} ×")
            cells.append(f"{row[f'{side}_1/of_memset']:.1%}")
            if side == "env":
                cells.append(f"{row['env_1/of_interpreted']:.0f} ×")
            cells.append(f"{row[f'{side}_2/agent_steps_per_second'] / 1e6:.2f} M")
            cells.append(f"{row[f'{side}_2/of_one_thread']:.2f} ×")
        rows.append(cells)
    marks = table(
        [
            "case",
            "bytes of tokens per agent-step",
            "memset",
            "of memset of the tokens alone",
            "plain Python",
            "two threads compute",
        ],
        [
            [
                name,
                f"{row['bytes_per_agent_step']:.0f} of {row['buffer_bytes_per_agent']:.0f}",
                f"{row['memset_gigabytes_per_second']:.0f} GB/s",
                f"{row['env_1/of_memset_of_tokens']:.1%}",
                f"{row['interpreted_agent_steps_per_second']:,.0f} agent-steps/s",
                f"{row['compute_two_threads']:.2f} ×",
            ]
            for name, row in figures.items()
        ],
    )
    return f"{table(head, rows)}\n\n{marks}"


def phases_table(figures: dict[str, Figures]) -> str:
    def line(label: str, value: Callable[[Figures], float]) -> list[str]:
        return [label, *(f"{value(row):.1f} ({value(row) / row['all']:.0%})" for row in figures.values())]

    rows = [line(name, lambda row, name=name: row[name]) for name in PHASES]  # type: ignore[misc]
    rows += [
        line("sum of the phases, one after another", lambda row: row["phases"]),
        line("the engine's kernel, world by world", lambda row: row["kernel"]),
        line("`GridEngine.step` around it", lambda row: row["engine"] - row["kernel"]),
        line("`VecEnv.step` around that", lambda row: row["env"] - row["engine"]),
        line("ends of episodes", lambda row: row["ends"]),
        line("**`VecEnv.step`**", lambda row: row["all"]),
        line("at the ends: statistics", lambda row: row["statistics"]),
        line("at the ends: maps", lambda row: row["maps"]),
        line("at the ends: `GridEngine.reset`", lambda row: row["reset"]),
    ]
    return table(["ns per agent-step", *(f"case {name}" for name in figures)], rows)


def memory_table(figures: dict[str, dict[str, int]]) -> str:
    totals = {case: sum(sizes.values()) for case, sizes in figures.items()}
    names = list(next(iter(figures.values())))
    large = [name for name in names if any(figures[case][name] > 0.02 * totals[case] for case in figures)]
    large.sort(key=lambda name: -max(sizes[name] for sizes in figures.values()))
    rows = [[f"`{name}`", *(f"{sizes[name]:,}" for sizes in figures.values())] for name in large]
    rest = {case: totals[case] - sum(figures[case][name] for name in large) for case in figures}
    rows.append(["others", *(f"{size:,}" for size in rest.values())])
    rows.append(["**all**", *(f"**{size:,}**" for size in totals.values())])
    rows.append([f"{MANY:,} worlds", *(f"{MANY * size / 2**20:,.0f} MiB" for size in totals.values())])
    return table(["bytes per world", *(f"case {case}" for case in figures)], rows)


def scale_table(figures: scale.Table) -> str:
    marks = [row[scale.COMPUTE] for rows in figures.values() for row in rows.values()]
    lines = "\n".join(scale.table_lines(figures))
    return f"{lines}\n\nTwo threads computed {min(marks):.2f} to {max(marks):.2f} times as much as one meanwhile."


def startup_table(figures: Figures) -> str:
    rows = [
        [label.strip(), f"{figures[name]:.2f}"] for name, label in startup.NAMES.items() if name in figures
    ]
    return table(["", "seconds"], rows)


WRITERS: dict[str, Callable[[Any], str]] = {
    "engine": engine_table,
    "phases": phases_table,
    "memory": memory_table,
    "scale": scale_table,
    "startup": startup_table,
}


def write_tables(page: str, figures: dict[str, Any]) -> str:
    """The page with every table that there are figures for between its marks, `<!-- NAME -->` and `<!-- end of NAME -->`.

    Raises:
        ValueError: the page has no place for a table.
    """
    for part, values in figures.items():
        page = write_between(page, part, WRITERS[part](values))
    return page


def measure_part(part: str, rounds: int) -> Any:
    match part:
        case "engine":
            return {name: measure(case, rounds) for name, case in CASES.items()}
        case "phases":
            return {name: measure_phases(case, rounds) for name, case in CASES.items()}
        case "memory":
            return {name: bytes_per_world(case) for name, case in CASES.items()}
        case "scale_a" | "scale_c":
            case = CASES[part[-1]]
            return {
                str(count): scale.measure(case.with_worlds(count), 0.05 * rounds) for count in scale.WORLDS
            }
        case _:
            return startup.measure(rounds, compile_too=True)


def rounded(value: Any) -> Any:
    """Figures with four digits, which is more than they are good for."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the tables of docs/performance.md.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="measure these alone")
    parser.add_argument("--quick", action="store_true", help="three rounds instead of seven")
    parser.add_argument("--write-only", action="store_true", help="measure nothing, write the kept figures")
    options = parser.parse_args()
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for part in [] if options.write_only else options.only:
        measured = rounded(measure_part(part, 3 if options.quick else 7))
        if part.startswith("scale_"):
            figures.setdefault("scale", {})[part[-1]] = measured
        else:
            figures[part] = measured
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    PAGE.write_text(write_tables(PAGE.read_text(), figures))
    if "scale" in figures:
        scale.plot(figures["scale"], PICTURE)


if __name__ == "__main__":
    main()
