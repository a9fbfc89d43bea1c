"""The learning benchmark: settings by name, and runs of every learner from the first step to the log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.learning.runs import read_log, record_run
from benchmarks.learning.settings import differences, fingerprint, parse
from benchmarks.learning.tasks import TASKS, USUAL, MettaConfig, Task, settings_of
from metta.mettagrid import registry
from small_worlds import CARRYING_ORE

NAME = "/env/tests/carrying_ore"
SMALL = {
    "metta": {"agent.hidden_dim": 16, "batch_size": 512, "minibatch_size": 256},
    "plain": {"hidden_dim": 16, "num_worlds": 4, "num_steps": 64},
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """A task of a few thousand steps."""
    monkeypatch.setitem(registry._environments, NAME, lambda: CARRYING_ORE)
    monkeypatch.setitem(TASKS, "tiny", Task(NAME, 2048, 4))
    return "tiny"


def test_values_are_json_or_text() -> None:
    stated = parse(["ppo.gamma=0.9", "vtrace=null", "optimizer.type=muon", 'a={"end": 0.1}', "b=x=y"])
    assert stated == {
        "ppo.gamma": 0.9,
        "vtrace": None,
        "optimizer.type": "muon",
        "a": {"end": 0.1},
        "b": "x=y",
    }
    with pytest.raises(ValueError, match="states no value; write NAME=VALUE"):
        parse(["ppo.gamma"])


def test_settings_are_changed_by_dotted_name() -> None:
    changes = {"ppo.gamma": 0.9, "agent.hidden_dim": 64, "schedules.ent_coef.end": 0.001, "num_worlds": 4}
    changes |= {"vtrace.vtrace_rho_clip": 2.0}
    base, config = settings_of(TASKS["arena"], "metta"), settings_of(TASKS["arena"], "metta", changes)
    assert isinstance(config, MettaConfig)
    assert (config.ppo.gamma, config.agent.hidden_dim, config.num_worlds) == (0.9, 64, 4)
    assert config.schedules["ent_coef"].end == 0.001
    assert config.vtrace is not None
    found = differences(base.model_dump(), config.model_dump())
    assert {name: found[name] for name in changes} == changes
    assert fingerprint(base.model_dump()) != fingerprint(config.model_dump())
    assert fingerprint(base.model_dump()) == fingerprint(settings_of(TASKS["arena"], "metta").model_dump())


@pytest.mark.parametrize(
    ("learner", "name", "value", "complaint"),
    [
        ("metta", "ppo.gama", 0.9, "there is no 'ppo.gama'"),
        ("metta", "gamma", 0.9, "there is no 'gamma'"),
        ("metta", "policy.gamma", 0.9, "have no 'policy.gamma'; they have"),
        ("metta", "ppo.gamma.x", 0.9, "have no 'ppo.gamma.x': ppo.gamma is 0.99"),
        ("metta", "ppo.gamma.x.y", 0.9, "have no 'ppo.gamma.x.y'"),
        ("metta", "ppo.gamma", "high", "ppo.gamma is 'high'"),
        ("metta", "agent.hidden", 8, "there is no 'agent.hidden'"),
        ("metta", "checkpoint.checkpoint_interval", 8, "does not use checkpoint.checkpoint_interval"),
        ("metta", "total_timesteps", 8, "--steps states the steps"),
        ("metta", "minibatch_size", 1000, "does not divide"),
        ("plain", "ppo.gamma", 0.9, "have no 'ppo.gamma'; they have num_worlds"),
        ("plain", "gamma", "x", "gamma is 'x'"),
        ("nobody", "gamma", 0.9, "learner is 'nobody'; it is one of metta"),
    ],
)
def test_what_does_not_fit_is_refused(learner: str, name: str, value: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        settings_of(TASKS["arena"], learner, {name: value})


def test_every_task_has_settings_for_every_learner() -> None:
    for task in TASKS.values():
        for learner in USUAL:
            assert settings_of(task, learner)


@pytest.mark.parametrize("learner", list(SMALL))
def test_a_run_from_the_first_step_to_the_log(learner: str, tiny: str, tmp_path: Path) -> None:
    log = read_log(
        record_run(tiny, learner, seed=3, changes=SMALL[learner], folder=tmp_path, row_steps=600, note="why")
    )
    header, rows = log["header"], log["row"]
    assert (header["task"], header["learner"], header["seed"], header["note"]) == (tiny, learner, 3, "why")
    assert header["changes"] == SMALL[learner]
    assert header["settings"]["num_worlds"] == SMALL[learner].get("num_worlds", 0)
    assert header["versions"]["torch"]
    assert header["weights"] > 1000
    assert log["end"]["steps"] == rows[-1]["steps"] == 2048
    assert [row["steps"] for row in rows] == [1024, 1536, 2048]
    assert 0 < rows[0]["seconds"] < rows[-1]["seconds"]
    assert 0 < rows[0]["cpu_seconds"] < rows[-1]["cpu_seconds"]
    before, after = log["evaluation"]
    assert (before["steps"], after["steps"]) == (0, 2048)
    assert before["episodes"] == after["episodes"] == 4
    for judged in (before, after, rows[-1]):
        assert judged["score"] == pytest.approx(judged["stats"].get("ore_red.put", 0))  # each is worth 1


def test_a_run_elsewhere_is_judged_at_home(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    easy = CARRYING_ORE.with_overrides(stat_rewards={"ore_red.put": 100.0})
    monkeypatch.setitem(registry._environments, "/env/tests/rich", lambda: easy)
    log = read_log(
        record_run(
            tiny, "metta", changes=SMALL["metta"], env="/env/tests/rich", folder=tmp_path, row_steps=512
        )
    )
    assert (log["header"]["env"], log["header"]["own_env"]) == ("/env/tests/rich", False)
    for row in log["row"]:
        if row["score"] is not None:
            assert row["score"] == pytest.approx(100 * row["stats"].get("ore_red.put", 0), rel=1e-4)
    assert log["evaluation"][1]["score"] == pytest.approx(log["evaluation"][1]["stats"].get("ore_red.put", 0))


def test_the_same_seed_gives_the_same_run(tiny: str, tmp_path: Path) -> None:
    logs = [
        read_log(record_run(tiny, learner, changes=SMALL[learner], folder=tmp_path, steps=1024))
        for learner in SMALL
        for _ in range(2)
    ]
    for one, other in zip(logs[::2], logs[1::2], strict=True):
        assert one["evaluation"] == other["evaluation"]
        assert one["row"][-1]["score"] == other["row"][-1]["score"]


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    for text, complaint in (("{", "damaged"), ('{"kind": "row"}\n', "has no header"), ("[1]", "damaged")):
        file.write_text(text)
        with pytest.raises(ValueError, match=complaint):
            read_log(file)
    file.write_text(json.dumps({"kind": "header", "task": "tiny"}))
    assert read_log(file)["end"] is None
