"""The learning benchmark: settings by name, and runs of every learner from the first step to the log."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.learning.learners import as_policy, batch_sizes
from benchmarks.learning.runs import read_log, record_run
from benchmarks.learning.settings import differences, fingerprint, parse
from benchmarks.learning.tasks import TASKS, USUAL, MettaConfig, Task, settings_of
from metta.agent.state import PolicyState
from metta.mettagrid import registry
from metta.mettagrid.vec import VecEnv
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
    # The worlds' first episodes are cut at random steps and not reported; the others end every 40 steps: 64 steps of 8 worlds
    # are a row, so no episode may be counted in two of them.
    assert sum(row["episodes"] for row in rows) <= 2048 / 2 / 40
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
            assert row["score"] == pytest.approx(100 * row["stats"].get("ore_red.put", 0), rel=1e-2)
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


def test_a_player_forgets_at_the_start_of_an_episode() -> None:
    spec = VecEnv(CARRYING_ORE, 1).spec
    told: list[PolicyState] = []

    def step(tokens: torch.Tensor, state: PolicyState) -> tuple[torch.Tensor, torch.Tensor, PolicyState]:
        told.append(state)
        logits = torch.zeros(len(tokens), len(spec.legal_actions))
        logits[:, 1] = 9.0
        return logits, torch.full((len(tokens),), 5.0), PolicyState(state.h + 1, state.c + 2)

    player = as_policy(step, spec, 4)
    tokens, starts = torch.zeros(3, 8, 3, dtype=torch.uint8), torch.tensor([True, False, False])
    state = PolicyState(torch.ones(1, 3, 4), torch.ones(1, 3, 4))
    out = player.act(tokens, state, starts, deterministic=True)
    assert told[0].h[0, :, 0].tolist() == told[0].c[0, :, 0].tolist() == [0.0, 1.0, 1.0]
    assert out.state.c[0, :, 0].tolist() == [2.0, 3.0, 3.0]
    assert out.actions.tolist() == [list(spec.legal_actions[1])] * 3
    assert out.logprobs[0] == pytest.approx(
        -math.log(1 + (len(spec.legal_actions) - 1) * math.exp(-9)), rel=1e-2
    )
    many = torch.stack(
        [player.act(tokens, state, generator=torch.Generator().manual_seed(i)).actions for i in range(9)]
    )
    assert (many == torch.tensor(spec.legal_actions[1])).all(-1).float().mean() > 0.9


def test_a_batch_is_that_of_run_py_unless_worlds_are_stated() -> None:
    usual = MettaConfig(batch_size=8192, minibatch_size=1024, bptt_horizon=32)
    assert batch_sizes(usual, 4) == (64, {"batch_size": 8192, "minibatch_size": 1024})
    assert batch_sizes(usual, 24) == (8, {"batch_size": 6144, "minibatch_size": 768})  # as run.py has it
    few = MettaConfig(batch_size=8192, minibatch_size=2048, bptt_horizon=32, num_worlds=2)
    assert batch_sizes(few, 24) == (2, {"batch_size": 32 * 48 * 5, "minibatch_size": 32 * 48 * 5 // 4})
    with pytest.raises(ValueError, match="cannot be cut into 4 minibatches: take another num_worlds"):
        batch_sizes(few.model_copy(update={"num_worlds": 31}), 3)


def test_schedules_follow_the_steps_of_the_run(tiny: str, tmp_path: Path) -> None:
    """The entropy bonus has gone over to a huge one in the second half, so actions are drawn evenly in the end."""
    changes = SMALL["metta"] | {"ppo.ent_coef": 0.0, "anneal_lr": False, "optimizer.learning_rate": 0.02}
    entropies = []
    for end in (0.0, 50.0):
        schedule = {"schedules.ent_coef": {"end": end, "start_at": 0.25, "end_at": 0.5}}
        path = record_run(
            tiny, "metta", changes=changes | schedule, folder=tmp_path, row_steps=512, steps=4096
        )
        entropies.append([row["losses"]["entropy"] for row in read_log(path)["row"]])
    assert entropies[0][:2] == entropies[1][:2]
    assert entropies[1][-1] > entropies[0][-1] + 0.02
