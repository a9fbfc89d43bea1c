"""`check_env` passes what is right, and every promise that it names can be seen to fail."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from pydantic import Field

from metta.mettagrid import fleet, registry
from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, MapBuilderConfig, ObjectConfig
from metta.mettagrid.curriculum.base import MultiTaskCurriculum, SingleTaskCurriculum, Task
from metta.mettagrid.engine.board import Episodes
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.map import builder
from metta.mettagrid.testing import CheckError, check_curriculum, check_env
from metta.mettagrid.testing.legality import check_illegal_actions
from metta.mettagrid.vec import StepBatch, VecEnv

SMALL = EnvConfig(
    game=GameConfig(
        num_agents=2,
        width=8,
        height=7,
        max_steps=7,
        observation_width=5,
        observation_height=5,
        num_observation_tokens=60,
        stat_rewards={"ore_red.get": 0.5},
    ),
    map_builder=MapBuilderConfig(objects={"mine_red": 2, "altar": (0, 2), "block": 1}, border_width=1),
)


def quick(subject: Any, **options: Any) -> str:
    """A check without worker processes."""
    return str(check_env(subject, **{"steps": 20, "num_workers": 0, **options}))


def make(kind: type[VecEnv], config: Any = SMALL) -> Callable[..., VecEnv]:
    """A function that makes environments of a subclass."""
    return lambda num_worlds, **options: kind(config, num_worlds, **options)


def test_what_is_right_passes_and_says_what_was_checked() -> None:
    report = check_env(SMALL, steps=20)
    assert (report.num_worlds, report.num_agents, report.num_episodes) == (3, 2, 6)
    assert not report.left_out
    assert "the same in 2 worker processes" in report.checks
    assert len(report.checks) == 18
    assert "18 checks over 3 worlds of 2 agents, 20 steps" in str(report)


def test_every_form_of_an_environment_is_taken() -> None:
    assert "worker processes: num_workers is 0" in quick(SMALL.model_dump(exclude_unset=True))
    assert "/env/mettagrid/navigation/evals/radialmaze keeps" in quick(
        "/env/mettagrid/navigation/evals/radialmaze"
    )
    assert "the same alone" in quick(make(VecEnv))
    several = MultiTaskCurriculum([Task("one", SMALL), Task("other", SMALL.with_overrides(max_steps=5))])
    assert "MultiTaskCurriculum keeps" in quick(several)
    assert not any(several.state_dict()["episodes"]), "it hears nothing of being checked"


def nothing(num_worlds: int, **options: Any) -> None:
    """Forgets to return what it made."""


@pytest.mark.parametrize(
    ("subject", "options", "kind", "sentence"),
    [
        (
            5,
            {},
            TypeError,
            "env is a int; pass a configuration, a curriculum, a registered name or a function",
        ),
        (
            {"gme": {}},
            {},
            ValueError,
            "the environment has a wrong entry at gme: Extra inputs are not permitted",
        ),
        (SMALL, {"steps": 0}, ValueError, "steps is 0; play 1 step or more"),
        (nothing, {}, CheckError, "nothing made a NoneType; return a VecEnv"),
    ],
)
def test_what_cannot_be_checked_is_refused_in_a_sentence(
    subject: Any, options: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence) as caught:
        quick(subject, **options)
    assert "\n" not in str(caught.value)


def test_a_name_is_no_curriculum() -> None:
    with pytest.raises(TypeError, match="curriculum is a str, not a Curriculum"):
        check_curriculum("/env/mettagrid/curriculum/simple")  # type: ignore[arg-type]


def test_an_environment_that_is_there_is_checked_as_it_is() -> None:
    with VecEnv(SMALL, 2) as env:
        report = check_env(env, steps=20)
        assert [line.partition(":")[0] for line in report.left_out] == [
            "other numbers of worlds, threads and workers, other seeds"
        ]
        assert env.starts.all()
    assert check_env(MettaGridEnv(SMALL), steps=20).num_worlds == 1
    with VecEnv(SMALL, 2, num_workers=1) as env:
        assert "the state of the worlds, which is in worker processes" in check_env(env, steps=20).left_out
    with VecEnv(SMALL.with_overrides(max_steps=0, episode_lifetime=0), 1) as env:
        assert "an episode: none came within 2" in str(check_env(env, steps=20))


def test_episodes_that_are_cut_off_are_in_order() -> None:
    quick(lambda num_worlds, **options: VecEnv(SMALL, num_worlds, stagger=True, **options), steps=30)
    quick(SMALL.with_overrides(max_steps=0, episode_lifetime=6))
    quick(SMALL.with_overrides(episode_truncates=True))


class Spoiled(VecEnv):
    """An environment whose steps come out wrong."""

    def spoil(self, batch: StepBatch) -> StepBatch:
        raise NotImplementedError

    def step(self, *arguments: Any) -> StepBatch:
        return self.spoil(super().step(*arguments))


def spoiled(spoil: Callable[[VecEnv, StepBatch], StepBatch]) -> Callable[..., VecEnv]:
    return make(type("Spoiled", (Spoiled,), {"spoil": spoil}))


def with_token(row: int, token: int, *values: int) -> Callable[[VecEnv, StepBatch], StepBatch]:
    """Every step's observations with one token replaced."""

    def spoil(env: VecEnv, batch: StepBatch) -> StepBatch:
        seen = batch.observations.copy()
        seen[row, token, : len(values)] = values
        return replace(batch, observations=seen)

    return spoil


def swapped(env: VecEnv, batch: StepBatch) -> StepBatch:
    """Cells out of order: the last two tokens that differ in their place change places."""
    seen = batch.observations.copy()
    last = int((seen[1, :, 0] != 255).sum()) - 1
    other = int(np.flatnonzero(seen[1, :last, 0] != seen[1, last, 0])[-1])
    seen[1, [other, last]] = seen[1, [last, other]]
    return replace(batch, observations=seen)


def a_nan(env: VecEnv, batch: StepBatch) -> StepBatch:
    batch.rewards[3] = np.nan
    return batch


def both_flags(env: VecEnv, batch: StepBatch) -> StepBatch:
    return replace(batch, truncations=batch.terminals | batch.truncations)


def one_agent_only(env: VecEnv, batch: StepBatch) -> StepBatch:
    batch.terminals[1] = False
    return batch


def early_flag(env: VecEnv, batch: StepBatch) -> StepBatch:
    batch.terminals[:2] = True
    return batch


def no_start(env: VecEnv, batch: StepBatch) -> StepBatch:
    env.starts[:] = False
    return batch


def first_for_final(env: VecEnv, batch: StepBatch) -> StepBatch:
    return replace(batch, final_observations=batch.observations[batch.final_rows].copy())


def final_for_first(env: VecEnv, batch: StepBatch) -> StepBatch:
    seen = batch.observations.copy()
    seen[batch.final_rows] = batch.final_observations
    return replace(batch, observations=seen)


def forgetful_sum(env: VecEnv, batch: StepBatch) -> StepBatch:
    episodes = [replace(outcome, returns=outcome.returns + np.float32(1)) for outcome in batch.episodes]
    return replace(batch, episodes=episodes)


def one_step_short(env: VecEnv, batch: StepBatch) -> StepBatch:
    return replace(batch, episodes=[replace(e, length=e.length - 1) for e in batch.episodes])


def no_outcomes(env: VecEnv, batch: StepBatch) -> StepBatch:
    return replace(batch, episodes=[])


def infinite_statistic(env: VecEnv, batch: StepBatch) -> StepBatch:
    for outcome in batch.episodes:
        outcome.stats["agent"][0]["pace"] = float("inf")
    return batch


def a_warning(env: VecEnv, batch: StepBatch) -> StepBatch:
    warnings.warn("this is old", DeprecationWarning, stacklevel=1)
    return batch


FAULTS: dict[str, tuple[Callable[[VecEnv, StepBatch], StepBatch], str]] = {
    "rewards of another type": (
        lambda env, batch: replace(batch, rewards=batch.rewards.astype(np.float64)),
        r"at step 0, rewards is float64 \(6,\); give float32 \(6,\)",
    ),
    "observations of another shape": (
        lambda env, batch: replace(batch, observations=batch.observations[:, :-1]),
        r"at step 0, observations is uint8 \(6, 59, 3\); give uint8 \(6, 60, 3\)",
    ),
    "a reward that is no number": (a_nan, "the reward of world 1, agent 1 is nan; no learner survives that"),
    "a token behind padding": (
        with_token(4, 59, 34, 0, 1),
        r"world 2, agent 0: token 59 \[34, 0, 1\] follows padding",
    ),
    "padding that is none": (with_token(0, 59, 255, 255, 0), r"token 59 \[255, 255, 0\] is padding"),
    "a token below the window": (
        with_token(0, 4, 5 * 16),
        r"token 4 \[80, 0, 0\] lies outside the window of 5 rows",
    ),
    "a token right of the window": (with_token(0, 4, 5), r"token 4 \[5, 0, 0\] lies outside the window"),
    "an unknown feature": (with_token(0, 4, 34, 77), "has a feature id that the spec does not list"),
    "a global token off the centre": (
        with_token(0, 1, 33),
        "is about the observer itself and has to lie in the middle",
    ),
    "a global token among the cells": (
        with_token(0, 6, 34, 8),
        "is about the episode and has to come before",
    ),
    "cells out of order": (swapped, "is nearer than one before it; cells are listed nearest first"),
    "a feature twice": (with_token(0, 6, 34, 1), "repeats a feature of its cell"),
    "a cell without a type": (
        with_token(0, 4, 34, 12),
        "opens a cell, and the first thing said there is type_id",
    ),
    "a type that nobody knows": (
        with_token(0, 4, 34, 0, 200),
        "is of a type that spec.object_type_names does not list",
    ),
    "a fifth direction": (with_token(0, 7, 34, 4, 4), "gives agent:orientation a value over 3"),
    "both flags": (both_flags, "world 0, agent 0 is both terminal and truncated"),
    "a flag for some agents": (one_agent_only, "only some agents of world 0 have terminals"),
    "a flag in the middle": (
        early_flag,
        "at step 0, world 0, agent 0 is flagged as ended but has no final observation",
    ),
    "no starts": (no_start, "env.starts of world 0, agent 0 is False"),
    "the next episode's view as the last": (
        first_for_final,
        "the final observation of world 0, agent 0 shows last_action",
    ),
    "the last view as the next episode's": (
        final_for_first,
        "shows a episode_completion_pct of an episode before it",
    ),
    "wrong returns": (forgetful_sum, "the outcome of world 0 has returns"),
    "a wrong length": (
        one_step_short,
        "the outcome of world 0 has length 6; what the steps showed comes to 7",
    ),
    "no outcomes": (no_outcomes, r"worlds \[0, 1, 2\] ended but the outcomes are of \[\]"),
    "a statistic without end": (infinite_statistic, "the statistic pace of world 0, agent 0 is inf"),
    "a warning": (a_warning, "there was a DeprecationWarning, 'this is old'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_that_comes_out_wrong_is_found(fault: str) -> None:
    spoil, sentence = FAULTS[fault]
    with pytest.raises(CheckError, match=sentence):
        quick(spoiled(spoil))


class OverwritesFlags(Spoiled):
    """Hands out the same array at every step."""

    def spoil(self, batch: StepBatch) -> StepBatch:
        self.flags = getattr(self, "flags", batch.terminals)
        self.flags[:] = batch.terminals
        return replace(batch, terminals=self.flags)


class ChangesActions(VecEnv):
    def step(self, actions: Any, *arguments: Any) -> StepBatch:
        batch = super().step(actions, *arguments)
        actions[0] = 0
        return batch


def pay(episodes: Episodes, before: Any, worlds: Any, amount: float) -> None:
    """Add to the rewards of a step; before it the returns were `before`."""
    episodes.rewards[worlds] += amount
    episodes.returns[worlds] = before[worlds] + episodes.rewards[worlds]


class RemembersResets(VecEnv):
    """Pays more the more often it has been reset."""

    resets = 0

    def reset(self, *arguments: Any, **options: Any) -> Any:
        self.resets += 1
        return super().reset(*arguments, **options)

    def _launch(self, actions: Any, lo: int, hi: int) -> None:
        before = self._returns.copy()
        super()._launch(actions, lo, hi)
        pay(self._fleet.episodes, before, slice(lo, hi), self.resets)


class ForgetsAClock(VecEnv):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "lengths": np.zeros(self.num_worlds, np.int64)}


class NarrowSpaces(VecEnv):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.single_action_space = gym.spaces.MultiDiscrete([2, 2])


class OtherObservationSpace(VecEnv):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.single_observation_space = gym.spaces.Box(0, 255, (9, 3), np.uint8)


class NegativeArguments(VecEnv):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.spec = replace(self.spec, max_action_args=(-1, *self.spec.max_action_args[1:]))


class Miscounted(VecEnv):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.num_agents += 1


class OtherObservations(VecEnv):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.observations = self.observations.astype(np.int32)


class NoStarts(VecEnv):
    """Says at a step that episodes begin, but not at a reset."""

    def reset(self, *arguments: Any, **options: Any) -> Any:
        first = super().reset(*arguments, **options)
        self.starts[:] = False
        return first


class ClaimsMore(VecEnv):
    """Says that more arguments are legal than the rules allow."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.spec = replace(self.spec, max_action_args=(8,) * len(self.spec.action_names))


class ClaimsLess(VecEnv):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        most = [min(arg, 2) for arg in self.spec.max_action_args]
        self.spec = replace(self.spec, max_action_args=tuple(most))
        self.single_action_space = gym.spaces.MultiDiscrete([len(most), max(most) + 1])


class MovesAnAgent(VecEnv):
    """Writes one agent's place without telling the cells."""

    def step(self, *arguments: Any) -> StepBatch:
        batch = super().step(*arguments)
        places = self.engine.grid_objects
        self.engine.grid_objects = lambda world, **options: {  # type: ignore[method-assign]
            i: {**thing, "r": thing["r"] + 1} if "agent_id" in thing else thing
            for i, thing in places(world, **options).items()
        }
        return batch


class TurnsAtRefusals(VecEnv):
    """Shows an agent turned after an action that was refused, which is soundly counted."""

    def step(self, *arguments: Any) -> StepBatch:
        batch = super().step(*arguments)
        if not self.engine.action_success.any():
            state = self.engine.agent_state
            self.engine.agent_state = lambda world: state(world) + 1  # type: ignore[method-assign]
        return batch


class TakesAtRefusals(VecEnv):
    """Shows agents with other items after actions that were refused."""

    def step(self, *arguments: Any) -> StepBatch:
        batch = super().step(*arguments)
        held = self.engine.agent_inventory
        self.engine.agent_inventory = lambda world: held(world) + 1  # type: ignore[method-assign]
        return batch


@pytest.mark.parametrize("kind", [TurnsAtRefusals, TakesAtRefusals])
def test_a_refused_action_that_changes_an_agent_is_found(kind: type[VecEnv]) -> None:
    with kind(SMALL, 2) as env:
        env.reset()
        with pytest.raises(
            CheckError, match=r"the illegal action \(-1, 0\) in world 0 changed an agent; refuse it before"
        ):
            check_illegal_actions(env, "mine")
    with VecEnv(SMALL, 2) as env:
        env.reset()
        check_illegal_actions(env, "mine")


class GivesItems(VecEnv):
    """Hands out items that the statistics do not know."""

    def step(self, *arguments: Any) -> StepBatch:
        batch = super().step(*arguments)
        inventory = self.engine.agent_inventory
        self.engine.agent_inventory = lambda world: np.maximum(inventory(world), 3)  # type: ignore[method-assign]
        return batch


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (OverwritesFlags, "the terminals of the step before were overwritten; hand out copies"),
        (ChangesActions, "the caller's actions were changed"),
        (RemembersResets, "after a reset to the same seed, world 0 shows other rewards at step 0"),
        (ForgetsAClock, "after its state was put back, world 0 shows other outcome"),
        (OtherObservationSpace, "single_observation_space is .*; the spec says Box of uint8"),
        (NegativeArguments, r"spec.max_action_args is \(-1, "),
        (Miscounted, "num_agents is 7, but there are 3 worlds of 2"),
        (OtherObservations, r"env.observations is int32 \(6, 60, 3\); give uint8"),
        (NoStarts, "after reset, env.starts is not all true"),
        (NarrowSpaces, "single_action_space is .*; the spec says MultiDiscrete"),
        (
            ClaimsMore,
            r"single_action_space is .*; the spec says MultiDiscrete\(\[7, 9\]\)|count as action.invalid_arg",
        ),
        (ClaimsLess, r"the illegal action \(0, 3\) in world 0"),
        (MovesAnAgent, "agent 0 is not in its cell|a cell holds two things|off the map"),
        (GivesItems, r"agent 0 holds 3 ore_red, but got"),
    ],
)
def test_an_environment_with_a_fault_is_found(kind: type[VecEnv], sentence: str) -> None:
    with pytest.raises(CheckError, match=sentence):
        quick(make(kind))


def test_an_end_that_the_rules_do_not_know_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    longer = SMALL.with_overrides(max_steps=9)

    class Late(VecEnv):
        """Plays by other rules than its tasks say."""

        def __init__(self, tasks: EnvConfig, *arguments: Any, **options: Any) -> None:
            super().__init__(longer, *arguments, **options)
            self.curriculum = SingleTaskCurriculum(tasks)

    with pytest.raises(
        CheckError, match=r"world 0 has \(terminal, truncated\) \(False, False\) after 7 steps"
    ):
        quick(make(Late))


class Biased(GridEngine):
    """The place in the batch matters."""

    def play(self, *arguments: Any) -> int:
        before = self.episodes.returns.copy()
        ended = super().play(*arguments)
        pay(self.episodes, before, slice(1, None), self.num_worlds)
        return ended


class Threaded(GridEngine):
    def play(self, *arguments: Any) -> int:
        before = self.episodes.returns.copy()
        ended = super().play(*arguments)
        pay(self.episodes, before, slice(None), self.num_threads)
        return ended


class Gossip(GridEngine):
    """Agents are paid for what the worlds beside theirs do."""

    def play(self, *arguments: Any) -> int:
        before = self.episodes.returns.copy()
        ended = super().play(*arguments)
        pay(self.episodes, before, 0, self.episodes.actions[-1].sum())
        return ended


class Crowd(GridEngine):
    def play(self, *arguments: Any) -> int:
        before = self.episodes.returns.copy()
        ended = super().play(*arguments)
        pay(self.episodes, before, 0, self.num_worlds == 1)
        return ended


class Forgetful(GridEngine):
    """Its snapshots mix up the worlds' agents."""

    def snapshot(self) -> dict[str, Any]:
        arrays = super().snapshot()
        arrays["agents"][:] = np.roll(arrays["agents"], 1, axis=0)
        return arrays


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        (Biased, "among more worlds, world 1 shows other rewards at step 0"),
        (Threaded, "on two threads, world 0 shows other rewards at step 0"),
        (Gossip, "beside worlds that act otherwise, world 0 shows other rewards at step 0"),
        (Crowd, "alone, world 0 shows other rewards at step 0"),
        (Forgetful, "after its state was put back, world 0 shows other"),
    ],
)
def test_an_engine_with_a_fault_is_found(
    engine: type[GridEngine], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metta.mettagrid.fleet.GridEngine", engine)
    with pytest.raises(CheckError, match=sentence):
        quick(SMALL)


def test_a_map_from_elsewhere_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    own = np.random.default_rng(0)
    build = builder.build_random
    monkeypatch.setattr(fleet, "plan_of", lambda *_: None)  # so that maps are built there
    monkeypatch.setattr(builder, "build_random", lambda **options: build(**{**options, "rng": own}))
    with pytest.raises(
        CheckError, match="after a reset to the same seed, world 0 shows other first observations"
    ):
        quick(SMALL)


def test_a_map_that_never_changes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    build = builder.build_random
    monkeypatch.setattr(fleet, "plan_of", lambda *_: None)  # so that maps are built there
    monkeypatch.setattr(
        builder, "build_random", lambda **options: build(**{**options, "rng": np.random.default_rng(0)})
    )
    plain = SMALL.with_overrides(map_objects={"mine_red": 2})
    with pytest.raises(CheckError, match="24 worlds have the same map, and nothing fixes it"):
        quick(plain)
    report = quick(plain.with_overrides(map_builder=MapBuilderConfig(objects={"mine_red": 2}, seed=3)))
    assert "that another seed gives another map" in report


def test_worker_processes_that_differ_are_found() -> None:
    def making(num_worlds: int, *, num_workers: int = 0, **options: Any) -> VecEnv:
        config = SMALL.with_overrides(time_punishment=-0.5) if num_workers else SMALL
        return VecEnv(config, num_worlds, num_workers=num_workers, **options)

    with pytest.raises(
        CheckError, match="making: in 2 worker processes, world 0 shows other rewards at step 0"
    ):
        check_env(making, steps=10)


def test_a_name_that_means_something_else_each_time_is_found() -> None:
    steps = iter(range(5, 50))
    registry.register_env("/env/tests/fickle", lambda: SMALL.with_overrides(max_steps=next(steps)))
    try:
        with pytest.raises(
            CheckError, match="the registered function returned something else when it was called again"
        ):
            quick("/env/tests/fickle")
    finally:
        registry._environments.pop("/env/tests/fickle")


class Secretive(EnvConfig):
    """Means something that it does not write down."""

    secret: int = Field(default=0, exclude=True)

    def to_world_config(self) -> Any:
        return super().to_world_config().model_copy(update={"max_steps": 7 + self.secret})


def test_a_configuration_that_is_lost_on_the_way_is_found() -> None:
    with pytest.raises(CheckError, match="the configuration of 'task' is another one after JSON"):
        quick(Secretive(**SMALL.model_dump(exclude_unset=True), secret=3))

    class Local(EnvConfig):
        """A worker process could not know it."""

    with pytest.raises(CheckError, match="does not survive pickling"):
        quick(Local(**SMALL.model_dump(exclude_unset=True)))


TASKS = [Task("one", SMALL), Task("other", SMALL)]


class OutOfRange(MultiTaskCurriculum):
    def sample(self, rng: np.random.Generator) -> int:
        return 2


class OwnDice(MultiTaskCurriculum):
    def sample(self, rng: np.random.Generator) -> int:
        return int(np.random.default_rng().integers(2))


class HalfAState(MultiTaskCurriculum):
    """Changes its mind after 200 outcomes, and does not write down how many there were."""

    heard = 0

    def update(self, task: int, score: float) -> None:
        self.heard += 1

    def sample(self, rng: np.random.Generator) -> int:
        return int(self.heard >= 200)


class NoJson(MultiTaskCurriculum):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "last": np.zeros(3)}


class TalksInItsSleep(MultiTaskCurriculum):
    def for_evaluation(self) -> MultiTaskCurriculum:
        return self


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (OutOfRange, r"OutOfRange.sample\(\) returned 2; return a place in its 2 tasks"),
        (OwnDice, "OwnDice draws other tasks from the same generator"),
        (HalfAState, "HalfAState goes on otherwise after load_state_dict"),
        (NoJson, r"NoJson.state_dict\(\) cannot be written as JSON"),
        (TalksInItsSleep, r"TalksInItsSleep.for_evaluation\(\) passes outcomes on"),
    ],
)
def test_a_curriculum_with_a_fault_is_found(kind: type[MultiTaskCurriculum], sentence: str) -> None:
    check_curriculum(MultiTaskCurriculum(TASKS))
    with pytest.raises(CheckError, match=sentence):
        check_curriculum(kind(TASKS))
    with pytest.raises(CheckError, match=sentence):
        quick(kind(TASKS))


def test_a_curriculum_without_tasks_is_found() -> None:
    none = MultiTaskCurriculum(TASKS)
    none.tasks = ()
    with pytest.raises(CheckError, match="MultiTaskCurriculum has no tasks"):
        check_curriculum(none)


def test_two_tasks_of_one_name_are_found() -> None:
    several = MultiTaskCurriculum(TASKS)
    several.tasks = (TASKS[0], TASKS[0])
    with pytest.raises(CheckError, match="more than one task is called 'one'"):
        quick(several)


def test_objects_and_actions_of_ones_own_pass() -> None:
    own = EnvConfig(
        game=GameConfig(num_agents=2, width=9, height=9, max_steps=10, inventory_item_names=["gold", "ring"]),
        objects=[
            ObjectConfig(type="wall", name="wall"),
            ObjectConfig(type="converter", name="vein", output_resources={"gold": 2}),
            ObjectConfig(
                type="converter", name="smithy", input_resources={"gold": 1}, output_resources={"ring": 1}
            ),
        ],
        actions=[
            ActionConfig(type="move", key="walk"),
            ActionConfig(type="rotate", key="left", delta=-1),
            ActionConfig(type="gift", key="give", item="gold"),
            ActionConfig(type="use", key="dig", use="vein"),
        ],
        map_builder=MapBuilderConfig(objects={"vein": 3, "smithy": (1, 2)}),
    )
    assert "17 checks" in quick(own, steps=40)


def test_the_environment_is_closed_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[VecEnv] = []
    closed: list[VecEnv] = []

    class Counting(VecEnv):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            opened.append(self)

        def close(self) -> None:
            closed.append(self)
            super().close()

    quick(make(Counting))
    assert opened
    assert {id(env) for env in opened} == {id(env) for env in closed}
