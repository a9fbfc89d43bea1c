"""From what happened in training to numbers that can be logged: pure reducers."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from metta.common.stopwatch import Stopwatch

Stats = MutableMapping[str, list[float]]
"""Every value of each name since the list was last cleared: a plain dict, or a `defaultdict(list)`."""


def accumulate_rollout_stats(info: Mapping[str, Any], stats: Stats) -> None:
    """Append each number in `info` to the list of its name.

    The name is the path to the number: `{"agent": {"heart.get": [1, 2]}}` appends 1 and 2 to
    `stats["agent/heart.get"]`. Numbers of numpy and torch count, so do arrays of them; text and None are passed over.

    Args:
        info: nested mappings and sequences, as `perform_rollout_step` gives; it may be empty.
        stats: is added to.

    Raises:
        TypeError: a value is something else; what came before it has been added.
    """
    for name, value in info.items():
        _append(str(name), value, stats)


def _append(name: str, value: Any, stats: Stats) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _append(f"{name}/{key}", item, stats)
        return
    if isinstance(value, str | bytes) or value is None:
        return
    if isinstance(value, list | tuple):
        for item in value:
            _append(name, item, stats)
    elif isinstance(value, int | float):
        stats.setdefault(name, []).append(float(value))
    else:
        try:
            plain = value.tolist()  # numpy and torch, arrays and scalars alike
        except AttributeError:
            raise TypeError(
                f"info['{name}'] is a {type(value).__name__}, which is no number: give numbers, arrays, or mappings and "
                "sequences of them."
            ) from None
        _append(name, plain, stats)


def process_training_stats(
    stats: Mapping[str, Sequence[float]],
    losses: Mapping[str, float] | None = None,
    timer: Stopwatch | None = None,
    num_steps: int | None = None,
) -> dict[str, float]:
    """What a tracker logs of one epoch.

    Args:
        stats: the lists that `accumulate_rollout_stats` filled; clear them afterwards.
        losses: of the update: `Losses.stats()`, or what `train_ppo` returned.
        timer: its clocks are reported.
        num_steps: agent steps of the run so far, for the rates.

    Returns:
        The mean of each list under its name, the losses under `losses/NAME`, the clocks as `timing_stats` gives them.
        Names without a value are left out. What the engine counts, under `game/` and `agent/`, is a mean over all episodes:
        one that did not count it had none of it.
    """
    episodes = len(stats.get("episode/score", ()))
    result: dict[str, float] = {}
    for name, values in stats.items():
        if values:
            counted = episodes if episodes and name.startswith(("game/", "agent/")) else len(values)
            result[name] = sum(values) / counted
    result |= {f"losses/{name}": float(value) for name, value in (losses or {}).items()}
    if timer is not None:
        result |= timing_stats(timer, num_steps)
    return result


def timing_stats(timer: Stopwatch, num_steps: int | None = None) -> dict[str, float]:
    """Seconds of every clock of a stopwatch, and steps per second of it.

    Args:
        timer: the clocks.
        num_steps: agent steps made while they ran; None: no rates.

    Returns:
        `timing/NAME/seconds`, and with `num_steps` also `timing/NAME/steps_per_second`.
    """
    result: dict[str, float] = {}
    for name, seconds in timer.get_all_elapsed().items():
        result[f"timing/{name}/seconds"] = seconds
        if num_steps is not None and seconds > 0:
            result[f"timing/{name}/steps_per_second"] = num_steps / seconds
    return result
