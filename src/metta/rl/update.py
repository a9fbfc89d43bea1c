"""PPO: epochs × minibatches × (loss, backward, step)."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from metta.rl.advantage import compute_advantages
from metta.rl.experience import Experience
from metta.rl.losses import (
    approximate_kl,
    clip_fraction,
    clipped_policy_loss,
    explained_variance,
    normalize_advantages,
    value_loss,
)
from metta.rl.sampling import uniform_minibatches
from metta.rl.trainer_config import PPOConfig
from metta.rl.types import Minibatch

if TYPE_CHECKING:
    from metta.agent.metta_agent import MettaAgent


def train_ppo(
    agent: MettaAgent,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    ppo_config: PPOConfig | None = None,
    update_epochs: int | None = None,
) -> dict[str, float]:
    """Improve the agent on the complete segments of a batch.

    Uses the advantages last computed for the batch with `compute_advantages`; if there are none it computes them
    with `gamma` and `gae_lambda` of `ppo_config`. Each minibatch is a random set of whole segments, replayed from
    their stored recurrent states.

    Args:
        agent: is trained.
        optimizer: any optimizer over the agent's parameters.
        experience: filled by `rollout`; its next rollout replaces the batch.
        ppo_config: the terms and their weights; None: the defaults.
        update_epochs: passes over the batch; None: as the experience's config says, which is 1 unless set.

    Returns:
        Means over the minibatches: `loss`, `policy_loss`, `value_loss`, `entropy`, `l2_reg_loss`, `l2_init_loss`,
        `approx_kl`, `clipfrac`, `ratio`, and over the updates `grad_norm` (before clipping). Of the whole batch:
        `explained_variance` (by the values it was collected with), `advantage_mean`, `advantage_std`, `return_mean`.
        Also `learning_rate`, `updates` (optimizer steps made), `epochs` begun, `early_stop` (1 if target_kl ended
        it), and on the agent's analysis ticks its weight statistics.

    Raises:
        ValueError: no segment is complete, or `update_epochs` is not positive.
        FloatingPointError: loss or gradient is not finite; that update is not applied.
    """
    config = ppo_config or PPOConfig()
    epochs = experience.config.update_epochs if update_epochs is None else update_epochs
    if epochs < 1:
        raise ValueError(f"update_epochs={epochs}; train for at least 1 pass over the batch.")
    advantages = experience.advantages
    if advantages is None:
        advantages = compute_advantages(experience, config.gamma, config.gae_lambda)
    stats = _batch_statistics(experience, advantages)
    sums: dict[str, float] = defaultdict(float)
    size = experience.config.minibatch_size // experience.horizon
    updates, evaluated, epoch, stopped = 0, 0, 0, False
    while epoch < epochs and not stopped:
        epoch += 1
        for indices in uniform_minibatches(len(advantages), size, experience.shuffle_generator):
            losses = minibatch_losses(agent, experience.minibatch(indices, advantages), config)
            scalars = losses.scalars()
            evaluated += 1
            for name, value in scalars.items():
                sums[name] += value
            if config.target_kl is not None and scalars["approx_kl"] > config.target_kl:
                stopped = True
                break
            sums["grad_norm"] += _step(agent, optimizer, losses, config)
            updates += 1
            experience.num_updates += 1
            stats.update(agent.after_update(experience.num_updates))
    experience.mark_used()
    grad_norm = sums.pop("grad_norm", 0.0) / max(updates, 1)
    stats.update({name: total / evaluated for name, total in sums.items()})
    stats["grad_norm"] = grad_norm
    stats["learning_rate"] = float(optimizer.param_groups[0]["lr"])
    stats["updates"] = float(updates)
    stats["epochs"] = float(epoch)
    stats["early_stop"] = float(stopped)
    return stats


@dataclass(frozen=True)
class MinibatchLosses:
    """Scalars of one minibatch; `loss` carries the graph."""

    loss: torch.Tensor
    policy_loss: torch.Tensor
    value_loss: torch.Tensor
    entropy: torch.Tensor
    l2_reg_loss: torch.Tensor
    l2_init_loss: torch.Tensor
    approx_kl: torch.Tensor
    clipfrac: torch.Tensor
    ratio: torch.Tensor

    def scalars(self) -> dict[str, float]:
        """All of them as numbers, by name."""
        terms = vars(self)
        # One transfer instead of nine, for the sake of accelerators.
        numbers = torch.stack([tensor.detach().float() for tensor in terms.values()]).tolist()
        return dict(zip(terms, numbers, strict=True))


def minibatch_losses(agent: MettaAgent, minibatch: Minibatch, config: PPOConfig) -> MinibatchLosses:
    """Replay some segments with the present weights and weigh the terms of the loss."""
    out = agent.evaluate(minibatch.observations, minibatch.start_state, minibatch.dones, minibatch.actions)
    log_ratio = out.logprobs - minibatch.logprobs
    advantages = normalize_advantages(minibatch.advantages) if config.norm_adv else minibatch.advantages
    policy = clipped_policy_loss(log_ratio, advantages, config.clip_coef)
    clip = config.vf_clip_coef if config.clip_vloss else None
    value = value_loss(out.values, minibatch.values, minibatch.returns, clip)
    entropy = out.entropies.mean()
    loss = policy + config.vf_coef * value - config.ent_coef * entropy
    # The L2 terms run over every weight: left out, they cost nothing.
    zero = torch.zeros((), device=loss.device)
    l2_reg = agent.l2_reg_loss() if config.l2_reg_loss_coef else zero
    l2_init = agent.l2_init_loss() if config.l2_init_loss_coef else zero
    loss = loss + config.l2_reg_loss_coef * l2_reg + config.l2_init_loss_coef * l2_init
    fixed = log_ratio.detach()
    return MinibatchLosses(
        loss=loss,
        policy_loss=policy,
        value_loss=value,
        entropy=entropy,
        l2_reg_loss=l2_reg,
        l2_init_loss=l2_init,
        approx_kl=approximate_kl(fixed),
        clipfrac=clip_fraction(fixed, config.clip_coef),
        ratio=fixed.exp().mean(),
    )


def _step(
    agent: MettaAgent, optimizer: torch.optim.Optimizer, losses: MinibatchLosses, config: PPOConfig
) -> float:
    """Backward, clip, step. Returns the gradient's norm before clipping."""
    if not torch.isfinite(losses.loss):
        terms = ", ".join(f"{name} {value:g}" for name, value in losses.scalars().items())
        raise FloatingPointError(
            f"the loss is not finite ({terms}) and the weights were left alone: "
            "lower the learning rate or look for extreme rewards."
        )
    optimizer.zero_grad()
    losses.loss.backward()  # type: ignore[no-untyped-call]
    longest = config.max_grad_norm or math.inf
    grad_norm = float(torch.nn.utils.clip_grad_norm_(agent.parameters(), longest))
    if not math.isfinite(grad_norm):
        raise FloatingPointError(
            f"the gradient's norm is {grad_norm} with a finite loss and the weights were left alone: "
            "lower the learning rate or look for extreme rewards."
        )
    optimizer.step()
    return grad_norm


def _batch_statistics(experience: Experience, advantages: torch.Tensor) -> dict[str, float]:
    values = experience.values[: len(advantages)]
    returns = advantages + values
    return {
        "explained_variance": float(explained_variance(values, returns)),
        "advantage_mean": float(advantages.mean()),
        "advantage_std": float(advantages.std(correction=0)),
        "return_mean": float(returns.mean()),
    }
