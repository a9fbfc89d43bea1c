"""What worlds that were stepped give: the step itself, and the episodes that ended in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class EpisodeOutcome:
    """One finished episode.

    Attributes:
        world: its place in the batch.
        task: name of the task that was played.
        length: steps.
        returns: float32 `[agents]`: the sum of the rewards that each agent received.
        truncated: whether it was cut off rather than ended by the task.
        stats: the engine's statistics (game, agent, converter), {} if they are switched off.
    """

    world: int
    task: str
    length: int
    returns: npt.NDArray[np.float32]
    truncated: bool
    stats: dict[str, Any]

    @property
    def score(self) -> float:
        """Mean over agents of their total reward."""
        return float(np.mean(self.returns, dtype=np.float64))


@dataclass(frozen=True)
class StepBatch:
    """What one step of the worlds gives. R = rows stepped, agents of a world side by side, K = tokens.

    Attributes:
        observations: uint8 `[R, K, 3]`, live: valid until the next step. Where an episode ended this is already
            the first observation of the next one.
        rewards: float32 `[R]`.
        terminals: bool `[R]`: the task ended the episode; nothing follows, so nothing is bootstrapped.
        truncations: bool `[R]`: the episode was cut off; the value of its final observation stands for the rest.
        final_rows: int64 `[F]`: rows of the whole batch whose episode ended in this step.
        final_terminals: bool `[F]`: their `terminals`, on the host wherever the worlds are.
        final_observations: uint8 `[F, K, 3]`: the last observation of those agents' old episode.
        episodes: the episodes that ended; of worlds on a GPU they come to the host when one of them is looked at.
    """

    observations: npt.NDArray[np.uint8]
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]
    truncations: npt.NDArray[np.bool_]
    final_rows: npt.NDArray[np.int64]
    final_terminals: npt.NDArray[np.bool_]
    final_observations: npt.NDArray[np.uint8]
    episodes: Sequence[EpisodeOutcome]


class LateOutcomes(Sequence[EpisodeOutcome]):
    """Episodes whose outcomes are still on a device: how many is known, and what became of them when they are looked at.

    Args:
        count: episodes.
        fetch: brings their outcomes to the host; called once.
    """

    def __init__(self, count: int, fetch: Callable[[], list[EpisodeOutcome]]) -> None:
        self._count = count
        self._fetch: Callable[[], list[EpisodeOutcome]] | None = fetch
        self._outcomes: list[EpisodeOutcome] = []

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> EpisodeOutcome: ...

    @overload
    def __getitem__(self, place: slice) -> list[EpisodeOutcome]: ...

    def __getitem__(self, place: int | slice) -> EpisodeOutcome | list[EpisodeOutcome]:
        if self._fetch is not None:
            self._outcomes, self._fetch = self._fetch(), None
        return self._outcomes[place]
