"""What the terminal shows."""

import io

import pytest
from rich.console import Console

from metta.interface import console as module
from metta.interface.console import TrainingDisplay, duration, sparkline


def test_sparkline_goes_from_lowest_to_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([0] * 50 + [1] * 50, width=10) == "▁▁▁▁▁█████"
    assert sparkline([3, 3]) == "▁▁"
    assert sparkline([]) == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (245, "4:05"), (3723, "1:02:03")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_terminal_sees_a_panel() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    with TrainingDisplay("my world", 1000, console=console) as display:
        display.update(500, 1.0, {"score": "1.00"})
        display.update(1000, 2.0, {"score": "2.00"})
    text = out.getvalue()
    assert "my world" in text
    assert "100%" in text
    assert "1,000 of 1,000 steps" in text
    assert "steps/s" in text
    assert "2.00" in text


def test_a_pipe_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN_INTERVAL", 0.0)
    out = io.StringIO()
    with TrainingDisplay("my world", 1000, console=Console(file=out, width=40)) as display:
        display.update(500, None, {"score": "1.00"})
    assert out.getvalue().count("\n") == 1  # a log is searched line by line, so no line is broken
    assert "500 steps" in out.getvalue()
    assert "score 1.00" in out.getvalue()
