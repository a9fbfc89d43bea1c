"""Setting a run up: its folders, its device and its fellow processes.

Read from the process environment: `METTA_RUN` (name of the run), `METTA_DATA_DIR` (where runs are kept), and what
torchrun sets.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import strftime
from typing import Any, NamedTuple

import torch
import yaml
from pydantic import BaseModel

from metta.common.files import StrPath, atomic_write_bytes
from metta.rl.distributed import (
    TIMEOUT,
    cleanup_distributed,
    fail_together,
    gather,
    get_rank,
    get_world_size,
    local_rank,
    setup_distributed_vars,
)

__all__ = [
    "DeviceSetup",
    "RunDirectories",
    "cleanup_distributed",
    "save_experiment_config",
    "setup_device_and_distributed",
    "setup_distributed_vars",
    "setup_run_directories",
]


@dataclass(frozen=True)
class RunDirectories:
    """Where a run keeps its files; the folders exist.

    Attributes:
        run_name: name of the run, and of its folder.
        run_dir: `data_dir/run_name`, the home of everything.
        checkpoint_dir: policies and training state.
        replay_dir: recorded episodes.
        stats_dir: evaluation records and metrics.
        config_file: the run's configuration, by `save_experiment_config`.
    """

    run_name: str
    run_dir: Path
    checkpoint_dir: Path
    replay_dir: Path
    stats_dir: Path
    config_file: Path


def setup_run_directories(run_name: str | None = None, data_dir: StrPath | None = None) -> RunDirectories:
    """Make the folders of a run, or find those of an earlier run of the same name.

    All processes of a torchrun launch get the same ones; this joins them, as `setup_device_and_distributed` does.

    Args:
        run_name: None: the environment variable `METTA_RUN`; if that is not set either, the date and time, with a
            number behind it where another run began in the same second.
        data_dir: the folder of all runs; None: the environment variable `METTA_DATA_DIR`, else `./runs`.

    Raises:
        ValueError: the name cannot be that of a folder.
        OSError: a folder cannot be made.
    """
    is_master, _, _ = setup_distributed_vars()
    home = Path(os.environ.get("METTA_DATA_DIR", "runs") if data_dir is None else data_dir)
    name = os.environ.get("METTA_RUN") if run_name is None else run_name
    if name is not None and (not name.strip() or name in (".", "..") or set(name) & set("/\\\0")):
        source = "run_name" if run_name is not None else "the environment variable METTA_RUN"
        raise ValueError(
            f"{source} is {name!r}, which cannot be the name of a folder: use letters and digits."
        )
    if name is None:
        with fail_together():
            name = _new_run(home) if is_master else ""
        name = str(gather(name)[0])
    run = home / name
    dirs = RunDirectories(
        run_name=name,
        run_dir=run,
        checkpoint_dir=run / "checkpoints",
        replay_dir=run / "replays",
        stats_dir=run / "stats",
        config_file=run / "config.yaml",
    )
    # Every process makes them: those on another machine may not see the master's disk.
    with fail_together():
        for folder in (dirs.run_dir, dirs.checkpoint_dir, dirs.replay_dir, dirs.stats_dir):
            folder.mkdir(parents=True, exist_ok=True)
    return dirs


def _new_run(home: Path) -> str:
    """Make a folder named by the clock that nobody else has."""
    home.mkdir(parents=True, exist_ok=True)
    stem = name = strftime("%Y%m%d-%H%M%S")
    number = 1
    while True:
        try:
            (home / name).mkdir()
        except FileExistsError:
            number += 1
            name = f"{stem}-{number}"
        else:
            return name


class DeviceSetup(NamedTuple):
    """Where this process computes, and which of the run's processes it is.

    Unpacks as `device, is_master, world_size, rank`, and is equal to that tuple; its text is the device's, so every
    function of this library that takes a device takes it too.

    Attributes:
        device: the device.
        is_master: whether this process writes what belongs to the run as a whole.
        world_size: how many processes train together.
        rank: number of this one, from 0.
    """

    device: torch.device
    is_master: bool
    world_size: int
    rank: int

    def __str__(self) -> str:
        """The device's name, such as `cuda:0`."""
        return str(self.device)


def setup_device_and_distributed(
    device: torch.device | str = "auto", timeout: float = TIMEOUT
) -> DeviceSetup:
    """Choose the device, and join the other processes if torchrun started several. May be called again.

    Args:
        device: `cpu`, `cuda` (each process of a machine gets a GPU of its own), `cuda:1`, ...; `auto`: a GPU if
            there is one.
        timeout: seconds that processes wait for each other before it is an error.

    Raises:
        ValueError: there is no such device, or not one for each process.
        LostProcessError: the other processes did not appear.
    """
    is_master, world_size, rank = setup_distributed_vars(timeout)
    with fail_together():
        chosen = _choose_device(str(device), local_rank() if world_size > 1 else None)
    return DeviceSetup(chosen, is_master, world_size, rank)


def _choose_device(name: str, local: int | None) -> torch.device:
    """The device of that name; `local` is this process's number on its machine, None if it is the only one."""
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is {name!r}, which torch does not know: use cpu, cuda or auto.") from error
    if device.type != "cuda":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"device is {name!r}, but this torch cannot use one ({str(error).splitlines()[0][:100]}): use cpu, cuda or auto."
            ) from error
        return device
    if not available:
        raise ValueError(
            f"device is {name!r}, but torch finds no usable NVIDIA GPU here: use cpu or auto, or install a torch "
            "built for CUDA and its driver."
        )
    named = ":" in name
    if local is not None and named:
        raise ValueError(
            f"device is {name!r}, one GPU for {get_world_size()} processes: say cuda, and each gets its own."
        )
    index = device.index if named else local or 0
    count = torch.cuda.device_count()
    if index >= count:
        wanted = f"device {name!r}" if named or local is None else f"process {local} of this machine"
        raise ValueError(
            f"there is no GPU {index} for {wanted}, only {count}: start no more processes than GPUs, or use cpu."
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def save_experiment_config(
    dirs: RunDirectories,
    device: torch.device | str | DeviceSetup,
    trainer_config: BaseModel | Mapping[str, Any],
    **sections: Any,
) -> Path:
    """Write down everything that a run was started with, as YAML that people can read: `config.yaml` in its folder.

    Only the master writes. An earlier configuration of the same run that differs is kept as `config.1.yaml`,
    `config.2.yaml`, ..., the highest number the most recent.

    Args:
        dirs: of the run.
        device: where it trains.
        trainer_config: the training; all of its fields are written, defaults included.
        sections: whatever else decides the run, by name, such as `env=env_config, agent=agent_config, seed=0`:
            configs, mappings, or plain values.

    Returns:
        The file.

    Raises:
        TypeError: a value that YAML cannot hold as plain data.
        OSError: the folder cannot be written.
    """
    facts = {
        "run": dirs.run_name,
        "device": str(device),
        "world_size": get_world_size(),
        "versions": {name: version(name) for name in ("metta", "torch", "numpy")}
        | {"python": platform.python_version()},
    }
    content = facts | {"trainer": _plain(trainer_config)} | {name: _plain(x) for name, x in sections.items()}
    with fail_together():
        try:
            data = yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()
        except yaml.YAMLError as error:
            raise TypeError(
                f"the configuration cannot be written as YAML ({str(error).splitlines()[0]}): pass configs, mappings, "
                "lists, text and numbers."
            ) from error
        if get_rank() == 0:
            _replace_keeping_history(dirs.config_file, data)
    return dirs.config_file


def _plain(value: Any) -> Any:
    """Configs anywhere in a value as mappings, paths and devices as text."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, os.PathLike | torch.device) else value


def _replace_keeping_history(file: Path, data: bytes) -> None:
    old = file.read_bytes() if file.is_file() else data
    if old != data:
        kept = [entry for entry in file.parent.glob("config.*.yaml") if entry.suffixes[0][1:].isdecimal()]
        numbers = sorted(int(entry.suffixes[0][1:]) for entry in kept)
        last = numbers[-1] if numbers else 0
        # Killed after this and before the new one, the next start finds it kept already.
        if not last or file.with_name(f"config.{last}.yaml").read_bytes() != old:
            atomic_write_bytes(file.with_name(f"config.{last + 1}.yaml"), old)
    if old != data or not file.is_file():
        atomic_write_bytes(file, data)
