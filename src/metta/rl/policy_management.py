"""The policy that a run trains: where it comes from, and how several processes share it."""

from __future__ import annotations

import torch

from metta.agent.metta_agent import MettaAgent
from metta.agent.policy import Policy
from metta.rl.distributed import DistributedAgent, is_distributed


def wrap_agent_distributed(agent: MettaAgent, device: torch.device | str) -> Policy:
    """Make an agent one that several processes train together.

    Args:
        agent: made alike in every process; moved to the device. Its weights become rank 0's.
        device: where this process trains; a `torch.device`, its name, or anything whose text is one.

    Returns:
        Alone, the agent itself; else the `DistributedAgent` round it, whose gradients are averaged.

    Raises:
        ValueError: the processes' agents are not of the same build.
        LostProcessError: another process is gone.
    """
    agent = agent.to(torch.device(str(device)))
    return DistributedAgent(agent) if is_distributed() else agent
