"""Table and picture of `benchmarks.scale`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.scale import COMPUTE, WAYS, measure, plot, table_lines
from metta.bench.cases import CASES

ONE = {"one thread": 1.5e6, "two threads": 1.25e6, COMPUTE: 1.9}
TABLE = {"a": {"1": ONE, "16": ONE | {"two processes": 2.5e5}}, "c": {"16": ONE | {"two processes": 3e6}}}


def test_every_way_is_measured_that_the_worlds_allow() -> None:
    tiny = replace(CASES["a"], max_steps=5)
    assert set(measure(tiny.with_worlds(2), 1e-3)) == {*WAYS, COMPUTE}
    assert set(measure(tiny.with_worlds(1), 1e-3)) == {*WAYS, COMPUTE} - {"two processes"}


def test_the_table_leaves_out_what_was_not_measured() -> None:
    lines = table_lines(TABLE)
    assert lines[0].count("|") == lines[1].count("|") == 8
    assert lines[2] == "| 1 | 1.50 | 1.25 |  |  |  |  |"
    assert lines[3] == "| 16 | 1.50 | 1.25 | 0.25 | 1.50 | 1.25 | 3.00 |"


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    plot(TABLE, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
