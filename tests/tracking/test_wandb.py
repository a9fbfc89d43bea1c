"""Weights & Biases, the real package, offline and in folders of the test's own."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from metta.tracking.tracker import Trackers
from metta.tracking.wandb import WandbTracker, cleanup_wandb, initialize_wandb


@pytest.fixture(autouse=True)
def _no_account_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine where nobody logged in; and whoever looks up a host or asks a question fails the test."""
    for name in ("API_KEY", "MODE", "PROJECT", "RUN_ID", "ERROR_REPORTING"):
        monkeypatch.setenv(f"WANDB_{name}", "")  # so that it is put back, whatever happens to it
        monkeypatch.delenv(f"WANDB_{name}")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("DIR", "CONFIG_DIR", "CACHE_DIR", "DATA_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))

    def refuse(*args: Any, **options: Any) -> Any:
        pytest.fail(f"a look over the network or a question: {args}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("builtins.input", refuse)
    yield
    wandb.teardown()


def stored(run_dir: Path) -> list[bytes]:
    """What each part of a run left on disk, once wandb's own process has finished writing, as at the end of a program."""
    wandb.teardown()
    return [file.read_bytes() for file in sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"))]


def test_without_a_key_a_run_is_tracked_offline_and_goes_on_as_the_same_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = tmp_path / "checkpoint_000001.pt"
    policy.write_bytes(b"weights")
    run_dir = tmp_path / "run"
    ids = []
    with caplog.at_level(logging.WARNING, logger="metta"):
        for part in range(2):
            tracker = initialize_wandb("a project", "a name", run_dir, {"seed": 3})
            assert len(tracker) == 1
            assert wandb.run is not None
            assert (wandb.run.settings.mode, wandb.run.name, wandb.run.project) == (
                "offline",
                "a name",
                "a project",
            )
            assert dict(wandb.run.config) == {"seed": 3}
            ids.append(wandb.run.id)
            tracker.log({f"score of part {part}": 0.5}, 100)
            tracker.log({f"score of part {part}": 0.75}, 50)  # a resumed run may go back
            assert wandb.run.summary["agent_step"] == 50
            tracker.log_policy(policy, {"epoch": 1})
            cleanup_wandb(tracker)
            cleanup_wandb(tracker)
            assert wandb.run is None
    assert not caplog.records
    assert os.environ["WANDB_ERROR_REPORTING"] == "false", "wandb's own service would look up a host"
    assert ids[0] == ids[1] == json.loads((run_dir / "wandb_run.json").read_text())["id"]
    files = stored(run_dir)
    assert len(files) == 2
    for part, content in enumerate(files):
        assert f"score of part {part}".encode() in content
        assert f"policy-{ids[0]}".encode() in content


@pytest.mark.parametrize("how", ["enabled", "mode", "environment"])
def test_tracking_can_be_switched_off(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "environment":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = initialize_wandb(
        run_dir=tmp_path / "run", enabled=how != "enabled", mode="disabled" if how == "mode" else None
    )
    assert len(tracker) == 0
    tracker.log({"score": 1.0}, 1)
    cleanup_wandb(tracker)
    assert not (tmp_path / "run").exists()


class FakeRun:
    """Stands where a run of wandb would: remembers what it is told."""

    id = "abc"

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.told.append(("define", name, step_metric))

    def log(self, data: dict[str, float]) -> None:
        self.told.append(("log", data))

    def finish(self) -> None:
        self.told.append(("finish",))


@pytest.mark.parametrize(
    ("key", "environment", "given", "expected"),
    [
        (False, None, None, "offline"),
        (True, None, None, "online"),
        (True, "offline", None, "offline"),
        (False, "online", None, "offline"),
        (True, "online", "offline", "offline"),
        (False, None, "online", "online"),
    ],
)
def test_online_needs_a_key_or_a_plain_word(
    key: bool,
    environment: str | None,
    given: Any,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if key:
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    asked: dict[str, Any] = {}
    run = FakeRun()
    monkeypatch.setattr(wandb, "init", lambda **options: (asked.update(options), run)[1])
    tracker = initialize_wandb(run_dir=tmp_path, mode=given)
    assert asked["mode"] == expected
    assert asked["resume"] == ("allow" if expected == "online" else None)
    tracker.log({"score": 1}, 7)
    tracker.close()
    assert run.told == [
        ("define", "agent_step", None),
        ("define", "*", "agent_step"),
        ("log", {"agent_step": 7, "score": 1.0}),
        ("finish",),
    ]


def test_a_run_that_cannot_begin_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def init(**options: Any) -> Any:
        raise TimeoutError("nobody answers")

    monkeypatch.setattr(wandb, "init", init)
    with caplog.at_level(logging.WARNING):
        tracker = initialize_wandb(run_dir=tmp_path, mode="online")
    assert len(tracker) == 0
    (record,) = caplog.records
    assert (
        record.getMessage() == "wandb cannot begin, the run goes on without it: TimeoutError: nobody answers"
    )


def test_a_missing_package_is_a_warning_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with caplog.at_level(logging.WARNING):
        assert len(initialize_wandb(run_dir=tmp_path)) == 0
    (record,) = caplog.records
    assert "wandb is not installed" in record.getMessage()
    assert "pip install 'metta[tracking]'" in record.getMessage()


def test_a_damaged_id_file_is_a_warning_that_says_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "wandb_run.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert len(initialize_wandb(run_dir=tmp_path)) == 0
    assert "wandb_run.json holds no run id; remove it to begin another run" in caplog.text


def test_a_run_that_breaks_later_is_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeRun):
        def log(self, data: dict[str, float]) -> None:
            raise BrokenPipeError("the service is gone")

    run = Broken()
    tracker = Trackers([WandbTracker(run)])
    with caplog.at_level(logging.WARNING):
        tracker.log({"a": 1.0}, 1)
        tracker.log({"a": 1.0}, 2)
        cleanup_wandb(tracker)
    assert len(caplog.records) == 1
    assert run.told[-1] == ("finish",)


def test_cleaning_up_nothing_does_no_harm() -> None:
    cleanup_wandb(None)
