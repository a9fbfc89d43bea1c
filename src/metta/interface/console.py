"""What a training run shows in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from time import perf_counter
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

BLOCKS = " ▁▂▃▄▅▆▇█"
PLAIN_INTERVAL = 10.0
"""Seconds between two lines where the output is not a terminal."""


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """A row of blocks that shows how a series went: its means over `width` equal stretches, lowest to highest."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(BLOCKS[1 + round((len(BLOCKS) - 2) * (mean - low) / span)] for mean in means)


def duration(seconds: float) -> str:
    """Minutes and seconds, hours where there are any: `4:05`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class TrainingDisplay:
    """Live progress of a training run: steps, speed, time left, the score so far and whatever numbers it is given.

    On a terminal it is a panel that redraws itself; elsewhere one line every ten seconds.

    Args:
        title: what is being trained.
        total_steps: agent steps of the whole run.
        done_steps: agent steps that an earlier part of the run has done.
        console: where to write.
    """

    def __init__(
        self, title: str, total_steps: int, done_steps: int = 0, console: Console | None = None
    ) -> None:
        self.console = console or Console()
        self.title = title
        self.total_steps = total_steps
        self.done_steps = done_steps
        self._scores: list[float] = []
        self._start = perf_counter()
        self._printed = -PLAIN_INTERVAL  # the first update is printed at once
        self._bar = Progress(
            BarColumn(bar_width=None, complete_style="cyan"),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} steps"),
            TextColumn("[bold]{task.fields[rate]}[/]"),
            TimeElapsedColumn(),
            TextColumn("[dim]left[/] {task.fields[left]}"),
            expand=True,
        )
        self._task: TaskID = self._bar.add_task("", total=total_steps, completed=done_steps, rate="", left="")
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(self._panel({}), console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, steps: int, score: float | None, numbers: Mapping[str, str]) -> None:
        """Show the present state.

        Args:
            steps: agent steps done, those of earlier parts included.
            score: of the episodes that finished since the last call; None if none did.
            numbers: further figures, name to text.
        """
        if score is not None:
            self._scores.append(score)
        seconds = perf_counter() - self._start
        rate = (steps - self.done_steps) / seconds if seconds else 0.0
        left = (self.total_steps - steps) / rate if rate else 0.0
        self._bar.update(
            self._task, completed=steps, rate=f"{rate:,.0f} steps/s", left=duration(max(left, 0.0))
        )
        if self._live is not None:
            self._live.update(self._panel(numbers))
        elif perf_counter() - self._printed >= PLAIN_INTERVAL:
            self._printed = perf_counter()
            shown = "  ".join(f"{name} {value}" for name, value in numbers.items())
            line = f"{steps:>12,} steps  {rate:,.0f} steps/s  {duration(max(left, 0.0))} left  {shown}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def _panel(self, numbers: Mapping[str, str]) -> Panel:
        table = Table.grid(padding=(0, 3))
        pairs = [(f"[dim]{name}[/]", f"[bold]{value}[/]") for name, value in numbers.items()]
        for _ in range(6):
            table.add_column(no_wrap=True)
        for i in range(0, len(pairs), 3):
            table.add_row(*(text for pair in pairs[i : i + 3] for text in pair))
        curve = Text.assemble(("score over time  ", "dim"), (sparkline(self._scores), "green"))
        return Panel(
            Group(self._bar, table, curve), title=self.title, title_align="left", border_style="cyan"
        )


def headline(metrics: Mapping[str, float], items: Iterable[str]) -> dict[str, str]:
    """What `TrainingDisplay` says of an epoch.

    Args:
        metrics: what `process_training_stats` made of it.
        items: of the world; how many of each an agent took is shown.
    """
    numbers = {"entropy": metrics["losses/entropy"]}
    if "episode/score" in metrics:
        numbers["score"] = metrics["episode/score"]
        numbers |= {item: metrics.get(f"agent/{item}.get", 0.0) for item in items}
    return {name: f"{number:.2f}" for name, number in numbers.items()}
