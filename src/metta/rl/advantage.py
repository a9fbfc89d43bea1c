"""How much better than expected each action turned out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from metta.rl.experience import Experience

_COMPILED_DTYPES = (torch.float32, torch.float64)


def compute_advantage(
    values: torch.Tensor,
    rewards: torch.Tensor,
    dones: torch.Tensor,
    importance_sampling_ratio: torch.Tensor,
    advantages: torch.Tensor,
    gamma: float,
    gae_lambda: float,
    vtrace_rho_clip: float = 1.0,
    vtrace_c_clip: float = 1.0,
    device: torch.device | str | None = None,
    *,
    truncation_values: torch.Tensor | None = None,
    bootstrap_values: torch.Tensor | None = None,
    bootstrap_advantages: torch.Tensor | None = None,
) -> torch.Tensor:
    """V-trace advantages with the λ of GAE; with ratio 1 and both clips at 1 or more, exactly GAE.

    For step t, with `ρ = min(ratio, vtrace_rho_clip)` and `c = min(ratio, vtrace_c_clip)`::

        δ_t = ρ_t (r_t + γ V_{t+1} - V_t)
        A_t = δ_t + γ λ c_t A_{t+1}        (A_{t+1} counts as 0 if the episode ended at t)

    where `V_{t+1}` is the value of what follows step t: the next value of the sequence; where the episode ended,
    `truncation_values[t]` (0 after a terminal); after the last step, `bootstrap_values`.

    The segments of an `Experience` follow one another, row by row. Over them, one by one, the call is::

        compute_advantage(
            experience.values, experience.rewards, experience.dones,
            torch.ones_like(experience.values), torch.zeros_like(experience.values),
            gamma, gae_lambda, vtrace_rho_clip, vtrace_c_clip, device,
            truncation_values=experience.truncation_values,
            bootstrap_values=experience.following_values(),
        )

    where the sum stops at the end of each segment; `compute_advantages(experience, gamma, gae_lambda)` lets it run on to
    the end of the batch. Without the two keywords every end, a segment's included, is worth 0: the estimate is biased.

    Schulman et al. 2016, "High-dimensional continuous control using generalized advantage estimation"
    (arXiv:1506.02438); Espeholt et al. 2018, "IMPALA" (arXiv:1802.01561).

    Args:
        values: float `[S, T]`: estimate before step t.
        rewards: float `[S, T]`: reward of step t.
        dones: bool or 0/1 `[S, T]`: the episode ended at step t.
        importance_sampling_ratio: float `[S, T]`: probability of the action now over when it was taken.
        advantages: float `[S, T]`: overwritten with the result, on whatever device.
        gamma: discount.
        gae_lambda: λ.
        vtrace_rho_clip: largest weight of a surprise.
        vtrace_c_clip: largest weight with which later surprises reach back.
        device: where to compute, a `torch.device` or anything whose text is one; None: where `values` is.
        truncation_values: float `[S, T]`: value of the final observation where an episode was cut off, 0 after
            terminals; None: every end is terminal. Read only where `dones`.
        bootstrap_values: float `[S]`: value of what follows the last step; None: 0.
        bootstrap_advantages: float `[S]`: A of the step that follows the last one; None: 0.

    Returns:
        `advantages` itself where it lies on `device`, else a copy there.

    Raises:
        ValueError: the shapes differ.
    """
    for name, tensor in (
        ("rewards", rewards),
        ("dones", dones),
        ("importance_sampling_ratio", importance_sampling_ratio),
        ("advantages", advantages),
        ("truncation_values", truncation_values),
    ):
        if tensor is not None and tensor.shape != values.shape:
            raise ValueError(
                f"{name} is {list(tensor.shape)} but values is {list(values.shape)}; give one shape."
            )
    for name, following in (
        ("bootstrap_values", bootstrap_values),
        ("bootstrap_advantages", bootstrap_advantages),
    ):
        if following is not None and following.shape != values.shape[:1]:
            raise ValueError(
                f"{name} is {list(following.shape)} but values is {list(values.shape)}; give one number for each of the "
                f"{len(values)} segments."
            )
    target = values.device if device is None else torch.device(str(device))
    with torch.no_grad():
        v, r, ratio = (t.to(target) for t in (values, rewards, importance_sampling_ratio))
        ended = dones.to(target) != 0
        at_end = torch.zeros_like(v) if truncation_values is None else truncation_values.to(target)
        last, later = (
            torch.zeros_like(v[:, 0]) if tensor is None else tensor.to(target)
            for tensor in (bootstrap_values, bootstrap_advantages)
        )
        compute = _compiled if target.type == "cpu" and v.dtype in _COMPILED_DTYPES else _by_doubling
        clips = (vtrace_rho_clip, vtrace_c_clip)
        advantages.copy_(compute(v, r, ended, ratio, at_end, last, later, gamma, gae_lambda, *clips))
        return advantages.to(target)


def _compiled(
    values: torch.Tensor,
    rewards: torch.Tensor,
    ended: torch.Tensor,
    ratio: torch.Tensor,
    at_end: torch.Tensor,
    last: torch.Tensor,
    later: torch.Tensor,
    gamma: float,
    gae_lambda: float,
    rho_clip: float,
    c_clip: float,
) -> torch.Tensor:
    """`compute_advantage` in one compiled loop."""
    from metta.rl.advantage_kernel import vtrace

    result = torch.empty(values.shape, dtype=values.dtype)
    given = (values, rewards, ratio, at_end, last, later, result)
    arrays = [tensor.to(values.dtype).contiguous().numpy() for tensor in given]
    ends = ended.contiguous().numpy()
    vtrace(float(gamma), float(gae_lambda), float(rho_clip), float(c_clip), ends, *arrays)
    return result


def _by_doubling(
    values: torch.Tensor,
    rewards: torch.Tensor,
    ended: torch.Tensor,
    ratio: torch.Tensor,
    at_end: torch.Tensor,
    last: torch.Tensor,
    later: torch.Tensor,
    gamma: float,
    gae_lambda: float,
    rho_clip: float,
    c_clip: float,
) -> torch.Tensor:
    """The same in operations of torch, on whatever device the tensors are."""
    following = torch.where(ended, at_end, torch.cat([values[:, 1:], last.unsqueeze(1)], 1))
    deltas = ratio.clamp(max=rho_clip) * (rewards + gamma * following - values)
    decay = gamma * gae_lambda * ratio.clamp(max=c_clip) * ~ended
    deltas[:, -1] += decay[:, -1] * later
    return _accumulate_backwards(deltas, decay)


def compute_advantages(
    experience: Experience, gamma: float = 0.977, gae_lambda: float = 0.916
) -> torch.Tensor:
    """Generalized advantage estimates of the complete segments of a batch, kept in it for `train_ppo`.

    The segments of a row follow one another, so the estimate runs on through segment borders: it does not depend on
    `bptt_horizon`. It ends where an episode ends; where it was cut off, and at the end of the batch, the value of
    what would have come next stands for the rest.

    Args:
        experience: with a batch collected by `rollout`.
        gamma: discount.
        gae_lambda: trade of bias (0) for variance (1).

    Returns:
        float32 `[segments, horizon]`.

    Raises:
        ValueError: no segment is complete.
    """
    count, rows, horizon = experience.num_filled, experience.num_rows, experience.horizon
    if not count:
        raise ValueError(
            f"the experience holds {experience.position * rows} agent steps, less than one segment of {horizon} steps "
            f"for each of its {rows} agents: call rollout first."
        )
    chunks = count // rows

    def lives(stored: torch.Tensor) -> torch.Tensor:
        """[S, T] → [N, chunks * T], the whole stretch of each row."""
        return stored[:count].reshape(chunks, rows, horizon).transpose(0, 1).reshape(rows, chunks * horizon)

    values = lives(experience.values)
    result = compute_advantage(
        values,
        lives(experience.rewards),
        lives(experience.terminals) | lives(experience.truncations),
        torch.ones_like(values),
        torch.empty_like(values),
        gamma,
        gae_lambda,
        truncation_values=lives(experience.truncation_values),
        bootstrap_values=experience.bootstrap_values(),
    )
    advantages = result.reshape(rows, chunks, horizon).transpose(0, 1).reshape(count, horizon)
    experience.advantages = advantages
    return advantages


def _accumulate_backwards(deltas: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    """A with `A_t = deltas_t + decay_t A_{t+1}` along the last dimension of `[S, T]`; both are overwritten."""
    # After each round an element covers twice as many steps: log2(T) rounds over everything instead of T small ones, which
    # an accelerator would spend on being told what to do.
    reach = 1
    while reach < deltas.shape[1]:
        deltas[:, :-reach] += decay[:, :-reach] * deltas[:, reach:]
        decay[:, :-reach] = decay[:, :-reach] * decay[:, reach:]
        reach *= 2
    return deltas
