"""An `Environment` on a GPU, or in the CUDA simulator, beside one on the processor: everything handed out has to be equal.

`python cuda_environment.py [DEVICE]`; the tests run it in a process of its own, as Numba decides at its import what the GPU is.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.interface.device_arrays import TorchArrays
from metta.interface.environment import Environment
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import make_curriculum
from metta.mettagrid.device import is_simulated
from metta.mettagrid.vec import VecEnv
from metta.rl.advantage import compute_advantages
from metta.rl.experience import Experience
from metta.rl.optimizer import make_optimizer
from metta.rl.rollout import rollout
from metta.rl.trainer_config import ExperienceConfig
from metta.rl.update import train_ppo

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cuda"
SMALL: dict[str, Any] = {"num_agents": 3, "width": 9, "height": 8, "max_steps": 7, "num_envs": 4}


def same(got: Any, wanted: Any, where: str) -> None:
    if isinstance(got, torch.Tensor):
        assert got.device.type == ("cpu" if is_simulated() else "cuda"), f"{where} lie on {got.device}"
        got = got.cpu().numpy()
    assert got.dtype == wanted.dtype, f"{where} are {got.dtype} instead of {wanted.dtype}"
    assert np.array_equal(got, wanted), f"{where} differ"


def compare(gpu: Any, cpu: Any, where: str) -> None:
    for name in ("observations", "rewards", "terminals", "truncations", "final_observations"):
        assert isinstance(getattr(gpu, name), torch.Tensor), f"{where}: {name} are no tensor"
    for name in ("observations", "rewards", "terminals", "truncations", "final_rows", "final_observations"):
        same(getattr(gpu, name), getattr(cpu, name), f"{where}: {name}")
    assert len(gpu.episodes) == len(cpu.episodes), where
    for one, other in zip(gpu.episodes, cpu.episodes, strict=True):
        same(one.returns, other.returns, f"{where}: returns")
        assert (one.world, one.task, one.length, one.truncated, one.stats) == (
            other.world,
            other.task,
            other.length,
            other.truncated,
            other.stats,
        ), where


def play(steps: int, **options: Any) -> None:
    cpu, gpu = (Environment(**SMALL | options, device=device) for device in ("cpu", DEVICE))
    legal = np.array(cpu.spec.legal_actions)
    rng = np.random.default_rng(1)
    same(gpu.reset(), cpu.reset(), "the first observations")
    kept: dict[str, Any] = {}
    for step in range(steps):
        actions = legal[rng.integers(len(legal), size=cpu.num_agents)]
        if step == 2:
            actions[0] = 2**40, -(2**40)
        seen = gpu.observations.data_ptr()
        given = actions if step % 2 else torch.as_tensor(actions).to(gpu.observations.device)
        compare(gpu.step(given), cpu.step(actions), f"{options}, step {step}")
        assert gpu.observations.data_ptr() == seen, "the observations have moved"
        same(gpu.starts, cpu.starts, f"{options}, step {step}: starts")
        if step == steps // 2:
            kept = gpu.state_dict()
            for name, value in cpu.state_dict().items():
                if name not in ("engine", "curriculum"):
                    assert np.array_equal(kept[name], value), f"{name} of the saved state"
    for env in (cpu, gpu):
        env.load_state_dict(kept)
    for step in range(steps // 2):
        actions = legal[rng.integers(len(legal), size=cpu.num_agents)]
        compare(gpu.step(actions), cpu.step(actions), f"{options}, step {step} after the saved state")


def take_turns() -> None:
    cpu, gpu = (Environment(**SMALL, async_factor=2, device=device) for device in ("cpu", DEVICE))
    rows = cpu.num_agents // 2
    for env in (cpu, gpu):
        env.async_reset()
    for turn in range(8):
        one, other = gpu.recv(), cpu.recv()
        compare(one.step, other.step, f"turn {turn}")
        same(one.starts, other.starts, f"turn {turn}: starts")
        for env in (cpu, gpu):
            env.send(np.zeros((rows, 2), np.int64))


def equal_batches(gpu: Experience, cpu: Experience, where: str) -> None:
    assert gpu.position == cpu.position, where
    for name, mine in cpu.stored(0, cpu.num_filled).items():
        theirs = gpu.stored(0, gpu.num_filled)[name]
        assert theirs.device == gpu.device, f"{where}: {name} are on {theirs.device}"
        close(theirs, mine, f"{where}: {name}")


def close(got: torch.Tensor, wanted: torch.Tensor, where: str) -> None:
    """Equal, bit for bit where one machine computes both."""
    tolerance = 0.0 if is_simulated() else 1e-4
    torch.testing.assert_close(
        got.cpu(), wanted, rtol=tolerance, atol=tolerance, msg=lambda m: f"{where}: {m}"
    )


def ends(outcomes: Any) -> list[Any]:
    return [
        (one.world, one.task, one.length, one.truncated, one.stats, one.returns.tolist()) for one in outcomes
    ]


def learn(async_factor: int, **options: Any) -> None:
    """Rollouts and updates on either kind of worlds: the same steps, ends, outcomes and weights.

    On a GPU the actions are drawn by another generator, so there each step is checked by replaying it instead.
    """
    sides = []
    for device in ("cpu", DEVICE):
        env = Environment(**SMALL | options, device=device, seed=3)
        where = env.observations.device if device == DEVICE else "cpu"
        config = AgentModelConfig(hidden_dim=16, backbone="mlp", analyze_weights_interval=0)
        agent = MettaAgent(env.spec, config, generator=torch.Generator().manual_seed(0), path="plain").to(
            where
        )
        sizes = {"batch_size": 8 * env.num_agents, "minibatch_size": 4 * env.num_agents, "bptt_horizon": 4}
        experience = Experience(env, agent, ExperienceConfig(**sizes, async_factor=async_factor), seed=1)
        sides.append((env, agent, experience, make_optimizer(agent)))
    (cpu, cpu_agent, cpu_experience, _), (gpu, gpu_agent, gpu_experience, _) = sides
    if not is_simulated():
        follow(cpu, gpu, gpu_agent, gpu_experience)
        sizes = gpu_experience.config.model_dump() | {"cpu_offload": True}
        kept = Experience(gpu, gpu_agent, ExperienceConfig(**sizes), seed=2)
        follow(cpu, gpu, gpu_agent, kept)
        assert kept.observations.device.type == "cpu"
        return
    seen: set[str] = set()
    ended = 0
    for batch in range(2):
        for steps in (20, None):
            if batch == 1 and steps is None:  # somebody else steps the worlds: what is under way is cut off
                for env, *_ in sides:
                    env.step(np.zeros((env.num_agents, 2), np.int64))
            told = [rollout(experience, agent, steps) for _, agent, experience, _ in sides]
            assert ends(told[1].episodes) == ends(told[0].episodes), f"{options}, batch {batch}: episodes"
            ended += len(told[0].episodes)
        equal_batches(gpu_experience, cpu_experience, f"{options}, batch {batch}")
        seen |= {name for name in ("terminals", "truncations") if getattr(cpu_experience, name).any()}
        if batch == 0:  # once more from what was saved
            for _, _, experience, _ in sides:
                experience.load_state_dict(experience.state_dict())
        losses = [train_ppo(agent, optimizer, experience) for _, agent, experience, optimizer in sides]
        assert losses[0] == losses[1], f"{options}, batch {batch}: {losses}"
    for (name, mine), theirs in zip(
        cpu_agent.state_dict().items(), gpu_agent.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), f"{options}: weights {name}"
    assert ended, "no episode ended"
    assert seen == ({"truncations"} if options else {"terminals", "truncations"}), f"episodes ended by {seen}"


def follow(cpu: Environment, gpu: Environment, agent: MettaAgent, experience: Experience) -> None:
    """Collect on the GPU, and step worlds of the processor with the same actions: they give the same batch."""
    batch = rollout(experience, agent)
    rows, horizon = experience.num_rows, experience.horizon
    episodes: list[Any] = []
    for step in range(experience.num_steps):
        segments, at = experience.segments(step, slice(0, rows)), step % horizon

        def stored(name: str, segments: slice = segments, at: int = at) -> Any:
            return getattr(experience, name)[segments, at].cpu().numpy()

        same(stored("observations"), cpu.observations, f"step {step}: observations")
        done = cpu.step(stored("actions"))
        for name in ("rewards", "terminals", "truncations"):
            same(stored(name), getattr(done, name), f"step {step}: {name}")
        episodes += done.episodes
    assert ends(batch.episodes) == ends(episodes), "episodes"
    assert batch.env_seconds > 0
    assert batch.inference_seconds > 0
    minibatch = next(iter(experience.minibatches(compute_advantages(experience))))
    out = agent.evaluate(minibatch.observations, minibatch.start_state, minibatch.dones, minibatch.actions)
    close(out.logprobs.detach(), minibatch.logprobs.cpu(), "log probabilities, judged anew")
    stats = train_ppo(agent, make_optimizer(agent), experience)
    assert np.isfinite(stats["loss"]), stats


def learn_tasks() -> None:
    """A curriculum hears of every outcome once, at the latest when it is saved, and before too many wait."""
    config = EnvConfig(game={"num_agents": 2, "max_steps": 3}, map_builder={"width": 8, "height": 8})
    for looking, steps in ((False, 7), (True, 7), (False, 20)):
        tasks = make_curriculum(scenes=[config, config])
        arrays = TorchArrays(None if is_simulated() else torch.device(DEVICE).index or 0)
        with VecEnv(tasks, 3, device=arrays, stagger=True) as env:
            ended, waiting = 0, 0
            for _ in range(steps):
                batch = env.step(np.zeros((env.num_agents, 2), np.int64))
                ended += len(batch.episodes)
                if looking:
                    assert all(outcome.length == 3 for outcome in batch.episodes)
                now = ended - sum(tasks.state_dict()["episodes"])
                assert 0 <= now <= (0 if looking else 3), f"{now} episodes wait to be heard of"
                waiting = max(waiting, now)
            assert looking or waiting, "every outcome was fetched at once"
            assert sum(env.state_dict()["curriculum"]["episodes"]) == ended > 3


def refuse() -> None:
    """An agent elsewhere than the worlds is refused."""
    env: Any = Environment(**SMALL, device=DEVICE)
    agent = MettaAgent(env.spec).to("meta")
    with pytest.raises(ValueError, match="and the agent is on meta: put the agent there"):
        Experience(env, agent, ExperienceConfig())


if __name__ == "__main__":
    torch.backends.cudnn.allow_tf32 = False  # what is compared is to be exact
    with np.errstate(all="ignore"):
        play(12)
        play(6, num_envs=2, is_training=False, zero_copy=False, max_steps=0, episode_lifetime=3)
        take_turns()
        learn(1)
        learn(2, max_steps=0, episode_lifetime=5)
        learn_tasks()
        refuse()
    print("equal", "in the simulator" if is_simulated() else "on the GPU")
