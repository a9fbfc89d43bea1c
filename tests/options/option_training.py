"""Options of training: the weights after two batches, how they came about, and what the run did on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_store import PolicyStore
from metta.mettagrid.vec import VecEnv
from metta.rl.advantage import compute_advantage, compute_advantages
from metta.rl.experience import Experience
from metta.rl.initial_policy import load_initial_policy
from metta.rl.kickstarter import Kickstarter
from metta.rl.losses import Losses, process_minibatch_update
from metta.rl.optimizer import Optimizer, make_lr_scheduler, make_optimizer
from metta.rl.rollout import rollout
from metta.rl.trainer_config import (
    ExperienceConfig,
    InitialPolicyConfig,
    KickstartConfig,
    KickstartTeacherConfig,
    OptimizerConfig,
    PPOConfig,
    PrioritizedExperienceReplayConfig,
    ScheduleConfig,
    TrainerConfig,
    VTraceConfig,
)
from metta.rl.update import train_ppo
from option_schema import Kind, Other, Probe, Refused, other
from tiny_run import NETWORK, SIZES, WORLD

FAST = {**SIZES, "optimizer": OptimizerConfig(learning_rate=0.03)}
"""So fast that what holds updates back has something to hold."""
NUM_BATCHES = 2
TEACHERS = ("teacher_a.pt", "teacher_b.pt")


def make_agent(env: VecEnv, seed: int = 0) -> MettaAgent:
    """An agent with opinions: an untrained one is so close to uniform that clips never bite."""
    agent = MettaAgent(env.spec, NETWORK, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        agent.action_head.layers[-1].weight.mul_(30)
    return agent


def save_teachers() -> None:
    """Two policies in the current folder, the first with the better score, the second with the better speed."""
    env = VecEnv(WORLD, 1)
    for number, name in enumerate(TEACHERS):
        notes = {"score": 5.0 - number, "speed": 1.0 + number}
        PolicyStore(".").save(make_agent(env, 5 + number), number, notes, file_name=name)


class Run:
    """A run as the documents describe it, and notes of what it did."""

    def __init__(self, config: TrainerConfig) -> None:
        self.config = config
        self.env = VecEnv(WORLD, 4, seed=1)
        self.agent = load_initial_policy(config.initial_policy, "cpu", self.env.spec) or make_agent(self.env)
        self.kickstarter = Kickstarter(config.kickstart, "cpu")
        self.notes: list[Any] = []
        self._watch()
        self.experience = Experience(self.env, self.agent, config, seed=2)

    def _watch(self) -> None:
        act, step = self.agent.act, self.env.step
        live = self.env.observations.ctypes.data

        def noted_act(obs: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            own = 0 <= obs.data_ptr() - live < self.env.observations.nbytes
            self.notes.append((len(obs), own))
            return act(obs, *args, **kwargs)

        def noted_step(actions: Any, worlds: slice | None = None) -> Any:
            self.notes.append(str(worlds))
            return step(actions, worlds)

        self.agent.act = noted_act  # type: ignore[method-assign]
        self.env.step = noted_step  # type: ignore[method-assign]

    def schedule(self, optimizer: torch.optim.Optimizer) -> Any:
        config = self.config
        return make_lr_scheduler(
            optimizer,
            config.total_timesteps,
            config.batch_size,
            config.warmup_steps,
            config.lr_schedule,
            config.anneal_lr,
        )

    def told(self) -> list[Any]:
        """What two runs are compared by. The order of notes from two threads is not theirs to decide."""
        weights = [p.detach().numpy().tobytes() for p in self.agent.parameters()]
        return [*weights, sorted(map(str, self.notes))]


def trained(config: TrainerConfig) -> list[Any]:
    """A run of `rollout` and `train_ppo`, as run.py has it."""
    run = Run(config)
    optimizer = make_optimizer(run.agent, config.optimizer)
    scheduler = run.schedule(optimizer)
    agent_step = 0
    for _ in range(NUM_BATCHES):
        batch = rollout(run.experience, run.agent)
        compute_advantages(run.experience, config.ppo.gamma, config.ppo.gae_lambda)
        stats = train_ppo(
            run.agent,
            optimizer,
            run.experience,
            trainer_cfg=config,
            kickstarter=run.kickstarter,
            agent_step=agent_step,
        )
        run.notes.append((stats["learning_rate"], stats["updates"]))
        if scheduler is not None:
            scheduler.step()
        agent_step += batch.total_env_steps
    return run.told()


def looped(config: TrainerConfig) -> list[Any]:
    """A run of the documented loop: `compute_advantage`, `process_minibatch_update` and `Optimizer.step`."""
    run = Run(config)
    options = config.optimizer
    optimizer = Optimizer(
        options.type,
        policy=run.agent,
        learning_rate=options.learning_rate,
        betas=(options.beta1, options.beta2),
        eps=options.eps,
        weight_decay=options.weight_decay,
        max_grad_norm=config.ppo.max_grad_norm,
    )
    scheduler = run.schedule(optimizer)
    experience, agent_step = run.experience, 0
    for epoch in range(NUM_BATCHES):
        batch = rollout(experience, run.agent)
        losses = Losses()
        for _ in range(config.update_epochs):
            advantages = compute_advantage(
                experience.values,
                experience.rewards,
                experience.dones,
                torch.ones_like(experience.values),
                torch.zeros_like(experience.values),
                config.ppo.gamma,
                config.ppo.gae_lambda,
                truncation_values=experience.truncation_values,
                bootstrap_values=experience.following_values(),
            )
            for minibatch in experience.minibatches(advantages, config, agent_step):
                loss = process_minibatch_update(
                    run.agent,
                    experience,
                    minibatch,
                    advantages,
                    config,
                    run.kickstarter,
                    agent_step,
                    losses,
                    "cpu",
                )
                if losses.exceeds(config.ppo.target_kl):
                    break
                run.notes.append(optimizer.step(loss, epoch)["learning_rate"])
        if scheduler is not None:
            scheduler.step()
        agent_step += batch.total_env_steps
    return run.told()


def graphs_called(run: Callable[[TrainerConfig], list[Any]]) -> Callable[[TrainerConfig], int]:
    """How often a run calls what it had torch compile; tests/agent/test_compiled.py really compiles."""

    def count(config: TrainerConfig) -> int:
        calls = 0

        def compiled(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
            def called(*arguments: Any) -> Any:
                nonlocal calls
                calls += 1
                return function(*arguments)

            return called

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "compile", compiled)
            run(config)
        return calls

    count.__name__ = f"graphs_called in {run.__name__}"
    return count


def trained_by_sizes(config: ExperienceConfig) -> list[Any]:
    """A run with the sizes alone."""
    return trained(TrainerConfig(**{**config.model_dump(), "total_timesteps": 512}))


def part(name: str) -> tuple[Any, Any]:
    """Both runs with one part of the configuration."""

    def trained_with(config: Any) -> list[Any]:
        return trained(TrainerConfig(**{**FAST, name: config}))

    def looped_with(config: Any) -> list[Any]:
        return looped(TrainerConfig(**{**FAST, name: config}))

    return trained_with, looped_with


def trained_with_ppo_alone(config: PPOConfig) -> list[Any]:
    """`train_ppo` as the typed document calls it."""
    run = Run(TrainerConfig(**SIZES))
    rollout(run.experience, run.agent)
    train_ppo(run.agent, make_optimizer(run.agent, FAST["optimizer"]), run.experience, config)
    return run.told()


def scheduled(config: ScheduleConfig) -> list[Any]:
    """Every number that can be scheduled, together."""
    return trained(
        TrainerConfig(**{**SIZES, "ppo": SCHEDULED, "schedules": dict.fromkeys(SCHEDULED, config)})
    )


def scheduled_in_the_loop(config: ScheduleConfig) -> list[Any]:
    """The documented loop with the same."""
    return looped(TrainerConfig(**{**SIZES, "ppo": SCHEDULED, "schedules": dict.fromkeys(SCHEDULED, config)}))


def weights_at_first(config: InitialPolicyConfig) -> list[Any]:
    agent = load_initial_policy(config, "cpu", VecEnv(WORLD, 1).spec)
    return [] if agent is None else [p.detach().numpy().tobytes() for p in agent.parameters()]


def taught_by(config: KickstartTeacherConfig) -> list[Any]:
    return part("kickstart")[0](KickstartConfig(additional_teachers=[config]))


EXPERIENCE = {
    "batch_size": other(128),
    "minibatch_size": other(64),
    "bptt_horizon": other(4),
    "update_epochs": other(1),
    "zero_copy": other(False),
    "cpu_offload": other(Refused(True, "this agent is on the CPU")),
    "async_factor": other(1, 4),
    "forward_pass_minibatch_target_size": other(3),
}
SCHEDULED = {"ent_coef": 0.01, "clip_coef": 0.01, "vf_clip_coef": 0.01, "vf_coef": 0.01}
KICKSTART: dict[str, Any] = {"teacher_uri": TEACHERS[0], "kickstart_steps": 80, "anneal_ratio": 0.5}

PROBES: dict[Kind, Probe] = {
    ExperienceConfig: Probe(
        (trained_by_sizes,), EXPERIENCE, {k: v for k, v in SIZES.items() if k != "total_timesteps"}
    ),
    TrainerConfig: Probe(
        (trained, looped),
        {
            **EXPERIENCE,
            "total_timesteps": other(1024),
            "anneal_lr": other(False),
            "lr_schedule": other("cosine"),
            "warmup_steps": other(128),
            "compile": Other((True,), sees=(graphs_called(trained), graphs_called(looped))),
            "ppo": other(PPOConfig(gamma=0.5)),
            "schedules": other({"ent_coef": ScheduleConfig(end=0.5)}),
            "optimizer": other(OptimizerConfig(learning_rate=0.01)),
            "prioritized_experience_replay": other(PrioritizedExperienceReplayConfig(prio_alpha=1)),
            "vtrace": other(None, VTraceConfig(vtrace_rho_clip=0.5)),
            "kickstart": other(KickstartConfig(teacher_uri=TEACHERS[0])),
            "initial_policy": other(InitialPolicyConfig(uri=TEACHERS[0])),
        },
        SIZES,
    ),
    PPOConfig: Probe(
        (*part("ppo"), trained_with_ppo_alone),
        {
            "clip_coef": other(0.0001),
            "ent_coef": other(0.1),
            "gae_lambda": other(0.5),
            "gamma": other(0.5),
            "max_grad_norm": other(0, 0.01, max_grad_norm=0.001),
            "vf_clip_coef": other(0.0001),
            "refresh_targets": other(True),
            "vf_coef": other(2.0),
            "l2_reg_loss_coef": other(1.0),
            "l2_init_loss_coef": other(1.0),
            "norm_adv": other(False),
            "norm_vloss": other(True),
            "clip_vloss": other(False),
            "target_kl": other(1e-6),
        },
    ),
    ScheduleConfig: Probe(
        (scheduled, scheduled_in_the_loop),
        {
            "end": other(0.2),
            "shape": other("cosine", "exponential"),
            "start_at": other(0.05),
            "end_at": other(0.5),
        },
        {"end": 0.5},
    ),
    OptimizerConfig: Probe(
        part("optimizer"),
        {
            "type": other("muon"),
            "learning_rate": other(0.02),
            "beta1": other(0.5),
            "beta2": other(0.9),
            "eps": other(0.1),
            "weight_decay": other(0.5),
        },
    ),
    PrioritizedExperienceReplayConfig: Probe(
        part("prioritized_experience_replay"),
        {"prio_alpha": other(1.0), "prio_beta0": other(0.1, prio_alpha=1.0)},
    ),
    VTraceConfig: Probe(part("vtrace"), {"vtrace_rho_clip": other(0.9), "vtrace_c_clip": other(0.9)}),
    KickstartConfig: Probe(
        part("kickstart"),
        {
            "teacher_uri": other(TEACHERS[1], None, additional_teachers=[{"teacher_uri": TEACHERS[1]}]),
            "action_loss_coef": other(0.5),
            "value_loss_coef": other(0.5),
            "anneal_ratio": other(0.9),
            "kickstart_steps": other(75),
            "additional_teachers": other([KickstartTeacherConfig(teacher_uri=TEACHERS[1])]),
        },
        KICKSTART,
    ),
    KickstartTeacherConfig: Probe(
        (taught_by,),
        {"teacher_uri": other(TEACHERS[1]), "action_loss_coef": other(0.5), "value_loss_coef": other(0.5)},
        {"teacher_uri": TEACHERS[0]},
    ),
    InitialPolicyConfig: Probe(
        (weights_at_first,),
        {
            "uri": other(TEACHERS[0], None),
            "type": other("top"),
            "metric": other("speed", type="top"),
        },
        {"uri": "."},
    ),
}
