"""Figures as lines to read."""

from __future__ import annotations

from metta.bench.cases import Case
from metta.bench.phases import PHASES
from metta.bench.stepping import Figures

NAMES = {"env": "VecEnv.step", "engine": "engine alone"}

BUSY = 1.6
"""Where two threads compute less than this many times as much as one, a core is not free."""


def stepping_lines(case: Case, figures: Figures) -> list[str]:
    """What `stepping.measure` found, as a table with its marks below."""
    share = figures["bytes_per_agent_step"] / figures["buffer_bytes_per_agent"]
    lines = [
        f"case {case.name}: {case.about}, {case.num_worlds} worlds",
        f"{'':26}{'agent-steps/s':>14}{'x one thread':>14}{'x original':>12}{'of memset':>11}{'of tokens':>11}{'x plain':>9}",
    ]
    for name in [key.removesuffix("/of_original") for key in figures if key.endswith("/of_original")]:
        what, threads = name.split("_")
        label = f"{NAMES[what]}, {threads} thread{'s' * (threads != '1')}"
        row = {
            key: figures[f"{name}/{key}"]
            for key in ("agent_steps_per_second", "of_one_thread", "of_original")
        }
        lines.append(
            f"{label:26}{row['agent_steps_per_second'] / 1e6:>12.2f} M{row['of_one_thread']:>14.2f}{row['of_original']:>12.1f}"
            f"{figures[f'{name}/of_memset']:>11.1%}{figures[f'{name}/of_memset_of_tokens']:>11.1%}"
            f"{figures[f'{name}/of_interpreted']:>9.0f}"
        )
    lines.append(
        f"marks: memset {figures['memset_gigabytes_per_second']:.1f} GB/s; "
        f"of {figures['buffer_bytes_per_agent']:.0f} bytes per agent "
        f"{share:.0%} are tokens; plain Python {figures['interpreted_agent_steps_per_second']:,.0f} agent-steps/s; "
        f"two threads compute {figures['compute_two_threads']:.2f} times as much as one"
    )
    if figures["compute_two_threads"] < BUSY:
        lines.append("something else seems to be running here: what two threads do says little")
    return lines


def phase_lines(figures: dict[str, Figures]) -> list[str]:
    """What `phases.measure_phases` found, a column for each case: ns per agent-step and share of `VecEnv.step`."""

    def line(label: str, values: list[float]) -> str:
        cells = [
            f"{value:9.1f}{value / case['all']:7.1%}"
            for value, case in zip(values, figures.values(), strict=True)
        ]
        return f"{label:36}" + "".join(cells)

    def row(label: str, *plus: str, minus: str = "") -> str:
        return line(
            label,
            [sum(case[name] for name in plus) - (case[minus] if minus else 0) for case in figures.values()],
        )

    return [
        f"{'ns per agent-step, one thread':36}" + "".join(f"{'case ' + name:>16}" for name in figures),
        *(row(f"  {name}", name) for name in PHASES),
        row("phases in turn", "phases"),
        row("the engine's kernel, world by world", "kernel"),
        row("  GridEngine.step around it", "engine", minus="kernel"),
        row("  VecEnv.step around that", "env", minus="engine"),
        row("  ends of episodes", "ends"),
        row("VecEnv.step", "all"),
        row("at the ends: statistics", "statistics"),
        row("at the ends: maps", "maps"),
        row("at the ends: GridEngine.reset", "reset"),
    ]


LEGEND = """\
of memset: time that a memset of all observations would take, divided by the time taken; of tokens: the same for the bytes
that are tokens; x plain: against the same engine as interpreted Python; x original: against the speed reported of the
original engine in C++ on one core of such a machine (345 k, 166 k and 283 k agent-steps/s for a, b and c; 140 k stands for d).
VecEnv.step resets worlds whose episode ends and builds their new maps within the measured time; the engine alone does not."""
