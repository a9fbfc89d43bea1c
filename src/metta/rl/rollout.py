"""Acting in the worlds and remembering what happened."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from metta.agent.state import PolicyState
from metta.mettagrid.vec import EpisodeOutcome, StepBatch
from metta.rl.experience import Experience
from metta.rl.types import BatchInfo

if TYPE_CHECKING:
    from metta.agent.metta_agent import MettaAgent


def rollout(experience: Experience, agent: MettaAgent, num_steps: int | None = None) -> BatchInfo:
    """Collect experience by letting the agent act in the experience's environment.

    With `async_factor` > 1 and several worlds, the worlds form that many groups: while the agent acts for one, a
    worker thread steps another. The result does not depend on timing.

    Args:
        experience: is filled from where the last call stopped; a batch that is complete or was trained on gives way
            to a new one.
        agent: acts, sampling from its policy.
        num_steps: agent steps to collect, rounded up to whole environment steps; None: as many as complete the
            batch. A segment that this leaves unfinished is kept for the next call.

    Returns:
        What was collected.

    Raises:
        ValueError: `num_steps` is not positive or more than what the batch still takes.
    """
    remaining = experience.remaining_steps
    wanted = remaining if num_steps is None else num_steps
    if not 0 < wanted <= remaining:
        raise ValueError(
            f"num_steps={wanted} but the batch takes 1 to {remaining} more agent steps: "
            "collect fewer, or make the experience with a larger batch_size."
        )
    with torch.no_grad():
        return _Collector(experience, agent).run(-(-wanted // experience.num_rows))


@dataclass
class _Group:
    """Worlds that are stepped together, and their rows' recurrent state after the last action."""

    worlds: slice
    rows: slice
    state: PolicyState
    pending: Future[StepBatch] | None = None


class _Collector:
    """One rollout: acts for group after group, while the others are stepped."""

    def __init__(self, experience: Experience, agent: MettaAgent) -> None:
        self.experience = experience
        self.agent = agent
        self.env = experience.env
        self.config = experience.config
        self.device = experience.device
        self.episodes: list[EpisodeOutcome] = []
        self.env_seconds = self.inference_seconds = 0.0
        state = experience.begin()
        agents = experience.num_rows // self.env.num_worlds
        self.groups = []
        for worlds in _split(self.env.num_worlds, self.config.async_factor):
            rows = slice(worlds.start * agents, worlds.stop * agents)
            self.groups.append(_Group(worlds, rows, state.index(rows)))

    def run(self, num_env_steps: int) -> BatchInfo:
        """Step every world so many times."""
        end = self.experience.position + num_env_steps
        with ExitStack() as stack:
            worker = None
            if len(self.groups) > 1:
                worker = stack.enter_context(ThreadPoolExecutor(1, "metta-env"))
            for position in range(self.experience.position, end):
                for group in self.groups:
                    self._collect(group, position - 1)
                    self._step(worker, group, self._act(group, position))
            for group in self.groups:
                self._collect(group, end - 1)
        self._finish(end)
        return BatchInfo(
            total_env_steps=num_env_steps * self.experience.num_rows,
            episode_returns=[episode.score for episode in self.episodes],
            episode_lengths=[episode.length for episode in self.episodes],
            episodes=self.episodes,
            env_seconds=self.env_seconds,
            inference_seconds=self.inference_seconds,
        )

    def _act(self, group: _Group, position: int) -> npt.NDArray[np.int64]:
        rows, start = group.rows, perf_counter()
        seen = self.env.observations[rows]
        observations = torch.from_numpy(seen if self.config.zero_copy else seen.copy()).to(self.device)
        starts = self.env.starts[rows]
        if starts.any():
            group.state.zero_(torch.from_numpy(starts).to(self.device))
        if position % self.experience.horizon == 0:
            self.experience.store_start(position, rows, group.state)
        parts = [
            self.agent.act(
                observations[part], group.state.index(part), generator=self.experience.action_generator
            )
            for part in _split_size(rows.stop - rows.start, self.config.forward_pass_minibatch_target_size)
        ]
        group.state = _join([out.state for out in parts])
        actions = torch.cat([out.actions for out in parts])
        logprobs = torch.cat([out.logprobs for out in parts])
        values = torch.cat([out.values for out in parts])
        self.experience.store_action(position, rows, observations, actions, logprobs, values)
        chosen: npt.NDArray[np.int64] = actions.cpu().numpy()
        self.inference_seconds += perf_counter() - start
        return chosen

    def _step(self, worker: ThreadPoolExecutor | None, group: _Group, actions: npt.NDArray[np.int64]) -> None:
        """Have the group's worlds stepped: by the worker, or here and now."""
        start = perf_counter()
        if worker is not None:
            group.pending = worker.submit(self.env.step, actions, group.worlds)
        else:
            group.pending = Future()
            group.pending.set_result(self.env.step(actions, group.worlds))
        self.env_seconds += perf_counter() - start

    def _collect(self, group: _Group, position: int) -> None:
        if group.pending is None:
            return
        start = perf_counter()
        batch = group.pending.result()
        group.pending = None
        self.env_seconds += perf_counter() - start
        # An episode may end for some agents of a world by a terminal; for the rest of them it is cut off.
        ended = np.zeros_like(batch.terminals)
        ended[batch.final_rows - group.rows.start] = True
        truncations = (batch.truncations | ended) & ~batch.terminals
        values = torch.zeros(len(truncations), device=self.device)
        if truncations.any():
            local = batch.final_rows - group.rows.start
            cut = truncations[local]
            final = torch.from_numpy(batch.final_observations[cut]).to(self.device)
            rows = torch.from_numpy(local[cut])
            values[rows.to(self.device)] = self._value(final, group.state.index(rows))
        self.experience.store_result(position, group.rows, batch, truncations, values)
        self.episodes += batch.episodes

    def _value(self, observations: torch.Tensor, state: PolicyState) -> torch.Tensor:
        start = perf_counter()
        values = [
            self.agent.value(observations[part], state.index(part))
            for part in _split_size(len(observations), self.config.forward_pass_minibatch_target_size)
        ]
        self.inference_seconds += perf_counter() - start
        return torch.cat(values)

    def _finish(self, end: int) -> None:
        state = _join([group.state for group in self.groups])
        # A row whose episode just ended is not bootstrapped, so its value here is never read.
        observations = torch.from_numpy(self.env.observations).to(self.device)
        self.experience.finish(end, state, self._value(observations, state))


def _join(states: list[PolicyState]) -> PolicyState:
    return PolicyState(torch.cat([s.h for s in states], 1), torch.cat([s.c for s in states], 1))


def _split(count: int, parts: int) -> list[slice]:
    """`count` things in at most `parts` contiguous groups of nearly equal size, none empty."""
    parts = min(parts, count)
    bounds = [count * i // parts for i in range(parts + 1)]
    return [slice(lo, hi) for lo, hi in pairwise(bounds)]


def _split_size(count: int, largest: int) -> list[slice]:
    """`count` things in as few contiguous parts of nearly equal size as have at most `largest` each."""
    return _split(count, -(-count // largest))
