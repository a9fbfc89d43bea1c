"""The worlds that are measured, and the actions that drive them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from metta.mettagrid.config import EnvConfig, MapBuilderConfig, ObjectConfig
from metta.mettagrid.registry import get_env_config
from metta.mettagrid.spec import EnvSpec
from metta.mettagrid.vec import VecEnv
from metta.mettagrid.worlds.arena import ARENA, ARENA_ACTIONS, BASIC
from metta.mettagrid.worlds.basics import actions, base_game, converter

EPISODE = 1000
"""Steps of an episode."""


@dataclass(frozen=True)
class Case:
    """One kind of world: an 11 by 11 window, 200 tokens, episodes of `EPISODE` steps.

    Attributes:
        name: what the command line calls it.
        about: what the report calls it.
        agents: agents in a world.
        size: rows and columns of the map.
        objects: what stands on it besides agents and the wall around; {}: the map of the arena's task with every converter.
        original: agent-steps per second that were reported of the original engine in C++ on one core.
        num_worlds: worlds that are stepped together.
        max_steps: steps of an episode.
    """

    name: str
    about: str
    agents: int
    size: int
    original: float
    objects: dict[str, int] = field(default_factory=dict)
    num_worlds: int = 32
    max_steps: int = EPISODE

    def config(self) -> EnvConfig:
        """The environment."""
        if not self.objects:
            return get_env_config(f"{ARENA}/advanced").with_overrides(max_steps=self.max_steps)
        return EnvConfig(
            game=base_game(num_agents=self.agents, max_steps=self.max_steps),
            objects=[
                ObjectConfig(type="wall", name="wall"),
                ObjectConfig(type="wall", name="block"),
                *(converter(name) for name in ("mine_red", "generator_red", "altar")),
            ],
            actions=actions(*ARENA_ACTIONS),
            map_builder=MapBuilderConfig(
                width=self.size, height=self.size, border_width=1, objects=dict(self.objects)
            ),
        )

    def with_worlds(self, num_worlds: int) -> Case:
        """The same with another number of worlds."""
        return replace(self, num_worlds=num_worlds)

    @property
    def num_agents(self) -> int:
        """Agents of all worlds."""
        return self.agents * self.num_worlds


CASES: dict[str, Case] = {
    "a": Case("a", "4 agents, 32x32", 4, 32, 345e3, BASIC),
    "b": Case("b", "64 agents, 64x64", 64, 64, 166e3, {name: 6 * count for name, count in BASIC.items()}),
    "c": Case("c", "24 agents, 25x25 arena", 24, 25, 283e3, BASIC),
    "d": Case("d", "24 agents, 62x62 arena, every converter", 24, 62, 140e3),
}
"""The cases by name."""

POOL = 2048
"""Places at which a batch of actions can begin: 16 KiB of them."""


class RandomActions:
    """An endless stream of valid actions: each kind equally likely, then each of its arguments.

    The batches are parts of one pool that begin at random places, so that no period shows and the pool stays as close to the
    processor as the actions that a policy has just written.

    Args:
        spec: the actions that there are.
        num_agents: rows of a batch.
        seed: of the stream.
    """

    def __init__(self, spec: EnvSpec, num_agents: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        most = np.array(spec.max_action_args)
        kinds = rng.integers(len(most), size=POOL + num_agents)
        self._pool = np.stack([kinds, rng.integers(most[kinds] + 1)], axis=1).astype(np.int32)
        self._places = rng.integers(POOL + 1, size=997).tolist()
        self._num_agents = num_agents
        self._at = 0

    def batch(self) -> npt.NDArray[np.int32]:
        """The next batch: int32 `[num_agents, 2]`, a view."""
        self._at = (self._at + 1) % len(self._places)
        place = self._places[self._at]
        return self._pool[place : place + self._num_agents]

    def __iter__(self) -> Iterator[npt.NDArray[np.int32]]:
        while True:
            yield self.batch()


def make_env(case: Case, *, num_threads: int = 1, num_workers: int = 0) -> tuple[VecEnv, RandomActions]:
    """The worlds of a case, at all phases of their episodes, and actions for them.

    One episode has gone by: each world has ended its first one, which was cut short somewhere, and is on its way in one of
    full length. From now on any `max_steps` steps end exactly one episode in each world.
    """
    env = VecEnv(
        case.config(), case.num_worlds, stagger=True, num_threads=num_threads, num_workers=num_workers
    )
    actions = RandomActions(env.spec, env.num_agents)
    for _ in range(case.max_steps):
        env.step(actions.batch())
    return env, actions
