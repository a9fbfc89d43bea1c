"""The loop written out in `examples/own_loop.py` trains: it learns in the real engine, and a broken one does not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

import metta.rl.losses
from metta.agent.config import AgentModelConfig
from metta.interface.agent import Agent
from metta.interface.environment import Environment
from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, MapBuilderConfig, ObjectConfig
from metta.rl.optimizer import Optimizer
from metta.rl.trainer_config import CheckpointConfig, PPOConfig, TrainerConfig
from metta.rl.types import TrainingState
from metta.sim.simulation import run_episodes, summarize

CARRYING_ORE = EnvConfig(
    game=GameConfig(
        max_steps=40,
        time_punishment=0,
        observation_width=3,
        observation_height=3,
        num_observation_tokens=40,
        default_item_max=1,
        ore_red_reward=0,
        battery_red_reward=0,
        stat_rewards={"ore_red.put": 1.0},
        inventory_item_names=["ore_red", "battery_red"],
    ),
    objects=[
        ObjectConfig(type="wall", name="wall"),
        ObjectConfig(type="mine", name="mine_red", cooldown=0, initial_resource_count=1),
        ObjectConfig(type="generator", name="generator_red", cooldown=0, max_output=-1),
    ],
    actions=[
        ActionConfig(type="rotate", key="turn_left", delta=-1),
        ActionConfig(type="rotate", key="turn_right", delta=1),
        ActionConfig(type="put_items", key="put_items"),
        ActionConfig(type="get_items", key="get_items"),
    ],
    map_builder=MapBuilderConfig(type="Ascii", ascii_map="#m###m#\n#@###@#\n#n###n#"),
)
"""An agent stands between a mine and a generator; the best there is earns 7, chance less than 1."""
THRESHOLD = 5.0


@pytest.fixture(scope="module")
def own_loop() -> ModuleType:
    file = Path(__file__).parents[2] / "examples" / "own_loop.py"
    spec = importlib.util.spec_from_file_location("own_loop", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_run(folder: Path, steps: int, **fields: object):
    torch.manual_seed(0)
    config = TrainerConfig(
        total_timesteps=steps,
        batch_size=1024,
        minibatch_size=256,
        bptt_horizon=16,
        update_epochs=2,
        ppo=PPOConfig(gamma=0.95, gae_lambda=0.916, clip_coef=0.2, ent_coef=0.01, clip_vloss=False),
        checkpoint=CheckpointConfig(checkpoint_interval=7, checkpoint_dir=str(folder)),
        **fields,
    )
    env = Environment(env_config=CARRYING_ORE, num_envs=16)
    agent = Agent(env, AgentModelConfig(hidden_dim=32))
    return env, agent, config, Optimizer("adam", policy=agent, learning_rate=3e-3, eps=1e-5)


def learn(own_loop: ModuleType, folder: Path, **fields: object) -> float:
    env, agent, config, optimizer = make_run(folder, 40 * 1024, **fields)
    assert summarize(run_episodes(agent, env, 32)).mean_reward < 1.0
    own_loop.train(env, agent, optimizer, config)
    return summarize(run_episodes(agent, env, 32)).mean_reward


@pytest.mark.parametrize(
    "fields",
    [{}, {"prioritized_experience_replay": {"prio_alpha": 0.5}}],
    ids=["as it is", "prioritised"],
)
def test_it_learns(own_loop: ModuleType, tmp_path: Path, fields: dict[str, object]) -> None:
    assert learn(own_loop, tmp_path, **fields) > THRESHOLD


def _flip_sign(patch: pytest.MonkeyPatch) -> None:
    plain = metta.rl.losses.clipped_policy_loss
    patch.setattr(metta.rl.losses, "clipped_policy_loss", lambda *args: -plain(*args))


def _no_surprises(patch: pytest.MonkeyPatch) -> None:
    plain = metta.rl.losses.compute_advantage
    patch.setattr(
        metta.rl.losses, "compute_advantage", lambda *args, **kwargs: plain(*args, **kwargs).zero_()
    )


def _never_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("metta.rl.optimizer.clip_and_step", lambda *args: 0.0)


@pytest.mark.parametrize("fault", [_flip_sign, _no_surprises, _never_step])
def test_a_broken_loop_does_not(
    own_loop: ModuleType,
    fault: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    fault(monkeypatch)
    assert learn(own_loop, tmp_path) < THRESHOLD / 2


def test_started_again_it_goes_on_exactly(own_loop: ModuleType, tmp_path: Path) -> None:
    def weights(folder: Path, *stops: int) -> list[torch.Tensor]:
        for batches in stops:
            env, agent, config, optimizer = make_run(folder, batches * 1024)
            own_loop.train(env, agent, optimizer, config)
        clocks = TrainingState.load(folder).stopwatch_state
        assert clocks is not None
        assert clocks["elapsed"]["rollout"] > clocks["elapsed"]["inference"] > 0
        return [p.detach() for p in agent.parameters()]

    whole, parts = weights(tmp_path / "whole", 4), weights(tmp_path / "parts", 2, 4)
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)


def test_it_can_be_read_in_one_go(own_loop: ModuleType) -> None:
    assert len(Path(str(own_loop.__file__)).read_text().splitlines()) < 100
