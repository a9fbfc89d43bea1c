"""`Environment` and `make_environment`: from a name, a configuration or a few numbers to worlds that can be stepped."""

from __future__ import annotations

from typing import Any, Literal

import torch

from metta.interface.device_arrays import TorchArrays
from metta.mettagrid.async_vec import AsyncVecEnv
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.device import is_simulated, require_cuda
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.tasks import EnvLike, find_tasks

Vectorization = Literal["serial", "threads", "multiprocessing"]

NUM_ENVS = 16
"""Worlds of an `Environment` that was not told how many."""


class Environment(AsyncVecEnv):
    """Many worlds that step together, one by one reset when their episodes end.

        env = Environment(num_agents=4, width=32, height=32)
        env = Environment(curriculum_path="/env/mettagrid/curriculum/navigation/bucketed", num_envs=64)

    `reset` and `step` work on all worlds; `async_reset`, `recv` and `send` on groups of `batch_size` that take turns, so
    that worker processes step one group while the caller thinks about another. What happens in the worlds is the same
    with every `vectorization`.

    Args:
        curriculum_path: name of a registered curriculum or environment.
        env_config: the environment, typed, as a mapping of its fields or by registered name; None, without a
            `curriculum_path`: the default one.
        num_agents: agents in each world.
        width: columns of the map, the border included.
        height: rows of the map, the border included.
        num_envs: worlds; None: `batch_size` x `async_factor`, or 16.
        num_workers: threads or processes that share the worlds, as `vectorization` says.
        batch_size: worlds of one `recv`; None: `num_envs` / `async_factor`.
        async_factor: groups of worlds that take turns; None: `num_envs` / `batch_size`, or 1.
        zero_copy: observations that are handed out are live, and valid until their worlds are stepped again; False: they
            are copies.
        vectorization: "serial": one thread of this process steps all worlds. "threads": `num_workers` threads of this
            process do, the caller's among them. "multiprocessing": `num_workers` processes do, and also build the maps;
            while they work this process is free. Handing work over costs more than small worlds do: in
            docs/performance.md both gain with 6,000 agents, and neither with a few hundred.
        seed: decides maps and agent order of every episode to come.
        is_training: outcomes reach the curriculum, and every world's first episode is cut off at a random step, so that
            a batch of experience sees every phase of an episode. False: episodes are whole, and the curriculum chooses
            as it would but learns nothing.
        device: "cpu", or a GPU, as text or anything whose text it is: "cuda" is torch's current one, which
            `setup_device_and_distributed` chooses for each process, "cuda:1" the second. The worlds live there, and
            observations, rewards, terminals and truncations are tensors there, without a copy; `step` and `send` take
            actions that are, and do not wait for the GPU. The results are those of "cpu", bit for bit, but for a curriculum that
            learns from outcomes: it hears of them later (see `VecEnv`). What is small stays on the host: `starts`,
            `final_rows`, and outcomes, once they are looked at. It takes numba-cuda (`pip install 'metta[cuda]'`) and pays
            for thousands of worlds. An `Experience` takes such worlds with an agent on the same GPU.
        **overrides: single values of the configuration by field name, for instance `max_steps=500`; they and the size hold
            for every task of a curriculum. See `EnvConfig.with_overrides`.

    Raises:
        ValueError: an unknown name, or values that do not fit together.
        RuntimeError: a worker process could not be started, or there is no GPU to be used.
    """

    def __init__(
        self,
        *,
        curriculum_path: str | None = None,
        env_config: EnvLike | None = None,
        num_agents: int | None = None,
        width: int | None = None,
        height: int | None = None,
        num_envs: int | None = None,
        num_workers: int = 1,
        batch_size: int | None = None,
        async_factor: int | None = None,
        zero_copy: bool = True,
        vectorization: Vectorization = "serial",
        seed: int = 0,
        is_training: bool = True,
        device: object = "cpu",
        **overrides: Any,
    ) -> None:
        if curriculum_path is not None and env_config is not None:
            raise ValueError(
                f"curriculum_path is '{curriculum_path}' and env_config is given too; state one of them."
            )
        sizes = {"num_agents": num_agents, "width": width, "height": height}
        overrides |= {name: size for name, size in sizes.items() if size is not None}
        tasks = find_tasks(env_config if curriculum_path is None else curriculum_path, **overrides)
        num_envs, batch_size = _group_sizes(num_envs, batch_size, async_factor)
        super().__init__(
            tasks if is_training or isinstance(tasks, EnvConfig) else tasks.for_evaluation(),
            num_envs,
            batch_size=batch_size,
            zero_copy=zero_copy,
            seed=seed,
            stagger=is_training,
            device=_device_arrays(str(device), vectorization),
            **_workers(vectorization, num_workers),
        )
        self.device = str(device)
        self.vectorization = vectorization
        self.is_training = is_training
        self._driver: MettaGridEnv | None = None

    @property
    def num_envs(self) -> int:
        """Worlds."""
        return self.num_worlds

    @property
    def async_factor(self) -> int:
        """Groups of worlds that take turns."""
        return self.num_worlds // self.batch_size

    @property
    def driver_env(self) -> MettaGridEnv:
        """A single world with the same tasks, to look into and to try things out.

        It is none of the batch, which goes on undisturbed, and the curriculum does not hear of its outcomes.
        """
        if self._driver is None:
            self._driver = MettaGridEnv(self.curriculum.for_evaluation(), seed=self.seed)
        return self._driver


def make_environment(env_config: EnvLike | None = None, *, seed: int = 0, **kwargs: Any) -> MettaGridEnv:
    """Create a MettaGrid environment of one world.

    Args:
        env_config: the environment, typed, as a mapping of its fields, or the registered name of one or of a curriculum;
            None: the default one.
        seed: decides maps and agent order of every episode to come.
        **kwargs: single values of the configuration by field name, for instance `num_agents=8, width=16`; `map_objects`
            are the map's objects. They hold for every task of a curriculum. See `EnvConfig.with_overrides`.

    Raises:
        ValueError: an unknown name, or values that do not fit together.
    """
    return MettaGridEnv(find_tasks(env_config, **kwargs), seed=seed)


def _group_sizes(num_envs: int | None, batch_size: int | None, async_factor: int | None) -> tuple[int, int]:
    """Worlds, and worlds of a group, from what was stated of the three."""
    for name, number in (("num_envs", num_envs), ("batch_size", batch_size), ("async_factor", async_factor)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}; give a number >= 1.")
    if num_envs is None:
        groups = async_factor or 1
        num_envs = groups * (batch_size or max(1, NUM_ENVS // groups))
    if batch_size is None:
        batch_size = num_envs // (async_factor or 1)
    if num_envs != batch_size * (async_factor or num_envs // batch_size):
        groups_stated = f" and async_factor {async_factor}" if async_factor else ""
        raise ValueError(
            f"num_envs is {num_envs}, which batch_size {batch_size}{groups_stated} do not make up; num_envs is batch_size x "
            "async_factor, so state two of them, or three that agree."
        )
    return num_envs, batch_size


def _device_arrays(device: str, vectorization: str) -> TorchArrays | None:
    """How `VecEnv` is told of the GPU."""
    if device == "cpu":
        return None
    name, _, number = device.partition(":")
    if name != "cuda" or (number and not number.isdecimal()) or device.endswith(":"):
        raise ValueError(
            f"device is '{device}'; worlds live on 'cpu', 'cuda' (torch's current GPU) or 'cuda:N' (the GPU of that number)."
        )
    if vectorization != "serial":
        raise ValueError(
            f"device is '{device}' with vectorization='{vectorization}'; a GPU steps all worlds at once, so leave that out."
        )
    require_cuda()
    if is_simulated():
        return TorchArrays(None)
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"device is '{device}', but this torch was built without CUDA, and could not see what lies on a GPU: install one "
            "that was, or leave device out."
        )
    gpu = int(number) if number else torch.cuda.current_device()
    if gpu >= torch.cuda.device_count():
        raise RuntimeError(
            f"device is '{device}', but torch finds {torch.cuda.device_count()} GPUs here, numbered from 0: choose one of them."
        )
    return TorchArrays(gpu)


def _workers(vectorization: str, num_workers: int) -> dict[str, int]:
    """How `VecEnv` is told of the workers."""
    if num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}; give a number >= 1.")
    if vectorization == "threads":
        return {"num_threads": num_workers}
    if vectorization == "multiprocessing":
        return {"num_workers": num_workers}
    if vectorization != "serial":
        raise ValueError(f"vectorization is '{vectorization}'; it is serial, threads or multiprocessing.")
    if num_workers > 1:
        raise ValueError(
            f"num_workers is {num_workers} with vectorization='serial', which has one; choose 'threads' or 'multiprocessing'."
        )
    return {}
