"""The flat `metta.api` as its document shows it: every block, in the document's order."""

from pathlib import Path
from typing import Any

import pytest
import torch

import metta.api
from documents import GRAPH, ON_THIS_MACHINE, run
from metta.mettagrid.env import MettaGridEnv

QUICK_START = """
    #!/usr/bin/env -S uv run
    import torch
    from metta.api import (
        Agent, Environment, Optimizer,
        setup_device_and_distributed, setup_run_directories,
        save_checkpoint, load_checkpoint, wrap_agent_distributed,
    )
    from metta.agent.policy_store import PolicyStore
    from metta.rl.experience import Experience
    from metta.rl.trainer_config import TrainerConfig

    # Setup
    dirs = setup_run_directories()
    device = setup_device_and_distributed("cuda" if torch.cuda.is_available() else "cpu")

    # Create environment and agent
    env = Environment(curriculum_path="/env/mettagrid/curriculum/navigation/bucketed")
    agent = Agent(env, device=str(device))
"""

ENVIRONMENT = """
    # Simple environment
    env = Environment(num_agents=4, width=32, height=32)
    simple = env

    # With curriculum
    env = Environment(curriculum_path="/env/mettagrid/curriculum/navigation/bucketed")
"""

AGENT = """
    # Default CNN-LSTM agent
    agent = Agent(env, device="cuda")
    default = agent

    # Custom config
    from omegaconf import DictConfig
    config = DictConfig({"agent": {...}})
    agent = Agent(env, config=config)
"""

OPTIMIZER = """
    optimizer = Optimizer(
        optimizer_type="adam",  # or "muon"
        policy=agent,
        learning_rate=3e-4,
    )

    # Training step
    optimizer.step(loss, epoch)
"""

LOOP_IMPORTS = """
    from metta.api import (
        perform_rollout_step,
        accumulate_rollout_stats,
        compute_advantage,
        process_minibatch_update,
    )
"""

LOOP = """
    # Rollout
    while not experience.ready_for_training:
        num_steps, info = perform_rollout_step(agent, env, experience, device, timer)

    # Process stats
    accumulate_rollout_stats(info, stats)

    # Train
    advantages = compute_advantage(...)
    loss = process_minibatch_update(...)
"""

LOOP_GAPS = {
    "compute_advantage(...)": """compute_advantage(
        experience.values,
        experience.rewards,
        experience.dones,
        torch.ones_like(experience.values),
        torch.zeros_like(experience.values),
        trainer_config.ppo.gamma,
        trainer_config.ppo.gae_lambda,
        trainer_config.vtrace.vtrace_rho_clip,
        trainer_config.vtrace.vtrace_c_clip,
        device,
    )""",
    "process_minibatch_update(...)": """process_minibatch_update(
        agent, experience, experience.sample_minibatch(advantages, trainer_config), advantages, trainer_config,
        kickstarter, 0, losses, device,
    )""",
}

DISTRIBUTED = """
    # Setup
    device = setup_device_and_distributed("cuda")
    is_master, world_size, rank = setup_distributed_vars()

    # Wrap agent for distributed
    agent = wrap_agent_distributed(agent, device)
"""

SAVE = """
    saved_policy = save_checkpoint(
        epoch=epoch,
        agent_step=agent_step,
        agent=agent,
        optimizer=optimizer,
        policy_store=policy_store,
        checkpoint_path=checkpoint_dir,
        checkpoint_interval=10,
    )
"""

LOAD = """
    agent_step, epoch, policy_path = load_checkpoint(
        checkpoint_dir=checkpoint_dir,
        agent=agent,
        optimizer=optimizer,
        policy_store=policy_store,
    )
"""

CONFIGURATION = """
    from metta.rl.trainer_config import TrainerConfig, PPOConfig

    trainer_config = TrainerConfig(
        total_timesteps=10_000_000,
        batch_size=16384,
        ppo=PPOConfig(gamma=0.99, gae_lambda=0.95),
    )
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
    "wrap_agent_distributed",
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


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def names() -> dict[str, Any]:
    """The public names, as the smaller blocks assume them."""
    return {"torch": torch, **{name: getattr(metta.api, name) for name in metta.api.__all__}}


@pytest.fixture
def loop(names: dict[str, Any]) -> dict[str, Any]:
    """What the loop blocks take for granted: a small environment, an agent, and what belongs to them."""
    api = metta.api
    names["env"] = env = api.Environment(
        num_agents=2, width=12, height=12, num_envs=2, max_steps=16, is_training=False
    )
    names["agent"] = agent = api.Agent(env, config=api.AgentModelConfig(hidden_dim=16))
    names["trainer_config"] = config = api.TrainerConfig(
        total_timesteps=1000, batch_size=64, minibatch_size=64, bptt_horizon=8
    )
    names["device"] = api.setup_device_and_distributed("cpu")
    names["experience"] = api.Experience(env, agent, config)
    names["optimizer"] = api.Optimizer(optimizer_type="adam", policy=agent, learning_rate=3e-4)
    names["timer"], names["losses"], names["stats"] = api.Stopwatch(), api.Losses(), {}
    names["kickstarter"] = api.Kickstarter(api.KickstartConfig(), names["device"])
    return names


def test_quick_start(tmp_path: Path) -> None:
    space = run(QUICK_START)
    env, agent = space["env"], space["agent"]
    assert str(space["device"]) in {"cpu", "cuda", "cuda:0"}
    assert len(env.curriculum.tasks) == 64
    assert env.agents_per_world == 4
    assert isinstance(env.driver_env, MettaGridEnv)
    output = agent.act(
        torch.from_numpy(env.observations).to(agent.device), agent.initial_state(env.num_agents)
    )
    assert output.actions.shape == (env.num_agents, 2)
    assert space["dirs"].run_dir.is_dir()
    env.close()


def test_environment_block(names: dict[str, Any]) -> None:
    space = run(ENVIRONMENT, names)
    simple, bucketed = space["simple"], space["env"]
    assert simple.agents_per_world == 4
    assert simple.driver_env.config.game.width == simple.driver_env.config.map_builder.height == 32
    assert len(bucketed.curriculum.tasks) == 64
    for env in (simple, bucketed):
        actions = torch.zeros(env.num_agents, 2, dtype=torch.int64).numpy()
        assert env.step(actions).observations.shape == env.observations.shape
        env.close()


def test_agent_block(loop: dict[str, Any]) -> None:
    space = run(AGENT, loop, {"{...}": GRAPH, **ON_THIS_MACHINE})
    default, custom = space["default"], space["agent"]
    assert default.config == metta.api.AgentModelConfig()
    assert custom.initial_state(1).h.shape == (2, 1, 32)  # two LSTM layers of 32, as the graph says
    rows = loop["env"].num_agents
    seen = torch.from_numpy(loop["env"].observations)
    assert custom.act(seen, custom.initial_state(rows)).values.shape == (rows,)


def test_optimizer_block(loop: dict[str, Any]) -> None:
    before = [p.detach().clone() for p in loop["agent"].parameters()]
    loop |= {"loss": loop["agent"].l2_reg_loss(), "epoch": 0}
    run(OPTIMIZER, loop)
    changed = [not torch.equal(a, b) for a, b in zip(before, loop["agent"].parameters(), strict=True)]
    assert any(changed)


def test_loop_blocks(loop: dict[str, Any]) -> None:
    run(LOOP_IMPORTS, loop)
    space = run(LOOP, loop, LOOP_GAPS)
    assert space["num_steps"] == 4
    assert space["advantages"].shape == (8, 8)
    assert space["loss"].requires_grad
    assert space["stats"]["episode/length"] == [16, 16]  # both worlds ended their episode with the last step
    assert "policy_loss" in space["losses"].stats()
    before = [p.detach().clone() for p in space["agent"].parameters()]
    space["optimizer"].step(space["loss"], 0)
    assert any(not torch.equal(a, b) for a, b in zip(before, space["agent"].parameters(), strict=True))


def test_distributed_block(loop: dict[str, Any]) -> None:
    before = loop["agent"]
    space = run(DISTRIBUTED, loop, ON_THIS_MACHINE)
    assert (space["is_master"], space["world_size"], space["rank"]) == (True, 1, 0)
    assert space["agent"] is before  # alone there is nothing to wrap
    metta.api.cleanup_distributed()


def test_checkpoint_blocks(loop: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    store = metta.api.PolicyStore(folder)
    loop |= {"epoch": 20, "agent_step": 1280, "policy_store": store, "checkpoint_dir": str(folder)}
    run(OPTIMIZER, loop | {"loss": loop["agent"].l2_reg_loss()})
    assert run(SAVE, loop)["saved_policy"].epoch == 20
    assert run(SAVE, loop | {"epoch": 21})["saved_policy"] is None  # not on the interval
    saved = {name: tensor.clone() for name, tensor in loop["agent"].state_dict().items()}
    fresh = metta.api.Agent(loop["env"], config=metta.api.AgentModelConfig(hidden_dim=16))
    loop |= {
        "agent": fresh,
        "optimizer": metta.api.Optimizer(optimizer_type="adam", policy=fresh, learning_rate=3e-4),
    }
    space = run(LOAD, loop)
    assert (space["agent_step"], space["epoch"]) == (1280, 20)
    assert Path(space["policy_path"]).is_file()
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, saved[name]), name
    empty = run(LOAD, loop | {"checkpoint_dir": str(tmp_path / "nothing")})
    assert (empty["agent_step"], empty["epoch"], empty["policy_path"]) == (0, 0, None)


def test_configuration_block() -> None:
    config = run(CONFIGURATION)["trainer_config"]
    assert (config.total_timesteps, config.batch_size) == (10_000_000, 16384)
    assert (config.ppo.gamma, config.ppo.gae_lambda, config.ppo.clip_coef) == (0.99, 0.95, 0.1)


@pytest.mark.parametrize("name", KEY_EXPORTS)
def test_key_export(name: str) -> None:
    assert name in metta.api.__all__
    assert getattr(metta.api, name).__module__.startswith("metta.")
    assert not getattr(metta.api, name).__module__.startswith("metta.api")  # a re-export, not a second copy
