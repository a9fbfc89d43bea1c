"""PufferLib's trainer as a learner: it trains, plays and tells of its episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.learning.learners import LEARNERS
from benchmarks.learning.runs import read_log, record_run
from benchmarks.learning.tasks import TASKS, PufferConfig, Task
from metta.mettagrid import registry
from small_worlds import CARRYING_ORE

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

NAME = "/env/tests/carrying_ore"
SMALL = {"num_worlds": 8, "hidden_dim": 16, "bptt_horizon": 32, "minibatch_size": 256}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._environments, NAME, lambda: CARRYING_ORE)
    monkeypatch.setitem(TASKS, "tiny", Task(NAME, 2048, 4))


def test_a_run_from_the_first_step_to_the_log(tmp_path: Path) -> None:
    log = read_log(record_run("tiny", "pufferlib", seed=3, changes=SMALL, folder=tmp_path, row_steps=1024))
    assert log["header"]["versions"]["pufferlib"] == "3.0.0"
    assert [row["steps"] for row in log["row"]] == [1024, 2048]
    for judged in (*log["evaluation"], *log["row"]):
        assert judged["episodes"] > 0
        assert judged["score"] == pytest.approx(judged["stats"].get("ore_red.put", 0))
    assert "entropy" in log["row"][-1]["losses"]


def test_what_it_trains_is_what_plays() -> None:
    torch.manual_seed(0)
    learner = LEARNERS["pufferlib"](NAME, PufferConfig.model_validate(SMALL), 4096, 0)
    policy = learner.policy()
    tokens = torch.from_numpy(seen_by(learner))
    state = policy.initial_state(len(tokens))
    before = policy.act(tokens, state, deterministic=True).values
    learner.advance()
    after = learner.policy().act(tokens, state, deterministic=True).values
    learner.close()
    assert not torch.equal(before, after)


def seen_by(learner: Any) -> Any:
    """What its agents see now."""
    return learner.worlds.vec.observations.copy()
