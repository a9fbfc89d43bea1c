"""Trained agent-steps per second with everything on a GPU; see `benchmarks.cuda`."""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import dataclass

import torch

from benchmarks.roofline import Peak, forward_flops, training_bytes, training_flops
from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.bench.cases import Case
from metta.interface.device_arrays import TorchArrays
from metta.mettagrid.vec import VecEnv
from metta.rl.advantage import compute_advantages
from metta.rl.experience import Experience
from metta.rl.optimizer import make_optimizer
from metta.rl.rollout import rollout
from metta.rl.trainer_config import ExperienceConfig
from metta.rl.update import train_ppo

HEADER = (
    f"{'worlds':>7} {'agents':>8} {'trained/s':>12} {'env':>7} {'acting':>7} {'update':>7} {'other':>7} "
    f"{'TFLOP/s':>9} {'of peak':>8} {'GB/s':>8} {'of peak':>8} {'memory':>9}"
)


@dataclass(frozen=True)
class Measured:
    """What some batches took. Seconds.

    Attributes:
        steps: agent steps that were collected and trained on.
        seconds: from the first step to the last update.
        env: the GPU's time in the worlds.
        inference: the GPU's time in acting.
        update: advantages and updates, the host's waiting included.
        memory: most bytes that torch held.
    """

    steps: int
    seconds: float
    env: float
    inference: float
    update: float
    memory: int


def train(agent: MettaAgent, experience: Experience, batches: int) -> Measured:
    """Collect batches and train on them, after one that is not measured. Rollout and update take turns: nothing overlaps."""
    optimizer = make_optimizer(agent)
    steps, env, inference, update, start = 0, 0.0, 0.0, 0.0, 0.0
    for batch in range(batches + 1):
        if batch == 1:
            steps, env, inference, update = 0, 0.0, 0.0, 0.0
            _wait(agent.device)
            start = time.perf_counter()
        info = rollout(experience, agent)
        begin = time.perf_counter()
        compute_advantages(experience)
        train_ppo(agent, optimizer, experience)
        _wait(agent.device)
        update += time.perf_counter() - begin
        steps += info.total_env_steps
        env += info.env_seconds
        inference += info.inference_seconds
    memory = torch.cuda.max_memory_allocated(agent.device) if agent.device.type == "cuda" else 0
    return Measured(steps, time.perf_counter() - start, env, inference, update, memory)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def setting(case: Case, gpu: int | None, arguments: Namespace) -> tuple[VecEnv, MettaAgent, Experience]:
    """Worlds, the agent and a batch. `gpu`: its number, None in the CUDA simulator."""
    arrays = TorchArrays(gpu)
    env = VecEnv(case.config(), case.num_worlds, stagger=True, collect_stats=False, device=arrays)
    config = AgentModelConfig(
        dtypes_fp16=arguments.products == "bfloat16", hidden_dim=arguments.hidden, analyze_weights_interval=0
    )
    agent = MettaAgent(env.spec, config, generator=torch.Generator().manual_seed(0)).to(arrays.device)
    horizon = arguments.horizon
    batch = env.num_agents * horizon
    # As many minibatches of whole segments as come closest to the size that was asked for.
    minibatches = max(
        n
        for n in range(1, env.num_agents + 1)
        if env.num_agents % n == 0 and batch // n >= min(batch, arguments.minibatch)
    )
    experience = Experience(
        env,
        agent,
        ExperienceConfig(
            batch_size=batch,
            minibatch_size=batch // minibatches,
            bptt_horizon=horizon,
            update_epochs=arguments.epochs,
            async_factor=1,
            forward_pass_minibatch_target_size=arguments.acting,
        ),
    )
    return env, agent, experience


def row(
    worlds: int, agents: int, measured: Measured, agent: MettaAgent, arguments: Namespace, peak: Peak | None
) -> str:
    """A row of the table."""
    rate = measured.steps / measured.seconds
    flops = rate * training_flops(agent, arguments.epochs)
    moved = rate * sum(training_bytes(agent, arguments.epochs, arguments.products == "bfloat16").values())
    other = measured.seconds - measured.env - measured.inference - measured.update

    def share(seconds: float) -> str:
        return f"{100 * seconds / measured.seconds:5.0f} %"

    def of(used: float, most: float | None) -> str:
        return "?" if not most else f"{100 * used / most:.1f} %"

    return (
        f"{worlds:7d} {agents:8d} {rate:12,.0f} {share(measured.env)} {share(measured.inference)} {share(measured.update)} "
        f"{share(other)} {flops / 1e12:9.2f} {of(flops, peak.flops.get(arguments.products) if peak else None):>8} "
        f"{moved / 1e9:8.1f} {of(moved, peak.bandwidth if peak else None):>8} {measured.memory / 2**30:5.1f} GiB"
    )


def roofline(agent: MettaAgent, arguments: Namespace, peak: Peak | None) -> str:
    """What a trained step costs, and how many of them a card could do at most."""
    parts = ", ".join(f"{name} {flops / 1e6:.2f}" for name, flops in forward_flops(agent).items())
    flops = training_flops(agent, arguments.epochs)
    moved = training_bytes(agent, arguments.epochs, arguments.products == "bfloat16")
    lines = [
        f"forward, million operations: {parts}",
        f"a trained step ({arguments.epochs} epochs): {flops / 1e6:.1f} million operations, "
        + ", ".join(f"{size:,} bytes of {name}" for name, size in moved.items()),
    ]
    if peak is not None and arguments.products in peak.flops:
        lines.append(
            f"at most {peak.flops[arguments.products] / flops / 1e6:.2f} M trained steps/s by operations in "
            f"{arguments.products}, {peak.bandwidth / sum(moved.values()) / 1e6:.2f} M by bytes"
        )
    return "\n".join(lines)
