"""Learning progress: the formulas against a plain oracle, nobody starves, progress is played more, state goes on."""

import json
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.curriculum.base import Task
from metta.mettagrid.curriculum.learning_progress import (
    LearningProgressConfig,
    LearningProgressCurriculum,
    reweighted,
    task_weights,
)

ENV = EnvConfig(game=GameConfig(num_agents=2, width=14, height=14))


def tasks(count: int) -> list[Task]:
    return [Task(f"task_{i}", ENV) for i in range(count)]


class Oracle:
    """The measure, written out task by task in plain Python."""

    def __init__(self, count: int, config: LearningProgressConfig) -> None:
        self.config = config
        self.outcomes: list[list[float]] = [[] for _ in range(count)]
        self.new = [False] * count
        self.known: list[dict[str, float] | None] = [None] * count

    def hear(self, task: int, score: float) -> None:
        self.outcomes[task].append(max(0.0, min(1.0, score)))
        self.new[task] = True

    def measure(self) -> None:
        a = self.config.ema_timescale
        for task, outcomes in enumerate(self.outcomes):
            if not self.new[task] or len(outcomes) < self.config.sample_threshold:
                continue
            self.new[task] = False
            last = outcomes[-self.config.memory :]
            rate = sum(last) / len(last)
            if (k := self.known[task]) is None:
                base = min(rate, 0.75)
                norm = max(rate - base, 0) / (1 - base)
                self.known[task] = {"base": base, "fast": norm, "slow": norm, "true": rate}
                continue
            norm = max(rate - k["base"], 0) / (1 - k["base"])
            k["fast"] = a * norm + (1 - a) * k["fast"]
            k["slow"] = a * k["fast"] + (1 - a) * k["slow"]
            k["true"] = a * rate + (1 - a) * k["true"]

    def weights(self) -> list[float]:
        s = self.config.progress_smoothing

        def rw(p: float) -> float:
            return (1 - s) * p / (p + s * (1 - 2 * p))

        progress = {t: abs(rw(k["fast"]) - rw(k["slow"])) for t, k in enumerate(self.known) if k}
        chosen = [t for t, p in progress.items() if p > 0 or self.known[t]["true"] > 0] or list(progress)
        weights = [0.0] * len(self.known)
        if chosen:
            mean = sum(progress[t] for t in chosen) / len(chosen)
            spread = math.sqrt(sum((progress[t] - mean) ** 2 for t in chosen) / len(chosen))
            for t in chosen:
                weights[t] = 1 / (1 + math.exp(-(progress[t] - mean) / (spread or 1)))
        top = max(weights) or 1.0
        weights = [top if k is None else w for w, k in zip(weights, self.known, strict=True)]
        return [w / sum(weights) for w in weights]


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 6),
    config=st.builds(
        LearningProgressConfig,
        ema_timescale=st.sampled_from([0.001, 0.1, 1.0]),
        progress_smoothing=st.sampled_from([0.01, 0.05, 0.3]),
        sample_threshold=st.integers(1, 4),
        memory=st.integers(1, 6),
        num_active_tasks=st.integers(1, 5),
    ),
)
def test_weights_are_those_of_the_oracle(seed: int, count: int, config: LearningProgressConfig) -> None:
    chance = random.Random(seed)
    rng = np.random.default_rng(seed)
    curriculum, oracle = LearningProgressCurriculum(tasks(count), config), Oracle(count, config)
    active, played = list(range(count)), [0] * count
    fresh = True
    for _ in range(80):
        if not fresh:
            curriculum.sample(rng)  # draws the active tasks
            active, played, fresh = list(curriculum.state_dict()["active"]), [0] * count, True
        task = chance.randrange(count)  # outcomes arrive in any order, from tasks drawn long ago too
        score = chance.choice([0.0, 0.0, 1.0, 3.0, -1.0, chance.random()])
        curriculum.update(task, score)
        oracle.hear(task, score)
        if task in active:
            played[task] += 1
            if played[task] == config.sample_threshold:
                oracle.measure()
                fresh = False
        np.testing.assert_allclose(curriculum.weights(), oracle.weights(), rtol=1e-8, atol=1e-12)


def test_reweighting_keeps_the_ends_and_stretches_low_scores() -> None:
    scores = np.array([0.0, 0.05, 0.5, 1.0])
    np.testing.assert_allclose(reweighted(scores, 0.05), [0, 0.5, 0.95, 1])


def test_tasks_without_success_get_weight_only_if_none_has_any() -> None:
    none, some = np.zeros(3), np.array([0.0, 0.0, 0.4])
    known = np.ones(3, np.bool_)
    np.testing.assert_allclose(task_weights(none, none, none, known, 0.05), [1 / 3] * 3)
    np.testing.assert_allclose(task_weights(none, none, some, known, 0.05), [0, 0, 1])
    unknown = np.array([True, False, True])
    np.testing.assert_allclose(task_weights(none, none, some, unknown, 0.05), [0, 0.5, 0.5])


def play(curriculum: LearningProgressCurriculum, skill: Any, episodes: int, seed: int = 0) -> np.ndarray:
    """Let a learner play; its score is `skill(task, number of times that it was played)`."""
    rng = np.random.default_rng(seed)
    times = np.zeros(len(curriculum.tasks), int)
    for _ in range(episodes):
        task = curriculum.sample(rng)
        curriculum.update(task, skill(task, times[task]))
        times[task] += 1
    return times


def test_a_task_that_scores_first_does_not_starve_the_others() -> None:
    """With the customary implementation one of eight tasks gets up to 99 % of 4000 episodes."""
    for seed in range(3):
        curriculum = LearningProgressCurriculum(tasks(8))
        rng = np.random.default_rng(seed)
        curriculum.update(curriculum.sample(rng), 0.5)
        assert set(curriculum.probabilities().values()) == {1 / 8}
        times = play(curriculum, lambda task, _: 0.5 if task else 0.0, 4000, seed)
        assert times.min() >= 0.8 * 4000 * 0.25 / 8
        assert times.max() <= 0.35 * 4000
        late = play(curriculum, lambda task, _: 0.5 if task else 0.0, 2000, seed)
        assert late.min() >= 0.7 * 2000 * 0.25 / 8
        assert all(chance >= 0.25 / 8 for chance in curriculum.probabilities().values())
        assert sum(curriculum.probabilities().values()) == pytest.approx(1)


def test_the_task_that_is_being_learned_is_played_more() -> None:
    def skill(task: int, times: int) -> float:
        return (0.2 + 0.6 * min(times / 1500, 1.0)) if task == 2 else (0.0, 1.0, 0.0, 0.5, 0.3, 1.0)[task]

    times = play(
        LearningProgressCurriculum(tasks(6), LearningProgressConfig(ema_timescale=0.05)), skill, 4000
    )
    assert times.argmax() == 2
    assert times[2] > 1.4 * np.delete(times, 2).max()
    assert times.min() > 0.7 * 4000 * 0.25 / 6


def test_what_is_forgotten_is_played_more() -> None:
    def skill(task: int, times: int) -> float:
        learned = min(0.1 + times / 400, 0.9)
        return max(learned - max(times - 500, 0) / 400, 0.3) if task == 0 else 0.6

    config = LearningProgressConfig(ema_timescale=0.2)
    curriculum = LearningProgressCurriculum(tasks(4), config)
    rng = np.random.default_rng(0)
    weights = []
    times = 0
    while times < 700:
        task = curriculum.sample(rng)
        curriculum.update(task, skill(task, times))
        times += task == 0
        weights.append((times, curriculum.weights()[0]))
    falling = [weight for at, weight in weights if at > 550]
    assert min(falling) > 0.3  # the other three share the rest


def test_active_tasks_and_exploration_decide_what_is_played() -> None:
    config = LearningProgressConfig(num_active_tasks=1, rand_task_rate=0.2, sample_threshold=1000)
    curriculum = LearningProgressCurriculum(tasks(5), config)
    rng = np.random.default_rng(0)
    state = curriculum.state_dict()
    curriculum.load_state_dict({**state, "active": [3]})
    drawn = np.bincount([curriculum.sample(rng) for _ in range(4000)], minlength=5) / 4000
    np.testing.assert_allclose(drawn, [0.04, 0.04, 0.04, 0.84, 0.04], atol=0.02)
    assert list(curriculum.probabilities().values()) == pytest.approx([0.04, 0.04, 0.04, 0.84, 0.04])


@given(episodes=st.integers(0, 300), seed=st.integers(0, 2**32 - 1))
def test_state_goes_on_exactly_and_is_json(episodes: int, seed: int) -> None:
    config = LearningProgressConfig(sample_threshold=3, num_active_tasks=3, memory=5, ema_timescale=0.2)

    def go(curriculum: LearningProgressCurriculum, count: int, rng: np.random.Generator) -> list[int]:
        drawn = []
        for _ in range(count):
            drawn.append(task := curriculum.sample(rng))
            curriculum.update(task, rng.random() * (task + 1) / 3)
        return drawn

    one = LearningProgressCurriculum(tasks(4), config)
    rng = np.random.default_rng(seed)
    go(one, episodes, rng)
    text = json.dumps(one.state_dict(), allow_nan=False)
    other = LearningProgressCurriculum(tasks(4), config)
    other.load_state_dict(json.loads(text))
    assert other.state_dict() == one.state_dict()
    twin = np.random.default_rng()
    twin.bit_generator.state = rng.bit_generator.state
    assert go(one, 40, rng) == go(other, 40, twin)
    assert other.state_dict() == one.state_dict()


def test_evaluation_is_even_and_leaves_no_trace() -> None:
    curriculum = LearningProgressCurriculum(tasks(3))
    copy = curriculum.for_evaluation()
    before = curriculum.state_dict()
    rng = np.random.default_rng(0)
    drawn = np.bincount([copy.sample(rng) for _ in range(3000)])
    copy.update(1, 1.0)
    assert (abs(drawn - 1000) < 120).all()
    assert curriculum.state_dict() == before
    curriculum.update(0, 0.5)
    curriculum.update(0, 7.0)
    assert curriculum.scores() == {"task_0": 0.75}


def test_mistakes_are_named() -> None:
    curriculum = LearningProgressCurriculum(tasks(3))
    with pytest.raises(ValueError, match="score of task 'task_1' is nan"):
        curriculum.update(1, math.nan)
    with pytest.raises(ValueError, match=r"the 4 tasks task_0, task_1, task_2, \.\.\., this one the 3"):
        curriculum.load_state_dict(LearningProgressCurriculum(tasks(4)).state_dict())
    with pytest.raises(ValueError, match="more than one task is called a"):
        LearningProgressCurriculum([Task("a", ENV), Task("a", ENV)])
    with pytest.raises(ValueError, match="at least one task"):
        LearningProgressCurriculum([])
    with pytest.raises(ValidationError, match="rand_task_rate"):
        LearningProgressConfig(rand_task_rate=0)
