"""The page of figures is what the figures say."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import startup
from benchmarks.performance import FIGURES, PAGE, WRITERS, measure_part, rounded, write_tables
from metta.bench.cases import CASES

KEPT = json.loads(FIGURES.read_text())


def test_the_page_shows_the_kept_figures() -> None:
    assert KEPT.keys() == WRITERS.keys()
    assert write_tables(PAGE.read_text(), KEPT) == PAGE.read_text(), (
        "docs/performance.md is not what docs/performance.json says; run python -m benchmarks.performance --write-only"
    )


def test_every_table_is_written_where_it_belongs() -> None:
    page = "".join(f"## {part}\n<!-- {part} -->\nold\n<!-- end of {part} -->\n" for part in WRITERS)
    page = write_tables(page, KEPT)
    assert "old" not in page
    for part in WRITERS:
        text = re.search(rf"<!-- {part} -->(.*?)<!-- end of {part} -->", page, re.DOTALL)
        assert text is not None
        lines = [line for line in text[1].splitlines() if line.startswith("|")]
        assert lines, part
        tables = [block for block in text[1].split("\n\n") if block.strip().startswith("|")]
        for block in tables:
            assert len({line.count("|") for line in block.strip().splitlines()}) == 1, block


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no '<!-- memory -->'"):
        write_tables("# Nothing", {"memory": KEPT["memory"]})


def test_figures_keep_four_digits() -> None:
    assert rounded({"a": {"b": 1234567.8, "c": 0.000123456, "n": 123456}}) == {
        "a": {"b": 1235000.0, "c": 0.0001235, "n": 123456}
    }


def test_the_page_states_what_a_world_takes_now() -> None:
    assert measure_part("memory", 1) == KEPT["memory"]
    assert KEPT["memory"].keys() == CASES.keys()


@pytest.mark.slow
def test_startup_is_measured_in_fresh_processes() -> None:
    figures = startup.measure(1, compile_too=False)
    assert figures.keys() == startup.NAMES.keys() - {"first_use"}
    parts = figures["import_engine"] + figures["make"] + figures["first_step"]
    assert 0 < parts < figures["to_the_first_step"]
