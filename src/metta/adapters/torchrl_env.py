"""Many worlds as one TorchRL environment: a batch of teams."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from metta.adapters.actions import LegalActions
from metta.adapters.missing import missing
from metta.adapters.seeds import given_or_drawn
from metta.mettagrid.tasks import EnvLike, find_tasks
from metta.mettagrid.vec import VecEnv

try:
    from tensordict import TensorDict, TensorDictBase
    from torchrl.data import Bounded, Categorical, Composite, Unbounded
    from torchrl.envs import EnvBase
except ModuleNotFoundError as error:
    raise missing(error, "TorchRL") from error

ACTION, OBSERVATION, REWARD = ("agents", "action"), ("agents", "observation"), ("agents", "reward")


class TorchRLEnv(EnvBase):  # type: ignore[misc] # it is Any to a type checker, whether it is installed or not
    """B worlds of A agents each, with TorchRL's customary keys for teams; batch-locked to `[B]`.

    `("agents", "observation")` uint8 `[B, A, K, 3]`, `("agents", "action")` int64 `[B, A]`: numbers of legal (action id,
    argument) pairs, listed by `action_pairs`; `("agents", "reward")` float32 `[B, A, 1]`; `done`, `terminated` and
    `truncated` bool `[B, 1]`, since the agents of a world end together.

    Next to an episode's end `("next", "agents", "observation")` is its last observation, the one to bootstrap from after a
    truncation; the reset that TorchRL does then shows the first of the next episode. Worlds can be reset at any time,
    each by itself.

    Args:
        env_config: the environment, typed, as a mapping of its fields, or the registered name of one or of a curriculum;
            None: the default one.
        num_worlds: B.
        seed: decides maps and agent order of every episode, until `set_seed`; None: drawn at random.
        device: where the tensors are put; the worlds are stepped on the CPU.
        num_threads, num_workers: as in `VecEnv`.
        **overrides: single values of the configuration by field name, for instance `num_agents=8`.

    Raises:
        ValueError: values that do not fit together.
        RuntimeError: a worker process could not be started.
    """

    def __init__(
        self,
        env_config: EnvLike | None = None,
        num_worlds: int = 1,
        *,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        num_threads: int = 1,
        num_workers: int = 0,
        **overrides: Any,
    ) -> None:
        vec = VecEnv(
            find_tasks(env_config, **overrides),
            num_worlds,
            seed=given_or_drawn(seed),
            num_threads=num_threads,
            num_workers=num_workers,
            collect_stats=False,
        )
        super().__init__(device=device, batch_size=[num_worlds])
        self.vec = vec
        self._actions = LegalActions(vec.spec)
        self._begun = np.ones(
            num_worlds, dtype=np.bool_
        )  # worlds at the start of an episode that no reset has shown yet
        worlds = (num_worlds,)
        team = (num_worlds, vec.agents_per_world)
        tokens = Bounded(0, 255, (*team, vec.spec.num_tokens, 3), dtype=torch.uint8, device=device)
        choice = Categorical(len(self._actions.pairs), team, dtype=torch.int64, device=device)
        reward = Unbounded((*team, 1), dtype=torch.float32, device=device)
        flags = {name: Categorical(2, (*worlds, 1), dtype=torch.bool, device=device) for name in _FLAGS}
        self.observation_spec = _of_agents("observation", tokens, team)
        self.action_spec = _of_agents("action", choice, team)
        self.reward_spec = _of_agents("reward", reward, team)
        self.done_spec = Composite(flags, shape=worlds, device=device)

    @property
    def action_pairs(self) -> npt.NDArray[np.int32]:
        """int32 `[n, 2]`: (action id, argument) by number of the action."""
        return self._actions.pairs.copy()

    def _reset(self, tensordict: TensorDictBase | None, **kwargs: Any) -> TensorDictBase:  # noqa: ARG002
        """First observations of the worlds marked by `_reset`, or of all of them."""
        chosen = self._marked(tensordict, "_reset")
        self.vec.restart(np.flatnonzero(chosen & ~self._begun).tolist())
        self._begun[chosen] = False
        nothing = np.zeros(self.vec.num_worlds, dtype=np.bool_)
        return self._shown(self.vec.observations.copy(), nothing, nothing)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Step the worlds; all of them, unless `_step` marks some."""
        vec, agents = self.vec, self.vec.agents_per_world
        pairs = self._actions.pairs_of(tensordict[ACTION].cpu().reshape(-1).numpy(), vec.num_agents)
        chosen = self._marked(tensordict, "_step")
        if (self._begun & chosen).any():
            worlds = np.flatnonzero(self._begun & chosen).tolist()
            raise RuntimeError(
                f"the episodes of worlds {worlds} are over or not begun; reset() them before step()."
            )
        observations = np.empty_like(vec.observations)
        rewards = np.zeros(vec.num_agents, dtype=np.float32)
        terminals, truncations = np.zeros((2, vec.num_worlds), dtype=np.bool_)
        if not chosen.all():  # what is not stepped stays as it was
            observations[:] = tensordict[OBSERVATION].cpu().numpy().reshape(observations.shape)
            terminals[:], truncations[:] = (_of_worlds(tensordict[flag]) for flag in _FLAGS[1:])
        for start, stop in _runs(chosen):
            rows = slice(start * agents, stop * agents)
            batch = vec.step(pairs[rows], slice(start, stop))
            observations[rows] = batch.observations
            observations[batch.final_rows] = batch.final_observations
            rewards[rows] = batch.rewards
            terminals[start:stop] = batch.terminals[::agents]
            truncations[start:stop] = batch.truncations[::agents]
            self._begun[start:stop] = (batch.terminals | batch.truncations)[::agents]
        shown = self._shown(observations, terminals, truncations)
        shown[REWARD] = torch.from_numpy(rewards).to(self.device).reshape(*self.batch_size, agents, 1)
        return shown

    def _marked(self, tensordict: TensorDictBase | None, mark: str) -> npt.NDArray[np.bool_]:
        """bool `[B]`: the worlds under a mark; all of them, where there is none."""
        mask = None if tensordict is None else tensordict.get(mark, None)
        return np.ones(self.vec.num_worlds, dtype=np.bool_) if mask is None else _of_worlds(mask)

    def _shown(
        self,
        observations: npt.NDArray[np.uint8],
        terminals: npt.NDArray[np.bool_],
        truncations: npt.NDArray[np.bool_],
    ) -> TensorDictBase:
        """Observations `[B * A, K, 3]`, which nobody else holds, and flags `[B]` under their keys."""
        agents = self.vec.agents_per_world
        tokens = torch.from_numpy(observations).to(self.device).reshape(*self.batch_size, agents, -1, 3)
        flags = (terminals | truncations, terminals, truncations)
        shown = TensorDict(
            {
                name: torch.from_numpy(flag[:, None].copy()).to(self.device)
                for name, flag in zip(_FLAGS, flags, strict=True)
            },
            batch_size=self.batch_size,
            device=self.device,
        )
        shown["agents"] = TensorDict(
            {"observation": tokens}, batch_size=(*self.batch_size, agents), device=self.device
        )
        return shown

    def _set_seed(self, seed: int | None) -> None:
        """Restart the stream of episodes from a seed; the next `reset` shows it."""
        if seed is not None:
            self.vec.reset(seed)
            self._begun[:] = True

    def close(self, *, raise_if_closed: bool = True) -> None:
        """End threads and worker processes."""
        super().close(raise_if_closed=raise_if_closed)
        self.vec.close()


_FLAGS = ("done", "terminated", "truncated")


def _of_agents(name: str, spec: Any, team: tuple[int, int]) -> Any:
    """The spec of a key in the group of agents."""
    agents = Composite({name: spec}, shape=team, device=spec.device)
    return Composite({"agents": agents}, shape=team[:1], device=spec.device)


def _of_worlds(mask: torch.Tensor) -> npt.NDArray[np.bool_]:
    """A mask `[B, 1]` as bool `[B]`."""
    worlds: npt.NDArray[np.bool_] = mask.reshape(-1).cpu().numpy()
    return worlds


def _runs(chosen: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The unbroken parts of a batch that are chosen: first and one past the last."""
    if chosen.all():
        return [(0, len(chosen))]
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
