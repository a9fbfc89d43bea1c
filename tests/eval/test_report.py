"""Reports: the numbers of the result, unknown intervals and skipped simulations included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval_cases import made_up_result
from metta.eval.report import report_data, report_table, write_report


def rows(table: str) -> dict[str, list[str]]:
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    return {name: rest for name, *rest in cells[2:]}


def test_the_table_shows_every_score() -> None:
    table = rows(report_table(made_up_result()))
    assert list(table) == ["**field**", "field/near", "field/far", "**other**", "other/one", "**all**"]
    assert table["field/near"] == ["3", "3.000", "-3.572 to 9.572"]
    assert table["**field**"][:2] == ["5", "3.750"]
    assert table["other/one"] == ["1", "7.000", "unknown"]
    assert table["**all**"] == ["6", "4.833", "unknown"]


def test_what_was_not_played_is_said() -> None:
    assert "- other/strange: no action is common to both." in report_table(made_up_result())


def test_the_data_agree_with_the_result() -> None:
    result = made_up_result()
    data = json.loads(json.dumps(report_data(result), allow_nan=False))
    assert (data["suite"], data["seed"], data["deterministic"]) == ("made up", 4, False)
    assert data["score"] == {"mean": pytest.approx(29 / 6), "half_interval": None, "num_episodes": 6}
    assert data["categories"]["field"]["mean"] == 3.75
    near = result.simulation_scores["field/near"]
    assert data["simulations"]["field/near"] == {
        "mean": near.mean,
        "half_interval": near.half_interval,
        "num_episodes": 3,
    }
    assert data["skipped"] == {"other/strange": "no action is common to both."}
    assert [episode["returns"] for episode in data["episodes"]] == [list(r.returns) for r in result.episodes]


def test_reports_are_written_by_the_name_of_the_file(tmp_path: Path) -> None:
    result = made_up_result()
    write_report(result, tmp_path / "new" / "report.md")
    assert (tmp_path / "new" / "report.md").read_text() == report_table(result)
    write_report(result, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == report_data(result)
    with pytest.raises(ValueError, match=r"ends neither in \.json nor in \.md"):
        write_report(result, tmp_path / "report.pdf")
