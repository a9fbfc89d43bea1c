"""The files of a checkpoint folder one by one: what each holds, and how each is read again."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_record import PolicyRecord
from metta.agent.policy_store import PolicyStore, policy_file_name
from metta.agent.serialize import read_weights
from metta.rl.distributed import fail_together, gather, get_rank, get_world_size
from metta.rl.experience import Experience
from metta.rl.kickstarter import Kickstarter
from metta.rl.optimizer import Optimizer
from metta.rl.tensor_tree import read_tree, write_tree
from metta.rl.types import STATE_FILE, TrainingState

_RANK_KIND = "metta-rank-state-1"
_OLD_PARTS = ("rank_state_*_rank_*.safetensors", ".rank_state_*.tmp", f".{STATE_FILE}.*.tmp")
"""Files in the folder that no saved state names any more, once a new one is in place."""

logger = logging.getLogger(__name__)


class OptimizerLike(Protocol):
    """What is asked of an optimizer here: torch's own and `metta.rl.optimizer.Optimizer` offer it."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters with their options."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Go on from that."""
        ...


def remember_checkpoint(policy: str, experience: Experience | None, optimizer: OptimizerLike | None) -> None:
    """Let those who may have to stop the run know from where it can go on."""
    if experience is not None:
        experience.last_checkpoint = policy
    if isinstance(optimizer, Optimizer):
        optimizer.last_checkpoint = policy


def last_good(folder: Path, experience: Experience | None, optimizer: OptimizerLike | None) -> str | None:
    """From where a run can go on: what was last saved or loaded with these, else the newest policy in the folder."""
    known = [None if experience is None else experience.last_checkpoint]
    known += [optimizer.last_checkpoint] if isinstance(optimizer, Optimizer) else []
    found = sorted(folder.glob("checkpoint_*.pt"), key=lambda file: file.stat().st_mtime_ns)
    return next((path for path in known if path is not None), str(found[-1]) if found else None)


def saved_of_policy(agent: MettaAgent) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a policy's file would hold, by what they are called in messages."""
    for name, tensor in agent.state_dict().items():
        yield f"the weights {name}", tensor


def saved_of_optimizer(optimizer: OptimizerLike, agent: MettaAgent) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of an optimizer's state, by what they are called in messages."""
    names = {id(parameter): name for name, parameter in agent.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = optimizer.state_dict()
    of = {
        number: names.get(id(parameter), f"parameter {number}") for number, parameter in enumerate(parameters)
    }
    for number, entry in state["state"].items():
        for key, value in entry.items():
            if isinstance(value, torch.Tensor):
                yield f"the optimizer's {key} of {of.get(number, number)}", value
    for number, gradient in enumerate(state.get("gradients", ())):
        if gradient is not None:
            yield f"the gradient under way of {of[number]}", gradient


def saved_of_rank(rank_state: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The memories and values that a process goes on from, by what they are called in messages."""
    experience = rank_state["experience"]
    yield "the agent's memory", experience["state_h"]
    yield "the agent's memory", experience["state_c"]
    yield "the policy's values", experience["next_values"]
    for teacher in (rank_state["kickstarter"] or {"teachers": ()})["teachers"]:
        for memory in teacher["memories"]:
            yield f"the memory of the teacher {teacher['uri']}", memory["h"]
            yield f"the memory of the teacher {teacher['uri']}", memory["c"]


def rank_state_of(experience: Experience | None, kickstarter: Kickstarter | None) -> dict[str, Any] | None:
    """What this process alone goes on from; None without an experience, which the rest belongs to."""
    if experience is None:
        return None
    memories = None if kickstarter is None else kickstarter.state_dict()
    return {"experience": experience.state_dict(), "kickstarter": memories}


def save_part(folder: Path, epoch: int, rank_state: dict[str, Any] | None) -> str:
    """Save the part of a rank other than 0, whose own is in the state. Returns what the names of all parts contain."""
    if rank_state is None or get_world_size() == 1:
        return ""
    save_id = f"{epoch:06d}_{gather(secrets.token_hex(4))[0]}"
    with fail_together():
        if rank := get_rank():
            write_tree(_part(folder, save_id, rank), rank_state, kind=_RANK_KIND)
    return save_id


def remove_old_parts(folder: Path, save_id: str) -> None:
    """Take away the files of other ranks that no state names any more.

    Args:
        folder: of the checkpoints.
        save_id: what the names of those that stay contain; "": none stays.
    """
    for part in [part for pattern in _OLD_PARTS for part in folder.glob(pattern)]:
        if not save_id or save_id not in part.name:
            part.unlink(missing_ok=True)


def _part(folder: Path, save_id: str, rank: int) -> Path:
    return folder / f"rank_state_{save_id}_rank_{rank}.safetensors"


def save_policy(folder: Path, agent: MettaAgent, epoch: int, metadata: dict[str, Any]) -> PolicyRecord:
    """Save a policy without touching one of the same epoch that has other weights: a state may still name it.

    The same policy saved again keeps what was said of it before, its score for instance.
    """
    path = folder / policy_file_name(epoch)
    stem, number = path.stem, 1
    known: dict[str, Any] | None = {}
    while path.is_file() and (known := _metadata_of_same(path, agent)) is None:
        number += 1
        path = path.with_name(f"{stem}-{number}.pt")
    return PolicyStore(folder).save(agent, epoch, {**(known or {}), **metadata}, file_name=path.name)


def _metadata_of_same(path: Path, agent: MettaAgent) -> dict[str, Any] | None:
    """What was saved with the weights that the agent has now; None if the file holds others."""
    try:
        weights, metadata = read_weights(agent, path)
    except ValueError:
        return None
    same = all(torch.equal(weights[name], tensor.cpu()) for name, tensor in agent.state_dict().items())
    return metadata if same else None


def read_state(folder: Path) -> TrainingState | None:
    """The run's state, the same in every process; None where there is none."""
    state = None
    with fail_together():
        if (folder / STATE_FILE).is_file():
            state = TrainingState.load(folder / STATE_FILE)
    found = gather(None if state is None else [state.epoch, state.agent_step, state.save_id])
    for rank, other in enumerate(found):
        if other != found[0]:
            raise ValueError(
                f"rank {rank} and rank 0 do not find the same training state in {folder}: it must be one folder that "
                "all processes share."
            )
    return state


def read_part(folder: Path, state: TrainingState) -> dict[str, Any] | None:
    """What this process alone goes on from; None where its worlds have to start anew."""
    if state.rank_state is None:
        return None
    if state.world_size != get_world_size():
        if get_rank() == 0:
            logger.info(
                "%s was saved by %d processes and goes on with %d: weights, optimizer and clocks go on where they were, "
                "all worlds start anew.",
                folder,
                state.world_size,
                get_world_size(),
            )
        return None
    if get_rank() == 0:
        return state.rank_state
    part: dict[str, Any] = read_tree(_part(folder, state.save_id, get_rank()), kind=_RANK_KIND)
    return part


def load_part(experience: Experience, kickstarter: Kickstarter | None, saved: dict[str, Any]) -> None:
    """Put back what each process alone goes on from: in all of them or, if any refuses, in none."""
    undo: list[Callable[[], None]] = []
    try:
        with fail_together():
            before = experience.state_dict()
            experience.load_state_dict(saved["experience"])
            undo.append(partial(experience.load_state_dict, before))
            if kickstarter is not None and saved["kickstarter"] is not None:
                memories = kickstarter.state_dict()
                kickstarter.load_state_dict(saved["kickstarter"])
                undo.append(partial(kickstarter.load_state_dict, memories))
    except Exception:
        for put_back in undo:
            put_back()
        raise


def check_optimizer(optimizer: OptimizerLike, state: dict[str, Any], file: Path) -> None:
    """See that a saved state is of an optimizer like this one, over parameters like these.

    Args:
        optimizer: what shall go on from it.
        state: the saved state.
        file: where it was saved, for messages.

    Raises:
        ValueError: it is not.
    """
    saved = [len(group["params"]) for group in state["param_groups"]]
    own = [len(group["params"]) for group in optimizer.param_groups]
    if saved != own:
        raise ValueError(
            f"{file} was saved with another optimizer (groups of {saved} parameters there, {own} here): make it with "
            "the same OptimizerConfig and agent."
        )
    for group, other in zip(optimizer.param_groups, state["param_groups"], strict=True):
        # A later torch may add options, and a schedule adds one; another kind also lacks some of the saved ones.
        lacking = sorted(group.keys() - other.keys() - {"initial_lr"})
        if lacking and other.keys() - group.keys() - {"initial_lr"}:
            raise ValueError(
                f"{file} was saved with another kind of optimizer, one without {', '.join(lacking)}: make it with the "
                "same OptimizerConfig and agent."
            )
