"""A curriculum that plays more of what is being learned, or unlearned, right now."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt

from metta.common.config import Config
from metta.mettagrid.curriculum.base import MultiTaskCurriculum, Task, check_tasks, shortened

Floats = npt.NDArray[np.float64]

MOST_BASELINE = 0.75
"""A task that is won from the start is still compared with this score at most."""


class LearningProgressConfig(Config):
    """How learning progress is measured and how much it counts."""

    ema_timescale: float = Field(default=0.001, gt=0, le=1)
    """Weight of a new measurement in the moving averages."""
    progress_smoothing: float = Field(default=0.05, gt=0, lt=0.5)
    """The smaller, the more progress at low scores counts."""
    num_active_tasks: PositiveInt = 16
    """Draws from the distribution of progress that make up the active tasks."""
    rand_task_rate: float = Field(default=0.25, gt=0, le=1)
    """Share of episodes whose task is drawn from all tasks alike, so that none is forgotten."""
    sample_threshold: PositiveInt = 10
    """Episodes of one active task after which progress is measured anew; also what a task's first measurement needs."""
    memory: PositiveInt = 25
    """Outcomes of a task that its score is the mean of."""


class LearningProgressCurriculum:
    """Draws tasks by their bidirectional learning progress.

    The measure is that of Kanitscheider et al., "Multi-task curriculum learning in a complex, visual, hard-exploration
    domain: Minecraft" (2021). Scores are cut to [0, 1]. A task's score is the mean of its last outcomes, put relative to
    the score at its first measurement (its baseline). A fast and a slow moving average follow that; progress is the
    distance between the two, up or down, after `reweighted` has stretched low scores. A task's weight is the logistic
    function of its progress in standard deviations from the mean; tasks that never scored and show no progress get none.

    From these weights `num_active_tasks` active tasks are drawn, with repetition. Each episode plays one of them or, with
    chance `rand_task_rate`, any task at all. When an active task has had `sample_threshold` episodes, progress is measured
    and the active tasks are drawn anew.

    The customary implementation draws episodes from the weights over all tasks and never looks at its active tasks and its
    exploration. It also measures after the very first episode, and takes tasks without outcomes for tasks that score 0.
    Whichever task scores first then keeps the others from ever being played. Here, in contrast,

    - episodes are drawn from the active tasks, and `rand_task_rate` of them from all tasks, so that every task always keeps
      a chance of `rand_task_rate / number of tasks`;
    - the first active tasks are all tasks, and stay so until one of them has had `sample_threshold` episodes;
    - a task is measured once it has had `sample_threshold` outcomes, which fix its baseline; until then it weighs as
      much as the heaviest of the others;
    - averages move for the tasks with new outcomes, not for those that are about to be played.

    Args:
        tasks: the environments to choose from.
        config: how progress is measured.

    Raises:
        ValueError: no tasks, or two of one name.
    """

    def __init__(self, tasks: Sequence[Task], config: LearningProgressConfig | None = None) -> None:
        check_tasks(tasks)
        self.tasks: tuple[Task, ...] = tuple(tasks)
        self.config = config or LearningProgressConfig()
        count = len(tasks)
        self._outcomes = [deque[float](maxlen=self.config.memory) for _ in tasks]
        self._heard = [0] * count  # outcomes in all
        self._news = [False] * count  # whether there are outcomes since the last measurement
        self._played = [0] * count  # outcomes while the task was active
        self._active: list[int] | None = list(range(count))  # None: to be drawn
        self._measured = [False] * count
        self._baseline, self._fast, self._slow, self._score = np.zeros((4, count))

    def sample(self, rng: np.random.Generator) -> int:
        """An active task or, now and then, any task."""
        if self._active is None:
            drawn = rng.choice(len(self.tasks), self.config.num_active_tasks, p=self.weights())
            self._active = [int(task) for task in drawn]
            self._played = [0] * len(self.tasks)
        if rng.random() < self.config.rand_task_rate:
            return int(rng.integers(len(self.tasks)))
        return self._active[int(rng.integers(len(self._active)))]

    def update(self, task: int, score: float) -> None:
        """Hear an outcome; measure progress if it is time.

        Raises:
            ValueError: the score is no number.
        """
        if math.isnan(score):
            raise ValueError(f"the score of task '{self.tasks[task].name}' is {score}; a score is a number.")
        self._outcomes[task].append(min(max(float(score), 0.0), 1.0))
        self._heard[task] += 1
        self._news[task] = True
        if self._active is not None and task in self._active:
            self._played[task] += 1
            if self._played[task] >= self.config.sample_threshold:
                self._measure()
                self._active = None

    def _measure(self) -> None:
        """Move the averages of all tasks with news."""
        rate = self.config.ema_timescale
        for task, outcomes in enumerate(self._outcomes):
            if not self._news[task] or self._heard[task] < self.config.sample_threshold:
                continue
            self._news[task] = False
            score = math.fsum(outcomes) / len(outcomes)
            first = not self._measured[task]
            if first:
                self._measured[task] = True
                self._baseline[task] = min(score, MOST_BASELINE)
            relative = max(score - self._baseline[task], 0.0) / (1.0 - self._baseline[task])
            if first:
                self._fast[task] = self._slow[task] = relative
                self._score[task] = score
            else:
                self._fast[task] += rate * (relative - self._fast[task])
                self._slow[task] += rate * (self._fast[task] - self._slow[task])
                self._score[task] += rate * (score - self._score[task])

    def weights(self) -> Floats:
        """The distribution that active tasks are drawn from: float64 `[tasks]`, sums to 1."""
        return task_weights(
            self._fast, self._slow, self._score, np.array(self._measured), self.config.progress_smoothing
        )

    def probabilities(self) -> dict[str, float]:
        """How likely each task is to be played next, by name."""
        chance = self.weights()
        if self._active is not None:
            chance = np.bincount(self._active, minlength=len(self.tasks)) / len(self._active)
        share = self.config.rand_task_rate
        return {
            task.name: float((1 - share) * part + share / len(self.tasks))
            for task, part in zip(self.tasks, chance, strict=True)
        }

    def scores(self) -> dict[str, float]:
        """Mean of the last outcomes, cut to [0, 1], by name of task, of the tasks that have been played."""
        played = zip(self.tasks, self._outcomes, strict=True)
        return {task.name: math.fsum(outcomes) / len(outcomes) for task, outcomes in played if outcomes}

    def for_evaluation(self) -> MultiTaskCurriculum:
        """All tasks alike, hearing outcomes for itself."""
        return MultiTaskCurriculum(self.tasks)

    def state_dict(self) -> dict[str, Any]:
        """Everything that was heard and measured; JSON-ready."""
        return {
            "tasks": [task.name for task in self.tasks],
            "outcomes": [list(outcomes) for outcomes in self._outcomes],
            "heard": list(self._heard),
            "news": list(self._news),
            "played": list(self._played),
            "active": None if self._active is None else list(self._active),
            "measured": list(self._measured),
            **{name: values.tolist() for name, values in self._averages().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises:
            ValueError: it is of other tasks.
        """
        names = [task.name for task in self.tasks]
        if state["tasks"] != names:
            raise ValueError(
                f"the saved curriculum has the {len(state['tasks'])} tasks {shortened(state['tasks'])}, this one the "
                f"{len(names)} tasks {shortened(names)}; make the curriculum as it was."
            )
        for outcomes, saved in zip(self._outcomes, state["outcomes"], strict=True):
            outcomes.clear()
            outcomes.extend(saved)
        self._heard = list(state["heard"])
        self._news = list(state["news"])
        self._played = list(state["played"])
        self._active = None if state["active"] is None else list(state["active"])
        self._measured = list(state["measured"])
        for name, values in self._averages().items():
            values[:] = state[name]

    def _averages(self) -> dict[str, Floats]:
        return {
            "baseline": self._baseline,
            "fast": self._fast,
            "slow": self._slow,
            "score": self._score,
        }


def reweighted(score: Floats, smoothing: float) -> Floats:
    """Scores in [0, 1], stretched where they are low: 0 stays 0, 1 stays 1, the slope at 0 is (1 - smoothing) / smoothing."""
    stretched: Floats = (1 - smoothing) * score / (score + smoothing * (1 - 2 * score))
    return stretched


def task_weights(
    fast: Floats, slow: Floats, score: Floats, measured: npt.NDArray[np.bool_], smoothing: float
) -> Floats:
    """Weights of tasks by their learning progress.

    Args:
        fast: float64 `[tasks]`: fast average of the score relative to the baseline.
        slow: float64 `[tasks]`: slow average of the same.
        score: float64 `[tasks]`: average of the score itself.
        measured: bool `[tasks]`: False where nothing is known yet; those weigh as much as the heaviest task.
        smoothing: see `reweighted`.

    Returns:
        float64 `[tasks]`, sums to 1.
    """
    progress = np.abs(reweighted(fast, smoothing) - reweighted(slow, smoothing))
    eligible = measured & ((progress > 0) | (score > 0))
    if not eligible.any():
        eligible = measured
    weights = np.zeros(len(fast))
    if eligible.any():
        apart = progress[eligible] - progress[eligible].mean()
        spread = apart.std()
        weights[eligible] = 1 / (1 + np.exp(-(apart / spread if spread > 0 else apart)))
    weights[~measured] = weights.max() if eligible.any() else 1.0
    shares: Floats = weights / weights.sum()
    return shares
