"""Acting in the worlds and remembering what happened."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch

from metta.agent.state import PolicyState
from metta.mettagrid.vec import StepBatch
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
        self.info = BatchInfo(total_env_steps=0, episode_returns=[], episode_lengths=[])
        state = experience.begin()
        self.position = experience.position
        agents = experience.num_rows // self.env.num_worlds
        self.groups = []
        for worlds in _split(self.env.num_worlds, self.config.async_factor):
            rows = slice(worlds.start * agents, worlds.stop * agents)
            self.groups.append(_Group(worlds, rows, state.index(torch.arange(rows.start, rows.stop))))

    def run(self, num_env_steps: int) -> BatchInfo:
        """Step every world so many times."""
        end = self.position + num_env_steps
        with ExitStack() as stack:
            worker = None
            if len(self.groups) > 1:
                worker = stack.enter_context(ThreadPoolExecutor(1, "metta-env"))
            for self.position in range(self.position, end):
                for group in self.groups:
                    self._collect(group, self.position - 1)
                    actions = self._act(group)
                    group.pending = _submit(worker, lambda g=group, a=actions: self.env.step(a, g.worlds))  # type: ignore[misc]
            for group in self.groups:
                self._collect(group, end - 1)
        self._finish(end)
        self.info.total_env_steps = num_env_steps * self.experience.num_rows
        return self.info

    def _act(self, group: _Group) -> np.ndarray:
        rows, start = group.rows, perf_counter()
        seen = self.env.observations[rows]
        observations = torch.from_numpy(seen if self.config.zero_copy else seen.copy()).to(self.device)
        group.state.zero_(torch.from_numpy(self.env.starts[rows]).to(self.device))
        if self.position % self.experience.horizon == 0:
            self.experience.store_start(self.position, rows, group.state)
        states, actions, logprobs, values = [], [], [], []
        for part in _split_size(rows.stop - rows.start, self.config.forward_pass_minibatch_target_size):
            out = self.agent.act(
                observations[part.start : part.stop],
                group.state.index(torch.arange(part.start, part.stop)),
                generator=self.experience.action_generator,
            )
            states.append(out.state)
            actions.append(out.actions)
            logprobs.append(out.logprobs)
            values.append(out.values)
        group.state = PolicyState(h=torch.cat([s.h for s in states], 1), c=torch.cat([s.c for s in states], 1))
        chosen = torch.cat(actions)
        self.experience.store_action(
            self.position, rows, observations, chosen, torch.cat(logprobs), torch.cat(values)
        )
        result = chosen.cpu().numpy()
        self.info.inference_seconds += perf_counter() - start
        return result

    def _collect(self, group: _Group, position: int) -> None:
        if group.pending is None:
            return
        start = perf_counter()
        batch = group.pending.result()
        group.pending = None
        self.info.env_seconds += perf_counter() - start
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
        for episode in batch.episodes:
            self.info.episodes.append(episode)
            self.info.episode_returns.append(float(np.mean(episode.returns, dtype=np.float64)))  # type: ignore[union-attr]
            self.info.episode_lengths.append(int(episode.length))  # type: ignore[union-attr]

    def _value(self, observations: torch.Tensor, state: PolicyState) -> torch.Tensor:
        start = perf_counter()
        values = [
            self.agent.value(observations[p.start : p.stop], state.index(torch.arange(p.start, p.stop)))
            for p in _split_size(len(observations), self.config.forward_pass_minibatch_target_size)
        ]
        self.info.inference_seconds += perf_counter() - start
        return torch.cat(values)

    def _finish(self, end: int) -> None:
        state = PolicyState(
            h=torch.cat([g.state.h for g in self.groups], 1), c=torch.cat([g.state.c for g in self.groups], 1)
        )
        # A row whose episode just ended is not bootstrapped, so its value here is never read.
        observations = torch.from_numpy(self.env.observations).to(self.device)
        self.experience.finish(end, state, self._value(observations, state))


def _submit(worker: ThreadPoolExecutor | None, step: Callable[[], StepBatch]) -> Future[StepBatch]:
    if worker is not None:
        return worker.submit(step)
    done: Future[StepBatch] = Future()
    done.set_result(step())
    return done


def _split(count: int, parts: int) -> list[slice]:
    """`count` things in at most `parts` contiguous groups of nearly equal size, none empty."""
    parts = min(parts, count)
    bounds = [count * i // parts for i in range(parts + 1)]
    return [slice(lo, hi) for lo, hi in zip(bounds[:-1], bounds[1:], strict=True)]


def _split_size(count: int, largest: int) -> list[slice]:
    """`count` things in as few contiguous parts of nearly equal size as have at most `largest` each."""
    return _split(count, -(-count // largest))
