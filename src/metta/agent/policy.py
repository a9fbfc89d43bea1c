"""What the rest of the library asks of a policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch

from metta.agent.state import PolicyState

if TYPE_CHECKING:
    from metta.agent.outputs import ActOutput, EvalOutput
    from metta.mettagrid.spec import EnvSpec


class Policy(Protocol):
    """A recurrent policy that acts, judges and is trained: a `MettaAgent`, or one of its wrappers.

    The methods are those of `metta.agent.metta_agent.MettaAgent`, where they are described.
    """

    training: bool

    @property
    def spec(self) -> EnvSpec:
        """The world as its agents see it."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        ...

    def initial_state(self, batch_size: int) -> PolicyState:
        """The memory of `batch_size` rows at the first tick of an episode."""
        ...

    def act(
        self,
        obs: torch.Tensor,
        state: PolicyState,
        starts: torch.Tensor | None = None,
        *,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActOutput:
        """Choose an action for each row."""
        ...

    def value(self, obs: torch.Tensor, state: PolicyState) -> torch.Tensor:
        """Expected discounted return from `obs` on, float32 `[B]`."""
        ...

    def evaluate(
        self, obs: torch.Tensor, start_state: PolicyState, dones: torch.Tensor, actions: torch.Tensor
    ) -> EvalOutput:
        """Judge recorded segments with the current weights."""
        ...

    def l2_reg_loss(self) -> torch.Tensor:
        """Mean squared weight."""
        ...

    def l2_init_loss(self) -> torch.Tensor:
        """Mean squared distance of the weights to their reference."""
        ...

    def after_update(self, update_index: int) -> dict[str, float]:
        """Do what is due after some updates of the weights."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[torch.nn.Parameter]:
        """The weights."""
        ...

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or away from it."""
        ...

    def eval(self) -> Self:
        """Switch to evaluation."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Weights by name."""
        ...
