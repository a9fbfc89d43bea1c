"""TensorBoard: the curves that its own reader finds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metta.tracking.tensorboard import TensorBoardTracker


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_curves_arrive(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(tmp_path / "events")
    tracker.log({"score": 1.0, "loss/value": 8.0}, 100)
    tracker.log({"score": 2.0}, 200)
    tracker.log_policy("a.pt", {})
    tracker.close()
    tracker.close()
    assert curve(tmp_path / "events", "score") == [(100, 1.0), (200, 2.0)]
    assert curve(tmp_path / "events", "loss/value") == [(100, 8.0)]


def test_a_resumed_run_hides_what_it_does_again(tmp_path: Path) -> None:
    for start, resume_step in ((0, None), (300, 200)):
        tracker = TensorBoardTracker(tmp_path, resume_step=resume_step)
        for step in range(start, 500, 100):
            tracker.log({"score": float(start + step)}, step)
        tracker.close()
    assert curve(tmp_path, "score") == [(0, 0.0), (100, 100.0), (200, 200.0), (300, 600.0), (400, 700.0)]


def test_after_close_nothing_is_logged(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(tmp_path)
    tracker.close()
    with pytest.raises(ValueError, match="is closed"):
        tracker.log({"a": 1.0}, 0)


def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ImportError, match=r"TensorBoard is not installed; say pip install 'metta\[tracking\]'"
    ):
        TensorBoardTracker(tmp_path)
