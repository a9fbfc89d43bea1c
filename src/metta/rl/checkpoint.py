"""Saving and resuming: the policy in one file, everything else that a run needs in others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, overload

from torch.optim.lr_scheduler import LRScheduler

from metta.agent.policy import Policy
from metta.agent.policy_record import PolicyRecord
from metta.agent.policy_store import PolicyStore, policy_file_name
from metta.agent.serialize import load_weights, read_metadata, read_weights
from metta.common.files import StrPath
from metta.common.stopwatch import Stopwatch
from metta.rl.checkpoint_files import (
    OptimizerLike,
    check_optimizer,
    last_good,
    load_part,
    rank_state_of,
    read_part,
    read_state,
    remember_checkpoint,
    remove_old_parts,
    save_part,
    save_policy,
    saved_of_optimizer,
    saved_of_policy,
    saved_of_rank,
)
from metta.rl.distributed import fail_together, get_rank, get_world_size, unwrap_agent
from metta.rl.experience import Experience
from metta.rl.finite import refuse_to_save
from metta.rl.kickstarter import Kickstarter
from metta.rl.trainer_config import due
from metta.rl.types import STATE_FILE, TrainingState


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
        FloatingPointError: a weight, the optimizer's state or a memory is not finite; nothing is written.
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
            refuse_to_save(saved_of_policy(unwrap_agent(agent)), last_good(Path(path), None, None))
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
    rank_state = rank_state_of(experience, kickstarter)
    with fail_together(needed=rank_state is not None):
        own, last = unwrap_agent(agent), last_good(folder, experience, optimizer)
        refuse_to_save(saved_of_policy(own), last)
        refuse_to_save(saved_of_optimizer(optimizer, own), last)
        refuse_to_save(saved_of_rank(rank_state) if rank_state is not None else (), last)
    save_id = save_part(folder, epoch, rank_state)
    record = None
    with fail_together(needed=rank_state is not None):
        if get_rank() == 0:
            notes = {"agent_step": agent_step} | ({} if score is None else {"score": score})
            record = save_policy(folder, unwrap_agent(agent), epoch, notes | (metadata or {}))
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
            remove_old_parts(folder, save_id)
    remember_checkpoint(
        str(record.path if record else folder / policy_file_name(epoch)), experience, optimizer
    )
    if record is None or policy_store is None:
        return record
    return policy_store.add(record.path)


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
    state = read_state(folder)
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
            check_optimizer(optimizer, state.optimizer_state_dict, folder / STATE_FILE)
        saved = None if experience is None else read_part(folder, state)
    if experience is not None and saved is not None:
        load_part(experience, kickstarter, saved)
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
    remember_checkpoint(str(policy), experience, optimizer)
    if policy_store is not None:
        policy_store.add(policy)
    return state.agent_step, state.epoch, str(policy)
