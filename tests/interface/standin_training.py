"""Training on a device that only counts what a GPU would wait for, beside the same on the processor.

The tests run it in a process of its own: `worlds` with worlds of the CUDA simulator on the device, `agent` with worlds of
the host and everything compiled.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import standin_device
from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.vec import VecEnv
from metta.rl.experience import Experience
from metta.rl.optimizer import make_optimizer
from metta.rl.rollout import rollout
from metta.rl.trainer_config import ExperienceConfig
from metta.rl.update import train_ppo
from standin_device import NAME, StandIn, StandInArrays

CONFIG = EnvConfig(game={"num_agents": 3, "max_steps": 7}, map_builder={"width": 9, "height": 8})


def make(device: str, env: VecEnv, **options: Any) -> tuple[MettaAgent, Experience]:
    config = AgentModelConfig(
        hidden_dim=16, lstm_layers=2, analyze_weights_interval=0, **options.pop("agent", {})
    )
    generator = torch.Generator().manual_seed(0)
    agent = MettaAgent(env.spec, config, generator=generator, path="plain" if device == "cpu" else "auto")
    agent = agent.to(device)
    sizes = {"batch_size": 16 * env.num_agents, "minibatch_size": 8 * env.num_agents, "bptt_horizon": 8}
    return agent, Experience(env, agent, ExperienceConfig(**sizes, **options), seed=1)


def worlds(device: str) -> VecEnv:
    return VecEnv(CONFIG, 2, seed=2, stagger=True, device=StandInArrays() if device == NAME else None)


def watch_fetches() -> list[str]:
    """A list that grows when a step is begun ("step") and when the engine brings something of the device here (by whom)."""
    from metta.mettagrid import cuda_engine  # brings Numba's CUDA target along

    events: list[str] = []
    to_host, step = cuda_engine.to_host, VecEnv.step

    def watched_to_host(array: Any) -> Any:
        events.append(
            [frame.name for frame in traceback.extract_stack() if "/mettagrid/" in frame.filename][-1]
        )
        return to_host(array)

    def watched_step(env: VecEnv, actions: Any, worlds: Any = None) -> Any:
        events.append("step")
        return step(env, actions, worlds)

    cuda_engine.to_host = watched_to_host
    VecEnv.step = watched_step  # type: ignore[method-assign]
    return events


def host_worlds(device: str) -> VecEnv:
    return VecEnv(CONFIG, 4, seed=2, stagger=True)


def compare(make_worlds: Any, most_waits: int | None, events: Sequence[str] = (), **options: Any) -> None:
    """The same batches, losses and weights, to rounding; and so many waits for a rollout of any length."""
    with StandIn() as standin:
        sides = []
        for device in ("cpu", NAME):
            env = make_worlds(device)
            known = {key: value for key, value in options.items() if device == NAME or key != "cpu_offload"}
            sides.append((env, *make(device, env, **known)))
        for batch in range(2):
            told = []
            for _, agent, experience in sides:
                before, first = len(standin.waits), len(events)
                info = rollout(experience, agent)
                told.append([(e.world, e.length, e.truncated, e.returns.tolist()) for e in info.episodes])
                if agent.device.type == NAME and most_waits is not None:
                    waits = standin.waits[before:]
                    assert len(waits) <= most_waits, "a step waited:\n" + "\n".join(waits)
                    own = [event for event in events[first:] if event != "_keep_room_for_invalid"]
                    assert own[:16] == ["step"] * 16, (
                        f"something was brought to the host before the last step: {own}"
                    )
                    assert len(own) > 16, "no outcome was fetched"
                    # A look at how full a table is, once in many steps.
                    assert len(events) - first - len(own) <= 2, events[first:]
            assert told[0] == told[1], f"episodes {told}"
            (_, _, mine), (_, _, theirs) = ((e, a, x.stored(0, x.num_filled)) for e, a, x in sides)
            for name, wanted in mine.items():
                assert theirs[name].device.type == sides[1][2].storage_device.type
                torch.testing.assert_close(
                    theirs[name].cpu(), wanted, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
                )
            losses = [train_ppo(agent, make_optimizer(agent), experience) for _, agent, experience in sides]
            for name, wanted in losses[0].items():
                assert abs(losses[1][name] - wanted) < 1e-4, (
                    f"batch {batch}: {name} {losses[1][name]} instead of {wanted}"
                )
        pairs = zip(sides[0][1].state_dict().items(), sides[1][1].state_dict().values(), strict=True)
        for (name, wanted), got in pairs:
            assert got.device.type == NAME
            torch.testing.assert_close(
                got.cpu(), wanted, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"weights {n}: {m}"
            )
    for env, *_ in sides:
        env.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    standin_device.set_up()
    with np.errstate(all="ignore"):
        if sys.argv[1] == "worlds":
            # Before the first step: where the worlds stand. After the last: whether all is finite, and outcomes are numpy's.
            compare(worlds, None, cpu_offload=True)
            compare(worlds, 2, watch_fetches())
        else:
            compare(host_worlds, None)
            compare(host_worlds, None, cpu_offload=True, async_factor=2)
            # This device has no automatic mixed precision: only the core's own products are in bfloat16 on either side.
            torch.autocast = lambda *_, **__: nullcontext()  # type: ignore[misc, assignment]
            compare(host_worlds, None, agent={"dtypes_fp16": True})
    print("equal")
