"""The loss of a minibatch: its terms, pure functions of tensors of any common shape, and what they add up to.

Schulman et al. 2017, "Proximal policy optimization algorithms" (arXiv:1707.06347); the value clipping is that of its
published implementation, described by Huang et al. 2022, "The 37 implementation details of PPO".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from metta.agent.compiled import compiled_networks
from metta.agent.policy import Policy
from metta.agent.row_parallel import sharing_rows
from metta.rl.advantage import compute_advantage
from metta.rl.distributed import all_mean, any_rank
from metta.rl.finite import complaint_about, stop_run
from metta.rl.trainer_config import PPOConfig, TrainerConfig, VTraceConfig
from metta.rl.types import Minibatch

if TYPE_CHECKING:
    from metta.rl.experience import Experience
    from metta.rl.kickstarter import Kickstarter

SMALLEST_VARIANCE = 1e-4
"""Of value targets: where nothing is rewarded yet, their noise must not be made the task."""


def normalize_advantages(advantages: torch.Tensor) -> torch.Tensor:
    """Shift and scale to mean 0 and (population) standard deviation 1, over all processes that train together.

    The scale is left alone near 0. The processes' minibatches must be of one size.
    """
    centred = advantages - all_mean(advantages.mean())
    return centred / (all_mean(centred.pow(2).mean()).sqrt() + 1e-8)


def clipped_policy_loss(
    log_ratio: torch.Tensor, advantages: torch.Tensor, clip_coef: float, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of `-min(ratio A, clip(ratio, 1 - clip_coef, 1 + clip_coef) A)`.

    Args:
        log_ratio: log of the action's probability now over when it was taken.
        advantages: A, of the same shape.
        clip_coef: how far the ratio counts.
        weights: how much each element counts, 1 on average; None: all alike.

    Returns:
        A scalar.
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_coef, 1 + clip_coef)
    return -_mean(torch.minimum(ratio * advantages, clipped * advantages), weights)


def value_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    clip: float | None,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Half the mean squared error; clipped, the larger of the errors with and without the change clipped.

    Args:
        values: estimates now.
        old_values: estimates when the batch was collected.
        returns: targets.
        clip: furthest that a value may profit from moving away from the old one; None: any distance.
        weights: how much each element counts, 1 on average; None: all alike.

    Returns:
        A scalar.
    """
    error = (values - returns).pow(2)
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns).pow(2))
    return 0.5 * _mean(error, weights)


def return_variance(returns: torch.Tensor) -> torch.Tensor:
    """Variance of value targets over all processes that train together, at least `SMALLEST_VARIANCE`; a scalar.

    A value loss divided by it is the share of the variance that the values leave unexplained, whatever the size of the
    rewards.
    """
    centred = returns - all_mean(returns.mean())
    return all_mean(centred.pow(2).mean()).clamp(min=SMALLEST_VARIANCE)


def _mean(terms: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return terms.mean() if weights is None else (terms * weights).mean()


def approximate_kl(log_ratio: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(old policy, new policy): the mean of `(ratio - 1) - log ratio`, never negative.

    Schulman 2020, "Approximating KL divergence", estimator k3.
    """
    return ((log_ratio.exp() - 1) - log_ratio).mean()


def clip_fraction(log_ratio: torch.Tensor, clip_coef: float) -> torch.Tensor:
    """Share of elements whose ratio lies outside `[1 - clip_coef, 1 + clip_coef]`."""
    return ((log_ratio.exp() - 1).abs() > clip_coef).float().mean()


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> torch.Tensor:
    """`1 - Var(returns - values) / Var(returns)`: 1 is perfect, 0 no better than a constant; 0 if nothing varies."""
    variance = returns.var(correction=0)
    residual = (returns - values).var(correction=0)
    return torch.where(variance > 0, 1 - residual / variance, torch.zeros_like(variance))


@dataclass(frozen=True)
class MinibatchLosses:
    """The loss of one minibatch.

    Attributes:
        loss: a scalar with its graph.
        terms: scalars by name, for the record; `loss` is one of them.
        outputs: what the policy said, by what it is called in messages.
    """

    loss: torch.Tensor
    terms: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]

    def scalars(self) -> dict[str, float]:
        """The terms as numbers."""
        # One transfer instead of many, for the sake of accelerators.
        numbers = torch.stack([tensor.detach().float() for tensor in self.terms.values()]).tolist()
        return dict(zip(self.terms, numbers, strict=True))

    def complaint(self, where: str) -> str | None:
        """What is not finite, in words, the policy's outputs first; None where the loss is finite.

        Args:
            where: in which update, for the sentence.
        """
        if bool(torch.isfinite(self.loss.detach())):
            return None
        parts = {f"the term {name}": term for name, term in self.terms.items() if name != "loss"}
        return complaint_about({**self.outputs, **parts, "the loss": self.loss}, where)


def minibatch_losses(
    policy: Policy,
    minibatch: Minibatch,
    config: PPOConfig,
    *,
    vtrace: VTraceConfig | None = None,
    kickstarter: Kickstarter | None = None,
    experience: Experience | None = None,
    agent_step: int = 0,
    compile: bool = False,
) -> MinibatchLosses:
    """Replay some segments with the present weights and weigh the terms of the loss.

    With `vtrace` the advantages are computed anew for the policy as it is now (see `vtrace_advantages`). A surprise then
    counts with its clipped ratio in the advantage and once more in PPO's term, which makes actions that have become
    unlikely count little.

    Args:
        policy: whose weights the graph leads to.
        minibatch: the segments.
        config: the terms and their weights.
        vtrace: None: the advantages stay as they are.
        kickstarter: adds what its teachers say; None: nothing.
        experience: what the minibatch was drawn from; for the kickstarter, and with `refresh_targets` it keeps the values.
        agent_step: agent steps of the run so far; for the kickstarter.
        compile: whether torch compiles the policy's network, as `TrainerConfig.compile` says.
    """
    with compiled_networks(compile):
        out = policy.evaluate(
            minibatch.observations, minibatch.start_state, minibatch.dones, minibatch.actions
        )
    log_ratio = out.logprobs - minibatch.logprobs
    advantages, returns = minibatch.advantages, minibatch.returns
    if vtrace is not None:
        advantages = vtrace_advantages(minibatch, log_ratio.detach().exp(), config, vtrace)
        returns = advantages + minibatch.values
    if config.norm_adv:
        advantages = normalize_advantages(advantages)
    weights = None if minibatch.weights is None else minibatch.weights.unsqueeze(1)
    policy_loss = clipped_policy_loss(log_ratio, advantages, config.clip_coef, weights)
    clip = config.vf_clip_coef if config.clip_vloss else None
    value = value_loss(out.values, minibatch.values, returns, clip, weights)
    value_scale = return_variance(returns) if config.norm_vloss else 1.0
    entropy = _mean(out.entropies, weights)
    loss = policy_loss + config.vf_coef * value / value_scale - config.ent_coef * entropy
    # The L2 terms run over every weight: left out, they cost nothing.
    zero = torch.zeros((), device=loss.device)
    l2_reg = policy.l2_reg_loss() if config.l2_reg_loss_coef else zero
    l2_init = policy.l2_init_loss() if config.l2_init_loss_coef else zero
    loss = loss + config.l2_reg_loss_coef * l2_reg + config.l2_init_loss_coef * l2_init
    if config.refresh_targets and experience is not None:
        experience.update_values(minibatch.indices, out.values)
    fixed = log_ratio.detach()
    terms = {
        "policy_loss": policy_loss,
        "value_loss": value,
        "entropy": entropy,
        "l2_reg_loss": l2_reg,
        "l2_init_loss": l2_init,
        "approx_kl": approximate_kl(fixed),
        "clipfrac": clip_fraction(fixed, config.clip_coef),
        "ratio": fixed.exp().mean(),
    }
    if kickstarter is not None and experience is not None:
        lesson, lesson_terms = kickstarter.loss(experience, minibatch, out, agent_step)
        loss = loss + lesson
        terms |= lesson_terms
    outputs = {"the policy's logits": out.logprobs, "the policy's values": out.values}
    return MinibatchLosses(loss, {"loss": loss, **terms}, outputs)


def vtrace_advantages(
    minibatch: Minibatch, ratio: torch.Tensor, config: PPOConfig, vtrace: VTraceConfig
) -> torch.Tensor:
    """Advantages of a minibatch's actions for a policy that has moved on since they were taken.

    What came after each segment counts with the value and the advantage that the minibatch carries for it. So with ratios
    of 1 and both clips at 1 or more the result is what `compute_advantages` gave for the whole batch.

    Args:
        minibatch: with the advantages of the whole batch.
        ratio: float `[B, T]`: probability of each action now over when it was taken.
        config: gamma and gae_lambda.
        vtrace: the clips.

    Returns:
        float32 `[B, T]`.
    """
    return compute_advantage(
        minibatch.values,
        minibatch.rewards,
        minibatch.dones,
        ratio,
        torch.empty_like(minibatch.values),
        config.gamma,
        config.gae_lambda,
        vtrace.vtrace_rho_clip,
        vtrace.vtrace_c_clip,
        truncation_values=minibatch.truncation_values,
        bootstrap_values=minibatch.following_values,
        bootstrap_advantages=minibatch.following_advantages,
    )


class Losses:
    """Adds up the terms of minibatch after minibatch."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._last: dict[str, float] = {}

    def add(self, terms: Mapping[str, float]) -> None:
        """Count the terms of one minibatch."""
        self._last = dict(terms)
        for name, value in terms.items():
            self._sums[name] += value
            self._counts[name] += 1

    def stats(self) -> dict[str, float]:
        """The mean of each term over the minibatches that had it; {} before the first."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def clear(self) -> None:
        """Forget everything, for the next batch."""
        self._sums.clear()
        self._counts.clear()
        self._last = {}

    def exceeds(self, target_kl: float | None) -> bool:
        """Whether the policy has moved further than `target_kl` from the batch, by the minibatch added last.

        All processes that train together must ask, and get the same answer: yes, if any of them would alone.

        Args:
            target_kl: of `PPOConfig`; None: never.
        """
        return target_kl is not None and any_rank(self._last.get("approx_kl", 0.0) > target_kl)


@sharing_rows()
def process_minibatch_update(
    policy: Policy,
    experience: Experience,
    minibatch: Minibatch,
    advantages: torch.Tensor,
    trainer_cfg: TrainerConfig,
    kickstarter: Kickstarter | None,
    agent_step: int,
    losses: Losses,
    device: torch.device | str,
) -> torch.Tensor:
    """The loss of one minibatch; the caller steps the optimizer on it.

        for _ in range(trainer_cfg.update_epochs):
            for minibatch in experience.minibatches(advantages, trainer_cfg, agent_step):
                loss = process_minibatch_update(
                    agent, experience, minibatch, advantages, trainer_cfg, kickstarter, agent_step, losses, device
                )
                optimizer.step(loss, epoch)

    From the first call on, the batch counts as trained on: it can still be drawn from, and the next rollout replaces it.
    The terms, their weights and the advantages are those of `minibatch_losses`. Two fields of `trainer_cfg.ppo` are the
    caller's: `max_grad_norm`, for the `Optimizer`, and `target_kl`, for `losses.exceeds`. With `refresh_targets` the caller
    computes the advantages before each pass, not once.

    Args:
        policy: whose weights the graph leads to.
        experience: what the minibatch was drawn from.
        minibatch: from `Experience.sample_minibatch` or `minibatches`.
        advantages: float32 `[segments, T]` of the whole batch. They take the place of those that the minibatch was drawn
            with; with `trainer_cfg.vtrace` they stand for what comes after each segment, and the segments' own are
            computed anew.
        trainer_cfg: `ppo`, `schedules`, `vtrace` and `compile` are read.
        kickstarter: adds what its teachers say; None: nothing.
        agent_step: agent steps of the run so far.
        losses: gets the terms.
        device: the policy's.

    Returns:
        A scalar with its graph.

    Raises:
        ValueError: another device than the policy's.
        FloatingPointError: the loss is not finite, in this process or another that trains with it.
        FileNotFoundError: `compile`, and no compiler that torch could use.
    """
    if torch.device(str(device)).type != policy.device.type:
        raise ValueError(
            f"device is {device} but the policy lies on {policy.device}: pass the policy's device."
        )
    experience.mark_used()
    result = minibatch_losses(
        policy,
        experience.with_advantages(minibatch, advantages),
        trainer_cfg.ppo_at(agent_step),
        vtrace=trainer_cfg.vtrace,
        kickstarter=kickstarter,
        experience=experience,
        agent_step=agent_step,
        compile=trainer_cfg.compile,
    )
    stop_run(result.complaint(f"at agent step {agent_step:,}"), experience.last_checkpoint)
    losses.add(result.scalars())
    return result.loss
