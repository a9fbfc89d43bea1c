"""The tasks, and the settings of each learner on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import run
from benchmarks.learning.settings import Changes, changed
from examples.plain_ppo import PlainConfig
from metta.agent.config import AgentModelConfig
from metta.common.config import Config
from metta.rl.trainer_config import TrainerConfig


class MettaConfig(TrainerConfig):
    """What decides a run of the library's own functions.

    Attributes:
        agent: the network.
        num_worlds: worlds that are stepped; 0: so many that a batch is one segment of each agent, as `run.py` has it.
        bptt_horizon, batch_size, ...: as in `TrainerConfig`. `batch_size` is what is wished for: a batch is a whole number of
            segments for every agent, and has as many minibatches as the sizes wished for say.
    """

    agent: AgentModelConfig = AgentModelConfig()
    num_worlds: int = 0


class PufferConfig(Config):
    """PufferLib's own settings, by its names, with its defaults where nothing is said.

    Attributes:
        num_worlds: worlds; a row is an agent of one. PufferLib's batch is `bptt_horizon` steps of each row.
        optimizer: its default, "muon", needs the package heavyball.
        minibatch_size: at most; it is cut down to the batch.
    """

    num_worlds: int = 8
    hidden_dim: int = 128
    optimizer: str = "adam"
    anneal_lr: bool = True
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    update_epochs: int = 4
    clip_coef: float = 0.1
    vf_coef: float = 0.5
    vf_clip_coef: float = 0.1
    max_grad_norm: float = 0.5
    ent_coef: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_eps: float = 1e-5
    minibatch_size: int = 4096
    bptt_horizon: int = 64
    vtrace_rho_clip: float = 1.0
    vtrace_c_clip: float = 1.0
    prio_alpha: float = 0.8
    prio_beta0: float = 0.2


@dataclass(frozen=True)
class Task:
    """A world to learn, and how.

    Attributes:
        env: registered name of the world in which learners are judged, and trained unless they are told otherwise.
        steps: agent steps of a run.
        eval_episodes: whole episodes on fresh maps, before and after training.
        changes: by learner, where its settings differ from its usual ones.
    """

    env: str
    steps: int
    eval_episodes: int
    changes: dict[str, Changes] = field(default_factory=dict)


USUAL: dict[str, Config] = {
    "metta": MettaConfig(**(run.CONFIG.model_dump() | {"agent": run.AGENT})),
    "plain": PlainConfig(),
    "pufferlib": PufferConfig(),
}
"""Each learner's settings where a task says nothing else; Metta's are those of `run.py`."""

TASKS: dict[str, Task] = {
    "newcomer": Task(
        "/env/mettagrid/simple",
        4_500_000,
        128,
        {"plain": {"num_worlds": 64}, "pufferlib": {"num_worlds": 64}},
    ),
    "arena": Task("/env/mettagrid/arena/basic_easy_shaped", 5_000_000, 64),
    "navigation": Task(
        "/env/mettagrid/navigation/evals/walls_outofsight",
        2_000_000,
        256,
        {"plain": {"num_worlds": 64}, "pufferlib": {"num_worlds": 64}},
    ),
}

ITEMS = ("ore_red", "battery_red", "heart")
"""Whose gains are reported where a world has them."""


def settings_of(task: Task, learner: str, changes: Changes | None = None) -> Config:
    """The settings of a learner on a task, with some of them changed.

    Raises:
        ValueError: an unknown learner or setting, or values that do not fit together.
    """
    if learner not in USUAL:
        raise ValueError(f"learner is '{learner}'; it is one of {', '.join(USUAL)}.")
    base: dict[str, Any] = dict(task.changes.get(learner, {}))
    return changed(USUAL[learner], base | (changes or {}), learner)
