"""What an experience refuses, and how it says so."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from metta.agent.policy import Policy
from metta.mettagrid.vec import VecEnv
from metta.rl.trainer_config import ExperienceConfig

if TYPE_CHECKING:
    from metta.rl.experience import Experience


def check_saved(experience: Experience, state: dict[str, Any]) -> None:
    """Refuse a state that does not fit, whatever part of it that is.

    Args:
        experience: is to go on from it; not changed.
        state: what `Experience.state_dict` gave once.

    Raises:
        ValueError: it does not fit.
    """
    present = experience.state_dict()
    segments: dict[str, torch.Tensor] = state.get("segments", {})
    missing = sorted(experience.stored(0, 0).keys() - segments.keys())
    if missing:
        raise ValueError(
            f"the saved experience lacks {', '.join(missing)}: it is damaged or was saved by another version; go on "
            "without it."
        )
    shape, tail = state["state_h"].shape, segments["observations"].shape[1:]
    if shape != present["state_h"].shape or tail != experience.observations.shape[1:]:
        raise ValueError(
            f"the saved experience has recurrent state {list(shape)} and segments {list(tail)}, this one "
            f"{list(present['state_h'].shape)} and {list(experience.observations.shape[1:])}: "
            "make agent, environment and ExperienceConfig as they were."
        )
    count = len(segments["starts"])
    if count > experience.num_segments:
        raise ValueError(
            f"the saved experience holds {count} segments, but batch_size={experience.config.batch_size} with "
            f"bptt_horizon={experience.horizon} makes only {experience.num_segments}: go on with the batch_size that it "
            f"was saved with, which is {count * experience.horizon} or more."
        )
    if state["action_generator"].shape != experience.action_generator.get_state().shape:
        raise ValueError(
            f"the saved experience drew its actions on another kind of device than this agent's {experience.device}: "
            "move the agent there, or go on without the saved experience."
        )
    own: dict[str, Any] = experience.stored(0, count)
    own |= {name: present[name] for name in ("state_c", "next_values", "fresh")}
    saved = {**state, **segments}
    for name, mine in own.items():
        if saved[name].shape != mine.shape:
            raise ValueError(
                f"the saved experience is damaged: its {name} is {list(saved[name].shape)} where the rest of it "
                f"makes {list(mine.shape)}; go on from another checkpoint."
            )


def check_devices(env: VecEnv, agent: Policy) -> None:
    """Refuse worlds on a GPU with an agent elsewhere: every step would be carried over.

    Raises:
        ValueError: they are apart.
    """
    shown: object = env.observations
    if isinstance(shown, torch.Tensor) and shown.device != agent.device:
        raise ValueError(
            f"env has its worlds on {shown.device} and the agent is on {agent.device}: put the agent there, or make env without "
            "device."
        )


def choose_storage_device(config: ExperienceConfig, agent_device: torch.device) -> torch.device:
    """Where a batch is to live.

    Raises:
        ValueError: `cpu_offload` with an agent on the CPU.
    """
    if not config.cpu_offload:
        return agent_device
    if agent_device.type == "cpu":
        raise ValueError(
            "cpu_offload=True keeps the batch in main memory while the agent is on an accelerator, but this agent is "
            "on the CPU: leave cpu_offload False or move the agent first."
        )
    return torch.device("cpu")


def indivisible(config: ExperienceConfig, num_rows: int) -> str:
    """What to say where the segments do not divide among the rows."""
    unit = math.lcm(num_rows * config.bptt_horizon, config.minibatch_size)
    nearest = max(1, round(config.batch_size / unit)) * unit
    return (
        f"batch_size={config.batch_size} with bptt_horizon={config.bptt_horizon} makes "
        f"{config.batch_size // config.bptt_horizon} segments, which the environment's {num_rows} agents cannot share "
        f"evenly: use batch_size={nearest} or another number of worlds."
    )
