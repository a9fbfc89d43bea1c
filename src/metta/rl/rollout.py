"""Acting in the worlds and remembering what happened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from metta.agent.acting import holding_weights
from metta.agent.policy import Policy
from metta.agent.row_parallel import sharing_rows
from metta.agent.state import PolicyState
from metta.common.stopwatch import NullStopwatch, Stopwatch
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.outcomes import EpisodeOutcome, StepBatch
from metta.mettagrid.vec import VecEnv
from metta.rl.device_stopwatch import DeviceStopwatch
from metta.rl.distributed import is_distributed
from metta.rl.experience import Experience
from metta.rl.finite import complaint_about_steps, stop_run
from metta.rl.storage import to_device
from metta.rl.types import BatchInfo


def rollout(experience: Experience, agent: Policy, num_steps: int | None = None) -> BatchInfo:
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
        FloatingPointError: the policy's logits or values, or the environment's rewards, are not finite. Of several processes
            that train together `train_ppo` says so.
    """
    remaining = experience.remaining_steps
    wanted = remaining if num_steps is None else num_steps
    if not 0 < wanted <= remaining:
        raise ValueError(
            f"num_steps={wanted} but the batch takes 1 to {remaining} more agent steps: "
            "collect fewer, or make the experience with a larger batch_size."
        )
    timer = DeviceStopwatch() if experience.worlds_device.type == "cuda" else Stopwatch()
    num_env_steps = -(-wanted // experience.num_rows)
    with torch.no_grad(), sharing_rows(), holding_weights():
        episodes = _Collector(experience, agent, experience.config.async_factor, timer).run(num_env_steps)
    return BatchInfo(
        total_env_steps=num_env_steps * experience.num_rows,
        episode_returns=[episode.score for episode in episodes],
        episode_lengths=[episode.length for episode in episodes],
        episodes=episodes,
        env_seconds=timer.get_elapsed("env"),
        inference_seconds=timer.get_elapsed("inference"),
    )


def perform_rollout_step(
    agent: Policy,
    env: MettaGridEnv | VecEnv,
    experience: Experience,
    device: torch.device | str,
    timer: Stopwatch | None = None,
) -> tuple[int, dict[str, Any]]:
    """Let the agent act once in every world, and store what came of it.

        while not experience.ready_for_training:
            num_steps, info = perform_rollout_step(agent, env, experience, device, timer)
            accumulate_rollout_stats(info, stats)

    Many calls collect what one `rollout` does, and both can take turns. All worlds are stepped together: with one step at a
    time there is nothing that `async_factor` could do meanwhile.

    Args:
        agent: acts, sampling from its policy.
        env: the experience's environment.
        experience: is filled from where it stopped; a batch that is complete or was trained on gives way to a new one.
        device: the agent's.
        timer: its clocks "env" and "inference" run while the one and the other is at work; None: nothing is timed.

    Returns:
        Agent steps made, and the `episode_info` of the episodes that ended.

    Raises:
        ValueError: another environment than the experience's, or another device than the agent's.
        FloatingPointError: see `rollout`.
    """
    if (env.vec if isinstance(env, MettaGridEnv) else env) is not experience.env:
        raise ValueError(
            "env is not the environment that the experience was made with: pass that one, or make an experience for this."
        )
    if torch.device(str(device)).type != agent.device.type:
        raise ValueError(f"device is {device} but the agent lies on {agent.device}: pass the agent's device.")
    with torch.no_grad(), sharing_rows(), holding_weights():
        episodes = _Collector(experience, agent, 1, timer or NullStopwatch()).run(1)
    return experience.num_rows, episode_info(episodes)


def episode_info(episodes: Sequence[EpisodeOutcome]) -> dict[str, Any]:
    """What episodes amounted to, for `accumulate_rollout_stats`.

    Args:
        episodes: of a rollout, for instance `BatchInfo.episodes`; there may be none.

    Returns:
        {} or lists with a number per episode: `episode/score` (mean over the agents of their total reward),
        `episode/length` (steps) and `episode/truncated`; the score under `task/NAME`; under `game/NAME` and `agent/NAME`
        the engine's statistics, the latter averaged over the agents. Those have a number only where they were counted.
    """
    info: dict[str, Any] = {}
    for episode in episodes:
        agents = episode.stats.get("agent", [])
        totals: dict[str, float] = defaultdict(float)
        for stats in agents:
            for name, value in stats.items():
                totals[name] += float(value) / len(agents)
        groups: dict[str, Mapping[str, float]] = {
            "episode": {
                "score": episode.score,
                "length": episode.length,
                "truncated": episode.truncated,
            },
            "task": {episode.task: episode.score},
            "game": episode.stats.get("game", {}),
            "agent": totals,
        }
        for group, numbers in groups.items():
            for name, value in numbers.items():
                info.setdefault(group, {}).setdefault(name, []).append(float(value))
    return info


Actions = Any
"""int64 `[R, 2]`: an array of numpy, or of worlds on a GPU a tensor there."""


@dataclass
class _Group:
    """Worlds that are stepped together, and their rows' recurrent state after the last action."""

    worlds: slice
    rows: slice
    state: PolicyState
    pending: Future[StepBatch] | None = None


class _Collector:
    """One rollout: acts for group after group, while the others are stepped."""

    def __init__(self, experience: Experience, agent: Policy, num_groups: int, timer: Stopwatch) -> None:
        self.experience = experience
        self.agent = agent
        self.env = experience.env
        self.config = experience.config
        self.device = experience.device
        self.timer = timer
        self.ended: list[Sequence[EpisodeOutcome]] = []
        # What is launched on a GPU is under way by itself, and its results need not be brought here.
        self.on_device = isinstance(self.env.observations, torch.Tensor)
        state = experience.begin(self._value)
        agents = experience.num_rows // self.env.num_worlds
        self.groups = []
        for worlds in _split(self.env.num_worlds, num_groups):
            rows = slice(worlds.start * agents, worlds.stop * agents)
            self.groups.append(_Group(worlds, rows, state.index(rows)))

    def run(self, num_env_steps: int) -> list[EpisodeOutcome]:
        """Step every world so many times; gives the episodes that ended."""
        first = self.experience.position
        end = first + num_env_steps
        with ExitStack() as stack:
            worker = None
            if len(self.groups) > 1 and not self.on_device:
                worker = stack.enter_context(ThreadPoolExecutor(1, "metta-env"))
            for position in range(self.experience.position, end):
                for group in self.groups:
                    self._collect(group, position - 1)
                    self._step(worker, group, self._act(group, position))
            for group in self.groups:
                self._collect(group, end - 1)
        self._finish(end)
        if not is_distributed():  # else `train_ppo` asks all processes
            stop_run(complaint_about_steps(self.experience, first), self.experience.last_checkpoint)
        return [episode for some in self.ended for episode in some]

    def _act(self, group: _Group, position: int) -> Actions:
        with self.timer("inference"):
            rows = group.rows
            seen = torch.as_tensor(self.env.observations[rows])
            observations = (seen if self.config.zero_copy else seen.clone()).to(self.device)
            starts = self.env.starts[rows]
            if starts.any():
                group.state.zero_(to_device(starts, self.device))
            if position % self.experience.horizon == 0:
                self.experience.store_start(position, rows, group.state)
            parts = [
                self.agent.act(
                    observations[part], group.state.index(part), generator=self.experience.action_generator
                )
                for part in split_size(rows.stop - rows.start, self.config.forward_pass_minibatch_target_size)
            ]
            group.state = PolicyState.join([out.state for out in parts])
            actions = torch.cat([out.actions for out in parts])
            logprobs = torch.cat([out.logprobs for out in parts])
            values = torch.cat([out.values for out in parts])
            self.experience.store_action(position, rows, observations, actions, logprobs, values)
            chosen: Actions = actions if self.on_device else actions.cpu().numpy()
        return chosen

    def _step(self, worker: ThreadPoolExecutor | None, group: _Group, actions: Actions) -> None:
        """Have the group's worlds stepped: by the worker, or here and now."""
        with self.timer("env"):
            if worker is not None:
                group.pending = worker.submit(self.env.step, actions, group.worlds)
            else:
                group.pending = Future()
                group.pending.set_result(self.env.step(actions, group.worlds))

    def _collect(self, group: _Group, position: int) -> None:
        if group.pending is None:
            return
        with self.timer("env"):
            batch = group.pending.result()
        group.pending = None
        truncations = torch.as_tensor(batch.truncations) & ~torch.as_tensor(batch.terminals)
        values = torch.zeros(len(truncations), device=self.device)
        # An episode may end for some agents of a world by a terminal; for the rest of them it is cut off.
        cut = np.flatnonzero(~batch.final_terminals)
        if len(cut):
            local = batch.final_rows[cut] - group.rows.start
            final = torch.as_tensor(batch.final_observations)
            final = final.index_select(0, to_device(cut, final.device)).to(self.device)
            rows = to_device(local, self.device)
            values[rows] = self._value(final, group.state.index(rows))
            truncations.index_fill_(0, to_device(local, truncations.device), True)
        self.experience.store_result(position, group.rows, batch, truncations, values)
        if len(batch.episodes):
            self.ended.append(batch.episodes)

    def _value(self, observations: torch.Tensor, state: PolicyState) -> torch.Tensor:
        with self.timer("inference"):
            values = [
                self.agent.value(observations[part], state.index(part))
                for part in split_size(len(observations), self.config.forward_pass_minibatch_target_size)
            ]
            return torch.cat(values)

    def _finish(self, end: int) -> None:
        state = PolicyState.join([group.state for group in self.groups])
        values = None
        if end % self.experience.horizon == 0:
            # A row whose episode just ended is not bootstrapped, so its value here is never read.
            values = self._value(torch.as_tensor(self.env.observations).to(self.device), state)
        self.experience.finish(end, state, values)


def _split(count: int, parts: int) -> list[slice]:
    """`count` things in at most `parts` contiguous groups of nearly equal size, none empty."""
    parts = min(parts, count)
    bounds = [count * i // parts for i in range(parts + 1)]
    return [slice(lo, hi) for lo, hi in pairwise(bounds)]


def split_size(count: int, largest: int) -> list[slice]:
    """`count` things in as few contiguous parts of nearly equal size as have at most `largest` each."""
    return _split(count, -(-count // largest))
