"""run.py, as a person starts it: to the end, interrupted, and going on."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from metta.agent.policy_store import PolicyStore
from metta.agent.serialize import load_agent
from metta.eval.stats_db import StatsDB
from metta.mettagrid.replay_format import read_replay
from metta.tracking.metrics_file import read_metrics

ROOT = Path(__file__).parent.parent


def command(folder: Path, steps: int, run: str = "r", *more: str) -> list[str]:
    options = ["--steps", str(steps), "--name", run, "--folder", str(folder), "--device", "cpu", *more]
    return [sys.executable, "-W", "error", str(ROOT / "run.py"), *options]


def policy(folder: Path, epoch: int, run: str = "r") -> dict[str, torch.Tensor]:
    agent, _ = load_agent(folder / run / "checkpoints" / f"checkpoint_{epoch:06d}.pt")
    return agent.state_dict()


@pytest.mark.slow
def test_a_run_leaves_what_its_summary_names(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path, 32768), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"score before +-?\d+\.\d\d ± \d+\.\d\d", done.stdout)
    assert re.search(r"score after +-?\d+\.\d\d ± \d+\.\d\d", done.stdout)
    home = tmp_path / "r"
    summary = json.loads((home / "summary.json").read_text())
    assert summary["steps"] == 32768
    assert read_replay(home / "replay.json.z").num_steps == 200
    assert (home / "replay.html").stat().st_size > 10_000
    assert (home / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert policy(tmp_path, 4)
    for name in ("replay.html", "learning_curve.png", "checkpoints", "stats", "summary.json"):
        assert name in done.stdout
    lines = read_metrics(home / "stats" / "metrics.jsonl")
    assert [line["step"] for line in lines if "losses/entropy" in line] == [8192, 16384, 24576, 32768]
    assert [line["step"] for line in lines if "eval/training/score" in line] == [0, 32768]
    with StatsDB(home / "stats" / "stats.duckdb") as database:
        before, after = (row.score.mean for row in database.scores())
    assert [before, after] == [summary["before"][0], summary["after"][0]]
    best = PolicyStore(home / "checkpoints").policy_record(selector="top")
    assert best.metadata["score"] == after
    assert yaml.safe_load((home / "config.yaml").read_text())["trainer"]["total_timesteps"] == 32768


@pytest.mark.slow
def test_two_processes_train_one_policy(tmp_path: Path) -> None:
    launcher = [sys.executable, "-W", "error", "-m", "torch.distributed.run", "--nproc_per_node=2"]
    run = [*launcher, *command(tmp_path, 65536)[3:]]
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, env=quiet)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("score after") == 1  # one of them speaks
    home = tmp_path / "r"
    lines = read_metrics(home / "stats" / "metrics.jsonl")
    assert [line["step"] for line in lines if "losses/entropy" in line] == [16384, 32768, 49152, 65536]
    again = [*launcher, *command(tmp_path, 81920)[3:]]
    done = subprocess.run(again, capture_output=True, text=True, timeout=300, env=quiet)
    assert done.returncode == 0, done.stderr
    assert "at 65,536 steps" in done.stdout
    assert policy(tmp_path, 5)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    steps = 8192 * 6
    process = subprocess.Popen(
        command(tmp_path, steps, "cut"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "steps/s" in line:  # the first batch is done
            break
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=300)
    out = "".join(said) + rest
    assert process.returncode == 130, errors
    stopped = int(re.search(r"Stopped at ([\d,]+) of", out)[1].replace(",", ""))  # type: ignore[index]
    assert 0 < stopped < steps
    (line,) = [text.strip() for text in out.splitlines() if text.strip().startswith("python /")]
    again = [sys.executable, *shlex.split(line)[1:]]
    done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"at {stopped:,} steps" in done.stdout
    whole = subprocess.run(command(tmp_path, steps, "whole"), capture_output=True, text=True, timeout=300)
    assert whole.returncode == 0, whole.stderr
    mine, theirs = policy(tmp_path, 6, "cut"), policy(tmp_path, 6, "whole")
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    wrong = [*command(tmp_path, 8192), "--env", "/env/mettagrid/simpel"]
    done = subprocess.run(wrong, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.startswith("run.py: no environment is called '/env/mettagrid/simpel'; did you mean")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_of_another_world_is_refused_and_left_alone(tmp_path: Path) -> None:
    first = subprocess.run(command(tmp_path, 8192), capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    other = [*command(tmp_path, 8192), "--env", "/env/mettagrid/arena/basic"]
    done = subprocess.run(other, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "another world" in done.stderr
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
