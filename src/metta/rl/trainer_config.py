"""Every training default, and nowhere else.

The classes are values: built with keywords, compared with `==`, changed by `model_copy(update=...)`.
An unknown field is refused.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from metta.common.config import Config


class OptimizerConfig(Config):
    """Which optimizer updates the weights, and how fast."""

    type: Literal["adam", "muon"] = Field(
        "adam",
        description="adam: Kingma & Ba 2015. muon: orthogonalised momentum for hidden matrices, Adam for the rest.",
    )
    learning_rate: float = Field(0.000457, gt=0, description="Step size of every group, Muon's included.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the first moment.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's decay of the second moment.")
    eps: float = Field(1e-12, gt=0, description="Adam's denominator offset.")
    weight_decay: float = Field(0, ge=0, description="L2 pull to zero (Adam), decoupled decay (Muon).")


class PPOConfig(Config):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    clip_coef: float = Field(0.1, gt=0, description="The ratio counts within [1 - clip_coef, 1 + clip_coef].")
    ent_coef: float = Field(0.0021, ge=0, description="Weight of the entropy bonus.")
    gae_lambda: float = Field(0.916, ge=0, le=1, description="GAE's trade of bias (0) for variance (1).")
    gamma: float = Field(0.977, ge=0, le=1, description="Discount per step.")

    max_grad_norm: float = Field(0.5, ge=0, description="Longest gradient of one update; 0 = no clipping.")
    vf_clip_coef: float = Field(0.1, gt=0, description="Furthest a value may move per batch (clip_vloss).")
    vf_coef: float = Field(0.44, ge=0, description="Weight of the value loss.")
    l2_reg_loss_coef: float = Field(0, ge=0, description="Weight of agent.l2_reg_loss(): pull to zero.")
    l2_init_loss_coef: float = Field(
        0, ge=0, description="Weight of agent.l2_init_loss(): pull to the reference weights."
    )

    norm_adv: bool = Field(
        True, description="Shift and scale each minibatch's advantages to mean 0, deviation 1."
    )
    norm_vloss: bool = Field(
        False,
        description="Divide the value loss by the variance of the minibatch's value targets, so that vf_coef means the same "
        "whatever the size of rewards.",
    )
    clip_vloss: bool = Field(True, description="Clip the value's change by vf_clip_coef.")
    target_kl: float | None = Field(
        None, gt=0, description="No further update of a batch once the policy has moved this far from it."
    )
    refresh_targets: bool = Field(
        False,
        description="Later passes over a batch start from advantages and value targets of the values as they are then.",
    )

    @model_validator(mode="after")
    def _used(self) -> PPOConfig:
        if not self.clip_vloss:
            self.refuse_idle(("vf_clip_coef",), "clip_vloss is False")
        if self.gamma == 0:
            self.refuse_idle(("gae_lambda",), "gamma is 0")
        return self


class ExperienceConfig(Config):
    """How much experience is collected, how it is cut, and how it is carried."""

    batch_size: int = Field(524288, gt=0, description="Agent steps per batch.")
    minibatch_size: int = Field(16384, gt=0, description="Agent steps per update; divides batch_size.")
    bptt_horizon: int = Field(64, gt=0, description="Steps per segment, the unit of recurrent training.")
    update_epochs: int = Field(
        1, gt=0, description="Passes over a batch, unless train_ppo is told otherwise."
    )

    zero_copy: bool = Field(
        True, description="The agent reads the environment's own buffer; False: a private copy of it."
    )
    cpu_offload: bool = Field(
        False, description="The batch stays in main memory while the agent is on an accelerator."
    )
    async_factor: int = Field(
        2, gt=0, description="Groups of worlds: one is stepped while the agent acts for another; 1 = in turn."
    )
    forward_pass_minibatch_target_size: int = Field(
        4096, gt=0, description="Most agents per inference call while collecting."
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> ExperienceConfig:
        batch, minibatch, horizon = self.batch_size, self.minibatch_size, self.bptt_horizon
        if batch % minibatch:
            raise ValueError(
                f"minibatch_size={minibatch} does not divide batch_size={batch}: "
                f"use batch_size={_nearest_multiple(batch, minibatch)} or a minibatch_size that divides it."
            )
        if minibatch % horizon:
            raise ValueError(
                f"bptt_horizon={horizon} does not divide minibatch_size={minibatch}: a minibatch is made of whole "
                f"segments, so use minibatch_size={_nearest_multiple(minibatch, horizon)} or a horizon that divides it."
            )
        return self


def due(epoch: int, interval: int) -> bool:
    """Whether it is time for something that happens every so often: what all the intervals below mean.

    Args:
        epoch: batches trained on so far, or whatever else the loop counts in.
        interval: as configured; 0 = never.

    Returns:
        Whether `epoch` is a multiple of the interval; 0 is one.

    Raises:
        ValueError: a negative interval.
    """
    if interval < 0:
        raise ValueError(f"interval={interval}; give the epochs from one time to the next, or 0 for never.")
    return interval > 0 and epoch % interval == 0


class CheckpointConfig(Config):
    """When a run saves, and where.

    The intervals count in whatever unit the loop passes to `save_checkpoint` and `due`: the documented loops count
    epochs (one batch each). 0 = never, unless forced.
    """

    checkpoint_interval: int = Field(60, ge=0, description="Between saved checkpoints.")
    wandb_checkpoint_interval: int = Field(300, ge=0, description="Between uploads to Weights & Biases.")
    checkpoint_dir: str = Field("", description='Folder of the checkpoints; "" is the current one.')


class SimulationConfig(Config):
    """When a run evaluates and records replays; units as in `CheckpointConfig`."""

    evaluate_interval: int = Field(300, ge=0, description="Between evaluations.")
    replay_interval: int = Field(300, ge=0, description="Between saved replays.")
    replay_dir: str = Field("", description='Folder of the replays; "" is the current one.')


class PrioritizedExperienceReplayConfig(Config):
    """Which segments of a batch are trained on (Schaul et al. 2016, arXiv:1511.05952); read by `Experience.sample_minibatch`.

    A segment's priority is the mean size of its advantages. It is drawn with a probability proportional to
    `priority ** prio_alpha`, and its part of the loss is weighted with `(1 / probability) ** beta` to make up for that.
    """

    prio_alpha: float = Field(0.0, ge=0, description="0: all alike, each once in a pass; 1: in proportion.")
    prio_beta0: float = Field(
        0.6, ge=0, le=1, description="beta at first; it rises to 1 at the end of the run."
    )

    @model_validator(mode="after")
    def _used(self) -> PrioritizedExperienceReplayConfig:
        if self.prio_alpha == 0:
            self.refuse_idle(("prio_beta0",), "prio_alpha is 0")
        return self


class VTraceConfig(Config):
    """How far the importance ratio counts (Espeholt et al. 2018, arXiv:1802.01561); see `compute_advantage`."""

    vtrace_rho_clip: float = Field(1.0, gt=0, description="Largest weight of a surprise.")
    vtrace_c_clip: float = Field(
        1.0, gt=0, description="Largest weight with which later surprises reach back."
    )


class KickstartTeacherConfig(Config):
    """One teacher and the weight of its terms; see `KickstartConfig`."""

    teacher_uri: str = Field(
        description="A saved policy: a path, or what PolicyStore.policy_record understands."
    )
    action_loss_coef: float = Field(1, ge=0, description="Weight of the divergence from its actions.")
    value_loss_coef: float = Field(1, ge=0, description="Weight of the distance from its values.")

    @model_validator(mode="after")
    def _teaches(self) -> KickstartTeacherConfig:
        _refuse_silence(self.teacher_uri, self.action_loss_coef, self.value_loss_coef)
        return self


class KickstartConfig(Config):
    """Learning from teachers at first (Schmitt et al. 2018, arXiv:1803.03835); read by `Kickstarter`.

    All weights stay whole for the first `(1 - anneal_ratio) * kickstart_steps` agent steps of the run, then fall
    linearly to reach 0 at `kickstart_steps`, from where on the teachers are silent.
    """

    teacher_uri: str | None = Field(
        None, description="The teacher, as in KickstartTeacherConfig; None: no such one."
    )
    action_loss_coef: float = Field(1, ge=0, description="Weight of the divergence from its actions.")
    value_loss_coef: float = Field(1, ge=0, description="Weight of the distance from its values.")
    anneal_ratio: float = Field(
        0.65, ge=0, le=1, description="Share of kickstart_steps over which they fall."
    )
    kickstart_steps: int = Field(
        1_000_000_000, gt=0, description="Agent steps after which the teachers are silent."
    )
    additional_teachers: list[KickstartTeacherConfig] = Field(
        default_factory=list, description="Teachers besides teacher_uri, with weights of their own."
    )

    @model_validator(mode="after")
    def _used(self) -> KickstartConfig:
        if self.teacher_uri is None:
            self.refuse_idle(("action_loss_coef", "value_loss_coef"), "teacher_uri is None")
        else:
            _refuse_silence(self.teacher_uri, self.action_loss_coef, self.value_loss_coef)
        if not self.teachers:
            self.refuse_idle(("anneal_ratio", "kickstart_steps"), "there is no teacher")
        return self

    @property
    def teachers(self) -> list[KickstartTeacherConfig]:
        """All of them."""
        first = []
        if self.teacher_uri is not None:
            first = [
                KickstartTeacherConfig(
                    teacher_uri=self.teacher_uri,
                    action_loss_coef=self.action_loss_coef,
                    value_loss_coef=self.value_loss_coef,
                )
            ]
        return first + self.additional_teachers


def _refuse_silence(teacher_uri: str, action_loss_coef: float, value_loss_coef: float) -> None:
    if action_loss_coef == value_loss_coef == 0:
        raise ValueError(
            f"the teacher {teacher_uri} has action_loss_coef=0 and value_loss_coef=0, so it would teach nothing: give it a "
            "weight, or drop it."
        )


class InitialPolicyConfig(Config):
    """Which saved policy a run starts from; read by `load_initial_policy`."""

    uri: str | None = Field(
        None, description="A policy or a folder of them, for PolicyStore; None: a new agent."
    )
    type: Literal["latest", "top"] = Field(
        "latest", description="Which of a folder: the newest, or the best."
    )
    metric: str = Field("score", description="What is best: a number in the policies' metadata.")

    @model_validator(mode="after")
    def _used(self) -> InitialPolicyConfig:
        if self.uri is None:
            self.refuse_idle(("type", "metric"), "uri is None")
        if self.type == "latest":
            self.refuse_idle(("metric",), "type is 'latest'")
        return self


class TorchProfilerConfig(Config):
    """When a run profiles itself, and where; read by `TorchProfiler`."""

    interval_epochs: int = Field(0, ge=0, description="Between profiled epochs, as in `due`; 0 = never.")
    profile_dir: str = Field("", description='Folder of the profiles; "" is the current one.')


Scheduled = Literal[
    "clip_coef", "ent_coef", "vf_clip_coef", "vf_coef", "l2_reg_loss_coef", "l2_init_loss_coef"
]
"""The numbers of `PPOConfig` that may change while a run goes on."""


class ScheduleConfig(Config):
    """How a number of `PPOConfig` goes from its own value to another over a run."""

    end: float = Field(ge=0, description="Where it goes.")
    shape: Literal["linear", "cosine", "exponential"] = Field(
        "linear", description="Of the way: even steps, slow at both ends, or even factors."
    )
    start_at: float = Field(0.0, ge=0, lt=1, description="Share of total_timesteps up to which it stays.")
    end_at: float = Field(1.0, gt=0, le=1, description="Share of total_timesteps from which on it is there.")

    @model_validator(mode="after")
    def _goes_forward(self) -> ScheduleConfig:
        if self.start_at >= self.end_at:
            raise ValueError(
                f"start_at={self.start_at:g} is not before end_at={self.end_at:g}: leave the number time to change."
            )
        return self

    def at(self, start: float, progress: float) -> float:
        """The number after a share of the run.

        Args:
            start: its own value.
            progress: agent steps so far, in `total_timesteps`.
        """
        way = min(max((progress - self.start_at) / (self.end_at - self.start_at), 0.0), 1.0)
        if self.shape == "exponential":
            return float(start ** (1 - way) * self.end**way)
        if self.shape == "cosine":
            way = 0.5 * (1 - math.cos(math.pi * way))
        return start + (self.end - start) * way


class TrainerConfig(ExperienceConfig):
    """A whole training run: the sizes of `ExperienceConfig`, and a config for each part.

    It stands wherever an `ExperienceConfig` is asked for.
    """

    total_timesteps: int = Field(
        10_000_000, gt=0, description="Agent steps of the run; also the clock of the schedules."
    )
    anneal_lr: bool = Field(True, description="Whether the learning rate falls to 0; see make_lr_scheduler.")
    lr_schedule: Literal["linear", "cosine"] = Field("linear", description="Shape of its way down.")
    warmup_steps: int = Field(0, ge=0, description="Agent steps over which the rate first rises.")

    compile: bool = Field(
        False,
        description="Minibatches go through a network that torch.compile compiled; see metta.agent.compiled.",
    )

    ppo: PPOConfig = PPOConfig()
    schedules: dict[Scheduled, ScheduleConfig] = Field(
        default_factory=dict, description="What of `ppo` changes over the run, by its name."
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    simulation: SimulationConfig = SimulationConfig()
    prioritized_experience_replay: PrioritizedExperienceReplayConfig = PrioritizedExperienceReplayConfig()
    vtrace: VTraceConfig | None = Field(
        VTraceConfig(), description="Correct advantages for the policy's change; None: they stay as computed."
    )
    kickstart: KickstartConfig = KickstartConfig()
    initial_policy: InitialPolicyConfig = InitialPolicyConfig()
    profiler: TorchProfilerConfig = TorchProfilerConfig()

    @model_validator(mode="after")
    def _schedules_fit(self) -> TrainerConfig:
        if not self.anneal_lr:
            self.refuse_idle(("lr_schedule", "warmup_steps"), "anneal_lr is False")
        if self.warmup_steps >= self.total_timesteps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} is the whole run of total_timesteps={self.total_timesteps}: warm up for "
                "less."
            )
        for name, schedule in self.schedules.items():
            start = getattr(self.ppo, name)
            if schedule.shape == "exponential" and 0 in (start, schedule.end):
                raise ValueError(
                    f"the schedule of {name} goes from {start:g} to {schedule.end:g} by even factors, which 0 has none of: take "
                    "a shape of 'linear' or 'cosine', or a small number for 0."
                )
            if name in ("clip_coef", "vf_clip_coef") and schedule.end == 0:
                raise ValueError(
                    f"the schedule of {name} ends at 0, where nothing could be learned: end above 0."
                )
            if name == "vf_clip_coef" and not self.ppo.clip_vloss:
                raise ValueError(
                    "ppo.clip_vloss is False, so a schedule of vf_clip_coef would change nothing: drop it."
                )
        return self

    @model_validator(mode="after")
    def _minibatches_teach(self) -> TrainerConfig:
        if self.minibatch_size == 1 and self.ppo.norm_adv:
            raise ValueError(
                "minibatch_size=1 with ppo.norm_adv: the advantage of a single step, shifted to mean 0, is 0, and nothing would "
                "be learned of actions: take larger minibatches, or norm_adv=False."
            )
        return self

    def ppo_at(self, agent_step: int) -> PPOConfig:
        """`ppo` with the numbers that its `schedules` give for a time; `train_ppo` and `process_minibatch_update` use it.

        Args:
            agent_step: agent steps of the run so far.
        """
        if not self.schedules:
            return self.ppo
        progress = agent_step / self.total_timesteps
        numbers = {str(name): s.at(getattr(self.ppo, name), progress) for name, s in self.schedules.items()}
        return self.ppo.model_copy(update=numbers)


def _nearest_multiple(number: int, of: int) -> int:
    return max(1, round(number / of)) * of
