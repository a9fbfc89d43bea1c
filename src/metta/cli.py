"""The console command `metta`."""

from __future__ import annotations

import json
import logging
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Metta: a fast multi-agent grid world.",
)


@app.callback()
def metta() -> None:
    """Metta: a fast multi-agent grid world."""


@app.command()
def bench(
    case: Annotated[
        list[str] | None, typer.Option(help="One of a, b, c, d; may be repeated. All without it.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two rounds instead of seven.")] = False,
    phases: Annotated[bool, typer.Option("--phases", help="Instead: where the time of a step goes.")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="Instead: bytes per world, by array.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object of named figures.")] = False,
) -> None:
    """Measure how fast worlds are stepped here, beside what this machine can do."""
    from metta.bench.cases import CASES
    from metta.bench.memory import bytes_per_world, memory_lines
    from metta.bench.phases import measure_phases
    from metta.bench.report import LEGEND, phase_lines, stepping_lines
    from metta.bench.stepping import measure

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    unknown = [name for name in case or [] if name not in CASES]
    if unknown:
        raise typer.BadParameter(
            f"'{unknown[0]}' is no case; the cases are {', '.join(CASES)}.", param_hint="--case"
        )
    names = case or list(CASES)
    if memory:
        sizes = {name: bytes_per_world(CASES[name]) for name in names}
        print(json.dumps(sizes, indent=1) if as_json else "\n".join(memory_lines(sizes)))
        return
    rounds = 2 if quick else 7
    if phases:
        spent = {name: measure_phases(CASES[name], rounds) for name in names}
        print(json.dumps(spent, indent=1) if as_json else "\n".join(phase_lines(spent)))
        return
    figures = {}
    for name in names:
        figures[name] = measure(CASES[name], rounds)
        if not as_json:
            print("\n".join(stepping_lines(CASES[name], figures[name])), end="\n\n", flush=True)
    print(json.dumps(figures, indent=1) if as_json else LEGEND)


if __name__ == "__main__":
    app()
