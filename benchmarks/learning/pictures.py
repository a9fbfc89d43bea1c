"""Curves of several learners on one task."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from benchmarks.learning.kept import Group
from metta.common.files import atomic_write_bytes
from metta.sim.learning_curve import INK, LINES, MUTED, in_short

SHOWN = {
    "score": "reward per agent and episode",
    "heart.gained": "hearts per agent and episode",
}


def draw(path: Path, shown: Sequence[Group], title: str) -> Path:
    """Score and hearts against steps and CPU seconds: each run a faint line, the mean over seeds a strong one.

    Args:
        path: the picture, a PNG.
        shown: one group for each learner.
        title: above the picture.
    """
    figure = Figure(figsize=(9.6, 6.4), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for row, (what, label) in zip(panels, SHOWN.items(), strict=True):
        for axes, clock in zip(row, ("steps", "cpu_seconds"), strict=True):
            for place, group in enumerate(shown):
                lines(axes, group, clock, what, LINES[place % len(LINES)])
            axes.grid(axis="y", color="#e6e3dc", linewidth=0.8)
            axes.tick_params(colors=MUTED, labelsize=9, length=0)
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            for side in ("top", "right", "left"):
                axes.spines[side].set_visible(False)
        row[0].set_ylabel(label, color=INK)
    panels[1][0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: in_short(value)))
    panels[1][0].set_xlabel("agent steps", color=INK)
    panels[1][1].set_xlabel("CPU seconds", color=INK)
    panels[0][0].legend(frameon=False, fontsize=9, labelcolor=INK)
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold", color=INK)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return atomic_write_bytes(path, picture.getvalue())


def lines(axes: Axes, group: Group, clock: str, what: str, color: str) -> None:
    """The curves of a group."""
    curves = [run["curve"] for run in group.runs if run["curve"]["steps"]]
    if not curves:
        return
    for curve in curves:
        axes.plot(curve[clock], curve[what], color=color, alpha=0.3, linewidth=0.9)
    times = np.linspace(max(c[clock][0] for c in curves), min(c[clock][-1] for c in curves), 200)
    mean = np.mean([np.interp(times, curve[clock], curve[what]) for curve in curves], axis=0)
    axes.plot(
        times,
        mean,
        color=color,
        linewidth=2,
        label=f"{group.learner}, {len(curves)} run{'s' * (len(curves) > 1)}",
    )
