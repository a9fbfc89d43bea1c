"""What is said of a run at its end."""

import io
import json
from math import nan
from pathlib import Path

import pytest
from rich.console import Console

from metta.interface.directories import setup_run_directories
from metta.interface.evaluation import ReplayFiles
from metta.interface.monitoring import METRICS, report_outcome
from metta.tracking.metrics_file import MetricsFile


@pytest.mark.parametrize(
    ("interval", "kept", "said"),
    [
        ({"eval/half_interval": 0.25}, 0.25, "± 0.25"),
        ({"eval/half_interval": 0.0}, 0.0, "± 0.00"),
        ({"eval/half_interval": nan}, None, "± unknown"),
        ({}, None, "± unknown"),
    ],
)
def test_an_unknown_interval_does_not_spoil_the_end_of_a_run(
    tmp_path: Path, interval: dict[str, float], kept: float | None, said: str
) -> None:
    dirs = setup_run_directories("short", data_dir=tmp_path)
    metrics = MetricsFile(dirs.stats_dir / METRICS)
    metrics.log({"eval/training/score": 0.5, **interval}, 0)
    metrics.log({"timing/total/seconds": 3.0, "episode/score": 0.75}, 10)
    metrics.log({"eval/training/score": 1.5, **interval}, 10)
    metrics.close()
    out = io.StringIO()
    replay = ReplayFiles(tmp_path / "replay.json.z", tmp_path / "replay.html")
    facts = report_outcome(Console(file=out), dirs, "/env/mettagrid/simple", 3, replay)
    assert facts["before"] == [0.5, kept]
    assert facts["after"] == [1.5, kept]
    assert json.loads((dirs.run_dir / "summary.json").read_text()) == facts
    assert out.getvalue().count(said) == 2
