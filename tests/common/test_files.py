import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metta.common.files import atomic_write_bytes, atomic_write_json

WRITER = """
import sys
from metta.common.files import atomic_write_bytes
path, size = sys.argv[1], int(sys.argv[2])
turn = 0
while True:
    atomic_write_bytes(path, bytes([65 + turn % 26]) * size)
    turn += 1
"""


def test_writes_and_replaces_the_whole_file_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    assert atomic_write_bytes(path, b"first, and long") == path
    atomic_write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "file.bin"
    atomic_write_bytes(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="the disk is full"):
        atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path, size = tmp_path / "file.bin", 300_000
    atomic_write_bytes(path, b"A" * size)
    seen = set()
    for round_number in range(12):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(size)])
        try:
            before = path.stat().st_mtime_ns
            while path.stat().st_mtime_ns == before:  # until it is in its loop
                assert writer.poll() is None
                time.sleep(0.001)
            time.sleep(0.002 * round_number)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        content = path.read_bytes()
        assert len(content) == size
        assert len(set(content)) == 1
        seen.add(content[0])
    assert len(seen) > 1, "the writers were killed before they wrote anything"


def test_json_comes_back_and_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    value = {"name": "é", "list": [1, 2.5, None, True]}
    atomic_write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value
    with pytest.raises(ValueError, match="JSON"):
        atomic_write_json(path, {"loss": float("nan")})
    with pytest.raises(TypeError, match="set"):
        atomic_write_json(path, {1, 2})
    assert json.loads(path.read_text(encoding="utf-8")) == value
