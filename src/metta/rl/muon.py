"""Muon for hidden matrices, Adam for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from metta.agent.core import LSTMLayer
from metta.agent.metta_agent import MettaAgent

_MUON_OPTIONS = (
    "lr",
    "weight_decay",
    "momentum",
    "nesterov",
    "ns_coefficients",
    "eps",
    "ns_steps",
    "adjust_lr_fn",
)


def hidden_matrices(agent: nn.Module) -> Iterator[tuple[nn.Parameter, int]]:
    """The weights that Muon is meant for, each with the number of matrices stacked in it.

    They have two or more dimensions and belong neither to a first layer nor to an output layer. A `MettaAgent` says
    which those are (`outer_parameters`); the layer over its observation tokens is an embedding table. In any other
    module the first and the last such weight are left out, and every `nn.Embedding`.
    """
    if isinstance(agent, DistributedDataParallel):
        agent = agent.module
    outer: set[int] = set()
    gates: set[int] = set()
    if isinstance(agent, MettaAgent):
        outer.update(id(p) for p in agent.outer_parameters())
    else:
        outer.update(id(m.weight) for m in agent.modules() if isinstance(m, nn.Embedding))
        matrices = [p for p in agent.parameters() if p.ndim >= 2 and id(p) not in outer]
        outer.update(id(p) for p in (*matrices[:1], *matrices[-1:]))
    for module in agent.modules():
        if isinstance(module, LSTMLayer | nn.LSTM):
            gates.update(id(p) for p in module.parameters())
    for p in agent.parameters():
        if p.ndim >= 2 and id(p) not in outer:
            yield p, 4 if id(p) in gates else 1


class MuonWithAdam(torch.optim.Optimizer):
    """Muon for hidden matrices and Adam for all else, as one optimizer.

    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks": the momentum of a matrix is
    replaced by the nearest semi-orthogonal matrix, so that every direction moves equally far. Embeddings, first
    layer, outputs, biases and gains stay with Adam; convolution kernels count as matrices `[out, rest]`, and stacked
    matrices (the gates of an LSTM) are orthogonalised one by one, as he prescribes. The updates are scaled to the
    root mean square that Adam's have (Liu et al. 2025, arXiv:2502.16982), so that one learning rate serves both.

    The groups `param_groups[0]` (Muon) and `[1]` (Adam) carry the key `use_muon`; schedulers, `state_dict` and
    `load_state_dict` treat them like those of any optimizer.

    Args:
        matrices: parameters of two or more dimensions, each with the number of matrices stacked in it.
        others: the rest; may be empty.
        muon: options of `torch.optim.Muon`.
        adam: options of `torch.optim.Adam`.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        matrices: Sequence[tuple[nn.Parameter, int]],
        others: Sequence[nn.Parameter],
        *,
        muon: dict[str, Any],
        adam: dict[str, Any],
    ) -> None:
        options = {"adjust_lr_fn": "match_rms_adamw", **muon}
        parameters, stacked = [p for p, _ in matrices], [count for _, count in matrices]
        (muon_group,) = torch.optim.Muon([_matrices(p)[0] for p in parameters], **options).param_groups
        groups = [{**muon_group, "params": parameters, "stacked": stacked, "use_muon": True}]
        self._adam: torch.optim.Adam | None = None
        if others:
            self._adam = torch.optim.Adam(others, **adam)
            groups.append({**self._adam.param_groups[0], "use_muon": False})
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the loss anew; None: the gradients are there.

        Returns:
            The closure's loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["use_muon"]:
                self._step_muon(group)
        if self._adam is not None:
            # Linked anew each time, because load_state_dict replaces both.
            self._adam.param_groups = [group for group in self.param_groups if not group["use_muon"]]
            self._adam.state = self.state
            self._adam.step()
        return loss

    def _step_muon(self, group: dict[str, Any]) -> None:
        """One step of torch's Muon over views of the parameters as matrices; their momentum is kept here, whole."""
        views: list[torch.Tensor] = []
        momenta: list[torch.Tensor] = []
        for parameter, stacked in zip(group["params"], group["stacked"], strict=True):
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            momenta += _matrices(state["momentum_buffer"], stacked)
            for view, gradient in zip(
                _matrices(parameter, stacked), _matrices(parameter.grad, stacked), strict=True
            ):
                view.grad = gradient
                views.append(view)
        if not views:
            return
        muon = torch.optim.Muon(views, **{name: group[name] for name in _MUON_OPTIONS})
        for view, momentum in zip(views, momenta, strict=True):
            muon.state[view] = {"momentum_buffer": momentum}
        muon.step()  # type: ignore[no-untyped-call]


def _matrices(tensor: torch.Tensor, stacked: int = 1) -> list[torch.Tensor]:
    """`[stacked * out, ...]` as so many `[out, rest]` that share its memory."""
    return list(tensor.detach().view(len(tensor), -1).chunk(stacked))
