"""The phases that are timed are the step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metta.bench import phases
from metta.bench.cases import CASES, Case, make_env
from metta.bench.phases import PHASES, PhasedWorlds, measure_phases
from metta.bench.report import phase_lines
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.worlds.newcomer import simple

TINY = replace(CASES["d"], num_worlds=3, max_steps=20)


def eventful(case: Case) -> EnvConfig:
    """Two groups that share rewards, rewarded statistics, a bonus at the end, penalties and a price of time."""
    return case.config().with_overrides(
        groups={"agent": {}, "others": {}},
        reward_sharing_groups={"others": 0.5},
        stat_rewards={"ore_red.get": 0.1},
        diversity_bonus_enabled=True,
        action_failure_penalty=0.1,
        time_punishment=-0.01,
        max_steps=30,
    )


def assert_phases_are_the_step(case: Case, steps: int) -> None:
    env, actions = make_env(case)
    worlds = PhasedWorlds(env)
    for _ in range(steps):
        batch = actions.batch()
        before = env.engine.snapshot()
        env.engine.step(batch.reshape(case.num_worlds, case.agents, 2))
        stepped = env.engine.snapshot()
        for step in (worlds.step_in_phases, worlds.step):
            env.engine.restore(before)
            step(batch)
            for name, array in env.engine.snapshot().items():
                assert np.array_equal(array, stepped[name], equal_nan=array.dtype.kind == "f"), name


@pytest.mark.parametrize("name", CASES)
def test_phases_in_turn_are_the_step(name: str) -> None:
    assert_phases_are_the_step(replace(CASES[name], num_worlds=2, max_steps=20), 60)


def test_they_are_where_much_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    config = eventful(TINY)
    monkeypatch.setattr(Case, "config", lambda case: config)
    assert_phases_are_the_step(TINY, 60)
    monkeypatch.setattr(Case, "config", lambda case: simple())
    assert_phases_are_the_step(replace(TINY, agents=4), 250)


def test_the_measurement_of_a_tiny_case() -> None:
    spent = measure_phases(TINY, rounds=1)
    assert {
        *PHASES,
        "phases",
        "kernel",
        "engine",
        "env",
        "ends",
        "all",
        "maps",
        "reset",
        "statistics",
    } == set(spent)
    assert spent["phases"] == pytest.approx(sum(spent[name] for name in PHASES))
    assert spent["all"] == pytest.approx(spent["env"] + spent["ends"])
    lines = phase_lines({"d": spent})
    assert len(lines) == 10 + len(PHASES)
    assert lines[-4].split()[-1] == "100.0%"


@pytest.mark.parametrize("missing", range(len(PHASES)))
def test_a_phase_left_out_is_noticed(missing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = phases.run_phase
    monkeypatch.setattr(phases, "run_phase", lambda *a: None if a[3] == missing else whole(*a))
    with pytest.raises(AssertionError):
        assert_phases_are_the_step(TINY, 60)
