"""PPO: epochs × minibatches × (loss, backward, step)."""

from __future__ import annotations

import torch

from metta.agent.policy import Policy
from metta.agent.row_parallel import sharing_rows
from metta.rl.advantage import compute_advantages
from metta.rl.experience import Experience
from metta.rl.finite import complaint_about, complaint_about_steps, stop_run
from metta.rl.kickstarter import Kickstarter
from metta.rl.losses import Losses, explained_variance, minibatch_losses
from metta.rl.optimizer import clip_and_step
from metta.rl.trainer_config import PPOConfig, TrainerConfig


@sharing_rows()
def train_ppo(
    agent: Policy,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    ppo_config: PPOConfig | None = None,
    update_epochs: int | None = None,
    *,
    trainer_cfg: TrainerConfig | None = None,
    kickstarter: Kickstarter | None = None,
    agent_step: int = 0,
) -> dict[str, float]:
    """Improve the agent on the complete segments of a batch.

    Uses the advantages last computed for the batch with `compute_advantages`; if there are none it computes them
    with `gamma` and `gae_lambda` of `ppo_config`. Each minibatch is a random set of whole segments, replayed from
    their stored recurrent states.

    Several processes that train one policy decide alike: advantages are normalised over all of them, and they stop
    together.

    Args:
        agent: is trained.
        optimizer: any optimizer over the agent's parameters.
        experience: filled by `rollout`; its next rollout replaces the batch.
        ppo_config: the terms and their weights; None: those of `trainer_cfg`, or the defaults.
        update_epochs: passes over the batch; None: as the experience's config says, which is 1 unless set.
        trainer_cfg: its `vtrace`, `prioritized_experience_replay` and `compile` are applied, and its `schedules` where
            `ppo_config` is None; None: none of them, which is plain PPO.
        kickstarter: adds what its teachers say; None: nothing.
        agent_step: agent steps of the run so far, the clock of schedules, prioritised replay and the kickstarter.

    Returns:
        Means over the minibatches: `loss`, `policy_loss`, `value_loss`, `entropy`, `l2_reg_loss`, `l2_init_loss`,
        `approx_kl`, `clipfrac`, `ratio`, and over the updates `grad_norm` (before clipping). Of the whole batch:
        `explained_variance` (by the values it was collected with), `advantage_mean`, `advantage_std`, `return_mean`.
        Also `learning_rate`, `updates` (optimizer steps made), `epochs` begun, `early_stop` (1 if target_kl ended
        it), and on the agent's analysis ticks its weight statistics. With a kickstarter, the terms of its teachers.

    Raises:
        ValueError: no segment is complete, or `update_epochs` is not positive.
        FloatingPointError: batch, policy, loss or gradient are not finite, in this process or another that trains with it;
            that update is not applied.
        FileNotFoundError: `compile`, and no compiler that torch could use.
    """
    config = ppo_config or (PPOConfig() if trainer_cfg is None else trainer_cfg.ppo_at(agent_step))
    epochs = experience.config.update_epochs if update_epochs is None else update_epochs
    if epochs < 1:
        raise ValueError(f"update_epochs={epochs}; train for at least 1 pass over the batch.")
    advantages = experience.advantages
    if advantages is None:
        advantages = compute_advantages(experience, config.gamma, config.gae_lambda)
    stop_run(
        complaint_about_steps(experience, 0)
        or complaint_about({"the advantages": advantages}, "in this batch"),
        experience.last_checkpoint,
    )
    stats = _batch_statistics(experience, advantages)
    losses = Losses()
    grad_norms: list[float] = []
    epoch, stopped = 0, False
    while epoch < epochs and not stopped:
        epoch += 1
        if config.refresh_targets and epoch > 1:
            advantages = compute_advantages(experience, config.gamma, config.gae_lambda)
        for minibatch in experience.minibatches(advantages, trainer_cfg, agent_step):
            result = minibatch_losses(
                agent,
                minibatch,
                config,
                vtrace=None if trainer_cfg is None else trainer_cfg.vtrace,
                kickstarter=kickstarter,
                experience=experience,
                agent_step=agent_step,
                compile=trainer_cfg is not None and trainer_cfg.compile,
            )
            where = f"in update {experience.num_updates + 1}"
            stop_run(result.complaint(where), experience.last_checkpoint)
            losses.add(result.scalars())
            stopped = losses.exceeds(config.target_kl)
            if stopped:
                break
            optimizer.zero_grad()
            result.loss.backward()  # type: ignore[no-untyped-call]
            grad_norms.append(
                clip_and_step(
                    optimizer,
                    agent.parameters(),
                    config.max_grad_norm,
                    agent,
                    where,
                    experience.last_checkpoint,
                )
            )
            experience.num_updates += 1
            stats.update(agent.after_update(experience.num_updates))
    experience.mark_used()
    stats.update(losses.stats())
    stats["grad_norm"] = sum(grad_norms) / max(len(grad_norms), 1)
    stats["learning_rate"] = float(optimizer.param_groups[0]["lr"])
    stats["updates"] = float(len(grad_norms))
    stats["epochs"] = float(epoch)
    stats["early_stop"] = float(stopped)
    return stats


def _batch_statistics(experience: Experience, advantages: torch.Tensor) -> dict[str, float]:
    values = experience.values[: len(advantages)]
    returns = advantages + values
    return {
        "explained_variance": float(explained_variance(values, returns)),
        "advantage_mean": float(advantages.mean()),
        "advantage_std": float(advantages.std(correction=0)),
        "return_mean": float(returns.mean()),
    }
