"""Saving and resuming: the policy in one file, everything else that a run needs in another."""

from __future__ import annotations

from pathlib import Path
from typing import Any, overload

import torch
from torch.optim.lr_scheduler import LRScheduler

from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_record import PolicyRecord
from metta.agent.policy_store import PolicyStore, policy_file_name
from metta.agent.serialize import load_weights, read_metadata, read_weights
from metta.common.files import StrPath
from metta.rl.experience import Experience
from metta.rl.types import STATE_FILE, TrainingState


@overload
def save_checkpoint(
    agent: MettaAgent, path: StrPath, epoch: int = 0, metadata: dict[str, Any] | None = None
) -> None: ...


@overload
def save_checkpoint(
    agent: MettaAgent,
    *,
    epoch: int,
    agent_step: int,
    optimizer: torch.optim.Optimizer,
    policy_store: PolicyStore | None,
    checkpoint_path: StrPath,
    checkpoint_interval: int,
    force: bool = False,
    metadata: dict[str, Any] | None = None,
    lr_scheduler: LRScheduler | None = None,
    experience: Experience | None = None,
    stopwatch_state: dict[str, Any] | None = None,
    extra_args: dict[str, Any] | None = None,
) -> PolicyRecord | None: ...


def save_checkpoint(
    agent: MettaAgent,
    path: StrPath | None = None,
    epoch: int = 0,
    metadata: dict[str, Any] | None = None,
    *,
    agent_step: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
    policy_store: PolicyStore | None = None,
    checkpoint_path: StrPath | None = None,
    checkpoint_interval: int = 0,
    force: bool = False,
    lr_scheduler: LRScheduler | None = None,
    experience: Experience | None = None,
    stopwatch_state: dict[str, Any] | None = None,
    extra_args: dict[str, Any] | None = None,
) -> PolicyRecord | None:
    """Save the agent, and in the second form the whole run.

    `save_checkpoint(agent, path, epoch, metadata)` writes `path/checkpoint_000100.pt` (for epoch 100) and nothing else.

    `save_checkpoint(agent=..., epoch=..., agent_step=..., optimizer=..., policy_store=..., checkpoint_path=...,
    checkpoint_interval=...)` writes that file and then the run's `TrainingState` beside it, if `epoch` is a multiple of
    the interval. The state names its policy, and takes its place only once the policy is there: whenever the process
    dies, the folder holds a pair that belongs together.

    Args:
        agent: the agent.
        path: first form: the folder.
        epoch: batches it has been trained on.
        metadata: saved with the policy; anything JSON can hold.
        agent_step: second form: agent steps so far.
        optimizer: its state is saved.
        policy_store: learns of the new policy if the folder is not its own; may be None.
        checkpoint_path: the folder.
        checkpoint_interval: epochs between two checkpoints; 0 = only when forced.
        force: save whatever the interval says.
        lr_scheduler: its state is saved.
        experience: its state (recurrent memory, random streams, environment) is saved, for an exact resume.
        stopwatch_state: saved as it is.
        extra_args: saved as it is, under a key of its own.

    Returns:
        First form: None. Second form: the saved policy's record, None where it was not time.

    Raises:
        TypeError: neither form, or a value that cannot be saved.
        ValueError: metadata that JSON cannot hold, or a negative epoch or interval.
        OSError: the folder cannot be written.
    """
    if (path is None) == (checkpoint_path is None):
        raise TypeError(
            "save_checkpoint takes either a folder (agent, path, epoch, metadata) or the keywords agent, epoch, "
            "agent_step, optimizer, policy_store, checkpoint_path and checkpoint_interval: give one of path and "
            "checkpoint_path."
        )
    if path is not None:
        PolicyStore(path).save(agent, epoch, metadata)
        return None
    if checkpoint_path is None or optimizer is None:
        raise TypeError("save_checkpoint with checkpoint_path saves the optimizer too: pass optimizer.")
    if checkpoint_interval < 0:
        raise ValueError(
            f"checkpoint_interval={checkpoint_interval}; give epochs, or 0 to save only when forced."
        )
    due = checkpoint_interval > 0 and epoch % checkpoint_interval == 0
    if not due and not force:
        return None
    folder = Path(checkpoint_path)
    record = PolicyStore(folder).save(agent, epoch, {"agent_step": agent_step, **(metadata or {})})
    TrainingState(
        epoch=epoch,
        agent_step=agent_step,
        total_agent_step=agent_step,
        optimizer_state_dict=optimizer.state_dict(),
        lr_scheduler_state_dict=None if lr_scheduler is None else dict(lr_scheduler.state_dict()),
        policy_path=record.path.name,
        stopwatch_state=stopwatch_state,
        extra_args={
            "experience": None if experience is None else experience.state_dict(),
            "caller": extra_args or {},
        },
    ).save(folder)
    return record if policy_store is None else policy_store.add(record.path)


@overload
def load_checkpoint(agent: MettaAgent, path: StrPath) -> dict[str, Any]: ...


@overload
def load_checkpoint(
    agent: MettaAgent | None = None,
    *,
    checkpoint_dir: StrPath,
    optimizer: torch.optim.Optimizer | None = None,
    policy_store: PolicyStore | None = None,
    lr_scheduler: LRScheduler | None = None,
    experience: Experience | None = None,
) -> tuple[int, int, str | None]: ...


def load_checkpoint(
    agent: MettaAgent | None = None,
    path: StrPath | None = None,
    *,
    checkpoint_dir: StrPath | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    policy_store: PolicyStore | None = None,
    lr_scheduler: LRScheduler | None = None,
    experience: Experience | None = None,
) -> dict[str, Any] | tuple[int, int, str | None]:
    """Load an agent, and in the second form go on with a run.

    `load_checkpoint(agent, path)` loads the weights of one file into the agent.

    `load_checkpoint(checkpoint_dir=..., agent=..., optimizer=..., policy_store=...)` puts a run back to where
    `save_checkpoint` left it in that folder; what is not passed is left alone. If anything is refused, everything is
    left alone.

    How the learning rate goes on is decided by the schedule passed, of which only the clock is restored: a run can be
    continued for longer, or at another rate. Where a run had a schedule and now has none, or the other way round, the
    optimizer keeps the rate that it was made with; without any schedule the saved rate is restored.

    Args:
        agent: gets the weights.
        path: first form: the file, such as `checkpoints/checkpoint_000100.pt`.
        checkpoint_dir: second form: the folder.
        optimizer: gets its state.
        policy_store: learns of the policy if the folder is not its own; may be None.
        lr_scheduler: gets its state, where one was saved.
        experience: gets its state, where one was saved.

    Returns:
        First form: the policy's metadata, `epoch` included. Second form: agent steps, epoch and the policy's path;
        (0, 0, None) where there is nothing to load.

    Raises:
        TypeError: neither form.
        FileNotFoundError: there is no such file, or the folder lacks the policy that its state names.
        ValueError: a file is damaged, or belongs to another agent, optimizer or environment.
    """
    if (path is None) == (checkpoint_dir is None):
        raise TypeError(
            "load_checkpoint takes either (agent, path of a checkpoint file) or the keyword checkpoint_dir: "
            "give one of path and checkpoint_dir."
        )
    if path is not None:
        if agent is None:
            raise TypeError("load_checkpoint(agent, path) loads into an agent: pass one.")
        return {"epoch": 0, **load_weights(agent, path)}
    folder = Path(checkpoint_dir or "")
    if not (folder / STATE_FILE).is_file():
        return 0, 0, None
    state = TrainingState.load(folder / STATE_FILE)
    policy = folder / (state.policy_path or policy_file_name(state.epoch))
    # Whatever may be refused comes first, and the experience, which checks itself, before what is only copied.
    weights = read_weights(agent, policy)[0] if agent is not None else {}
    if agent is None:
        read_metadata(policy)
    if optimizer is not None:
        _check_optimizer(optimizer, state.optimizer_state_dict, folder / STATE_FILE)
    saved = state.extra_args.get("experience")
    if experience is not None and saved is not None:
        experience.load_state_dict(saved)
    if agent is not None:
        agent.load_state_dict(weights)
    if optimizer is not None:
        rates = [group["lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(state.optimizer_state_dict)
        if (lr_scheduler is None) != (state.lr_scheduler_state_dict is None):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
    if lr_scheduler is not None and state.lr_scheduler_state_dict is not None:
        lr_scheduler.load_state_dict(state.lr_scheduler_state_dict)
    if policy_store is not None:
        policy_store.add(policy)
    return state.agent_step, state.epoch, str(policy)


def _check_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], file: Path) -> None:
    saved = [len(group["params"]) for group in state["param_groups"]]
    own = [len(group["params"]) for group in optimizer.param_groups]
    if saved != own:
        raise ValueError(
            f"{file} was saved with another optimizer (groups of {saved} parameters there, {own} here): make it with "
            "the same OptimizerConfig and agent."
        )
