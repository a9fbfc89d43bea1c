"""What a trained agent-step costs at least: operations of the network and bytes of observations, and what a card can do."""

from __future__ import annotations

from dataclasses import dataclass

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent


@dataclass(frozen=True)
class Peak:
    """What a card can do at most, dense, by its data sheet.

    Attributes:
        flops: operations per second, by what the matrix products are computed in.
        bandwidth: bytes per second of its memory.
    """

    flops: dict[str, float]
    bandwidth: float


PEAKS = {
    "H100 PCIe": Peak({"bfloat16": 756e12, "tf32": 378e12, "float32": 51e12}, 2.0e12),
    "H100": Peak({"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12}, 3.35e12),
    "H200": Peak({"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12}, 4.8e12),
}
"""From NVIDIA's data sheets, without sparsity, by a part of the name that the driver gives; the first that fits counts."""


def known_peak(name: str) -> Peak | None:
    """What is known of a card of this name."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def forward_flops(agent: MettaAgent) -> dict[str, int]:
    """Operations of one observation going through a standard network, as the path for accelerators computes it.

    A product and the sum that it goes into are two. The first layer counts as the dense convolution that it is there, although
    nearly all of its planes are empty. What is no matrix product (drawing planes, gates, ReLU, softmax) is left out.

    Args:
        agent: with an `AgentModelConfig`.

    Returns:
        by part of the network: `tokens`, `project`, `core`, `heads`.

    Raises:
        ValueError: another network.
    """
    if not isinstance(agent.config, AgentModelConfig):
        raise ValueError(
            "the operations of a graph of components are not known; count those of a standard network."
        )
    layer = agent.encoder.tokens
    core = 0
    if agent.core is not None:
        core = sum(2 * weight.numel() for name, weight in agent.core.named_parameters() if "weight" in name)
    heads = [
        weight
        for head in (agent.action_head, agent.value_head)
        for name, weight in head.named_parameters()
        if "weight" in name
    ]
    return {
        "tokens": 2 * layer.window.num_positions * layer.weight.numel(),
        "project": 2 * agent.encoder.project.weight.numel(),
        "core": core,
        "heads": sum(2 * weight.numel() for weight in heads),
    }


def training_flops(agent: MettaAgent, epochs: int) -> int:
    """Operations of one trained agent-step: acting once, and in each epoch forward and backward.

    Backward, every layer multiplies twice as much as forward, once for its weights and once for what it read; the first
    layer reads observations, which have no gradient. The few values for bootstrapping are left out.
    """
    parts = forward_flops(agent)
    forward = sum(parts.values())
    return forward + epochs * (3 * forward - parts["tokens"])


def training_bytes(agent: MettaAgent, epochs: int, half: bool) -> dict[str, int]:
    """Bytes that a trained agent-step moves through the card's memory at least.

    Args:
        agent: with an `AgentModelConfig`.
        epochs: passes over the batch.
        half: whether the planes are convolved in bfloat16.

    Returns:
        `observations`: the tokens, written by the worlds, read to act and to be stored, written into the batch, and in each
        epoch read and written as a minibatch and read by the network. `planes`: those that the first layer draws and reads
        each time, and reads again backward.
    """
    tokens = 3 * agent.spec.num_tokens
    window = agent.encoder.tokens.window
    cells = 1 if window.pooled else window.height * window.width
    planes = agent.encoder.tokens.num_planes * cells * (2 if half else 4)
    return {"observations": tokens * (4 + 3 * epochs), "planes": planes * (2 + 3 * epochs)}
