"""From nested numbers to what a tracker logs."""

from collections import defaultdict

import numpy as np
import pytest
import torch

from metta.common.stopwatch import Stopwatch
from metta.stats import accumulate_rollout_stats, process_training_stats, timing_stats


@pytest.mark.parametrize("stats", [{}, defaultdict(list)], ids=["dict", "defaultdict"])
def test_every_number_is_appended_under_its_path(stats) -> None:
    info = {
        "score": 1.5,
        "agent": {"heart.get": [1, np.int64(2)], "deep": {"flag": True, "name": "ignored", "none": None}},
        "array": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "tensor": torch.tensor([5.0]),
        "scalar": torch.tensor(6),
        "mixed": ({"x": 1}, {"x": np.float32(0.5)}, 2),
    }
    accumulate_rollout_stats(info, stats)
    accumulate_rollout_stats({}, stats)
    accumulate_rollout_stats({"score": 2}, stats)
    assert stats == {
        "score": [1.5, 2.0],
        "agent/heart.get": [1.0, 2.0],
        "agent/deep/flag": [1.0],
        "array": [1.0, 2.0, 3.0, 4.0],
        "tensor": [5.0],
        "scalar": [6.0],
        "mixed/x": [1.0, 0.5],
        "mixed": [2.0],
    }
    assert all(type(value) is float for values in stats.values() for value in values)


def test_what_is_no_number_is_named() -> None:
    with pytest.raises(TypeError, match=r"info\['a/b'\] is a set, which is no number"):
        accumulate_rollout_stats({"a": {"b": {1, 2}}}, {})


def test_means_losses_and_times_have_names_of_their_own() -> None:
    timer = Stopwatch()
    timer.load_state({"elapsed": {"rollout": 4.0, "idle": 0.0}})
    stats = {"episode/score": [1.0, 2.0, 6.0], "empty": []}
    assert process_training_stats(stats, {"entropy": 0.5}, timer, 200) == {
        "episode/score": 3.0,
        "losses/entropy": 0.5,
        "timing/rollout/seconds": 4.0,
        "timing/rollout/steps_per_second": 50.0,
        "timing/idle/seconds": 0.0,
    }
    assert stats["episode/score"] == [1.0, 2.0, 6.0]
    assert process_training_stats({}) == {}
    assert timing_stats(timer) == {"timing/rollout/seconds": 4.0, "timing/idle/seconds": 0.0}


def test_an_episode_that_did_not_count_something_had_none_of_it() -> None:
    stats: dict[str, list[float]] = {}
    for hearts in (None, 4, None, None):
        info = {"episode": {"score": [0]}, "agent": {} if hearts is None else {"heart.get": [hearts]}}
        accumulate_rollout_stats(info, stats)
    assert process_training_stats(stats) == {"episode/score": 0.0, "agent/heart.get": 1.0}
