#!/usr/bin/env python
"""Train a team of agents, start to finish, on Metta's public API. Every setting is in this file.

    python run.py                                  a few minutes on two CPU cores
    python run.py --steps 500000 --seed 1 --run quick

Ctrl-C saves and stops; the same command with the same --run goes on where it stopped.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from time import perf_counter, strftime
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from metta import api
from metta.common.files import atomic_write_json
from metta.common.interrupt import StopRequest, stop_on_interrupt
from metta.interface.console import TrainingDisplay, duration

ENV = "/env/mettagrid/simple"
NUM_WORLDS = 64
AGENT = api.AgentModelConfig(hidden_dim=128, bptt_horizon=16)
EXPERIENCE = api.ExperienceConfig(
    batch_size=8192, minibatch_size=1024, bptt_horizon=32, update_epochs=2, async_factor=1
)
PPO = api.PPOConfig(gamma=0.99, gae_lambda=0.95, clip_coef=0.2, ent_coef=0.01, clip_vloss=False)
OPTIMIZER = api.OptimizerConfig(learning_rate=1e-3, eps=1e-5)
CHECKPOINT = api.CheckpointConfig(checkpoint_interval=100)
EVAL_EPISODES = 128


def main(
    steps: Annotated[int, typer.Option(help="Agent steps to train for.")] = 4_500_000,
    seed: Annotated[int, typer.Option(help="Decides weights, maps and actions.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto takes a GPU if there is one.")] = "auto",
    run: Annotated[str, typer.Option(help="Name of the run; a name used before goes on with that run.")] = "",
    threads: Annotated[int, typer.Option(help="Torch threads; one suits a busy machine.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
) -> None:
    """Train a team of agents; see scores before and after, a learning curve and a replay."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("metta").setLevel(logging.INFO)  # the engine says when it has to compile
    with stop_on_interrupt() as stop:
        train(stop, steps, seed, device, run, threads, folder)


def train(
    stop: StopRequest, steps: int, seed: int, device: str, run: str, threads: int, folder: Path
) -> None:
    """The whole run; a requested stop takes effect after the batch at hand."""
    console = Console()
    home = folder / (run or strftime("%Y%m%d-%H%M%S"))
    checkpoints = home / "checkpoints"
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)

    worlds = api.VecEnv(api.make_curriculum(ENV), NUM_WORLDS, seed=seed, stagger=True)
    agent = api.make_agent(worlds.single_observation_space, worlds.single_action_space, [], where, AGENT)
    optimizer = api.make_optimizer(agent, OPTIMIZER)
    scheduler = api.make_lr_scheduler(optimizer, steps, EXPERIENCE.batch_size)
    experience = api.make_experience_manager(worlds, agent, EXPERIENCE, seed=seed)

    parts: dict[str, Any] = {
        "agent": agent,
        "optimizer": optimizer,
        "lr_scheduler": scheduler,
        "experience": experience,
    }
    agent_step, epoch, policy = api.load_checkpoint(checkpoint_dir=checkpoints, **parts)
    if policy is None:
        console.print(f"[bold]{ENV}[/], {NUM_WORLDS} worlds of {worlds.agents_per_world} agents, on {where}")
        untrained = api.summarize(api.run_episodes(agent, worlds, EVAL_EPISODES))
        console.print(f"score before training: [bold]{untrained}[/] over {EVAL_EPISODES} episodes")
        before, history = [untrained.mean_reward, untrained.half_interval], []
    else:
        saved = api.load_checkpoint(agent, policy)
        before, history = saved["before"], saved["history"]
        console.print(f"going on with {home} at {agent_step:,} steps")
    seconds_before = history[-1]["seconds"] if history else 0.0

    def save(force: bool) -> None:
        api.save_checkpoint(
            **parts,
            epoch=epoch,
            agent_step=agent_step,
            policy_store=None,
            checkpoint_path=checkpoints,
            checkpoint_interval=CHECKPOINT.checkpoint_interval,
            force=force,
            metadata={"before": before, "history": history},
        )

    start = perf_counter()
    with TrainingDisplay(f"{ENV} · {home.name}", steps, agent_step) as display:
        save(force=True)
        while agent_step < steps and not stop:
            batch = api.rollout(experience, agent)
            api.compute_advantages(experience, PPO.gamma, PPO.gae_lambda)
            losses = api.train_ppo(agent, optimizer, experience, PPO, EXPERIENCE.update_epochs)
            if scheduler is not None:
                scheduler.step()
            agent_step += batch.total_env_steps
            epoch += 1
            seconds = seconds_before + perf_counter() - start
            shown, score = {"entropy": f"{losses['entropy']:.2f}"}, None
            if batch.episodes:
                done = api.summarize(batch.episodes)
                score = done.mean_reward
                taken = {item: f"{done.stats.get(f'{item}.get', 0):.2f}" for item in worlds.spec.item_names}
                shown |= {"score": f"{score:.2f}", **taken}
            history.append({"steps": agent_step, "seconds": seconds, "score": score})
            display.update(agent_step, score, shown)
            save(force=False)

    save(force=True)
    if agent_step < steps:
        console.print(f"\nStopped at {agent_step:,} of {steps:,} steps; everything is saved. To go on:")
        again = [f"--run={home.name}", f"--folder={folder}", f"--steps={steps}", f"--seed={seed}"]
        again += [f"--device={device}", f"--threads={threads}"]
        console.print(f"  python run.py {shlex.join(again)}", soft_wrap=True, highlight=False)
        raise typer.Exit(130)

    after = api.summarize(api.run_episodes(agent, worlds, EVAL_EPISODES))
    result = [after.mean_reward, after.half_interval]
    seconds = history[-1]["seconds"] if history else 0.0
    facts = {"env": ENV, "seed": seed, "steps": agent_step, "seconds": seconds}
    atomic_write_json(home / "summary.json", {**facts, "before": before, "after": result})
    page = api.record_replay(agent, worlds, home / "replay.json.z")
    picture = home / "learning_curve.png"
    api.write_learning_curve(picture, history, before=before, after=result, title=f"{ENV}, seed {seed}")
    console.print(f"\n[bold]{agent_step:,} steps in {duration(seconds)}[/]; {EVAL_EPISODES} episodes a score")
    console.print("score before  [bold]{:6.2f}[/] ± {:.2f}".format(*before))
    console.print("score after   [bold green]{:6.2f}[/] ± {:.2f}".format(*result))
    places = {"replay": page, "curve": picture, "policy": checkpoints, "summary": home / "summary.json"}
    for what, place in places.items():
        console.print(f"{what:13} {place}", soft_wrap=True, highlight=False)
    console.print("[dim]The replay is a page: open it in a browser.[/]")


if __name__ == "__main__":
    typer.run(main)
