"""Learners: each collects a batch and learns from it, whenever it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch

from benchmarks.learning.tasks import MettaConfig, PufferConfig
from examples.plain_ppo import PlainConfig, PlainPPO
from metta import api
from metta.agent.outputs import ActOutput
from metta.agent.policy import Policy
from metta.agent.state import PolicyState
from metta.common.config import Config
from metta.mettagrid.outcomes import EpisodeOutcome
from metta.mettagrid.spec import EnvSpec
from metta.mettagrid.vec import VecEnv


@dataclass
class Progress:
    """What came of a batch.

    Attributes:
        steps: agent steps.
        episodes: that ended.
        losses: numbers of the update, by name.
    """

    steps: int
    episodes: list[EpisodeOutcome]
    losses: dict[str, float] = field(default_factory=dict)


class Learner(Protocol):
    """A policy that is being trained in worlds of its own."""

    def advance(self) -> Progress:
        """Collect a batch and learn from it."""
        ...

    def policy(self) -> Policy:
        """What it has learned so far: a policy that plays; it need not be able to do more."""
        ...

    def num_weights(self) -> int:
        """Numbers that are trained."""
        ...

    def close(self) -> None:
        """End its worlds."""
        ...


MakeLearner = Callable[[str, Config, int, int], Learner]
"""Registered name of the world, settings, agent steps of the run, seed."""


class MettaLearner:
    """The library's own functions, as `run.py` calls them."""

    def __init__(self, env: str, config: MettaConfig, steps: int, seed: int) -> None:
        num_agents = api.make_curriculum(env).tasks[0].config.game.num_agents
        num_worlds, sizes = batch_sizes(config, num_agents)
        given = config.model_dump(exclude={"agent", "num_worlds"}) | sizes | {"total_timesteps": steps}
        self.config = api.TrainerConfig.model_validate(given)
        self.worlds = api.Environment(
            curriculum_path=env,
            num_envs=num_worlds,
            num_workers=1,
            vectorization="serial",
            seed=api.split_seed(seed),
        )
        start = api.load_initial_policy(self.config.initial_policy, torch.device("cpu"), self.worlds.spec)
        self.agent = start or api.Agent(self.worlds, config.agent)
        self.optimizer = api.make_optimizer(self.agent, self.config.optimizer)
        clock = (steps, self.config.batch_size, self.config.warmup_steps)
        self.scheduler = api.make_lr_scheduler(
            self.optimizer, *clock, self.config.lr_schedule, self.config.anneal_lr
        )
        self.experience = api.Experience(self.worlds, self.agent, self.config, seed=api.split_seed(seed))
        self.kickstarter = api.Kickstarter(self.config.kickstart, torch.device("cpu"))
        self.agent_step = 0

    def advance(self) -> Progress:
        """See `Learner`."""
        config = self.config
        batch = api.rollout(self.experience, self.agent)
        api.compute_advantages(self.experience, config.ppo.gamma, config.ppo.gae_lambda)
        losses = api.train_ppo(
            self.agent,
            self.optimizer,
            self.experience,
            trainer_cfg=config,
            kickstarter=self.kickstarter,
            agent_step=self.agent_step,
        )
        if self.scheduler is not None:
            self.scheduler.step()
        self.agent_step += batch.total_env_steps
        return Progress(batch.total_env_steps, batch.episodes, losses)

    def policy(self) -> Policy:
        """See `Learner`."""
        return self.agent

    def num_weights(self) -> int:
        """See `Learner`."""
        return sum(weights.numel() for weights in self.agent.parameters())

    def close(self) -> None:
        """See `Learner`."""
        self.worlds.close()


def batch_sizes(config: MettaConfig, num_agents: int) -> tuple[int, dict[str, int]]:
    """Worlds, and sizes that are possible with so many agents in each; without `num_worlds` those of `run.py`.

    Raises:
        ValueError: a batch cannot be cut into so many minibatches.
    """
    parts = config.batch_size // config.minibatch_size
    segments = config.batch_size // config.bptt_horizon
    num_worlds = config.num_worlds or max(parts, segments // num_agents // parts * parts)
    rows = num_worlds * num_agents
    chunks = max(1, round(segments / rows)) if config.num_worlds else 1
    if rows * chunks % parts:
        raise ValueError(
            f"{rows * chunks} segments of {rows} agents cannot be cut into {parts} minibatches: take another num_worlds, or "
            "another ratio of batch_size to minibatch_size."
        )
    batch_size = rows * chunks * config.bptt_horizon
    return num_worlds, {"batch_size": batch_size, "minibatch_size": batch_size // parts}


class PlainLearner:
    """`examples/plain_ppo.py`."""

    def __init__(self, env: str, config: PlainConfig, steps: int, seed: int) -> None:
        self.worlds = VecEnv(api.make_curriculum(env), config.num_worlds, seed=seed, stagger=True)
        self.ppo = PlainPPO(self.worlds, config, steps)

    def advance(self) -> Progress:
        """See `Learner`."""
        episodes = self.ppo.advance()
        return Progress(self.ppo.batch_size, episodes)

    def policy(self) -> Policy:
        """See `Learner`."""

        def step(tokens: torch.Tensor, state: PolicyState) -> tuple[torch.Tensor, torch.Tensor, PolicyState]:
            starts = torch.zeros(1, len(tokens), dtype=torch.bool)
            choice, values, (h, c) = self.ppo.net(tokens.unsqueeze(0), (state.h, state.c), starts)
            return choice.logits[0], values[0], PolicyState(h, c)

        return as_policy(step, self.worlds.spec, self.ppo.config.hidden_dim)

    def num_weights(self) -> int:
        """See `Learner`."""
        return sum(weights.numel() for weights in self.ppo.net.parameters())

    def close(self) -> None:
        """See `Learner`."""
        self.worlds.close()


Step = Callable[[torch.Tensor, PolicyState], tuple[torch.Tensor, torch.Tensor, PolicyState]]
"""One tick: tokens uint8 `[N, K, 3]` and memory to logits `[N, actions]`, values `[N]` and memory."""


def as_policy(step: Step, spec: EnvSpec, hidden_dim: int) -> Policy:
    """A network as a policy that plays episodes; it can do nothing else, which is all that an evaluation asks for."""
    return cast(Policy, Player(step, spec, hidden_dim))


class Player:
    """See `as_policy`; its methods are those of `metta.agent.policy.Policy`."""

    device = torch.device("cpu")
    training = False

    def __init__(self, step: Step, spec: EnvSpec, hidden_dim: int) -> None:
        self.step, self.spec, self.hidden_dim = step, spec, hidden_dim
        self.legal = torch.tensor(spec.legal_actions)

    def initial_state(self, batch_size: int) -> PolicyState:
        """An empty memory."""
        return PolicyState.zeros(1, batch_size, self.hidden_dim)

    def act(
        self,
        obs: torch.Tensor,
        state: PolicyState,
        starts: torch.Tensor | None = None,
        *,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActOutput:
        """Choose an action for each row."""
        if starts is not None:
            state = state.zeroed(starts)
        logits, values, state = self.step(obs, state)
        logprobs = logits.log_softmax(-1)
        chosen = torch.multinomial(logprobs.exp(), 1, generator=generator)
        if deterministic:
            chosen = logits.argmax(-1, keepdim=True)
        return ActOutput(self.legal[chosen[:, 0]], logprobs.gather(1, chosen)[:, 0], values, state)

    def train(self, mode: bool = True) -> Player:
        """Note it; nothing depends on it."""
        self.training = mode
        return self

    def eval(self) -> Player:
        """The other way."""
        return self.train(False)


def make_metta(env: str, config: Config, steps: int, seed: int) -> Learner:
    """`MettaLearner`."""
    assert isinstance(config, MettaConfig)
    return MettaLearner(env, config, steps, seed)


def make_plain(env: str, config: Config, steps: int, seed: int) -> Learner:
    """`PlainLearner`."""
    assert isinstance(config, PlainConfig)
    return PlainLearner(env, config, steps, seed)


def make_pufferlib(env: str, config: Config, steps: int, seed: int) -> Learner:
    """`PufferLearner`, if PufferLib is installed."""
    from benchmarks.learning.puffer import PufferLearner

    assert isinstance(config, PufferConfig)
    return PufferLearner(env, config, steps, seed)


LEARNERS: dict[str, MakeLearner] = {"metta": make_metta, "plain": make_plain, "pufferlib": make_pufferlib}
"""By name."""
