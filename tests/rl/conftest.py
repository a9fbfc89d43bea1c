"""A small scripted environment with the face of `VecEnv`, and agents that fit it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.spec import EnvSpec, feature_table
from metta.mettagrid.vec import EpisodeOutcome, StepBatch
from metta.rl.experience import Experience
from metta.rl.trainer_config import ExperienceConfig

SPEC = EnvSpec(
    action_names=("left", "right"),
    max_action_args=(0, 1),
    features=feature_table(("ore",)),
    obs_height=3,
    obs_width=3,
    num_tokens=4,
    object_type_names=("agent", "wall"),
    item_names=("ore",),
)
CENTRE = 1 * 16 + 1


class ScriptedEnv:
    """Worlds whose episodes have random lengths and end by terminals or truncations, at different times.

    `memory=False`: the agent sees random tokens, is rewarded at random.
    `memory=True`: half of the episodes show a sign in their first observation, everything else looks the same for
    ever; the right action, rewarded with 1 at every step, is "right" in episodes with the sign and "left" in the
    others. Whoever carries its memory over an episode's end cannot know which one it is in.
    """

    def __init__(
        self,
        num_worlds: int = 4,
        agents_per_world: int = 2,
        *,
        seed: int = 0,
        memory: bool = False,
        lengths: tuple[int, int] = (1, 7),
        ends: tuple[str, ...] = ("terminal", "truncation"),
    ) -> None:
        self.spec = SPEC
        self.single_observation_space = SPEC.observation_space
        self.single_action_space = SPEC.action_space
        self.num_worlds = num_worlds
        self.agents_per_world = agents_per_world
        self.num_agents = num_worlds * agents_per_world
        self.memory = memory
        self.lengths = lengths
        self.ends = ends
        self.observations = np.full((self.num_agents, SPEC.num_tokens, 3), 255, dtype=np.uint8)
        self.starts = np.ones(self.num_agents, dtype=np.bool_)
        self.calls: list[tuple[slice | None, str]] = []
        self.reset(seed)

    def reset(self, seed: int | None = None) -> np.ndarray:
        if seed is not None:
            self.rngs = [np.random.default_rng((seed, world)) for world in range(self.num_worlds)]
        self.clock = np.zeros((self.num_worlds, 3), dtype=np.int64)  # time, length, sign
        self.returns = np.zeros((self.num_worlds, self.agents_per_world), dtype=np.float32)
        for world in range(self.num_worlds):
            self._begin(world)
        return self.observations

    def _rows(self, world: int) -> slice:
        return slice(world * self.agents_per_world, (world + 1) * self.agents_per_world)

    def _begin(self, world: int) -> None:
        rng = self.rngs[world]
        self.clock[world] = (
            0,
            rng.integers(self.lengths[0], self.lengths[1], endpoint=True),
            rng.integers(2),
        )
        self.returns[world] = 0
        self._look(world)
        self.starts[self._rows(world)] = True

    def _look(self, world: int) -> None:
        seen = self.observations[self._rows(world)]
        seen[:] = 255
        if self.memory:
            seen[:, 0] = (CENTRE, 0, 0)
            if self.clock[world, 0] == 0 and self.clock[world, 2]:
                seen[:, 1] = (0, 0, 1)
        else:
            for token, feature in enumerate((0, 2, 7)):
                seen[:, token, 0] = CENTRE + token
                seen[:, token, 1] = feature
                seen[:, token, 2] = self.rngs[world].integers(0, 2, self.agents_per_world)

    def step(self, actions: np.ndarray, worlds: slice | None = None) -> StepBatch:
        import threading

        self.calls.append((worlds, threading.current_thread().name))
        stepped = range(*(worlds or slice(None)).indices(self.num_worlds))
        agents = self.agents_per_world
        assert actions.shape == (len(stepped) * agents, 2)
        rows = slice(stepped.start * agents, stepped.stop * agents)
        rewards = np.zeros((len(stepped), agents), dtype=np.float32)
        terminals = np.zeros_like(rewards, dtype=np.bool_)
        truncations = np.zeros_like(terminals)
        final_rows, final_observations, episodes = [], [], []
        for i, world in enumerate(stepped):
            chosen = actions[i * agents : (i + 1) * agents, 0]
            if self.memory:
                rewards[i] = chosen == self.clock[world, 2]
            else:
                rewards[i] = self.rngs[world].normal(size=agents)
            self.returns[world] += rewards[i]
            self.clock[world, 0] += 1
            self.starts[self._rows(world)] = False
            self._look(world)
            if self.clock[world, 0] < self.clock[world, 1]:
                continue
            end = self.ends[int(self.rngs[world].integers(len(self.ends)))]
            (terminals if end == "terminal" else truncations)[i] = True
            final_rows += list(range(world * agents, (world + 1) * agents))
            final_observations.append(self.observations[self._rows(world)].copy())
            episodes.append(
                EpisodeOutcome(
                    world,
                    "scripted",
                    int(self.clock[world, 0]),
                    self.returns[world].copy(),
                    end == "truncation",
                    {},
                )
            )
            self._begin(world)
        return StepBatch(
            observations=self.observations[rows],
            rewards=rewards.reshape(-1),
            terminals=terminals.reshape(-1),
            truncations=truncations.reshape(-1),
            final_rows=np.array(final_rows, dtype=np.int64),
            final_terminals=terminals.reshape(-1)[np.array(final_rows, dtype=np.int64) - rows.start],
            final_observations=np.concatenate(final_observations)
            if final_observations
            else np.zeros((0, SPEC.num_tokens, 3), dtype=np.uint8),
            episodes=episodes,
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "rngs": [rng.bit_generator.state for rng in self.rngs],
            "clock": self.clock.copy(),
            "returns": self.returns.copy(),
            "observations": self.observations.copy(),
            "starts": self.starts.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved
        for name in ("clock", "returns", "observations", "starts"):
            getattr(self, name)[:] = state[name]


MakeAgent = Callable[..., MettaAgent]
MakeExperience = Callable[..., Experience]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_env() -> type[ScriptedEnv]:
    """Makes a `ScriptedEnv`."""
    return ScriptedEnv


@pytest.fixture
def make_agent() -> MakeAgent:
    """Makes a small agent for the scripted worlds; keywords are fields of its config."""

    def make(seed: int = 0, **fields: Any) -> MettaAgent:
        config = AgentModelConfig(
            **{"hidden_dim": 16, "backbone": "mlp", "analyze_weights_interval": 0, **fields}
        )
        return MettaAgent(SPEC, config, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def make_experience() -> MakeExperience:
    """Makes an experience of 8 segments of 8 steps per agent; keywords are fields of its config."""

    def make(env: ScriptedEnv, agent: MettaAgent, seed: int = 0, **fields: Any) -> Experience:
        sizes = {"batch_size": 64 * env.num_agents, "minibatch_size": 16 * env.num_agents, "bptt_horizon": 8}
        return Experience(env, agent, ExperienceConfig(**{**sizes, **fields}), seed)  # type: ignore[arg-type]

    return make
