"""The documented use of `metta.api`, block by block: what a reader types must run and do what it says.

The blocks are kept as text, as a reader would copy them; only a device that is not there and, in the long example,
the number of steps are substituted, and each substitution must find what it replaces.
"""

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import metta.api
from metta.api import CheckpointConfig, PPOConfig, SimulationConfig, TrainingState

QUICK_START = """
    import torch
    from metta.api import (
        GameConfig, EnvConfig, AgentModelConfig,
        make_environment, make_agent, make_optimizer,
        rollout, train_ppo, eval_policy
    )

    # Create environment
    env_config = EnvConfig(game=GameConfig(num_agents=4, width=32, height=32))
    env = make_environment(env_config)

    # Create agent
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    agent = make_agent(
        observation_space=env.single_observation_space,
        action_space=env.single_action_space,
        global_features=[],
        device=device,
        config=AgentModelConfig(hidden_dim=512)
    )

    # Create optimizer
    optimizer = make_optimizer(agent)

    # Evaluate untrained policy
    stats = eval_policy(agent, env, num_episodes=5)
    print(f"Initial performance: {stats}")
"""

ENVIRONMENT = """
    # Using config object
    env_config = EnvConfig(game=GameConfig(num_agents=8))
    env = make_environment(env_config)

    # Using kwargs
    env = make_environment(num_agents=8, width=16, height=16)
"""

AGENT = """
    agent = make_agent(
        observation_space=env.single_observation_space,
        action_space=env.single_action_space,
        global_features=[],
        device=torch.device("cuda"),
        config=AgentModelConfig(hidden_dim=256, lstm_layers=2)
    )
"""

SAVE = """
    save_checkpoint(agent, "./checkpoints", epoch=100,
                    metadata={"total_steps": 1000000})
"""

LOAD = """
    metadata = load_checkpoint(agent, "./checkpoints/checkpoint_000100.pt")
    print(f"Loaded checkpoint from epoch {metadata.get('epoch', 0)}")
"""

NESTED_DICT = """
    from metta.api import EnvConfig

    # Define your environment
    env_config = EnvConfig(
        game={
            "num_agents": 2,
            "width": 15,
            "height": 10,
            "max_steps": 1000,
        }
    )
"""

COMPLETE_EXAMPLE = '''
    """Example of using Metta as a library without Hydra configuration."""

    import torch

    from metta.api import (
        # Configuration classes
        AgentModelConfig,
        CheckpointConfig,
        EnvConfig,
        ExperienceConfig,
        GameConfig,
        OptimizerConfig,
        PPOConfig,
        SimulationConfig,
        # Functions
        compute_advantages,
        eval_policy,
        make_agent,
        make_curriculum,
        make_environment,
        make_experience_manager,
        make_optimizer,
        rollout,
        save_checkpoint,
        train_ppo,
    )

    # Set device
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"Using device: {device}")

    # Create environment with typed config
    game_config = GameConfig(
        max_steps=1000,
        num_agents=4,
        width=32,
        height=32,
    )
    env_config = EnvConfig(game=game_config)
    env = make_environment(env_config)

    # Create agent with typed config
    agent_config = AgentModelConfig(
        hidden_dim=512,
        lstm_layers=1,
        bptt_horizon=8,
    )
    agent = make_agent(
        observation_space=env.single_observation_space,
        action_space=env.single_action_space,
        global_features=[],
        device=device,
        config=agent_config,
    )

    # Create optimizer with typed config
    optimizer_config = OptimizerConfig(
        type="adam",
        learning_rate=3e-4,
    )
    optimizer = make_optimizer(agent, config=optimizer_config)

    # Create curriculum
    curriculum = make_curriculum("/env/mettagrid/simple")

    # Create experience manager with typed config
    experience_config = ExperienceConfig(
        batch_size=8192,
        minibatch_size=512,
        bptt_horizon=8,
    )
    experience = make_experience_manager(env, agent, config=experience_config)

    # Training configuration
    ppo_config = PPOConfig(
        clip_coef=0.1,
        ent_coef=0.01,
        gamma=0.99,
        gae_lambda=0.95,
    )

    checkpoint_config = CheckpointConfig(
        checkpoint_interval=100,
        checkpoint_dir="./checkpoints",
    )

    simulation_config = SimulationConfig(
        evaluate_interval=500,
    )

    # Training loop
    total_steps = 0
    epoch = 0
    target_steps = 100_000

    print(f"Starting training for {target_steps} steps...")

    while total_steps < target_steps:
        # Collect experience
        print(f"Epoch {epoch}: Collecting rollouts...")
        batch_info = rollout(experience, agent)
        total_steps += batch_info.total_env_steps

        # Compute advantages
        advantages = compute_advantages(
            experience,
            gamma=ppo_config.gamma,
            gae_lambda=ppo_config.gae_lambda
        )

        # Train
        print(f"Epoch {epoch}: Training PPO...")
        train_stats = train_ppo(
            agent,
            optimizer,
            experience,
            ppo_config=ppo_config,
            update_epochs=4,
        )

        # Print stats
        print(f"Epoch {epoch}: Steps={total_steps}, Stats={train_stats}")

        # Save checkpoint
        if epoch % checkpoint_config.checkpoint_interval == 0:
            save_checkpoint(agent, checkpoint_config.checkpoint_dir, epoch)
            print(f"Saved checkpoint at epoch {epoch}")

        # Evaluate
        if epoch % simulation_config.evaluate_interval == 0 and epoch > 0:
            print("Evaluating policy...")
            eval_stats = eval_policy(agent, env, num_episodes=5)
            print(f"Evaluation stats: {eval_stats}")

        epoch += 1

    print("Training complete!")

    # Final evaluation
    print("Running final evaluation...")
    final_stats = eval_policy(agent, env, num_episodes=10)
    print(f"Final evaluation results: {final_stats}")
'''


def run(block: str, namespace: dict[str, Any] | None = None, **substitutions: str) -> dict[str, Any]:
    """Run a block as a script; each substitution must find its text exactly once."""
    text = textwrap.dedent(block)
    for name, new in substitutions.items():
        old = {"steps": "target_steps = 100_000", "device": 'torch.device("cuda")'}[name]
        assert text.count(old) == 1
        text = text.replace(old, new)
    space = namespace if namespace is not None else {}
    exec(compile(text, "<documented block>", "exec"), space)
    return space


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def names() -> dict[str, Any]:
    """A namespace with the public names imported, as the smaller blocks assume."""
    return {"torch": torch, **{name: getattr(metta.api, name) for name in metta.api.__all__}}


def test_quick_start(capsys: pytest.CaptureFixture[str]) -> None:
    space = run(QUICK_START)
    assert set(space["stats"]) >= {"mean_reward", "std_reward", "mean_length", "std_length"}
    assert space["stats"]["mean_length"] == 1000
    assert "Initial performance: {'mean_reward'" in capsys.readouterr().out


def test_environment_blocks(names: dict[str, Any]) -> None:
    space = run(ENVIRONMENT, names)
    env = space["env"]
    assert (env.num_agents, env.config.game.width, env.config.map_builder.height) == (8, 16, 16)
    observations, _ = env.reset(seed=0)
    assert observations.shape == (8, 200, 3)


def test_agent_block(names: dict[str, Any]) -> None:
    names["env"] = metta.api.make_environment(num_agents=2, width=16, height=16)
    substitution = {} if torch.cuda.is_available() else {"device": 'torch.device("cpu")'}
    agent = run(AGENT, names, **substitution)["agent"]
    assert agent.config.hidden_dim == 256
    assert agent.initial_state(3).h.shape == (2, 3, 256)


def test_checkpoint_blocks(names: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    env = metta.api.make_environment(num_agents=2, width=16, height=16)
    config = metta.api.AgentModelConfig(hidden_dim=16)
    spaces = env.single_observation_space, env.single_action_space
    names["agent"] = metta.api.make_agent(*spaces, [], "cpu", config)
    run(SAVE, names)
    assert [f.name for f in (tmp_path / "checkpoints").iterdir()] == ["checkpoint_000100.pt"]
    names["agent"] = other = metta.api.make_agent(*spaces, [], "cpu", config)
    metadata = run(LOAD, names)["metadata"]
    assert metadata["epoch"] == 100
    assert metadata["total_steps"] == 1000000
    assert capsys.readouterr().out == "Loaded checkpoint from epoch 100\n"
    for mine, theirs in zip(names["agent"].parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_nested_dicts_are_configurations() -> None:
    config = run(NESTED_DICT)["env_config"]
    assert (config.game.num_agents, config.map_builder.width, config.map_builder.height) == (2, 15, 10)
    assert metta.api.make_environment(config).num_agents == 2


@pytest.mark.slow
def test_complete_example(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    space = run(COMPLETE_EXAMPLE, {"__name__": "__main__"}, steps="target_steps = 16_000")
    assert space["total_steps"] == 16384
    assert space["epoch"] == 2
    assert (tmp_path / "checkpoints" / "checkpoint_000000.pt").exists()
    assert space["final_stats"]["mean_length"] == 1000
    assert space["train_stats"]["entropy"] > 0
    out = capsys.readouterr().out
    assert "Training complete!" in out
    assert "Final evaluation results:" in out


def test_configuration_tables_of_training() -> None:
    own = {"refresh_targets", "norm_vloss"}
    assert PPOConfig().model_dump(exclude=own) == {
        "clip_coef": 0.1,
        "ent_coef": 0.0021,
        "gae_lambda": 0.916,
        "gamma": 0.977,
        "max_grad_norm": 0.5,
        "vf_clip_coef": 0.1,
        "vf_coef": 0.44,
        "l2_reg_loss_coef": 0,
        "l2_init_loss_coef": 0,
        "norm_adv": True,
        "clip_vloss": True,
        "target_kl": None,
    }
    assert metta.api.OptimizerConfig().model_dump() == {
        "type": "adam",
        "learning_rate": 0.000457,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-12,
        "weight_decay": 0,
    }
    assert metta.api.ExperienceConfig().model_dump() == {
        "batch_size": 524288,
        "minibatch_size": 16384,
        "bptt_horizon": 64,
        "update_epochs": 1,
        "zero_copy": True,
        "cpu_offload": False,
        "async_factor": 2,
        "forward_pass_minibatch_target_size": 4096,
    }
    assert CheckpointConfig().model_dump() == {
        "checkpoint_interval": 60,
        "wandb_checkpoint_interval": 300,
        "checkpoint_dir": "",
    }
    assert SimulationConfig().model_dump() == {
        "evaluate_interval": 300,
        "replay_interval": 300,
        "replay_dir": "",
    }


def test_agent_defaults() -> None:
    config = metta.api.AgentModelConfig()
    documented = {
        "hidden_dim": 1024,
        "lstm_layers": 1,
        "mlp_layers": 2,
        "backbone": "cnn",
        "bptt_horizon": 8,
        "forward_lstm": True,
        "clip_range": 0,
        "use_prev_action": True,
        "use_prev_reward": True,
        "dtypes_fp16": False,
        "obs_scale": 1,
        "obs_process_func": "flatten_obs_dict",
        "analyze_weights_interval": 300,
        "l2_init_weight_update_interval": 0,
    }
    assert {name: getattr(config, name) for name in documented} == documented
    assert config.observation_types == ["global", "agent", "object", "inventory", "recipe"]
    own = {"egocentric", "mask_actions", "weight_clip"}
    assert set(type(config).model_fields) == {*documented, "observation_types", *own}


def test_training_state_round_trip(tmp_path: Path) -> None:
    state = TrainingState(
        epoch=3,
        agent_step=100,
        total_agent_step=200,
        optimizer_state_dict={
            "state": {0: {"exp_avg": torch.arange(4.0)}},
            "param_groups": [{"lr": 0.1, "params": [0]}],
        },
        lr_scheduler_state_dict=None,
        policy_path="somewhere",
        stopwatch_state={"seconds": 1.5},
        extra_args={"note": "hello"},
    )
    loaded = TrainingState.load(state.save(str(tmp_path)))
    assert torch.equal(loaded.optimizer_state_dict["state"][0]["exp_avg"], torch.arange(4.0))
    assert loaded.optimizer_state_dict["param_groups"] == [{"lr": 0.1, "params": [0]}]
    assert (loaded.epoch, loaded.agent_step, loaded.total_agent_step, loaded.policy_path) == (
        3,
        100,
        200,
        "somewhere",
    )
    assert (loaded.lr_scheduler_state_dict, loaded.stopwatch_state, loaded.extra_args) == (
        None,
        {"seconds": 1.5},
        {"note": "hello"},
    )


def test_object_type_constants() -> None:
    colours = ["RED", "BLUE", "GREEN"]
    names = ["AGENT", "WALL", *(f"MINE_{c}" for c in colours), *(f"GENERATOR_{c}" for c in colours)]
    names += ["ALTAR", "ARMORY", "LASERY", "LAB", "FACTORY", "TEMPLE", "GENERIC_CONVERTER"]
    assert [getattr(metta.api, f"TYPE_{name}") for name in names] == list(range(15))


def test_the_public_list_is_sorted_and_true() -> None:
    assert sorted(metta.api.__all__) == sorted(set(metta.api.__all__))
    for name in metta.api.__all__:
        assert getattr(metta.api, name) is not None
