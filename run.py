#!/usr/bin/env python
"""Train a team of agents, start to finish, on Metta's public API. Every setting is in this file.

    python run.py                                          a few minutes on two CPU cores
    python run.py --env /env/mettagrid/arena/basic_easy_shaped --steps 5000000 --name arena
    torchrun --nproc_per_node=4 run.py --name team         four processes that train one policy

Ctrl-C saves and stops; the same command with the same --name goes on where it stopped."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from metta import api
from metta.common.interrupt import StopRequest, stop_on_interrupt
from metta.interface.console import TrainingDisplay, headline
from metta.interface.monitoring import report_outcome, start_trackers

ENV = "/env/mettagrid/simple"
AGENT = api.AgentModelConfig(hidden_dim=128, bptt_horizon=16)
PPO = api.PPOConfig(
    gamma=0.99, gae_lambda=0.95, clip_coef=0.2, ent_coef=0.01, vf_coef=1.0, norm_vloss=True, clip_vloss=False
)
CONFIG = api.TrainerConfig(
    batch_size=8192,  # of each process; about, where the agents of an environment do not divide it
    minibatch_size=1024,
    bptt_horizon=32,
    update_epochs=2,
    async_factor=1,
    ppo=PPO,
    optimizer=api.OptimizerConfig(learning_rate=1e-3, eps=1e-5),
    checkpoint=api.CheckpointConfig(checkpoint_interval=100, wandb_checkpoint_interval=200),
    simulation=api.SimulationConfig(evaluate_interval=200, replay_interval=200),
    vtrace=None,
)
EVAL_EPISODES = 128


def main(
    env: Annotated[str, typer.Option(help="Registered environment or curriculum.")] = ENV,
    steps: Annotated[int, typer.Option(min=1, help="Agent steps, over all processes.")] = 4_500_000,
    seed: Annotated[int, typer.Option(min=0, help="Decides weights, maps and actions.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto takes a GPU if there is one.")] = "auto",
    name: Annotated[str, typer.Option(help="Of the run; a name used before goes on with that run.")] = "",
    workers: Annotated[int, typer.Option(min=0, help="Processes that step worlds; 0: this one does.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads; one suits a busy machine.")] = 1,
    wandb: Annotated[bool, typer.Option(help="Track at Weights & Biases, offline without a key.")] = False,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard files.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Of all runs; METTA_DATA_DIR, or runs.")] = None,
) -> None:
    """Train a team of agents; see scores before and after, a learning curve and a replay."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("metta").setLevel(logging.INFO)  # the engine says when it has to compile
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    try:
        with stop_on_interrupt() as stop, api.explain_lost_process():
            train(stop, env, steps, seed, device, name, workers, wandb, tensorboard, folder)
        api.cleanup_distributed()
    except (ValueError, OSError, ImportError, FloatingPointError, api.LostProcessError) as error:
        raise SystemExit(f"run.py: {error}") from error


def train(
    stop: StopRequest, env: str, steps: int, seed: int, device: str, name: str, workers: int,
    wandb: bool, tensorboard: bool, runs: Path | None
) -> None:  # fmt: skip
    """The whole run; a requested stop takes effect after the batch at hand."""
    num_agents = api.make_curriculum(env).tasks[0].config.game.num_agents
    setup = api.setup_device_and_distributed(device)
    dirs = api.setup_run_directories(name or None, runs)
    console = Console(quiet=not setup.is_master)
    parts = CONFIG.batch_size // CONFIG.minibatch_size
    num_envs = max(parts, CONFIG.batch_size // CONFIG.bptt_horizon // num_agents // parts * parts)
    batch_size = num_envs * num_agents * CONFIG.bptt_horizon
    config = settings(dirs, steps, batch_size, batch_size // parts)
    worlds = api.Environment(
        curriculum_path=env,
        num_envs=num_envs,
        num_workers=max(1, workers),
        vectorization="multiprocessing" if workers else "serial",
        seed=api.split_seed(seed),
    )
    start = api.load_initial_policy(config.initial_policy, setup.device, worlds.spec)
    agent = api.wrap_agent_distributed(start or api.Agent(worlds, AGENT), setup.device)
    optimizer = api.make_optimizer(api.unwrap_agent(agent), config.optimizer)
    clock = (steps, batch_size * setup.world_size, config.warmup_steps)
    scheduler = api.make_lr_scheduler(optimizer, *clock, config.lr_schedule, config.anneal_lr)
    timer, profiler = api.Stopwatch(), api.TorchProfiler(config.profiler, setup.device)
    state: dict[str, Any] = {
        "agent": agent,
        "optimizer": optimizer,
        "lr_scheduler": scheduler,
        "experience": (experience := api.Experience(worlds, agent, config, seed=api.split_seed(seed))),
        "kickstarter": (kickstarter := api.Kickstarter(config.kickstart, setup.device)),
        "stopwatch": timer,
    }
    folder, interval = config.checkpoint.checkpoint_dir, config.checkpoint.checkpoint_interval
    agent_step, epoch, policy = api.load_checkpoint(checkpoint_dir=folder, **state)
    api.save_experiment_config(dirs, setup, config, agent=AGENT, env=env, seed=seed, command=sys.argv)
    suite, replay, simulation = suite_for(env), api.create_replay_config(env), config.simulation
    items = worlds.spec.item_names
    which = {"enabled": setup.is_master, "tensorboard": tensorboard, "wandb": wandb}
    log = start_trackers(dirs, config, resume_step=agent_step, **which)

    def save(score: api.Score | None = None, *, force: bool = False) -> api.PolicyRecord | None:
        now: dict[str, Any] = {"epoch": epoch, "agent_step": agent_step, "policy_store": None, **state}
        now |= {"checkpoint_path": folder, "checkpoint_interval": interval, "force": force}
        record: api.PolicyRecord | None = api.save_checkpoint(**now, score=score.mean if score else None)
        return record

    def evaluate() -> api.Score | None:
        """Scores of the suite, and rows in a database; the other processes wait meanwhile."""
        if not setup.is_master:
            return None
        file = Path(folder, f"checkpoint_{epoch:06d}.pt")
        record = api.PolicyRecord(file, epoch, {"agent_step": agent_step})
        rows: dict[str, Any] = {"stats_path": dirs.stats_dir / "stats.duckdb", "record": record}
        result = api.evaluate_policy_suite(agent, suite, on_misfit="skip", **rows)
        score = result.category_scores["training"]
        known = {} if score.half_interval is None else {"eval/half_interval": score.half_interval}
        log.log(result.metrics() | known, agent_step)
        return score

    untrained = None
    if policy is None:
        console.print(f"[bold]{env}[/], {num_envs} worlds of {num_agents} agents, on {setup}")
        untrained = evaluate()
        console.print(f"score before training: [bold]{untrained}[/] over {EVAL_EPISODES} episodes")
    else:
        console.print(f"going on with {dirs.run_dir} at {agent_step:,} steps")
    with TrainingDisplay(f"{env} · {dirs.run_name}", steps, agent_step, console) as display:
        save(untrained, force=True)
        while agent_step < steps and not api.any_rank(bool(stop)):
            with profiler.epoch(epoch), timer("total"):
                with timer("rollout"):
                    batch = api.rollout(experience, agent)
                with timer("train"):
                    api.compute_advantages(experience, config.ppo.gamma, config.ppo.gae_lambda)
                    extras: dict[str, Any] = {"kickstarter": kickstarter, "agent_step": agent_step}
                    losses = api.train_ppo(agent, optimizer, experience, trainer_cfg=config, **extras)
            if scheduler is not None:
                scheduler.step()
            agent_step += batch.total_env_steps * setup.world_size
            epoch += 1
            stats: dict[str, list[float]] = {}
            api.accumulate_rollout_stats(api.episode_info(api.gather_episodes(batch.episodes)), stats)
            metrics = api.process_training_stats(stats, losses, timer, agent_step)
            log.log(metrics, agent_step)
            display.update(agent_step, metrics.get("episode/score"), headline(metrics, items))
            judged = api.due(epoch, simulation.evaluate_interval)
            sent = wandb and api.due(epoch, config.checkpoint.wandb_checkpoint_interval)
            record = save(evaluate() if judged else None, force=judged or sent)
            if setup.is_master and api.due(epoch, simulation.replay_interval):
                api.generate_replay_simple(agent, replay, simulation.replay_dir, name=f"epoch_{epoch:06d}")
            if record and sent:
                log.log_policy(record.path, record.metadata)
    if agent_step < steps:
        save(force=True)
        worlds.close()
        log.close()
        console.print(f"\nStopped at {agent_step:,} of {steps:,} steps; everything is saved. To go on:")
        launcher = f"torchrun --nproc_per_node={setup.world_size}" if setup.world_size > 1 else "python"
        again = f"{launcher} {shlex.join(sys.argv)}" + ("" if name else f" --name={dirs.run_name}")
        console.print(f"  {again}", soft_wrap=True, highlight=False)
        raise typer.Exit(130)
    save(evaluate(), force=True)
    worlds.close()
    log.close()
    if setup.is_master:
        files = api.generate_replay_simple(agent, replay, dirs.run_dir, name="replay")
        report_outcome(console, dirs, env, seed, files)


def settings(dirs: api.RunDirectories, steps: int, batch: int, minibatch: int) -> api.TrainerConfig:
    """CONFIG with the sizes of this run, and its folders where none are named."""
    given = CONFIG.model_dump() | {"total_timesteps": steps, "batch_size": batch, "minibatch_size": minibatch}
    given["checkpoint"]["checkpoint_dir"] = CONFIG.checkpoint.checkpoint_dir or str(dirs.checkpoint_dir)
    given["simulation"]["replay_dir"] = CONFIG.simulation.replay_dir or str(dirs.replay_dir)
    given["profiler"]["profile_dir"] = CONFIG.profiler.profile_dir or str(dirs.run_dir / "profiles")
    return api.TrainerConfig.model_validate(given)


def suite_for(env: str) -> api.SimulationSuite:
    """The environment itself, and the standard simulations of its family."""
    own = {f"training/{env.rsplit('/', 1)[-1]}": api.Simulation(env=env, num_episodes=EVAL_EPISODES)}
    family = [name for name in ("navigation", "arena") if f"/{name}/" in env]
    return api.create_evaluation_config_suite(8, categories=family, simulations=own)


if __name__ == "__main__":
    typer.run(main)
