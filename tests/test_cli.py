"""The console command."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from metta.bench import phases, stepping
from metta.bench.cases import CASES, Case
from metta.cli import app


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_help_names_the_command() -> None:
    code, output = invoke("--help")
    assert code == 0
    assert "bench" in output


def test_an_unknown_case_gets_one_sentence() -> None:
    code, output = invoke("bench", "--case", "z")
    assert code == 2
    assert "'z' is no case; the cases are a, b, c, d." in " ".join(output.replace("│", " ").split())


def test_memory_as_table_and_as_json() -> None:
    code, output = invoke("bench", "--memory", "--case", "a")
    assert code == 0
    assert output.splitlines()[0].split() == ["bytes", "per", "world", "case", "a"]
    code, output = invoke("bench", "--memory", "--case", "a", "--json")
    assert json.loads(output)["a"]["observations"] == 4 * 600


def test_figures_as_table_and_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    rows = [{"memset": 1.0, "compute": 1.9, "env_1": 9.0, "env_2": 5.0, "engine_1": 8.0, "engine_2": 4.0}]

    def measure(case: Case, rounds: int) -> stepping.Figures:
        asked.append((case.name, rounds))
        return stepping.summarize(case, rows, (1, 2), bytes_per_step=100, buffer_bytes=600, interpreted=2e3)

    monkeypatch.setattr(stepping, "measure", measure)
    code, output = invoke("bench", "--quick", "--case", "a", "--case", "c", "--json")
    assert code == 0
    assert list(json.loads(output)) == ["a", "c"]
    assert [name for name, _ in asked] == ["a", "c"]
    quick = asked[0][1]
    code, output = invoke("bench")
    assert code == 0
    assert [name for name, _ in asked[2:]] == list(CASES)
    assert asked[-1][1] > quick
    assert output.count("VecEnv.step, 2 threads") == len(CASES)
    assert "of memset: " in output
    assert "something else seems to be running" not in output
    rows[0]["compute"] = 1.1
    assert "something else seems to be running" in invoke("bench")[1]


def test_phases_as_table_and_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        *phases.PHASES,
        "phases",
        "kernel",
        "engine",
        "env",
        "ends",
        "all",
        "maps",
        "reset",
        "statistics",
    ]
    spent = {name: float(place + 1) for place, name in enumerate(names)}
    monkeypatch.setattr(phases, "measure_phases", lambda case, rounds: spent)
    code, output = invoke("bench", "--phases", "--case", "b")
    assert code == 0
    assert output.splitlines()[0].split()[-2:] == ["case", "b"]
    assert ["VecEnv.step", "12.0", "100.0%"] in [line.split() for line in output.splitlines()]
    code, output = invoke("bench", "--phases", "--case", "b", "--json")
    assert json.loads(output) == {"b": spent}
