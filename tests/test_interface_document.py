"""`metta.interface`, `metta.rl`, `metta.agent` and `metta.stats` as their document shows them."""

from pathlib import Path
from typing import Any

import pytest
import torch

import metta.api
import metta.interface
import test_factories_document as factories
from documents import GRAPH, ON_THIS_MACHINE, run

QUICK_START = """
    #!/usr/bin/env -S uv run
    import torch
    from metta.interface.agent import Agent
    from metta.interface.environment import Environment
    from metta.interface.directories import setup_run_directories, setup_device_and_distributed
    from metta.interface.training import Optimizer, save_checkpoint, load_checkpoint
    from metta.rl.policy_management import wrap_agent_distributed
    from metta.agent.policy_store import PolicyStore
    from metta.rl.experience import Experience
    from metta.rl.trainer_config import TrainerConfig

    # Setup
    dirs = setup_run_directories()
    device = setup_device_and_distributed("cuda" if torch.cuda.is_available() else "cpu")[0]

    # Create environment and agent
    env = Environment(curriculum_path="/env/mettagrid/curriculum/navigation/bucketed")
    agent = Agent(env, device=str(device))
"""

ENVIRONMENT = """
    from metta.interface.environment import Environment

    # Simple environment
    env = Environment(num_agents=4, width=32, height=32)
    simple = env

    # With curriculum
    env = Environment(curriculum_path="/env/mettagrid/curriculum/navigation/bucketed")
"""

AGENT = """
    from metta.interface.agent import Agent

    # Default CNN-LSTM agent
    agent = Agent(env, device="cuda")

    # Custom config
    from omegaconf import DictConfig
    config = DictConfig({"agent": {...}})
    agent = Agent(env, config=config)
"""

OPTIMIZER = """
    from metta.interface.training import Optimizer

    optimizer = Optimizer(
        optimizer_type="adam",  # or "muon"
        policy=agent,
        learning_rate=3e-4,
    )

    # Training step
    optimizer.step(loss, epoch)
"""

LOOP = """
    from metta.rl.rollout import perform_rollout_step
    from metta.stats import accumulate_rollout_stats
    from metta.rl.advantage import compute_advantage
    from metta.rl.losses import process_minibatch_update

    # Rollout
    while not experience.ready_for_training:
        num_steps, info = perform_rollout_step(agent, env, experience, device, timer)

    # Process stats
    accumulate_rollout_stats(info, stats)

    # Train
    advantages = compute_advantage(...)
    loss = process_minibatch_update(...)
"""

UTILITIES = """
    from metta.interface.directories import (
        setup_run_directories,
        setup_device_and_distributed,
        save_experiment_config,
    )

    from metta.interface.training import (
        initialize_wandb,
        cleanup_wandb,
        cleanup_distributed,
        load_checkpoint,
        save_checkpoint,
    )

    from metta.interface.evaluation import (
        create_evaluation_config_suite,
        evaluate_policy_suite,
        generate_replay_simple,
    )
"""

DISTRIBUTED = """
    # Setup
    device = setup_device_and_distributed("cuda")
    is_master, world_size, rank = setup_distributed_vars()

    # Wrap agent for distributed
    from metta.rl.policy_management import wrap_agent_distributed
    agent = wrap_agent_distributed(agent, device)
"""

KEY_EXPORTS = [
    "Environment",
    "Agent",
    "Optimizer",
    "perform_rollout_step",
    "process_minibatch_update",
    "accumulate_rollout_stats",
    "compute_advantage",
    "setup_device_and_distributed",
    "setup_distributed_vars",
    "cleanup_distributed",
    "save_checkpoint",
    "load_checkpoint",
    "TrainerConfig",
    "PPOConfig",
    "OptimizerConfig",
    "CheckpointConfig",
    "Experience",
    "Kickstarter",
    "Losses",
    "Stopwatch",
    "setup_run_directories",
    "save_experiment_config",
    "create_evaluation_config_suite",
    "create_replay_config",
]

names = factories.names
loop = factories.loop


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_quick_start() -> None:
    space = run(QUICK_START)
    assert isinstance(space["device"], torch.device)
    assert len(space["env"].curriculum.tasks) == 64
    assert space["agent"].device.type == space["device"].type
    assert space["dirs"].checkpoint_dir.is_dir()
    space["env"].close()


def test_environment_block() -> None:
    space = run(ENVIRONMENT)
    assert space["simple"].driver_env.num_agents == 4
    assert len(space["env"].curriculum.tasks) == 64
    space["simple"].close()
    space["env"].close()


def test_agent_block(loop: dict[str, Any]) -> None:
    space = run(AGENT, {"env": loop["env"]}, {"{...}": GRAPH, **ON_THIS_MACHINE})
    assert space["agent"].initial_state(1).h.shape == (2, 1, 32)


def test_optimizer_block(loop: dict[str, Any]) -> None:
    agent = loop["agent"]
    before = [p.detach().clone() for p in agent.parameters()]
    run(OPTIMIZER, {"agent": agent, "loss": agent.l2_reg_loss(), "epoch": 0})
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.parameters(), strict=True))


def test_loop_block(loop: dict[str, Any]) -> None:
    given = [
        "torch",
        "env",
        "agent",
        "trainer_config",
        "device",
        "experience",
        "optimizer",
        "timer",
        "losses",
        "stats",
        "kickstarter",
    ]
    space = run(LOOP, {name: loop[name] for name in given}, factories.LOOP_GAPS)
    assert loop["experience"].position == 16
    assert space["stats"]["episode/score"]
    assert space["loss"].requires_grad


def test_utilities_block() -> None:
    assert callable(run(UTILITIES)["generate_replay_simple"])


def test_distributed_block(loop: dict[str, Any]) -> None:
    given = {name: getattr(metta.interface, name) for name in KEY_EXPORTS} | {"agent": loop["agent"]}
    space = run(DISTRIBUTED, given, ON_THIS_MACHINE)
    assert (space["is_master"], space["world_size"], space["rank"]) == (True, 1, 0)
    metta.interface.cleanup_distributed()


def test_both_documents_show_the_same_checkpoints(loop: dict[str, Any], tmp_path: Path) -> None:
    loop |= {name: getattr(metta.interface, name) for name in ("save_checkpoint", "load_checkpoint")}
    factories.test_checkpoint_blocks(loop, tmp_path)


def test_configuration_block() -> None:
    config = run(factories.CONFIGURATION)["trainer_config"]
    assert config == metta.interface.TrainerConfig(
        total_timesteps=10_000_000,
        batch_size=16384,
        ppo=metta.interface.PPOConfig(gamma=0.99, gae_lambda=0.95),
    )


@pytest.mark.parametrize("name", KEY_EXPORTS)
def test_key_export(name: str) -> None:
    assert name in metta.interface.__all__
    assert getattr(metta.interface, name) is getattr(metta.api, name)
