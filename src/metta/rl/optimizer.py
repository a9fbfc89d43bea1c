"""Optimizers, learning-rate schedules, and what there is to know about gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from metta.agent.policy import Policy
from metta.agent.row_parallel import sharing_rows
from metta.rl.finite import complaint_about, complaint_about_gradients, stop_run
from metta.rl.muon import MuonWithAdam, hidden_matrices
from metta.rl.trainer_config import OptimizerConfig

MUON_MOMENTUM = 0.95
"""Momentum that Muon's author recommends."""


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
        return torch.optim.Adam(trained, **adam, fused=True)  # type: ignore[arg-type]
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


class Optimizer(torch.optim.Optimizer):
    """The optimizer of the documented training loop: one call leads from a loss to new weights.

    It is a torch optimizer too, so whatever takes one takes it: `make_lr_scheduler`, `save_checkpoint`, `train_ppo`.
    Defaults not stated here are those of `OptimizerConfig`.

    Args:
        optimizer_type: "adam" or "muon".
        policy: its trainable weights are updated. A `clip_range` in its config clamps the gradients of every loss.
        learning_rate: step size.
        betas: Adam's decays of the first and the second moment.
        eps: Adam's denominator offset.
        weight_decay: L2 pull to zero (Adam), decoupled decay (Muon).
        max_grad_norm: longest gradient of one update; 0 = no clipping.

    Attributes:
        num_updates: updates made so far.
        last_checkpoint: the policy that was last saved with it or loaded, for messages; None: none yet.

    Raises:
        ValueError: an unknown type, a number out of range, or Muon for a policy without hidden matrices.
    """

    def __init__(
        self,
        optimizer_type: Literal["adam", "muon"] = "adam",
        *,
        policy: Policy,
        learning_rate: float | None = None,
        betas: tuple[float, float] | None = None,
        eps: float | None = None,
        weight_decay: float | None = None,
        max_grad_norm: float = 0.5,
    ) -> None:
        if not isinstance(policy, nn.Module):
            raise ValueError(f"policy is a {type(policy).__name__}, which has no weights: pass an agent.")
        if not max_grad_norm >= 0:
            raise ValueError(f"max_grad_norm={max_grad_norm}; give a length, or 0 for no clipping.")
        beta1, beta2 = betas or (None, None)
        stated = {
            "learning_rate": learning_rate,
            "beta1": beta1,
            "beta2": beta2,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        config = {name: value for name, value in stated.items() if value is not None}
        self._inner = make_optimizer(
            policy, OptimizerConfig.model_validate({"type": optimizer_type, **config})
        )
        self._policy = policy
        self._max_grad_norm = max_grad_norm
        self._accumulated = 0
        self.num_updates = 0
        self.last_checkpoint: str | None = None
        super().__init__(self._inner.param_groups, {})
        self._link()

    def _link(self) -> None:
        """Share groups and state with the optimizer that does the work."""
        self.param_groups = self._inner.param_groups
        self.state = self._inner.state

    @sharing_rows()
    def step(  # type: ignore[override]
        self, loss: torch.Tensor | None = None, epoch: int | None = None, accumulate_steps: int = 1
    ) -> dict[str, float]:
        """Take a loss into account, and with the last of `accumulate_steps` of them update the weights.

        The gradient of an update is the mean over the losses since the last one; it is clipped to `max_grad_norm`. After the
        update the gradients are cleared, and the policy does what is due after one (`after_update`).

        Args:
            loss: a scalar with its graph. None: the gradients are there already, as for any torch optimizer, and the
                weights are updated by them as they are.
            epoch: batches so far, named in errors; None: not named.
            accumulate_steps: losses for one update.

        Returns:
            `grad_norm` (before clipping), `learning_rate` and, on the agent's analysis ticks, its weight statistics; {}
            where no update was made, or without a loss.

        Raises:
            ValueError: `accumulate_steps` is not positive.
            FloatingPointError: the loss or the gradient is not finite, in this process or another that trains with it. The
                weights are left alone and the gradients are dropped.
        """
        if accumulate_steps < 1:
            raise ValueError(f"accumulate_steps={accumulate_steps}; update after 1 loss or more.")
        if loss is None:
            self._inner.step()
            return {}
        where = f"in update {self.num_updates + 1}" + ("" if epoch is None else f" (epoch {epoch})")
        try:
            stop_run(complaint_about({"the loss": loss}, where), self.last_checkpoint)
            loss.backward()  # type: ignore[no-untyped-call]
            self._accumulated += 1
            if self._accumulated < accumulate_steps:
                return {}
            parameters = [p for group in self.param_groups for p in group["params"]]
            if self._accumulated > 1:
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.grad.div_(self._accumulated)
            grad_norm = clip_and_step(
                self._inner, parameters, self._max_grad_norm, self._policy, where, self.last_checkpoint
            )
        except FloatingPointError:
            self.zero_grad()
            raise
        self.zero_grad()
        self.num_updates += 1
        rate = float(self.param_groups[0]["lr"])
        return {"grad_norm": grad_norm, "learning_rate": rate, **self._policy.after_update(self.num_updates)}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, accumulated ones too."""
        self._accumulated = 0
        self._inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The state of the torch optimizer, the number of updates, and the gradients of an update under way."""
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        return {
            **self._inner.state_dict(),
            "num_updates": self.num_updates,
            "accumulated": self._accumulated,
            "gradients": gradients if self._accumulated else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`, or from that of the same optimizer made with `make_optimizer`."""
        self._inner.load_state_dict({name: state_dict[name] for name in ("state", "param_groups")})
        self._link()
        self.zero_grad()
        self.num_updates = state_dict.get("num_updates", 0)
        self._accumulated = state_dict.get("accumulated", 0)
        parameters = [p for group in self.param_groups for p in group["params"]]
        for parameter, gradient in zip(parameters, state_dict.get("gradients", ()), strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter, copy=True)


def clip_and_step(
    optimizer: torch.optim.Optimizer,
    parameters: Iterable[nn.Parameter],
    max_grad_norm: float,
    owner: Policy,
    where: str,
    last_checkpoint: str | None,
) -> float:
    """Clip the gradients that are there to a common norm, and update the weights by them.

    Args:
        optimizer: of the parameters.
        parameters: whose gradients count.
        max_grad_norm: the longest; 0 = any.
        owner: of the parameters; knows their names.
        where: in which update, for messages.
        last_checkpoint: from where a run could go on, for messages; None: from nowhere.

    Returns:
        The gradient's norm before clipping.

    Raises:
        FloatingPointError: it is not finite, here or in another process; no weight has changed.
    """
    parameters = list(parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    finite = bool(norm.isfinite())
    stop_run(None if finite else complaint_about_gradients(owner, parameters, where), last_checkpoint)
    torch.nn.utils.clip_grads_with_norm_(parameters, max_grad_norm or math.inf, norm)
    optimizer.step()
    return float(norm)


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

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: _Schedule, batch_size: int) -> None:
        self._batch_size = batch_size
        super().__init__(optimizer, schedule)

    def state_dict(self) -> dict[str, Any]:
        """The clock: batches so far, and the agent steps of each."""
        return {"last_epoch": self.last_epoch, "batch_size": self._batch_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the clock, and the optimizer's rates to what the schedule says at that time."""
        # Another number of processes makes batches of another size: what goes on is the count of agent steps.
        saved_size = state_dict.get("batch_size", self._batch_size)
        self.last_epoch = round(state_dict["last_epoch"] * saved_size / self._batch_size)
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

    Its `state_dict` is the clock alone, the agent steps so far in batches: a run that is continued with other steps,
    rate, shape or size of batches (as other numbers of processes make) follows the new schedule from there on. Load the
    optimizer's state first.

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
    return _PlannedRate(optimizer, _Schedule(total, warmup, schedule_type), batch_size)


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
