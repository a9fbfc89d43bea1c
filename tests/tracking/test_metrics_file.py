"""The metrics file: what is logged can be read, through crashes and resumed runs."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metta.tracking.metrics_file import MetricsFile, read_metrics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "metrics.jsonl"


def write(path: Path, steps: range, *, resume_step: int | None = None) -> None:
    file = MetricsFile(path, resume_step=resume_step)
    for step in steps:
        file.log({"score": step / 2}, step)
    file.close()


def steps(path: Path) -> list[int]:
    return [entry["step"] for entry in read_metrics(path)]


def test_what_is_logged_can_be_read_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1767225600.123456)
    file = MetricsFile(path)
    file.log({"score": 0.25, "loss/value": np.float32(3), "entropy": 2}, 8192)
    (entry,) = read_metrics(path)
    assert entry == {"step": 8192, "time": 1767225600.123, "score": 0.25, "loss/value": 3.0, "entropy": 2.0}
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["step"] == 8192
    file.close()


def test_numbers_that_json_cannot_hold_are_null(path: Path) -> None:
    file = MetricsFile(path)
    file.log({"a": math.nan, "b": math.inf, "c": 1.0}, 1)
    file.close()
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["a"] is None
    (entry,) = read_metrics(path)
    assert math.isnan(entry["a"])
    assert math.isnan(entry["b"])
    assert entry["c"] == 1.0


def test_a_later_part_of_a_run_is_added(path: Path) -> None:
    write(path, range(3))
    write(path, range(3, 5))
    assert steps(path) == [0, 1, 2, 3, 4]


def test_a_resumed_run_takes_back_what_it_will_do_again(path: Path) -> None:
    write(path, range(10))
    write(path, range(5, 12), resume_step=4)
    assert steps(path) == list(range(12))
    write(path, range(20, 21), resume_step=100)
    assert steps(path) == [*range(12), 20]


@given(st.integers(0, 120))
def test_half_a_line_at_the_end_is_left_out_and_mended(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    write(path, range(4))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    left = whole[: len(whole) - cut].count(b"\n")
    assert steps(path) == list(range(left))
    write(path, range(left, 6))
    assert steps(path) == list(range(6))


def test_a_damaged_line_is_named_and_nothing_is_changed(path: Path) -> None:
    write(path, range(3))
    lines = path.read_bytes().splitlines(keepends=True)
    for damage in (b"{half\n", b"[1]\n", b'{"score": 1}\n', b"\xff\n", b'{"step": "3"}\n'):
        content = lines[0] + damage + lines[2]
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"line 2 of .*metrics\.jsonl is no line of metrics"):
            read_metrics(path)
        with pytest.raises(ValueError, match=r"line 2 of .*mend or move the file"):
            MetricsFile(path)
        assert path.read_bytes() == content


def test_reserved_names_are_refused(path: Path) -> None:
    file = MetricsFile(path)
    for name in ("step", "time"):
        with pytest.raises(ValueError, match=f"a metric is called '{name}'"):
            file.log({name: 1.0}, 3)
    file.close()
    assert path.read_bytes() == b""


def test_after_close_nothing_is_logged(path: Path) -> None:
    file = MetricsFile(path)
    file.close()
    file.close()
    with pytest.raises(ValueError, match="is closed"):
        file.log({}, 0)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no metrics file .*nothing\.jsonl"):
        read_metrics(tmp_path / "nothing.jsonl")


def test_a_full_disk_is_an_error_and_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = MetricsFile(path)
    file.log({"a": 1.0}, 1)
    before = path.read_bytes()
    whole_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: whole_write(descriptor, data[:7]))
        with pytest.raises(OSError, match=r"metrics\.jsonl took only a part of a line"):
            file.log({"a": 2.0}, 2)
    assert path.read_bytes() == before
    file.log({"a": 3.0}, 3)
    file.close()
    assert steps(path) == [1, 3]


KILLED = """
import itertools, sys
from metta.tracking.metrics_file import MetricsFile

file = MetricsFile(sys.argv[1])
for step in itertools.count():
    file.log({f"metric {i}": i / 3 for i in range(40)}, step)
    print(step, flush=True)
"""


def test_a_killed_process_loses_no_line_that_it_had_logged(path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        logged = [int(process.stdout.readline()) for _ in range(200)]
        process.send_signal(signal.SIGKILL)
    assert steps(path)[:200] == logged
    count = len(steps(path))
    write(path, range(count, count + 3))
    assert steps(path) == list(range(count + 3))
