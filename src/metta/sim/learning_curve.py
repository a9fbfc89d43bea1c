"""The picture of a training run: score against steps and against time, with the evaluations around it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from metta.common.files import atomic_write_bytes

Points = Sequence[Mapping[str, Any]]
"""What a trainer notes after each update: `steps` (agent steps so far), `seconds`, `score` (None: no episode ended)."""

Floats = npt.NDArray[np.float64]

INK = "#23262c"
MUTED = "#7a8089"
LINES = ("#d9790f", "#2f7fc1", "#3d9a55", "#b4499a", "#7a62c9", "#8a6d3b")
BEFORE, AFTER = "#7a8089", "#1f7a3d"


def write_learning_curve(
    path: str | Path,
    history: Points,
    *,
    before: Sequence[float] | None = None,
    after: Sequence[float] | None = None,
    title: str = "",
) -> Path:
    """Draw one run as a PNG.

    Args:
        path: the picture; missing folders are made.
        history: one entry per update.
        before: (mean, half of the 95 % interval) of the evaluation before training.
        after: the same after training.
        title: above the picture.

    Returns:
        The path of the picture.

    Raises:
        ValueError: the history has an entry without `steps`, `seconds` or `score`.
    """
    return write_learning_curves(path, {"": history}, before=before, after=after, title=title)


def write_learning_curves(
    path: str | Path,
    runs: Mapping[str, Points],
    *,
    before: Sequence[float] | None = None,
    after: Sequence[float] | None = None,
    title: str = "",
) -> Path:
    """Draw several runs in one picture, like `write_learning_curve`.

    Args:
        path: the picture; missing folders are made.
        runs: history by the name that the legend shows.
        before: (mean, half of the 95 % interval) of the evaluation before training.
        after: the same after training.
        title: above the picture.
    """
    curves = {name: _curve(history) for name, history in runs.items()}
    figure = Figure(figsize=(9.6, 4.0), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    by_steps, by_time = figure.subplots(1, 2, sharey=True)
    longest = max((float(curve[1][-1]) for curve in curves.values() if curve.size), default=0.0)
    per_unit, unit = (60.0, "minutes") if longest >= 180 else (1.0, "seconds")
    _draw(by_steps, curves, 0, 1.0, before, after)
    _draw(by_time, curves, 1, per_unit, before, after)
    by_steps.set_xlabel("agent steps")
    by_steps.xaxis.set_major_formatter(FuncFormatter(lambda value, _: in_short(value)))
    by_time.set_xlabel(unit)
    by_steps.set_ylabel("score: mean reward per agent and episode", color=INK)
    handles, labels = by_steps.get_legend_handles_labels()
    if handles:
        by_time.legend(handles, labels, loc="lower right", frameon=False, fontsize=9, labelcolor=INK)
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold", color=INK)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return atomic_write_bytes(path, picture.getvalue())


def in_short(value: float) -> str:
    """A number of steps for an axis: 250 k, 1.5 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def smooth(values: Floats, width: int) -> Floats:
    """Mean over a window of `width` values around each, cut off at both ends.

    Args:
        values: float64 `[T]`.
        width: size of the window; 1 leaves the values as they are.
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low = np.maximum(0, index - (width - 1) // 2)
    high = np.minimum(len(values), index + width // 2 + 1)
    means: Floats = (sums[high] - sums[low]) / (high - low)
    return means


def _curve(history: Points) -> Floats:
    """Steps, seconds and score of the updates in which an episode ended, float64 `[3, T]`."""
    rows = []
    for number, point in enumerate(history):
        try:
            steps, seconds, score = point["steps"], point["seconds"], point["score"]
        except KeyError as missing:
            raise ValueError(
                f"Entry {number} of the history has no {missing}; an entry needs steps, seconds and score."
            ) from None
        if score is not None and math.isfinite(score):
            rows.append((steps, seconds, score))
    return np.array(rows, np.float64).reshape(-1, 3).T


def _draw(
    axes: Axes,
    curves: Mapping[str, Floats],
    against: int,
    per_unit: float,
    before: Sequence[float] | None,
    after: Sequence[float] | None,
) -> None:
    """One panel: each update a faint dot, their running mean a line, the evaluations as points with their interval."""
    ends = [0.0]
    for index, (name, curve) in enumerate(curves.items()):
        color = LINES[index % len(LINES)]
        x, score = curve[against] / per_unit, curve[2]
        width = max(1, len(score) // 20)
        label = name or (f"training, mean of {width} updates" if width > 1 else "training")
        axes.plot(x, score, ".", color=color, alpha=0.35, markersize=3.5, markeredgewidth=0)
        axes.plot(x, smooth(score, width), color=color, linewidth=1.9, label=label, solid_capstyle="round")
        ends.extend(x[-1:])
    _mark(axes, 0.0, before, BEFORE, "o", "before training")
    _mark(axes, max(ends), after, AFTER, "D", "after training")
    axes.set_xlim(left=-0.03 * max(ends) if max(ends) else -1, right=1.05 * max(ends) if max(ends) else 1)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color="#e6e3dc", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c9c5bc")
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    axes.xaxis.label.set_color(INK)


def _mark(
    axes: Axes, x: float, evaluation: Sequence[float] | None, color: str, marker: str, name: str
) -> None:
    if evaluation is None:
        return
    mean, half = evaluation
    known = math.isfinite(half)
    axes.errorbar(
        [x],
        [mean],
        yerr=[half] if known else None,
        fmt=marker,
        color=color,
        markersize=5,
        markeredgecolor="white",
        capsize=5,
        elinewidth=1.8,
        capthick=1.8,
        zorder=5,
        clip_on=False,
        label=f"{name}: {mean:.2f} ± {half:.2f}" if known else f"{name}: {mean:.2f}",
    )
