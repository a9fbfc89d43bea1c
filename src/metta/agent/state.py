"""The recurrent memory of a batch of agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass
class PolicyState:
    """LSTM state of `B` rows.

    Attributes:
        h: output of each layer at the last tick, float32 `[layers, B, hidden]`.
        c: cell of each layer, same shape. A policy without recurrence has `layers` = 0.
    """

    h: torch.Tensor
    c: torch.Tensor

    @classmethod
    def zeros(
        cls,
        num_layers: int,
        batch_size: int,
        hidden_dim: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> PolicyState:
        """The state at the first tick of an episode, for every row."""
        shape = (num_layers, batch_size, hidden_dim)
        return cls(
            torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype)
        )

    @classmethod
    def join(cls, states: Sequence[PolicyState]) -> PolicyState:
        """The rows of several states, one after the other."""
        return cls(torch.cat([state.h for state in states], 1), torch.cat([state.c for state in states], 1))

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.h.shape[1]

    def detach(self) -> PolicyState:
        """The same memory without its gradient history."""
        return PolicyState(self.h.detach(), self.c.detach())

    def clone(self) -> PolicyState:
        """A copy that shares no memory."""
        return PolicyState(self.h.clone(), self.c.clone())

    def to(self, device: torch.device | str) -> PolicyState:
        """The state on `device` (itself where it lies there already)."""
        return PolicyState(self.h.to(device), self.c.to(device))

    def index(self, rows: torch.Tensor | slice) -> PolicyState:
        """The state of some rows: an integer or bool tensor copies, a slice is a view."""
        return PolicyState(self.h[:, rows], self.c[:, rows])

    def zero_(self, rows: torch.Tensor) -> None:
        """Forget, in place, in the rows that `rows` (bool `[B]`, or integer indices) names."""
        for part in (self.h, self.c):
            if rows.dtype == torch.bool:
                part.masked_fill_(
                    rows.unsqueeze(-1), 0
                )  # an index would make the host wait for a GPU to count the rows
            else:
                part[:, rows] = 0

    def zeroed(self, rows: torch.Tensor) -> PolicyState:
        """A state that has forgotten in the rows where `rows`, bool `[B]`, is True; this one stays."""
        mask = rows.unsqueeze(-1)
        return PolicyState(self.h.masked_fill(mask, 0), self.c.masked_fill(mask, 0))
