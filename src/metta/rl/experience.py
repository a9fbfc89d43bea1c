"""A batch of experience: collecting into it, drawing from it, going on from where it stopped.

Every segment remembers the recurrent state before its first observation, so that training starts where acting was, and
not from zero (Kapturowski et al. 2019, "Recurrent experience replay in distributed reinforcement learning", call it the
stored-state strategy).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from metta.agent.policy import Policy
from metta.agent.state import PolicyState
from metta.mettagrid.vec import VecEnv, as_vec_env
from metta.rl.experience_checks import check_devices, check_saved, choose_storage_device, indivisible
from metta.rl.sampling import prioritized_minibatch, uniform_minibatches
from metta.rl.storage import SegmentStorage, to_device
from metta.rl.trainer_config import ExperienceConfig, TrainerConfig
from metta.rl.types import Minibatch

if TYPE_CHECKING:
    from metta.mettagrid.env import MettaGridEnv


class Experience(SegmentStorage):
    """A batch of agent steps, filled by `rollout` and read by `compute_advantages` and `train_ppo`.

    Its tensors are described in `SegmentStorage`: S = segments, T = horizon, N = rows (agents) of the environment. The
    storage takes memory as it is filled; `num_bytes` says how much it takes in the end.

    Attributes:
        env: the worlds that are stepped.
        config: sizes and manner of collection.
        device: where the agent computes.
        worlds_device: where the worlds' observations are.
        storage_device: where the batch lives; `device`, or the CPU with `cpu_offload`.
        advantages: float32 `[segments, T]` as last computed for this batch, or None.
        position: steps of each row in the batch so far.
        first_chunk: segments of each row before this batch, over the whole run: tells batches apart.
        num_updates: optimizer steps made on batches of this experience so far.
        last_checkpoint: the policy that was last saved with it or loaded, for messages; None: none yet.

    Args:
        env: the worlds to step.
        agent: gives device and size of the recurrent state; it is not kept.
        config: sizes and manner of collection; a `TrainerConfig` is one.
        seed: decides the sampled actions and the order of minibatches.

    Raises:
        ValueError: the worlds are on a GPU and the agent is not on the same, the segments do not divide among the agents, or
            `cpu_offload` with an agent on the CPU.
    """

    def __init__(self, env: VecEnv, agent: Policy, config: ExperienceConfig, seed: int = 0) -> None:
        check_devices(env, agent)
        num_segments = config.batch_size // config.bptt_horizon
        if num_segments % env.num_agents:
            raise ValueError(indivisible(config, env.num_agents))
        state = agent.initial_state(env.num_agents)
        super().__init__(
            env.num_agents,
            num_segments,
            config.bptt_horizon,
            env.observations.shape[1:],
            state,
            choose_storage_device(config, agent.device),
        )
        self.env = env
        self.config = config
        self.device = agent.device
        self.worlds_device = torch.as_tensor(env.observations).device
        self.num_steps = config.batch_size // self.num_rows
        self.advantages: torch.Tensor | None = None
        self.position = 0
        self.first_chunk = 0
        self.num_updates = 0
        self.last_checkpoint: str | None = None
        self._used = False
        self._state = state
        self._next_values = torch.zeros(self.num_rows, device=self.storage_device)
        self._seen: torch.Tensor | None = None
        self._pass: Iterator[torch.Tensor] = iter(())
        self.action_generator = torch.Generator(self.device).manual_seed(seed)
        self.shuffle_generator = torch.Generator().manual_seed(seed)

    @property
    def num_filled(self) -> int:
        """Segments that are complete; the first so many of the storage."""
        return self.position // self.horizon * self.num_rows

    @property
    def num_minibatches(self) -> int:
        """Minibatches in one pass over the complete segments."""
        return math.ceil(self.num_filled / self._minibatch_segments)

    @property
    def _minibatch_segments(self) -> int:
        return self.config.minibatch_size // self.horizon

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

    def begin(self, value: Callable[[torch.Tensor, PolicyState], torch.Tensor]) -> PolicyState:
        """Prepare for more steps; drop what was trained on, keep a begun segment.

        If someone else stepped or reset the environment since the last step stored, the episodes under way are
        over as far as this batch is concerned: their last steps become truncations, with the value of what would
        have been seen next, and their rows restart with an empty memory.

        Args:
            value: of observations and states, as `Policy.value` gives it.

        Returns:
            The recurrent state of every row before the next observation.
        """
        if self._used or self.position == self.num_steps:
            self._drop_complete_segments()
        self.advantages = None
        self._pass = iter(())
        moved = self._touched_rows()
        touched = to_device(moved, self.device)
        if self.position and moved.any():
            assert self._seen is not None
            step = (self.position - 1) % self.horizon
            rows = self.segments(self.position - 1, slice(0, self.num_rows))
            cut = (
                touched.to(self.storage_device) & ~self.terminals[rows, step] & ~self.truncations[rows, step]
            )
            following = value(self._seen.to(self.device), self._state)
            self.truncations[rows, step] |= cut
            self.truncation_values[rows, step] += cut * following.to(self.storage_device)
        self._state = self._state.zeroed(touched)
        self._fresh |= moved
        return self._state.clone()

    def _touched_rows(self) -> npt.NDArray[np.bool_]:
        """Bool `[N]`: rows whose world is not where our last step left it."""
        if self._seen is None:
            return np.ones(self.num_rows, dtype=np.bool_)
        seen = torch.as_tensor(self.env.observations)
        moved = (self._seen != seen).flatten(1).any(1).cpu().numpy() | (self.env.starts & ~self._fresh)
        worlds = moved.reshape(self.env.num_worlds, -1).any(axis=1)
        return np.repeat(worlds, self.num_rows // self.env.num_worlds)

    def _drop_complete_segments(self) -> None:
        done = self.num_filled
        self.first_chunk += done // self.num_rows
        self.position %= self.horizon
        self._used = False
        if done and self.position:
            self.put(self.stored(done, done + self.num_rows))

    def finish(self, position: int, state: PolicyState, next_values: torch.Tensor | None) -> None:
        """Close a rollout.

        Args:
            position: steps of each row in the batch now.
            state: recurrent state of all rows after their last step.
            next_values: float32 `[N]`: value of what each row sees now; needed only between two segments.
        """
        self.position = position
        self._state = state
        if next_values is not None:
            self._next_values = next_values.to(self.storage_device)
        self._seen = torch.as_tensor(self.env.observations).clone()

    # --- what an update does -------------------------------------------------------------------------------

    def bootstrap_values(self) -> torch.Tensor:
        """Float32 `[N]`: value of what each row saw after its last complete segment (unused where that ended)."""
        first = self.num_filled
        if self.position % self.horizon:
            return self.values[first : first + self.num_rows, 0]
        return self._next_values

    def following_values(self) -> torch.Tensor:
        """Float32 `[filled segments]`: value of what came after each segment (unused where that ended).

        The segments of a row follow one another: it is the first value of the row's next segment, or of the batch's end
        `bootstrap_values`. They are the `bootstrap_values` of a `compute_advantage` over the segments.
        """
        return torch.cat([self.values[self.num_rows : self.num_filled, 0], self.bootstrap_values()])

    def sample_minibatch(
        self, advantages: torch.Tensor, trainer_config: TrainerConfig | None = None, agent_step: int = 0
    ) -> Minibatch:
        """Draw the next minibatch.

        Uniformly, every segment comes once in each pass of `num_minibatches` calls. With `prio_alpha` > 0 in the config's
        `prioritized_experience_replay`, each call draws segments by the size of their advantages, and the minibatch carries
        the weights that make up for it (see `metta.rl.sampling.prioritized_minibatch`).

        Args:
            advantages: float32 `[filled segments, T]`.
            trainer_config: how to draw; None: uniformly.
            agent_step: agent steps of the run so far: the weights' exponent rises from `prio_beta0` to 1 at
                `total_timesteps`.

        Returns:
            So many segments as `minibatch_size` says; fewer at the end of a pass over a part of a batch.

        Raises:
            ValueError: no segment is complete, or `advantages` are not those of the complete segments.
        """
        if not self.num_filled or advantages.shape != (self.num_filled, self.horizon):
            raise ValueError(
                f"advantages is {list(advantages.shape)}, but the batch has {self.num_filled} complete segments of "
                f"{self.horizon} steps: collect them, and compute the advantages of this batch."
            )
        replay = trainer_config.prioritized_experience_replay if trainer_config is not None else None
        if trainer_config is not None and replay is not None and replay.prio_alpha > 0:
            progress = min(1.0, agent_step / trainer_config.total_timesteps)
            beta = replay.prio_beta0 + (1 - replay.prio_beta0) * progress
            indices, weights = prioritized_minibatch(
                advantages, self._minibatch_segments, replay.prio_alpha, beta, self.shuffle_generator
            )
            return self.minibatch(indices, advantages, weights)
        remaining = next(self._pass, None)
        if remaining is None:
            self._pass = uniform_minibatches(
                self.num_filled, self._minibatch_segments, self.shuffle_generator
            )
            remaining = next(self._pass)
        return self.minibatch(remaining, advantages)

    def minibatches(
        self, advantages: torch.Tensor, trainer_config: TrainerConfig | None = None, agent_step: int = 0
    ) -> Iterator[Minibatch]:
        """A fresh pass of `num_minibatches` draws; see `sample_minibatch`."""
        self._pass = iter(())
        for _ in range(max(1, self.num_minibatches)):  # with nothing to draw from, the first one says so
            yield self.sample_minibatch(advantages, trainer_config, agent_step)

    def minibatch(
        self, indices: torch.Tensor, advantages: torch.Tensor, weights: torch.Tensor | None = None
    ) -> Minibatch:
        """Gather segments onto the agent's device.

        Args:
            indices: int64 `[B]` on the CPU.
            advantages: float32 `[filled segments, T]`.
            weights: float32 `[B]`: how much each counts; None: all alike.

        Returns:
            The segments, with value targets `advantages + values`.
        """
        index = indices.to(self.storage_device, non_blocking=True)

        def take(stored: torch.Tensor, dim: int = 0) -> torch.Tensor:
            return stored.index_select(dim, index).to(self.device, non_blocking=True)

        values, advantage = take(self.values), take(advantages)
        return Minibatch(
            indices=indices,
            observations=take(self.observations),
            actions=take(self.actions),
            logprobs=take(self.logprobs),
            values=values,
            rewards=take(self.rewards),
            dones=take(self.terminals) | take(self.truncations),
            truncation_values=take(self.truncation_values),
            advantages=advantage,
            returns=advantage + values,
            following_values=take(self.following_values()),
            following_advantages=take(self._following(advantages)),
            start_state=PolicyState(h=take(self.start_h, 1), c=take(self.start_c, 1)),
            weights=None if weights is None else weights.to(self.device),
        )

    def with_advantages(self, minibatch: Minibatch, advantages: torch.Tensor) -> Minibatch:
        """The same segments with other advantages, and the value targets that go with them.

        Args:
            minibatch: drawn from this batch.
            advantages: float32 `[filled segments, T]`.
        """
        index = minibatch.indices.to(advantages.device, non_blocking=True)
        own = advantages.index_select(0, index).to(self.device)
        return replace(
            minibatch,
            advantages=own,
            returns=own + minibatch.values,
            following_advantages=self._following(advantages).index_select(0, index).to(self.device),
        )

    def update_values(self, indices: torch.Tensor, values: torch.Tensor) -> None:
        """Put newer estimates in the place of those that some segments were collected with.

        What was estimated of final observations, and of what follows the batch, stays.

        Args:
            indices: int64 `[B]` on the CPU.
            values: float32 `[B, T]`.
        """
        self.values[indices.to(self.storage_device, non_blocking=True)] = values.detach().to(
            self.storage_device
        )

    def _following(self, advantages: torch.Tensor) -> torch.Tensor:
        """`[S]`: advantage of the step after each segment, 0 after the end of the batch."""
        return torch.cat([advantages[self.num_rows :, 0], torch.zeros_like(advantages[: self.num_rows, 0])])

    def mark_used(self) -> None:
        """The complete segments have been trained on; the next rollout replaces them."""
        self._used = True

    # --- exact continuation --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly, the environment included; steps not yet trained on are kept."""
        first = self.num_filled if self._used else 0
        last = math.ceil(self.position / self.horizon) * self.num_rows
        return {
            "segments": {name: part.cpu() for name, part in self.stored(first, last).items()},
            "advantages": None if self.advantages is None or self._used else self.advantages.cpu(),
            "position": self.position % self.horizon if self._used else self.position,
            "first_chunk": self.first_chunk + first // self.num_rows,
            "num_updates": self.num_updates,
            "state_h": self._state.h.cpu(),
            "state_c": self._state.c.cpu(),
            "next_values": self._next_values.cpu(),
            "seen": None if self._seen is None else self._seen.cpu().numpy(),
            "fresh": self._fresh.copy(),
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
        check_saved(self, state)
        before = self.env.state_dict()
        try:
            self.env.load_state_dict(state["env"])
        except Exception as error:
            self.env.load_state_dict(before)
            if isinstance(error, ValueError):
                raise ValueError(
                    f"the saved experience is of another environment ({str(error).rstrip('.')}): make the environment as it "
                    "was, or go on without the saved experience."
                ) from error
            raise
        self.put(state["segments"])
        saved = state["advantages"]
        self.advantages = None if saved is None else saved.to(self.storage_device)
        self.position = state["position"]
        self.first_chunk = state["first_chunk"]
        self.num_updates = state["num_updates"]
        self._used = False
        self._pass = iter(())
        self._state = PolicyState(h=state["state_h"].to(self.device), c=state["state_c"].to(self.device))
        self._next_values = state["next_values"].to(self.storage_device)
        seen = torch.as_tensor(self.env.observations)
        self._seen = None if state["seen"] is None else torch.tensor(state["seen"], device=seen.device)
        self._fresh = state["fresh"].copy()
        self.action_generator.set_state(state["action_generator"])
        self.shuffle_generator.set_state(state["shuffle_generator"])


def make_experience_manager(
    env: MettaGridEnv | VecEnv, agent: Policy, config: ExperienceConfig | None = None, *, seed: int = 0
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
