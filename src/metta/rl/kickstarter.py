"""Learning from policies that can do it already.

Schmitt et al. 2018, "Kickstarting deep reinforcement learning" (arXiv:1803.03835): while the student learns from its own
experience, its loss also holds the distance of its actions and values from what teachers would do in its place, with a
weight that fades.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from metta.agent.metta_agent import MettaAgent
from metta.agent.outputs import EvalOutput
from metta.agent.policy_store import PolicyStore
from metta.agent.remap import remap
from metta.agent.state import PolicyState
from metta.rl.rollout import split_size
from metta.rl.trainer_config import KickstartConfig, KickstartTeacherConfig
from metta.rl.types import Minibatch

if TYPE_CHECKING:
    from metta.rl.experience import Experience


class Kickstarter:
    """Teachers, their memories, and what they add to the loss.

    A teacher sees what the student sees, in the order of time: once per batch it runs over the whole stretch of each row
    with a memory of its own, which is emptied where an episode begins and carried on from batch to batch. It may have any
    architecture; a teacher from another world is translated with `metta.agent.remap.remap`.

    The memories fit together as long as every batch of an experience is trained on with the kickstarter. After a batch that it
    has not seen, and in another experience, a teacher starts with an empty memory.

    Args:
        cfg: who teaches, how much and for how long.
        device: where the teachers compute: the student's.
        policy_store: opens the teachers' addresses; None: a `PolicyStore` of the current folder.

    Raises:
        FileNotFoundError: a teacher is not there.
        ValueError: a teacher's file is damaged.
    """

    def __init__(
        self, cfg: KickstartConfig, device: torch.device | str, policy_store: PolicyStore | None = None
    ) -> None:
        self.cfg = cfg
        store = PolicyStore() if policy_store is None else policy_store
        self._teachers = [
            _Teacher(teacher, _load(teacher.teacher_uri, store, device)) for teacher in cfg.teachers
        ]

    @property
    def enabled(self) -> bool:
        """Whether there is a teacher at all."""
        return bool(self._teachers)

    def coefficient(self, agent_step: int) -> float:
        """How much the teachers count after so many agent steps: 1 at first, 0 from `kickstart_steps` on."""
        steps = self.cfg.kickstart_steps
        left = (steps - agent_step) / steps
        if left <= 0:
            return 0.0
        return min(1.0, left / self.cfg.anneal_ratio) if self.cfg.anneal_ratio else 1.0

    def loss(
        self, experience: Experience, minibatch: Minibatch, out: EvalOutput, agent_step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What the teachers add to the loss of a minibatch.

        Args:
            experience: what the minibatch was drawn from.
            minibatch: the segments.
            out: what the student says of them, with its graph.
            agent_step: agent steps of the run so far.

        Returns:
            A scalar with its graph: the sum over teachers of `action_loss_coef * KL(teacher || student)` over the legal
            actions and `value_loss_coef * (student's value - teacher's) ** 2 / 2`, times `coefficient(agent_step)`. And the
            terms without their weights, means over the teachers: `ks_action_loss`, `ks_value_loss`, and `ks_coefficient`;
            none once the coefficient is 0.

        Raises:
            ValueError: a teacher's world has too little in common with this one.
        """
        coefficient = self.coefficient(agent_step)
        total = torch.zeros((), device=out.values.device)
        if not self._teachers or coefficient == 0:
            return total, {}
        weights = 1.0 if minibatch.weights is None else minibatch.weights.unsqueeze(1)
        action_losses, value_losses = [], []
        for teacher in self._teachers:
            logprobs, values = teacher.lesson(experience, minibatch.indices, out.values.device)
            action_losses.append((_divergence(logprobs, out.all_logprobs) * weights).mean())
            value_losses.append(0.5 * ((out.values - values).pow(2) * weights).mean())
            total = total + teacher.config.action_loss_coef * action_losses[-1]
            total = total + teacher.config.value_loss_coef * value_losses[-1]
        terms = {
            "ks_action_loss": torch.stack(action_losses).mean(),
            "ks_value_loss": torch.stack(value_losses).mean(),
            "ks_coefficient": torch.tensor(coefficient, device=total.device),
        }
        return coefficient * total, terms

    def state_dict(self) -> dict[str, Any]:
        """The teachers' memories, for an exact resume together with the experience's `state_dict`."""
        return {"teachers": [teacher.state_dict() for teacher in self._teachers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict` of a kickstarter with the same teachers.

        Raises:
            ValueError: it had other teachers; nothing is changed.
        """
        saved = [entry["uri"] for entry in state["teachers"]]
        own = [teacher.config.teacher_uri for teacher in self._teachers]
        if saved != own:
            raise ValueError(
                f"the saved kickstarter had the teachers {saved}, this one has {own}: give the same ones, or go on without "
                "its state."
            )
        for teacher, entry in zip(self._teachers, state["teachers"], strict=True):
            teacher.load_state_dict(entry)


@dataclass
class _Memory:
    """A teacher's memory of every row, before the first step of a chunk that is numbered over the whole run."""

    chunk: int
    state: PolicyState


class _Teacher:
    """One teacher: what it says of the batch at hand, and its memory before and after it."""

    def __init__(self, config: KickstartTeacherConfig, agent: MettaAgent) -> None:
        self.config = config
        self.agent = agent
        self._before: _Memory | None = None
        self._after: _Memory | None = None
        self._batch: tuple[int, int] | None = None
        self._experience: weakref.ref[Experience] | None = None
        self._logprobs = self._values = torch.empty(0)

    def lesson(
        self, experience: Experience, indices: torch.Tensor, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log probabilities `[B, T, legal]` and values `[B, T]` of some segments."""
        if self._experience is None or self._experience() is not experience:
            if self._experience is not None:  # else the memories may be those of a run that goes on
                self._before = self._after = None
            self._experience, self._batch = weakref.ref(experience), None
        batch = (experience.first_chunk, experience.num_filled)
        if self._batch != batch:
            self._study(experience)
            self._batch = batch
        index = indices.to(self._values.device)
        logprobs, values = self._logprobs.index_select(0, index), self._values.index_select(0, index)
        return logprobs.to(device), values.to(device)

    @torch.no_grad()
    def _study(self, experience: Experience) -> None:
        """Run over the whole batch, chunk after chunk."""
        if self.agent.spec != experience.env.spec:
            self.agent = remap(self.agent, experience.env.spec)
        rows, chunks = experience.num_rows, experience.num_filled // experience.num_rows
        first = experience.first_chunk
        state = self.agent.initial_state(rows)
        for memory in (self._before, self._after):
            if memory is not None and memory.chunk == first and memory.state.batch_size == rows:
                state = memory.state
        self._before = _Memory(first, state)
        dones = experience.dones
        logprobs, values = [], []
        for chunk in range(chunks):
            parts = []
            for part in split_size(rows, max(1, experience.config.minibatch_size // experience.horizon)):
                segments = slice(chunk * rows + part.start, chunk * rows + part.stop)
                starts = experience.starts[segments].to(self.agent.device)
                out = self.agent.evaluate(
                    experience.observations[segments].to(self.agent.device),
                    state.index(part).zeroed(starts),
                    dones[segments].to(self.agent.device),
                    experience.actions[segments].to(self.agent.device),
                )
                logprobs.append(out.all_logprobs.to(experience.storage_device))
                values.append(out.values.to(experience.storage_device))
                parts.append(out.state)
            state = PolicyState.join(parts)
        self._after = _Memory(first + chunks, state)
        self._logprobs, self._values = torch.cat(logprobs), torch.cat(values)

    def state_dict(self) -> dict[str, Any]:
        memories = [
            {"chunk": memory.chunk, "h": memory.state.h.cpu(), "c": memory.state.c.cpu()}
            for memory in (self._before, self._after)
            if memory is not None
        ]
        return {"uri": self.config.teacher_uri, "memories": memories}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.agent.device
        memories = [
            _Memory(entry["chunk"], PolicyState(entry["h"].to(device), entry["c"].to(device)))
            for entry in state["memories"]
        ]
        self._before, self._after = memories or (None, None)
        self._batch = self._experience = None


def _load(uri: str, store: PolicyStore, device: torch.device | str) -> MettaAgent:
    agent = store.load(store.policy_record(uri), torch.device(str(device)))
    return agent.eval().requires_grad_(False)


def _divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of log probabilities `[..., choices]`.

    What the teacher would never do adds nothing, nor does what the student cannot do, where it has nothing to learn.
    """
    share = teacher.exp()
    never = (share == 0) | (student.exp() == 0)
    return (share * (teacher.masked_fill(never, 0) - student.masked_fill(never, 0))).sum(-1)
