"""The learning curve picture: what it draws, read from the figure and from the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image
from matplotlib.figure import Figure

from metta.sim import learning_curve
from metta.sim.learning_curve import in_short, smooth, write_learning_curve, write_learning_curves


def history(length: int = 40, *, seconds: float = 5.0) -> list[dict[str, Any]]:
    return [
        {"steps": 1000 * (i + 1), "seconds": seconds * (i + 1), "score": float(np.tanh(i / 10))}
        for i in range(length)
    ]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that the module makes, for a look inside."""
    made: list[Figure] = []

    def keep(*args: Any, **options: Any) -> Figure:
        made.append(Figure(*args, **options))
        return made[-1]

    monkeypatch.setattr(learning_curve, "Figure", keep)
    return made


def test_it_writes_a_picture_and_says_where(tmp_path: Path) -> None:
    path = write_learning_curve(
        tmp_path / "new" / "curve.png", history(), before=(0.1, 0.02), after=(0.9, 0.03)
    )
    assert path == tmp_path / "new" / "curve.png"
    pixels = image.imread(path)
    assert pixels.shape == (600, 1440, 4)
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 50


def test_both_panels_show_every_score_and_both_evaluations(tmp_path: Path, figures: list[Figure]) -> None:
    points = history(40)
    write_learning_curve(tmp_path / "a.png", points, before=[0.1, 0.02], after=[0.9, 0.03], title="a run")
    (figure,) = figures
    by_steps, by_time = figure.axes
    scores = [point["score"] for point in points]
    for axes, name, unit in ((by_steps, "steps", 1), (by_time, "seconds", 60)):
        dots = axes.lines[0]
        np.testing.assert_allclose(dots.get_xdata(), [point[name] / unit for point in points])
        np.testing.assert_allclose(dots.get_ydata(), scores)
        before, after = (container.lines for container in axes.containers)
        assert before[0].get_xydata().tolist() == [[0, 0.1]]
        np.testing.assert_allclose(after[0].get_xydata(), [[points[-1][name] / unit, 0.9]])
        (low, high) = after[2][0].get_segments()[0]
        np.testing.assert_allclose([low[1], high[1]], [0.87, 0.93])
    assert by_time.get_xlabel() == "minutes"
    assert figure.get_suptitle() == "a run"
    legend = [text.get_text() for text in by_time.get_legend().get_texts()]
    assert legend == [
        "training, mean of 2 updates",
        "before training: 0.10 ± 0.02",
        "after training: 0.90 ± 0.03",
    ]


def test_short_runs_are_told_in_seconds_and_unknown_intervals_left_out(
    tmp_path: Path, figures: list[Figure]
) -> None:
    write_learning_curve(tmp_path / "a.png", history(5, seconds=2), after=(0.5, float("nan")))
    assert figures[0].axes[1].get_xlabel() == "seconds"
    legend = [text.get_text() for text in figures[0].axes[1].get_legend().get_texts()]
    assert legend == ["training", "after training: 0.50"]


def test_updates_without_a_finished_episode_are_skipped(tmp_path: Path, figures: list[Figure]) -> None:
    points = history(4)
    points[1]["score"] = None
    points[2]["score"] = float("nan")
    write_learning_curve(tmp_path / "a.png", points)
    assert figures[0].axes[0].lines[0].get_xdata().tolist() == [1000, 4000]


@pytest.mark.parametrize("points", [[], [{"steps": 0, "seconds": 0.0, "score": None}]])
def test_a_run_that_ended_at_once_still_gives_a_picture(tmp_path: Path, points: Any) -> None:
    assert write_learning_curve(tmp_path / "a.png", points, before=(1.0, 0.1)).stat().st_size > 1000


def test_several_runs_share_a_picture(tmp_path: Path, figures: list[Figure]) -> None:
    write_learning_curves(tmp_path / "a.png", {"seed 0": history(10), "seed 1": history(20)})
    assert [text.get_text() for text in figures[0].axes[1].get_legend().get_texts()] == ["seed 0", "seed 1"]


def test_a_missing_entry_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Entry 1 of the history has no 'seconds'"):
        write_learning_curve(tmp_path / "a.png", [*history(1), {"steps": 1, "score": 2.0}])
    assert not (tmp_path / "a.png").exists()


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.integers(1, 12))
def test_smoothing_is_the_mean_around_each_value(values: list[float], width: int) -> None:
    smoothed = smooth(np.array(values), width)
    for i, mean in enumerate(smoothed):
        window = [v for j, v in enumerate(values) if i - (width - 1) // 2 <= j <= i + width // 2]
        assert mean == pytest.approx(np.mean(window), abs=1e-9)


def test_steps_are_written_in_short() -> None:
    assert [in_short(n) for n in (0, 250, 1000, 250_000, 1_500_000, 2e9)] == [
        "0",
        "250",
        "1 k",
        "250 k",
        "1.5 M",
        "2 G",
    ]


def test_the_global_state_of_matplotlib_is_left_alone() -> None:
    code = "import sys, metta.sim.learning_curve; print('matplotlib.pyplot' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
