"""Where a batch of experience lives: storage in segments, and the recurrent state that runs through them.

A batch is `[segments, horizon]`. Each row (agent) of the environment fills one segment after another, all rows
side by side: segment `chunk * rows + row` is the chunk-th stretch of that row's life. Every segment remembers the
recurrent state before its first observation, so that training starts where acting was, and not from zero
(Kapturowski et al. 2019, "Recurrent experience replay in distributed reinforcement learning", call it the
stored-state strategy).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from metta.agent.state import PolicyState
from metta.mettagrid.vec import StepBatch, VecEnv, as_vec_env
from metta.rl.trainer_config import ExperienceConfig
from metta.rl.types import Minibatch

if TYPE_CHECKING:
    from metta.agent.metta_agent import MettaAgent
    from metta.mettagrid.env import MettaGridEnv

_PER_STEP = (
    "observations",
    "actions",
    "logprobs",
    "values",
    "rewards",
    "terminals",
    "truncations",
    "truncation_values",
)


class Experience:
    """A batch of agent steps, filled by `rollout` and read by `compute_advantages` and `train_ppo`.

    S = segments, T = horizon, N = rows (agents) of the environment, K = tokens of an observation, L = recurrent
    layers, H = their width. The storage is reserved here and takes memory as it is filled; `num_bytes` says how
    much it takes in the end.

    Attributes:
        env: the worlds that are stepped.
        config: sizes and manner of collection.
        device: where the agent computes.
        storage_device: where the batch lives; `device`, or the CPU with `cpu_offload`.
        observations: uint8 `[S, T, K, 3]`.
        actions: int64 `[S, T, 2]`.
        logprobs, values, rewards: float32 `[S, T]`.
        terminals, truncations: bool `[S, T]`: the episode ended at that step.
        truncation_values: float32 `[S, T]`: where truncated, the value of what the agent saw last; else 0.
        start_h, start_c: float32 `[L, S, H]`: recurrent state before each segment, zero where an episode begins.
        advantages: float32 `[segments, T]` as last computed for this batch, or None.
        position: steps of each row in the batch so far.
        num_updates: optimizer steps made on batches of this experience so far.

    Args:
        env: the worlds to step.
        agent: gives device and size of the recurrent state; it is not kept.
        config: sizes and manner of collection.
        seed: decides the sampled actions and the order of minibatches.

    Raises:
        ValueError: the segments do not divide among the agents, or `cpu_offload` with an agent on the CPU.
    """

    def __init__(self, env: VecEnv, agent: MettaAgent, config: ExperienceConfig, seed: int = 0) -> None:
        self.env = env
        self.config = config
        self.device = agent.device
        self.storage_device = _storage_device(config, agent.device)
        self.horizon = config.bptt_horizon
        self.num_rows: int = env.num_agents
        self.num_segments = config.batch_size // self.horizon
        if self.num_segments % self.num_rows:
            raise ValueError(_indivisible(config, self.num_rows))
        self.num_steps = config.batch_size // self.num_rows

        state = agent.initial_state(self.num_rows)
        shape = (self.num_segments, self.horizon)
        self.observations = self._reserve(*shape, *env.observations.shape[1:], dtype=torch.uint8)
        self.actions = self._reserve(*shape, 2, dtype=torch.int64)
        self.logprobs = self._reserve(*shape)
        self.values = self._reserve(*shape)
        self.rewards = self._reserve(*shape)
        self.terminals = self._reserve(*shape, dtype=torch.bool)
        self.truncations = self._reserve(*shape, dtype=torch.bool)
        self.truncation_values = self._reserve(*shape)
        self.start_h = self._reserve(state.h.shape[0], self.num_segments, state.h.shape[2])
        self.start_c = self._reserve(state.c.shape[0], self.num_segments, state.c.shape[2])
        self.advantages: torch.Tensor | None = None

        self.position = 0
        self.num_updates = 0
        self._used = False
        self._state = state
        self._next_values = torch.zeros(self.num_rows, device=self.storage_device)
        self._seen: npt.NDArray[np.uint8] | None = None
        self._ended = np.zeros(self.num_rows, dtype=np.bool_)
        self.action_generator = torch.Generator(self.device).manual_seed(seed)
        self.shuffle_generator = torch.Generator().manual_seed(seed)

    def _reserve(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        # Not zeroed: the system hands out the pages of an untouched array only when they are written.
        return torch.empty(shape, dtype=dtype, device=self.storage_device)

    @property
    def num_bytes(self) -> int:
        """Memory of the full storage."""
        stored: list[torch.Tensor] = [getattr(self, name) for name in (*_PER_STEP, "start_h", "start_c")]
        return sum(int(t.nbytes) for t in stored)

    @property
    def dones(self) -> torch.Tensor:
        """Bool `[S, T]`: the episode ended at that step, either way."""
        return self.terminals | self.truncations

    @property
    def num_filled(self) -> int:
        """Segments that are complete; the first so many of the storage."""
        return self.position // self.horizon * self.num_rows

    @property
    def ready_for_training(self) -> bool:
        """Whether the whole batch is there and no update has used it yet."""
        return self.position == self.num_steps and not self._used

    @property
    def remaining_steps(self) -> int:
        """Agent steps that the next `rollout` collects if it is not told how many."""
        start = (
            self.position % self.horizon if self._used or self.position == self.num_steps else self.position
        )
        return (self.num_steps - start) * self.num_rows

    # --- what a rollout does -------------------------------------------------------------------------------

    def begin(self) -> PolicyState:
        """Prepare for more steps; drop what was trained on, keep a begun segment.

        If someone else stepped or reset the environment since the last step stored, the episodes under way are
        over as far as this batch is concerned: their last steps become truncations, with the value of what would
        have been seen next, and their rows restart with an empty memory.

        Returns:
            The recurrent state of every row before the next observation.
        """
        if self._used or self.position == self.num_steps:
            self._drop_complete_segments()
        self.advantages = None
        touched = torch.from_numpy(self._touched_rows())
        if self.position:
            chunk, step = divmod(self.position - 1, self.horizon)
            rows = slice(chunk * self.num_rows, (chunk + 1) * self.num_rows)
            cut = (
                touched.to(self.storage_device) & ~self.terminals[rows, step] & ~self.truncations[rows, step]
            )
            self.truncations[rows, step] |= cut
            self.truncation_values[rows, step] += cut * self._next_values
        state = self._state.clone()
        state.zero_(touched.to(self.device))
        return state

    def _touched_rows(self) -> npt.NDArray[np.bool_]:
        """Bool `[N]`: rows whose world is not where our last step left it."""
        if self._seen is None:
            return np.ones(self.num_rows, dtype=np.bool_)
        moved = (self._seen != self.env.observations).any(axis=(1, 2)) | (self.env.starts & ~self._ended)
        worlds = moved.reshape(self.env.num_worlds, -1).any(axis=1)
        return np.repeat(worlds, self.num_rows // self.env.num_worlds)

    def _drop_complete_segments(self) -> None:
        done = self.num_filled
        self.position %= self.horizon
        self._used = False
        if done and self.position:
            rows = slice(done, done + self.num_rows)
            for name in _PER_STEP:
                stored = getattr(self, name)
                stored[: self.num_rows] = stored[rows].clone()
            for stored in (self.start_h, self.start_c):
                stored[:, : self.num_rows] = stored[:, rows].clone()

    def store_start(self, position: int, rows: slice, state: PolicyState) -> None:
        """Remember the recurrent state before the first step of a segment.

        Args:
            position: step of the batch, a multiple of the horizon.
            rows: the rows it belongs to.
            state: before the observation, zero where an episode begins.
        """
        segments = self._segments(position, rows)
        self.start_h[:, segments] = state.h.to(self.storage_device)
        self.start_c[:, segments] = state.c.to(self.storage_device)

    def store_action(
        self,
        position: int,
        rows: slice,
        observations: torch.Tensor,
        actions: torch.Tensor,
        logprobs: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """Store what rows saw and did at one step: uint8 `[R, K, 3]`, int64 `[R, 2]`, float32 `[R]` twice."""
        segments, step = self._segments(position, rows), position % self.horizon
        self.observations[segments, step] = observations.to(self.storage_device)
        self.actions[segments, step] = actions.to(self.storage_device)
        self.logprobs[segments, step] = logprobs.to(self.storage_device)
        self.values[segments, step] = values.to(self.storage_device)

    def store_result(
        self,
        position: int,
        rows: slice,
        batch: StepBatch,
        truncations: npt.NDArray[np.bool_],
        truncation_values: torch.Tensor,
    ) -> None:
        """Store what came of it: the rewards and ends in `batch`, and float32 `[R]` values where truncated."""
        segments, step = self._segments(position, rows), position % self.horizon
        self.rewards[segments, step] = torch.from_numpy(batch.rewards).to(self.storage_device)
        self.terminals[segments, step] = torch.from_numpy(batch.terminals).to(self.storage_device)
        self.truncations[segments, step] = torch.from_numpy(truncations).to(self.storage_device)
        self.truncation_values[segments, step] = truncation_values.to(self.storage_device)
        self._ended[rows] = batch.terminals | truncations

    def finish(self, position: int, state: PolicyState, next_values: torch.Tensor) -> None:
        """Close a rollout.

        Args:
            position: steps of each row in the batch now.
            state: recurrent state of all rows after their last step.
            next_values: float32 `[N]`: value of what each row sees now.
        """
        self.position = position
        self._state = state
        self._next_values = next_values.to(self.storage_device)
        self._seen = self.env.observations.copy()

    def _segments(self, position: int, rows: slice) -> slice:
        first = position // self.horizon * self.num_rows
        return slice(first + rows.start, first + rows.stop)

    # --- what an update does -------------------------------------------------------------------------------

    def bootstrap_values(self) -> torch.Tensor:
        """Float32 `[N]`: value of what each row saw after its last complete segment (unused where that ended)."""
        first = self.num_filled
        if self.position % self.horizon:
            return self.values[first : first + self.num_rows, 0]
        return self._next_values

    def minibatch(self, indices: torch.Tensor, advantages: torch.Tensor) -> Minibatch:
        """Gather segments onto the agent's device.

        Args:
            indices: int64 `[B]` on the CPU.
            advantages: float32 `[filled segments, T]`.

        Returns:
            The segments, with value targets `advantages + values`.
        """
        index = indices.to(self.storage_device)

        def take(stored: torch.Tensor, dim: int = 0) -> torch.Tensor:
            return stored.index_select(dim, index).to(self.device, non_blocking=True)

        values, advantage = take(self.values), take(advantages)
        return Minibatch(
            indices=indices,
            observations=take(self.observations),
            actions=take(self.actions),
            logprobs=take(self.logprobs),
            values=values,
            dones=take(self.terminals) | take(self.truncations),
            advantages=advantage,
            returns=advantage + values,
            start_state=PolicyState(h=take(self.start_h, 1), c=take(self.start_c, 1)),
        )

    def mark_used(self) -> None:
        """The complete segments have been trained on; the next rollout replaces them."""
        self._used = True

    # --- exact continuation --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly, the environment included; steps not yet trained on are kept."""
        first = self.num_filled if self._used else 0
        last = math.ceil(self.position / self.horizon) * self.num_rows
        return {
            "steps": {name: getattr(self, name)[first:last].cpu() for name in _PER_STEP},
            "start_h": self.start_h[:, first:last].cpu(),
            "start_c": self.start_c[:, first:last].cpu(),
            "advantages": None if self.advantages is None or self._used else self.advantages.cpu(),
            "position": self.position % self.horizon if self._used else self.position,
            "num_updates": self.num_updates,
            "state_h": self._state.h.cpu(),
            "state_c": self._state.c.cpu(),
            "next_values": self._next_values.cpu(),
            "seen": self._seen,
            "ended": self._ended.copy(),
            "action_generator": self.action_generator.get_state(),
            "shuffle_generator": self.shuffle_generator.get_state(),
            "env": self.env.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict` of an experience of the same sizes.

        Raises:
            ValueError: the state is of other sizes, of an agent on another kind of device, or of another environment;
                nothing is changed.
        """
        self._check(state)
        before = self.env.state_dict()
        try:
            self.env.load_state_dict(state["env"])
        except Exception:
            self.env.load_state_dict(before)
            raise
        for name in _PER_STEP:
            getattr(self, name)[: len(state["steps"][name])] = state["steps"][name].to(self.storage_device)
        count = state["start_h"].shape[1]
        self.start_h[:, :count] = state["start_h"].to(self.storage_device)
        self.start_c[:, :count] = state["start_c"].to(self.storage_device)
        saved = state["advantages"]
        self.advantages = None if saved is None else saved.to(self.storage_device)
        self.position = state["position"]
        self.num_updates = state["num_updates"]
        self._used = False
        self._state = PolicyState(h=state["state_h"].to(self.device), c=state["state_c"].to(self.device))
        self._next_values = state["next_values"].to(self.storage_device)
        self._seen = state["seen"]
        self._ended = state["ended"].copy()
        self.action_generator.set_state(state["action_generator"])
        self.shuffle_generator.set_state(state["shuffle_generator"])

    def _check(self, state: dict[str, Any]) -> None:
        """Refuse a state that does not fit, whatever part of it that is."""
        shape, tail = state["state_h"].shape, state["steps"]["observations"].shape[1:]
        if shape != self._state.h.shape or tail != self.observations.shape[1:]:
            raise ValueError(
                f"the saved experience has recurrent state {list(shape)} and segments {list(tail)}, this one "
                f"{list(self._state.h.shape)} and {list(self.observations.shape[1:])}: "
                "make agent, environment and ExperienceConfig as they were."
            )
        count = state["start_h"].shape[1]
        if count > self.num_segments:
            raise ValueError(
                f"the saved experience holds {count} segments, but batch_size={self.config.batch_size} with "
                f"bptt_horizon={self.horizon} makes only {self.num_segments}: go on with the batch_size that it was "
                f"saved with, which is {count * self.horizon} or more."
            )
        if state["action_generator"].shape != self.action_generator.get_state().shape:
            raise ValueError(
                f"the saved experience drew its actions on another kind of device than this agent's {self.device}: "
                "move the agent there, or go on without the saved experience."
            )
        own: dict[str, Any] = {name: getattr(self, name)[:count] for name in _PER_STEP}
        own |= {"start_h": self.start_h[:, :count], "start_c": self.start_c[:, :count]}
        own |= {"state_c": self._state.c, "next_values": self._next_values, "ended": self._ended}
        saved = {**state, **state["steps"]}
        for name, mine in own.items():
            if saved[name].shape != mine.shape:
                raise ValueError(
                    f"the saved experience is damaged: its {name} is {list(saved[name].shape)} where the rest of it "
                    f"makes {list(mine.shape)}; go on from another checkpoint."
                )


def make_experience_manager(
    env: MettaGridEnv | VecEnv, agent: MettaAgent, config: ExperienceConfig | None = None, *, seed: int = 0
) -> Experience:
    """Make the storage that `rollout` fills and `train_ppo` reads.

    With the default configuration and a world of 64 agents the full storage takes about 400 MB, of which the
    observations are most; see `Experience.num_bytes`.

    Args:
        env: one world or many; the rollouts step it.
        agent: the agent that will act, or one of the same size.
        config: sizes and manner of collection; None: the defaults.
        seed: decides the sampled actions and the order of minibatches.

    Raises:
        ValueError: the sizes do not fit the environment; the message says what to change.
    """
    return Experience(as_vec_env(env), agent, config or ExperienceConfig(), seed)


def _storage_device(config: ExperienceConfig, agent_device: torch.device) -> torch.device:
    if not config.cpu_offload:
        return agent_device
    if agent_device.type == "cpu":
        raise ValueError(
            "cpu_offload=True keeps the batch in main memory while the agent is on an accelerator, but this agent is "
            "on the CPU: leave cpu_offload False or move the agent first."
        )
    return torch.device("cpu")


def _indivisible(config: ExperienceConfig, num_rows: int) -> str:
    unit = math.lcm(num_rows * config.bptt_horizon, config.minibatch_size)
    nearest = max(1, round(config.batch_size / unit)) * unit
    return (
        f"batch_size={config.batch_size} with bptt_horizon={config.bptt_horizon} makes "
        f"{config.batch_size // config.bptt_horizon} segments, which the environment's {num_rows} agents cannot share "
        f"evenly: use batch_size={nearest} or another number of worlds."
    )
