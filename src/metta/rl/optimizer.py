"""Optimizers, learning-rate schedules, and what there is to know about gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from metta.agent.core import LSTMLayer
from metta.agent.metta_agent import MettaAgent
from metta.rl.trainer_config import OptimizerConfig

MUON_MOMENTUM = 0.95
"""Momentum that Muon's author recommends."""

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


def make_optimizer(agent: nn.Module, config: OptimizerConfig | None = None) -> torch.optim.Optimizer:
    """Make the optimizer of an agent's weights.

    Args:
        agent: its trainable parameters are optimized.
        config: kind and constants; None: the defaults.

    Returns:
        `torch.optim.Adam`, or `MuonWithAdam`.

    Raises:
        ValueError: Muon for a module that has no hidden matrices.
    """
    config = config or OptimizerConfig()
    adam = {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    trained = [p for p in agent.parameters() if p.requires_grad]
    if config.type == "adam":
        return torch.optim.Adam(trained, **adam)  # type: ignore[arg-type]
    matrices = [(p, stacked) for p, stacked in hidden_matrices(agent) if p.requires_grad]
    if not matrices:
        raise ValueError(
            'optimizer type "muon" needs hidden weight matrices and this agent has none: use "adam".'
        )
    hidden = {id(p) for p, _ in matrices}
    return MuonWithAdam(
        matrices,
        [p for p in trained if id(p) not in hidden],
        muon={"lr": config.learning_rate, "weight_decay": config.weight_decay, "momentum": MUON_MOMENTUM},
        adam=adam,
    )


def hidden_matrices(agent: nn.Module) -> Iterator[tuple[nn.Parameter, int]]:
    """The weights that Muon is meant for, each with the number of matrices stacked in it.

    They have two or more dimensions and belong neither to the first layer nor to an output layer. In a `MettaAgent`
    the token layer (an embedding table) comes first, and the last layer of each head gives outputs. In any other
    module the first and the last such weight are left out, and every `nn.Embedding`.
    """
    outer: set[int] = set()
    gates: set[int] = set()
    if isinstance(agent, MettaAgent):
        outer.update(id(p) for p in agent.encoder.tokens.parameters())
        for head in (agent.action_head, agent.value_head):
            outer.update(id(p) for p in head.layers[-1].parameters())
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


class _Schedule:
    """Factor on the base learning rate after so many updates: a ramp up from 1/warmup, then down to 0."""

    def __init__(self, total: int, warmup: int, kind: Literal["linear", "cosine"]) -> None:
        self.total = total
        self.warmup = warmup
        self.kind = kind

    def __call__(self, update: int) -> float:
        if update < self.warmup:
            return (update + 1) / (self.warmup + 1)
        progress = min(1.0, (update - self.warmup) / (self.total - self.warmup))
        return 1 - progress if self.kind == "linear" else 0.5 * (1 + math.cos(math.pi * progress))


class _PlannedRate(LambdaLR):
    """The schedule of the run at hand: its state is the clock alone.

    torch would save the shape and the base rates too and put them in the place of the new ones on loading. A run
    that is continued with more steps would then go on at the end of its old schedule, at rate 0.
    """

    def state_dict(self) -> dict[str, Any]:
        """The clock: batches so far."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the clock, and the optimizer's rates to what the schedule says at that time."""
        self.last_epoch = int(state_dict["last_epoch"])
        self._step_count = self.last_epoch + 1
        rates = [base * f(self.last_epoch) for base, f in zip(self.base_lrs, self.lr_lambdas, strict=True)]
        for group, base, rate in zip(self.optimizer.param_groups, self.base_lrs, rates, strict=True):
            group["initial_lr"], group["lr"] = base, rate
        self._last_lr = rates


def make_lr_scheduler(
    optimizer: torch.optim.Optimizer,
    total_timesteps: int,
    batch_size: int,
    warmup_steps: int | None = None,
    schedule_type: Literal["linear", "cosine"] = "linear",
    anneal_lr: bool = True,
) -> LRScheduler | None:
    """Make a schedule that takes the learning rate to 0 over a training run; step it once after each batch.

    Its `state_dict` is the number of batches so far: a run that is continued with other steps, rate or shape follows
    the new schedule from there on. Load the optimizer's state first.

    Args:
        optimizer: its groups are scheduled.
        total_timesteps: agent steps of the whole run.
        batch_size: agent steps per batch; the run has `ceil(total_timesteps / batch_size)` of them.
        warmup_steps: agent steps over which the rate first rises linearly, rounded up to whole batches; None: none.
        schedule_type: shape of the way down.
        anneal_lr: False: no schedule.

    Returns:
        A scheduler, or None where `anneal_lr` is False.

    Raises:
        ValueError: a count is out of range, the warm-up as long as the run, or an unknown shape.
    """
    if not anneal_lr:
        return None
    if total_timesteps < 1 or batch_size < 1 or (warmup_steps or 0) < 0:
        raise ValueError(
            f"total_timesteps={total_timesteps}, batch_size={batch_size}, warmup_steps={warmup_steps}: "
            "the first two must be at least 1, the last at least 0."
        )
    if schedule_type not in ("linear", "cosine"):
        raise ValueError(f'schedule_type is {schedule_type!r}; known are "linear" and "cosine".')
    total = -(-total_timesteps // batch_size)
    warmup = -(-(warmup_steps or 0) // batch_size)
    if warmup >= total:
        raise ValueError(
            f"warmup_steps={warmup_steps} takes {warmup} batches of the run's {total}: warm up for less than the run."
        )
    return _PlannedRate(optimizer, _Schedule(total, warmup, schedule_type))


def compute_gradient_stats(model: nn.Module) -> dict[str, float]:
    """Norms (Euclidean, one per parameter tensor) of the gradients now held, and of the parameters.

    Args:
        model: after a backward pass.

    Returns:
        `grad_norm_mean`, `grad_norm_max`, `grad_norm_min` over the parameters that have a gradient, 0 if none has;
        `param_norm_mean` over the same parameters, or all if none has.
    """
    parameters = list(model.parameters())
    with_gradient = [p for p in parameters if p.grad is not None]
    grads = [float(p.grad.norm()) for p in with_gradient if p.grad is not None] or [0.0]
    norms = [float(p.detach().norm()) for p in with_gradient or parameters] or [0.0]
    return {
        "grad_norm_mean": sum(grads) / len(grads),
        "grad_norm_max": max(grads),
        "grad_norm_min": min(grads),
        "param_norm_mean": sum(norms) / len(norms),
    }
