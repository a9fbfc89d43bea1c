"""Several processes that train one policy: the only user of `torch.distributed`.

`torchrun --nproc_per_node=4 run.py` starts the same script four times. Each process (a rank) steps worlds of its own
and learns from them; gradients are averaged in every update, so that all weights stay equal. Rank 0, the master, is the
only one that writes what belongs to the run as a whole.

Everything here may be called without other processes, and then costs nothing. What the ranks must do together they
must all call, in the same order.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from metta.agent.metta_agent import MettaAgent
from metta.agent.outputs import ActOutput, EvalOutput
from metta.agent.policy import Policy
from metta.agent.state import PolicyState
from metta.mettagrid.outcomes import EpisodeOutcome
from metta.mettagrid.spec import EnvSpec

TIMEOUT = 600.0
"""Seconds that a rank waits for the others before it gives up; longer than anything the master does alone."""

_recent: deque[dist.Work] = deque(maxlen=16)
"""The last exchanges. gloo's own thread lets go of a finished one a moment after we hear of it; were it the last to do
so, it would need Python's lock to free the tensors, and a process that leaves at that moment holds the lock while it
waits for the thread: it would hang for ever."""

_LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SHARED_ERRORS = (FloatingPointError, ValueError, TypeError, FileNotFoundError, OSError)


class LostProcessError(RuntimeError):
    """Another process of the run has ended or does not answer."""


# --- joining and leaving -----------------------------------------------------------------------------------


def setup_distributed_vars(timeout: float = TIMEOUT) -> tuple[bool, int, int]:
    """Join the other processes, if torchrun started several, and say who this one is.

    The second call and later ones only say it. Messages between CPUs go through gloo, between GPUs through NCCL.

    Args:
        timeout: seconds to wait for the others, now and in everything done together, before it is an error.

    Returns:
        `is_master, world_size, rank`; alone: True, 1, 0.

    Raises:
        ValueError: the variables that torchrun sets are incomplete or are no numbers.
        LostProcessError: the others did not appear.
    """
    if not dist.is_available():
        return True, 1, 0
    world_size = _launch_number("WORLD_SIZE", 1)
    if world_size > 1 and not dist.is_initialized():
        missing = [name for name in _LAUNCH_VARIABLES if name not in os.environ]
        if missing:
            raise ValueError(
                f"WORLD_SIZE={world_size} is set but {', '.join(missing)} is not: start the script with torchrun, "
                "or unset WORLD_SIZE to run alone."
            )
        gpus = torch.cuda.is_available() and dist.is_nccl_available()
        with explain_lost_process():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if gpus else "gloo",
                rank=_launch_number("RANK", 0),
                world_size=world_size,
                timeout=timedelta(seconds=timeout),
            )
    if not dist.is_initialized():
        return True, 1, 0
    return dist.get_rank() == 0, dist.get_world_size(), dist.get_rank()


def cleanup_distributed() -> None:
    """Leave the other processes; harmless where there are none, or a second time."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def local_rank() -> int:
    """Number of this process among those of its machine, which decides its GPU."""
    return _launch_number("LOCAL_RANK", 0)


def _launch_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(
            f"the environment variable {name} is {text!r}, not a number: start the script with torchrun, or unset it "
            "to run alone."
        )
    return int(text)


@contextmanager
def explain_lost_process() -> Iterator[None]:
    """Say in one sentence that another process is gone, where torch speaks of sockets.

    Everything in this module does so by itself; put it round a loop whose backward passes average gradients.

    Raises:
        LostProcessError: instead of the transport's own error.
    """
    try:
        yield
    except RuntimeError as error:
        told = isinstance(error, LostProcessError)
        if told or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        who = f"rank {dist.get_rank()} of {dist.get_world_size()}" if dist.is_initialized() else "this rank"
        raise LostProcessError(
            f"{who} lost touch with another process of the run, which has ended or did not answer in time; look there "
            f"for the cause, then start the run again: it goes on from its last checkpoint. ({str(error).splitlines()[0]})"
        ) from error


# --- deciding and counting together ------------------------------------------------------------------------


def is_distributed() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def get_rank() -> int:
    """Number of this process among those that train together; 0 for the master, and alone."""
    return dist.get_rank() if is_distributed() else 0


def get_world_size() -> int:
    """How many processes train together; 1 alone."""
    return dist.get_world_size() if is_distributed() else 1


def all_mean(tensor: torch.Tensor) -> torch.Tensor:
    """Mean over the processes, of a tensor that has the same shape in all of them; alone, the tensor itself."""
    if not is_distributed():
        return tensor
    total = tensor.detach().clone()
    _finish(dist.all_reduce, total)
    return total / dist.get_world_size()


def any_rank(flag: bool) -> bool:
    """Whether the flag is set in any process: what all must decide alike, lest some wait for the others for ever."""
    if not is_distributed():
        return flag
    votes = torch.tensor(int(flag))
    _finish(dist.all_reduce, votes, dist.ReduceOp.MAX)
    return bool(votes)


def gather(value: Any) -> list[Any]:
    """Everyone's value, by rank, in every process.

    Args:
        value: anything that JSON can hold; not-a-number and infinities are allowed.

    Raises:
        TypeError: JSON cannot hold it.
    """
    text = json.dumps(value)
    if not is_distributed():
        return [json.loads(text)]
    data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    _finish(dist.all_gather, sizes, torch.tensor([len(data)]))
    lengths = [int(size) for size in sizes]
    padded = torch.nn.functional.pad(data, (0, max(lengths) - len(data)))
    parts = [torch.empty_like(padded) for _ in lengths]
    _finish(dist.all_gather, parts, padded)
    pairs = zip(parts, lengths, strict=True)
    return [json.loads(part[:length].numpy().tobytes()) for part, length in pairs]


def gather_episodes(episodes: Sequence[EpisodeOutcome]) -> list[EpisodeOutcome]:
    """The finished episodes of every process, rank 0's first, in every process.

    Args:
        episodes: those of this process. An episode's `world` is its place among the worlds of its own process.
    """
    if not is_distributed():
        return list(episodes)
    names = [field.name for field in fields(EpisodeOutcome) if field.name != "returns"]
    own = [
        {"returns": episode.returns.tolist(), **{name: getattr(episode, name) for name in names}}
        for episode in episodes
    ]
    outcomes = [EpisodeOutcome(**values) for part in gather(own) for values in part]
    return [replace(one, returns=np.asarray(one.returns, dtype=np.float32)) for one in outcomes]


def _finish(exchange: Callable[..., dist.Work], *arguments: Any) -> None:
    """Exchange tensors with the other processes, and wait until it is done."""
    with explain_lost_process():
        work = exchange(*arguments, async_op=True)
        _recent.append(work)
        work.wait()


@contextmanager
def fail_together(needed: bool = True) -> Iterator[None]:
    """What fails in one process fails in all, with the same sentence, instead of leaving the others to wait.

    All processes must come here; whatever they do inside by themselves (no talking to each other) may fail.

    Args:
        needed: False: let each process fail by itself, so that one may come here alone.

    Raises:
        Exception: its own error where it failed; elsewhere that of the first process that failed.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        if not (needed and is_distributed()):
            raise
        error = caught
    if not (needed and is_distributed()):
        return
    told = gather(None if error is None else [type(error).__name__, str(error)])
    if error is not None:
        raise error
    for rank, failure in enumerate(told):
        if failure is not None:
            kinds = {kind.__name__: kind for kind in _SHARED_ERRORS}
            raise kinds.get(failure[0], RuntimeError)(f"{failure[1]} (in rank {rank})")


def split_seed(seed: int, rank: int | None = None) -> int:
    """A seed of this process's own, so that no two ranks see the same worlds and draw the same actions.

    Rank 0 keeps the seed: it starts as the same run would alone. The other ranks' are drawn from (seed, rank).
    Weights are another matter: make them from the seed itself, and `wrap_agent_distributed` spreads rank 0's.

    Args:
        seed: of the whole run, at least 0.
        rank: whose; None: this process.

    Returns:
        An integer from 0 to 2**63 - 1, or the seed.

    Raises:
        ValueError: the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; give a number >= 0.")
    rank = get_rank() if rank is None else rank
    if rank == 0:
        return seed
    high, low = np.random.SeedSequence(seed, spawn_key=(rank,)).generate_state(2)
    return int(high) << 31 ^ int(low) >> 1


# --- one policy --------------------------------------------------------------------------------------------


class DistributedAgent(DistributedDataParallel):
    """A policy whose gradients are averaged over all processes; a `Policy` like the agent in it.

    Only `evaluate` prepares the averaging, which the backward pass then does: call them by turns, and in all
    processes. Within `no_sync()` gradients stay apart, for passes that only accumulate. Weights and buffers are
    those of rank 0 from the start; the buffer that `l2_init_loss` compares with then changes alike everywhere, so
    nothing but gradients is ever sent.

    Args:
        agent: of the same build in every process, on the device that it will train on.

    Raises:
        ValueError: the processes' agents are not of the same build.
        LostProcessError: another process is gone.
    """

    def __init__(self, agent: MettaAgent) -> None:
        _check_same_build(agent)
        with explain_lost_process():
            super().__init__(agent, device_ids=[agent.device] if agent.device.type == "cuda" else None)
        # Set afterwards: given to the constructor it would also keep the buffers from being sent once.
        self.broadcast_buffers = False
        _check_same_weights(agent)

    @property
    def agent(self) -> MettaAgent:
        """The agent of this process."""
        agent = self.module
        assert isinstance(agent, MettaAgent)
        return agent

    @property
    def spec(self) -> EnvSpec:
        """The world as its agents see it."""
        return self.agent.spec

    def initial_state(self, batch_size: int) -> PolicyState:
        """The memory of `batch_size` rows at the first tick of an episode."""
        return self.agent.initial_state(batch_size)

    def act(
        self,
        obs: torch.Tensor,
        state: PolicyState,
        starts: torch.Tensor | None = None,
        *,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActOutput:
        """Choose an action for each row; see `MettaAgent.act`."""
        return self.agent.act(obs, state, starts, deterministic=deterministic, generator=generator)

    def value(self, obs: torch.Tensor, state: PolicyState) -> torch.Tensor:
        """Expected discounted return from `obs` on; see `MettaAgent.value`."""
        return self.agent.value(obs, state)

    def evaluate(
        self, obs: torch.Tensor, start_state: PolicyState, dones: torch.Tensor, actions: torch.Tensor
    ) -> EvalOutput:
        """Judge recorded segments; the backward pass through it averages the gradients. See `MettaAgent.evaluate`."""
        out: EvalOutput = self(obs, start_state, dones, actions)
        return out

    def l2_reg_loss(self) -> torch.Tensor:
        """Mean squared weight."""
        return self.agent.l2_reg_loss()

    def l2_init_loss(self) -> torch.Tensor:
        """Mean squared distance of the weights to their reference."""
        return self.agent.l2_init_loss()

    def after_update(self, update_index: int) -> dict[str, float]:
        """Do what is due after some updates of the weights."""
        return self.agent.after_update(update_index)

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or away from it."""
        super().train(mode)  # type: ignore[no-untyped-call]
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Weights by name: the agent's own names."""
        return self.agent.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Load what `state_dict` gave."""
        return self.agent.load_state_dict(state_dict, *args, **kwargs)


def unwrap_agent(policy: Policy) -> MettaAgent:
    """The agent behind a policy: the one that a wrapper holds, or itself.

    Raises:
        TypeError: there is no `MettaAgent` in it.
    """
    inner = policy.module if isinstance(policy, DistributedDataParallel) else policy
    if not isinstance(inner, MettaAgent):
        raise TypeError(f"{type(policy).__name__} is neither a MettaAgent nor a wrapper of one.")
    return inner


def _check_same_build(agent: MettaAgent) -> None:
    build = [agent.spec.to_json(), agent.config.model_dump(mode="json")]
    for rank, other in enumerate(builds := gather(build)):
        if other != builds[0]:
            raise ValueError(
                f"rank {rank} made an agent for another world or with another config than rank 0: give every process "
                "the same ones."
            )


def _check_same_weights(agent: MettaAgent) -> None:
    digest = hashlib.sha256()
    for tensor in agent.state_dict().values():
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    digests = gather(digest.hexdigest())
    if len(set(digests)) > 1:
        raise RuntimeError(f"rank 0's weights did not arrive in every process: their digests are {digests}.")
