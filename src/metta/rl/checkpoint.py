"""Saving and resuming: the policy in one file, everything else that a run needs in others."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, overload

import torch
from torch.optim.lr_scheduler import LRScheduler

from metta.agent.metta_agent import MettaAgent
from metta.agent.policy import Policy
from metta.agent.policy_record import PolicyRecord
from metta.agent.policy_store import PolicyStore, policy_file_name
from metta.agent.serialize import load_weights, read_metadata, read_weights
from metta.common.files import StrPath
from metta.common.stopwatch import Stopwatch
from metta.rl.distributed import fail_together, gather, get_rank, get_world_size, unwrap_agent
from metta.rl.experience import Experience
from metta.rl.finite import refuse_spoilt_weights
from metta.rl.kickstarter import Kickstarter
from metta.rl.optimizer import Optimizer
from metta.rl.tensor_tree import read_tree, write_tree
from metta.rl.trainer_config import due
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


@overload
def save_checkpoint(
    agent: Policy, path: StrPath, epoch: int = 0, metadata: dict[str, Any] | None = None
) -> None: ...


@overload
def save_checkpoint(
    agent: Policy,
    *,
    epoch: int,
    agent_step: int,
    optimizer: OptimizerLike,
    policy_store: PolicyStore | None,
    checkpoint_path: StrPath,
    checkpoint_interval: int,
    force: bool = False,
    metadata: dict[str, Any] | None = None,
    score: float | None = None,
    lr_scheduler: LRScheduler | None = None,
    experience: Experience | None = None,
    kickstarter: Kickstarter | None = None,
    stopwatch: Stopwatch | None = None,
    extra_args: dict[str, Any] | None = None,
) -> PolicyRecord | None: ...


def save_checkpoint(
    agent: Policy,
    path: StrPath | None = None,
    epoch: int = 0,
    metadata: dict[str, Any] | None = None,
    *,
    agent_step: int = 0,
    optimizer: OptimizerLike | None = None,
    policy_store: PolicyStore | None = None,
    checkpoint_path: StrPath | None = None,
    checkpoint_interval: int = 0,
    force: bool = False,
    score: float | None = None,
    lr_scheduler: LRScheduler | None = None,
    experience: Experience | None = None,
    kickstarter: Kickstarter | None = None,
    stopwatch: Stopwatch | None = None,
    extra_args: dict[str, Any] | None = None,
) -> PolicyRecord | None:
    """Save the agent, and in the second form the whole run.

    `save_checkpoint(agent, path, epoch, metadata)` writes `path/checkpoint_000100.pt` (for epoch 100) and nothing else.

    `save_checkpoint(agent=..., epoch=..., agent_step=..., optimizer=..., policy_store=..., checkpoint_path=...,
    checkpoint_interval=...)` writes that file and then the run's `TrainingState` beside it, if `epoch` is a multiple of
    the interval. The state names its policy, and takes its place only once the policy is there; a policy of the same
    epoch with other weights keeps its name, and the new one is called `checkpoint_000100-2.pt`. So whenever the process
    dies, the folder holds a pair that belongs together. The same policy saved again keeps its metadata, the score
    included, apart from what is given anew.

    Of several processes only the master writes policy and state, in a folder that all of them see. If an experience is
    passed, every process must call: each writes its own worlds into a file whose name the state knows, the state takes
    its place once all of them are there, and older ones are removed after that.

    Args:
        agent: the agent, or a wrapper of it.
        path: first form: the folder.
        epoch: batches it has been trained on.
        metadata: saved with the policy; anything JSON can hold.
        agent_step: second form: agent steps so far, over all processes.
        optimizer: its state is saved.
        policy_store: learns of the new policy if the folder is not its own; may be None.
        checkpoint_path: the folder.
        checkpoint_interval: epochs between two checkpoints; 0 = only when forced.
        force: save whatever the interval says.
        score: how good the policy is, which is saved in the metadata; `PolicyStore` finds the `top` policy by it.
        lr_scheduler: its state is saved.
        experience: its state (recurrent memory, random streams, environment) is saved, for an exact resume.
        kickstarter: with an experience: the memories of its teachers, who watch it, are saved too.
        stopwatch: its clocks are saved.
        extra_args: saved as it is; `TrainingState.load(checkpoint_path).extra_args` gives it back.

    Returns:
        First form: None. Second form: in the master the saved policy's record; None where it was not time, and in the
        other processes.

    Raises:
        TypeError: neither form, or a value that cannot be saved.
        ValueError: metadata that JSON cannot hold, or a negative epoch or interval.
        FloatingPointError: a weight is not finite; nothing is written.
        OSError: the folder cannot be written.
    """
    if (path is None) == (checkpoint_path is None):
        raise TypeError(
            "save_checkpoint takes either a folder (agent, path, epoch, metadata) or the keywords agent, epoch, "
            "agent_step, optimizer, policy_store, checkpoint_path and checkpoint_interval: give one of path and "
            "checkpoint_path."
        )
    if path is not None:
        if get_rank() == 0:
            refuse_spoilt_weights(unwrap_agent(agent))
            PolicyStore(path).save(unwrap_agent(agent), epoch, metadata)
        return None
    if checkpoint_path is None or optimizer is None:
        raise TypeError("save_checkpoint with checkpoint_path saves the optimizer too: pass optimizer.")
    if checkpoint_interval < 0:
        raise ValueError(
            f"checkpoint_interval={checkpoint_interval}; give epochs, or 0 to save only when forced."
        )
    if not force and not due(epoch, checkpoint_interval):
        return None
    folder = Path(checkpoint_path)
    # All processes hold the same weights, so all of them refuse.
    refuse_spoilt_weights(unwrap_agent(agent), None if experience is None else experience.last_checkpoint)
    rank_state = _rank_state(experience, kickstarter)
    save_id = _save_part(folder, epoch, rank_state)
    record = None
    with fail_together(needed=rank_state is not None):
        if get_rank() == 0:
            notes = {"agent_step": agent_step} | ({} if score is None else {"score": score})
            record = _save_policy(folder, unwrap_agent(agent), epoch, notes | (metadata or {}))
            TrainingState(
                epoch=epoch,
                agent_step=agent_step,
                total_agent_step=agent_step,
                optimizer_state_dict=optimizer.state_dict(),
                lr_scheduler_state_dict=None if lr_scheduler is None else dict(lr_scheduler.state_dict()),
                policy_path=record.path.name,
                stopwatch_state=None if stopwatch is None else stopwatch.save_state(),
                extra_args=extra_args or {},
                rank_state=rank_state,
                world_size=get_world_size(),
                save_id=save_id,
            ).save(folder)
            for part in [part for pattern in _OLD_PARTS for part in folder.glob(pattern)]:
                if not save_id or save_id not in part.name:
                    part.unlink(missing_ok=True)
    _remember(str(record.path if record else folder / policy_file_name(epoch)), experience, optimizer)
    if record is None or policy_store is None:
        return record
    return policy_store.add(record.path)


def _remember(policy: str, experience: Experience | None, optimizer: OptimizerLike | None) -> None:
    """Let those who may have to stop the run know from where it can go on."""
    if experience is not None:
        experience.last_checkpoint = policy
    if isinstance(optimizer, Optimizer):
        optimizer.last_checkpoint = policy


def _rank_state(experience: Experience | None, kickstarter: Kickstarter | None) -> dict[str, Any] | None:
    """What this process alone goes on from; None without an experience, which the rest belongs to."""
    if experience is None:
        return None
    memories = None if kickstarter is None else kickstarter.state_dict()
    return {"experience": experience.state_dict(), "kickstarter": memories}


def _save_part(folder: Path, epoch: int, rank_state: dict[str, Any] | None) -> str:
    """Save the part of a rank other than 0, whose own is in the state. Returns what the names of all parts contain."""
    if rank_state is None or get_world_size() == 1:
        return ""
    save_id = f"{epoch:06d}_{gather(secrets.token_hex(4))[0]}"
    with fail_together():
        if rank := get_rank():
            write_tree(_part(folder, save_id, rank), rank_state, kind=_RANK_KIND)
    return save_id


def _part(folder: Path, save_id: str, rank: int) -> Path:
    return folder / f"rank_state_{save_id}_rank_{rank}.safetensors"


def _save_policy(folder: Path, agent: MettaAgent, epoch: int, metadata: dict[str, Any]) -> PolicyRecord:
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


@overload
def load_checkpoint(agent: Policy, path: StrPath) -> dict[str, Any]: ...


@overload
def load_checkpoint(
    agent: Policy | None = None,
    *,
    checkpoint_dir: StrPath,
    optimizer: OptimizerLike | None = None,
    policy_store: PolicyStore | None = None,
    lr_scheduler: LRScheduler | None = None,
    experience: Experience | None = None,
    kickstarter: Kickstarter | None = None,
    stopwatch: Stopwatch | None = None,
) -> tuple[int, int, str | None]: ...


def load_checkpoint(
    agent: Policy | None = None,
    path: StrPath | None = None,
    *,
    checkpoint_dir: StrPath | None = None,
    optimizer: OptimizerLike | None = None,
    policy_store: PolicyStore | None = None,
    lr_scheduler: LRScheduler | None = None,
    experience: Experience | None = None,
    kickstarter: Kickstarter | None = None,
    stopwatch: Stopwatch | None = None,
) -> dict[str, Any] | tuple[int, int, str | None]:
    """Load an agent, and in the second form go on with a run.

    `load_checkpoint(agent, path)` loads the weights of one file into the agent.

    `load_checkpoint(checkpoint_dir=..., agent=..., optimizer=..., policy_store=...)` puts a run back to where
    `save_checkpoint` left it in that folder; what is not passed is left alone. If anything is refused, everything is
    left alone. All processes of a run must call it. With as many processes as before each goes on with its own worlds,
    exactly; with more or fewer, weights, optimizer and clocks go on, and the worlds start anew, which the log says.

    How the learning rate goes on is decided by the schedule passed, of which only the clock is restored: a run can be
    continued for longer, or at another rate. Where a run had a schedule and now has none, or the other way round, the
    optimizer keeps the rate that it was made with; without any schedule the saved rate is restored. Its other options (decay,
    momentum, ...) are always those that it was made with.

    Args:
        agent: gets the weights; an agent, or a wrapper of one.
        path: first form: the file, such as `checkpoints/checkpoint_000100.pt`.
        checkpoint_dir: second form: the folder.
        optimizer: gets its state.
        policy_store: learns of the policy if the folder is not its own; may be None.
        lr_scheduler: gets its state, where one was saved.
        experience: gets its state, where one was saved.
        kickstarter: gets its teachers' memories, where the experience gets its state.
        stopwatch: gets its clocks, where they were saved.

    Returns:
        First form: the policy's metadata, `epoch` included. Second form: agent steps, epoch and the policy's path;
        (0, 0, None) where there is nothing to load.

    Raises:
        TypeError: neither form.
        FileNotFoundError: there is no such file, or the folder lacks a file that its state names.
        ValueError: a file is damaged, or belongs to another agent, optimizer or environment; or the processes do not
            see the same folder.
    """
    if (path is None) == (checkpoint_dir is None):
        raise TypeError(
            "load_checkpoint takes either (agent, path of a checkpoint file) or the keyword checkpoint_dir: "
            "give one of path and checkpoint_dir."
        )
    if path is not None:
        if agent is None:
            raise TypeError("load_checkpoint(agent, path) loads into an agent: pass one.")
        return {"epoch": 0, **load_weights(unwrap_agent(agent), path)}
    folder = Path(checkpoint_dir or "")
    state = _read_state(folder)
    if state is None:
        return 0, 0, None
    policy = folder / (state.policy_path or policy_file_name(state.epoch))
    own = None if agent is None else unwrap_agent(agent)
    # Whatever may be refused comes first, and the experience, which checks itself, before what is only copied.
    with fail_together():
        weights = read_weights(own, policy)[0] if own is not None else {}
        if own is None:
            read_metadata(policy)
        if optimizer is not None:
            _check_optimizer(optimizer, state.optimizer_state_dict, folder / STATE_FILE)
        saved = None if experience is None else _read_part(folder, state)
    if experience is not None and saved is not None:
        _load_part(experience, kickstarter, saved)
    if own is not None:
        own.load_state_dict(weights)
    if optimizer is not None:
        new_schedule = (lr_scheduler is None) != (state.lr_scheduler_state_dict is None)
        restored = {"params"} if new_schedule else {"params", "lr", "initial_lr"}
        options = [
            {name: value for name, value in group.items() if name not in restored}
            for group in optimizer.param_groups
        ]
        optimizer.load_state_dict(state.optimizer_state_dict)
        for group, own_options in zip(optimizer.param_groups, options, strict=True):
            group.update(own_options)
    if lr_scheduler is not None and state.lr_scheduler_state_dict is not None:
        lr_scheduler.load_state_dict(state.lr_scheduler_state_dict)
    if stopwatch is not None and state.stopwatch_state is not None:
        stopwatch.load_state(state.stopwatch_state)
    _remember(str(policy), experience, optimizer)
    if policy_store is not None:
        policy_store.add(policy)
    return state.agent_step, state.epoch, str(policy)


def _read_state(folder: Path) -> TrainingState | None:
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


def _read_part(folder: Path, state: TrainingState) -> dict[str, Any] | None:
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


def _load_part(experience: Experience, kickstarter: Kickstarter | None, saved: dict[str, Any]) -> None:
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


def _check_optimizer(optimizer: OptimizerLike, state: dict[str, Any], file: Path) -> None:
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
