"""Actions as one number: its place among the legal (action id, argument) pairs."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from metta.mettagrid.spec import EnvSpec


class LegalActions:
    """The legal actions of a world, numbered in ascending order of (action id, argument).

    A space of pairs would offer arguments that an action does not have; here every number is a legal action, and
    every legal action has its number.

    Args:
        spec: of the world.

    Attributes:
        pairs: int32 `[n, 2]`: (action id, argument) by number.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self.pairs: npt.NDArray[np.int32] = np.array(spec.legal_actions, dtype=np.int32)

    def space(self) -> gym.spaces.Discrete:
        """A new `Discrete(n)` (spaces have a random state of their own)."""
        return gym.spaces.Discrete(len(self.pairs))

    def pairs_of(self, numbers: npt.ArrayLike, rows: int) -> npt.NDArray[np.int32]:
        """The pairs for the numbers of some agents.

        Args:
            numbers: integers `[rows]`.
            rows: how many are due.

        Returns:
            int32 `[rows, 2]`.

        Raises:
            ValueError: not as many integers as agents, or one that is out of range.
        """
        array: npt.NDArray[Any] = np.asarray(numbers)
        if array.shape != (rows,) or array.dtype.kind not in "iu":
            raise ValueError(
                f"actions is {array.dtype} {list(array.shape)}; give integers [{rows}]: the number of each agent's action."
            )
        if rows and not 0 <= array.min() <= array.max() < len(self.pairs):
            wrong = array[(array < 0) | (array >= len(self.pairs))][0]
            raise ValueError(
                f"actions has a {wrong}; the legal actions are numbered 0 to {len(self.pairs) - 1}."
            )
        pairs: npt.NDArray[np.int32] = self.pairs[array]
        return pairs
