"""What is not a finite number stops a run: by name, at its step, before it can spoil weights or a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from metta.rl.distributed import any_rank

if TYPE_CHECKING:
    from metta.rl.experience import Experience

BATCH_NAMES = {
    "logprobs": "the policy's logits",
    "values": "the policy's values",
    "rewards": "the environment's rewards",
    "truncation_values": "the policy's values of final observations",
}
"""What a batch holds that could be no finite number, and whose it is."""


def stop_run(complaint: str | None, last_checkpoint: str | None) -> None:
    """Stop here, and in all processes that train together, if there is a complaint in any of them.

    Args:
        complaint: what is wrong in this process; None: nothing.
        last_checkpoint: from where the run can go on; None: nothing was saved yet.

    Raises:
        FloatingPointError: there is a complaint, here or elsewhere.
    """
    if any_rank(complaint is not None):
        raise FloatingPointError(
            _in_a_sentence(complaint or "there is nan or inf in another process", last_checkpoint)
        )


def _in_a_sentence(complaint: str, last_checkpoint: str | None) -> str:
    again = (
        "start again, since nothing was saved yet,"
        if last_checkpoint is None
        else f"go on from the last good checkpoint, {last_checkpoint},"
    )
    return (
        f"{complaint}, and the weights were left alone: {again} once the cause is found, such as extreme "
        "rewards, a high learning rate or a layer of one's own."
    )


def first_wrong(tensor: torch.Tensor) -> tuple[list[int], float] | None:
    """Place and value of the first element that is not finite; None where all are."""
    wrong = ~tensor.detach().isfinite()
    if not bool(wrong.any()):
        return None
    place = wrong.nonzero()[0].tolist()
    return place, float(tensor.detach()[tuple(place)])


def complaint_about(tensors: Mapping[str, torch.Tensor], where: str) -> str | None:
    """The first of some tensors that is not finite, in words; None where all are.

    Args:
        tensors: by what they are called.
        where: in which step, for the sentence.
    """
    for name, tensor in tensors.items():
        if (found := first_wrong(tensor)) is not None:
            return f"{where} there is {found[1]} in {name}"
    return None


def complaint_about_steps(experience: Experience, first: int) -> str | None:
    """What is not finite among the steps that a batch holds, in words; None where all is well.

    Args:
        experience: the batch.
        first: step of each row from which on to look.
    """
    rows, horizon, last = experience.num_rows, experience.horizon, experience.position
    places = []
    for chunk in range(first // horizon, -(-last // horizon)):
        steps = slice(max(first - chunk * horizon, 0), min(last - chunk * horizon, horizon))
        for name in BATCH_NAMES:
            places.append((name, chunk, steps))

    def part(name: str, chunk: int, steps: slice) -> torch.Tensor:
        stored: torch.Tensor = getattr(experience, name)
        return stored[chunk * rows : (chunk + 1) * rows, steps]

    # One answer for all of them: on an accelerator every question waits for the device.
    if not places or bool(torch.stack([part(*place).isfinite().all() for place in places]).all()):
        return None
    earliest: tuple[int, str] | None = None
    for name, chunk, steps in places:
        wrong = ~part(name, chunk, steps).t().isfinite()
        if bool(wrong.any()):
            time, row = wrong.nonzero()[0].tolist()
            step = chunk * horizon + steps.start + time
            value = float(part(name, chunk, steps)[row, time])
            whole = experience.first_chunk * horizon + step + 1
            said = f"at agent step {whole * rows:,} (step {whole:,} of agent {row}) there is {value} in {BATCH_NAMES[name]}"
            if earliest is None or step < earliest[0]:
                earliest = step, said
    assert earliest is not None
    return earliest[1]


def complaint_about_gradients(owner: Any, parameters: Iterable[nn.Parameter], where: str) -> str:
    """Which gradient is not finite, in words.

    Args:
        owner: knows the parameters' names, if it is a module.
        parameters: whose gradients count.
        where: in which update, for the sentence.
    """
    names = {}
    if isinstance(owner, nn.Module):
        names = {id(p): name.removeprefix("module.") for name, p in owner.named_parameters()}
    for number, parameter in enumerate(parameters):
        if parameter.grad is not None and (found := first_wrong(parameter.grad)) is not None:
            name = names.get(id(parameter), f"parameter {number}")
            return f"{where} there is {found[1]} in the gradient of {name}"
    return f"{where} there is inf in the norm of the gradient, whose elements are finite"


def refuse_to_save(tensors: Iterable[tuple[str, torch.Tensor]], last_checkpoint: str | None) -> None:
    """Keep what is not finite out of checkpoints.

    Args:
        tensors: what would be saved, each with what it is called in messages.
        last_checkpoint: from where a run could go on; None: from nowhere.

    Raises:
        FloatingPointError: a number is not finite.
    """
    for name, tensor in tensors:
        if (found := first_wrong(tensor)) is not None:
            saved = (
                "none was saved before"
                if last_checkpoint is None
                else f"the last good one is {last_checkpoint}"
            )
            raise FloatingPointError(
                f"there is {found[1]} in {name}, so no checkpoint was written; {saved}: go on from there with a "
                "lower learning rate."
            )
