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
    """PufferLib's settings by its names, and with the values that it ships for MettaGrid (`config/metta.ini`; where that says
    nothing, `config/default.ini`), rounded. Its sizes there, batches of 786,432 steps in minibatches of 32,768, are for runs
    of 150 M steps; here a batch is `bptt_horizon` steps of each row.

    Attributes:
        num_worlds: worlds; a row is an agent of one.
        hidden_dim: width of the network, which is that of `examples/plain_ppo.py`.
        minibatch_size: agent steps; cut down to a batch that is smaller.
    """

    num_worlds: int = 8
    hidden_dim: int = 128
    optimizer: str = "muon"
    anneal_lr: bool = True
    learning_rate: float = 0.0034144
    gamma: float = 0.99705
    gae_lambda: float = 0.95484
    update_epochs: int = 1
    clip_coef: float = 0.48930
    vf_coef: float = 4.5969
    vf_clip_coef: float = 0.74799
    max_grad_norm: float = 4.1310
    ent_coef: float = 0.0021495
    adam_beta1: float = 0.95643
    adam_beta2: float = 0.99999
    adam_eps: float = 9.7835e-13
    minibatch_size: int = 1024
    bptt_horizon: int = 64
    vtrace_rho_clip: float = 1.0479
    vtrace_c_clip: float = 2.8594
    prio_alpha: float = 0.1
    prio_beta0: float = 0.64148


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
        {"plain": {"num_worlds": 16}, "pufferlib": {"num_worlds": 32}},
    ),
    "arena": Task("/env/mettagrid/arena/basic_easy_shaped", 5_000_000, 64),
    "navigation": Task(
        "/env/mettagrid/navigation/training/sparse_small",
        2_000_000,
        64,
        {"plain": {"num_worlds": 16}, "pufferlib": {"num_worlds": 32}},
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
