"""A number that is not finite stops a run by name and step; from its last checkpoint it goes on as if nothing had been."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import metta.rl.losses
from metta.agent.core import LSTMCore
from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_store import PolicyStore
from metta.agent.serialize import load_agent, save_agent
from metta.mettagrid.vec import VecEnv
from metta.rl.advantage import compute_advantages
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.kickstarter import Kickstarter
from metta.rl.losses import Losses, process_minibatch_update
from metta.rl.optimizer import Optimizer, make_optimizer
from metta.rl.rollout import perform_rollout_step, rollout
from metta.rl.trainer_config import CheckpointConfig, KickstartConfig, SimulationConfig, TrainerConfig
from metta.rl.update import train_ppo
from tiny_run import SIZES, train

CONFIG = TrainerConfig(
    **SIZES,
    checkpoint=CheckpointConfig(checkpoint_interval=1, wandb_checkpoint_interval=0),
    simulation=SimulationConfig(evaluate_interval=0, replay_interval=0),
)
Due = Callable[[], bool]
Patch = pytest.MonkeyPatch


def logits_while_acting(patch: Patch, due: Due) -> None:
    plain = MettaAgent.act

    def act(self: MettaAgent, *args: Any, **kwargs: Any) -> Any:
        out = plain(self, *args, **kwargs)
        if due():
            out.logprobs[1] = math.nan
        return out

    patch.setattr(MettaAgent, "act", act)


def values_while_acting(patch: Patch, due: Due) -> None:
    plain = MettaAgent.act

    def act(self: MettaAgent, *args: Any, **kwargs: Any) -> Any:
        out = plain(self, *args, **kwargs)
        if due():
            out.values[0] = -math.inf
        return out

    patch.setattr(MettaAgent, "act", act)


def own_features(patch: Patch, due: Due) -> None:
    """A policy that makes numbers of its own from what it sees: here they are what is wrong first."""
    plain = LSTMCore.prepared

    def prepared(self: LSTMCore, *, half: bool) -> Any:
        recur = plain(self, half=half)
        return lambda *states: recur(*states) * (math.nan if due() else 1.0)

    patch.setattr(LSTMCore, "prepared", prepared)


def rewards(patch: Patch, due: Due) -> None:
    plain = VecEnv.step

    def step(self: VecEnv, *args: Any) -> Any:
        batch = plain(self, *args)
        if due():
            batch.rewards[2] = math.inf
        return batch

    patch.setattr(VecEnv, "step", step)


def logits_while_learning(patch: Patch, due: Due) -> None:
    plain = MettaAgent.evaluate

    def evaluate(self: MettaAgent, *args: Any) -> Any:
        out = plain(self, *args)
        if due():
            out.logprobs = out.logprobs * math.nan
        return out

    patch.setattr(MettaAgent, "evaluate", evaluate)


def values_while_learning(patch: Patch, due: Due) -> None:
    plain = MettaAgent.evaluate

    def evaluate(self: MettaAgent, *args: Any) -> Any:
        out = plain(self, *args)
        if due():
            out.values = out.values + math.inf
        return out

    patch.setattr(MettaAgent, "evaluate", evaluate)


def loss(patch: Patch, due: Due) -> None:
    plain = metta.rl.losses.clipped_policy_loss
    patch.setattr(
        metta.rl.losses, "clipped_policy_loss", lambda *args: plain(*args) * (math.inf if due() else 1)
    )


def gradient(patch: Patch, due: Due) -> None:
    plain = metta.rl.losses.value_loss

    def steep(values: torch.Tensor, *args: Any) -> torch.Tensor:
        extra = 0 * (values - values.detach()).abs().sqrt().sum() if due() else 0
        return plain(values, *args) + extra

    patch.setattr(metta.rl.losses, "value_loss", steep)


AT_A_STEP = r"at agent step 1\d\d \(step \d\d of agent \d\) there is "
IN_AN_UPDATE = r"in update 9 there is "
PLANTED: dict[Callable[[Patch, Due], None], str] = {
    logits_while_acting: AT_A_STEP + "nan in the policy's logits",
    values_while_acting: AT_A_STEP + "-inf in the policy's values",
    own_features: AT_A_STEP + "nan in the policy's logits",
    rewards: AT_A_STEP + "inf in the environment's rewards",
    logits_while_learning: IN_AN_UPDATE + "nan in the policy's logits",
    values_while_learning: IN_AN_UPDATE + "inf in the policy's values",
    loss: IN_AN_UPDATE + "-?inf in the term policy_loss",
    gradient: IN_AN_UPDATE + r"nan in the gradient of encoder\.\S+",
}


def weights(folder: Path, epoch: int) -> dict[str, torch.Tensor]:
    agent, _ = load_agent(folder / "r" / "checkpoints" / f"checkpoint_{epoch:06d}.pt")
    return agent.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four batches that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder, CONFIG)
    return folder


@pytest.mark.parametrize("plant", PLANTED)
def test_a_run_stops_and_goes_on(
    plant: Callable[[Patch, Due], None], whole: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    saved = tmp_path / "r" / "checkpoints"
    last = saved / "checkpoint_000002.pt"
    with monkeypatch.context() as patch:
        plant(patch, last.exists)
        with pytest.raises(FloatingPointError) as stopped:
            train(tmp_path, CONFIG)
    (sentence,) = str(stopped.value).splitlines()
    assert re.match(PLANTED[plant], sentence), sentence
    assert f"and the weights were left alone: go on from the last good checkpoint, {last}," in sentence
    names = [f"checkpoint_{epoch:06d}.pt" for epoch in range(3)] + ["training_state.safetensors"]
    assert sorted(file.name for file in saved.iterdir()) == names
    for epoch in range(3):
        assert same(weights(tmp_path, epoch), weights(whole, epoch))
    train(tmp_path, CONFIG)
    assert same(weights(tmp_path, 4), weights(whole, 4))


def test_rewards_of_an_environment_of_ones_own_are_named_by_their_step(
    make_env, make_agent, make_experience, monkeypatch
) -> None:
    env, agent = make_env(), make_agent()
    experience = make_experience(env, agent)
    rollout(experience, agent)
    experience.mark_used()
    plain, count = env.step, iter(range(10_000))

    def step(actions: Any, worlds: slice | None = None) -> Any:
        batch = plain(actions, worlds)
        if next(count) == 11:
            batch.rewards[5] = math.nan
        return batch

    def collect() -> None:
        while not experience.ready_for_training:
            perform_rollout_step(agent, env, experience, "cpu")

    monkeypatch.setattr(env, "step", step)
    where = r"^at agent step 608 \(step 76 of agent 5\) there is nan in the environment's rewards"
    with pytest.raises(FloatingPointError, match=where):
        collect()
    assert experience.position == 12


def test_the_documented_loop_names_tensor_step_and_checkpoint(
    make_env, make_agent, make_experience, tmp_path, monkeypatch
) -> None:
    agent = make_agent()
    experience = make_experience(make_env(), agent)
    optimizer = Optimizer(policy=agent)
    parts = {"agent": agent, "optimizer": optimizer, "experience": experience}
    keywords = {"policy_store": None, "checkpoint_path": tmp_path, "checkpoint_interval": 1}
    sizes = experience.config.model_dump()

    def update() -> None:
        rollout(experience, agent)
        advantages = compute_advantages(experience)
        minibatch = experience.sample_minibatch(advantages)
        config = TrainerConfig(**sizes)
        loss = process_minibatch_update(
            agent, experience, minibatch, advantages, config, None, 512, Losses(), "cpu"
        )
        optimizer.step(loss, 3)

    for last in (None, str(tmp_path / "checkpoint_000001.pt")):
        for plant, sentence in (
            (values_while_learning, "at agent step 512 there is inf in the policy's values"),
            (
                gradient,
                rf"in update {optimizer.num_updates + 1} \(epoch 3\) there is nan in the gradient of encoder",
            ),
        ):
            how = (
                "start again, since nothing was saved yet"
                if last is None
                else f"last good checkpoint, {last}"
            )
            with monkeypatch.context() as patch:
                plant(patch, lambda: True)
                with pytest.raises(FloatingPointError, match=rf"{sentence}.*{how}"):
                    update()
        update()
        record = save_checkpoint(**parts, **keywords, epoch=1, agent_step=512)
    fresh = make_experience(make_env(), agent)
    assert fresh.last_checkpoint is None
    load_checkpoint(checkpoint_dir=tmp_path, agent=agent, experience=fresh)
    assert fresh.last_checkpoint == str(record.path)


def spoil_a_weight(run: dict[str, Any]) -> None:
    with torch.no_grad():
        run["agent"].value_head.layers[0].weight[1, 2] = math.inf


def spoil_the_reference(run: dict[str, Any]) -> None:
    run["agent"].reference[3] = math.nan


def spoil_a_moment(run: dict[str, Any]) -> None:
    """As a finite gradient does that is too large for its square; the weights then stand still for ever."""
    run["optimizer"].zero_grad()
    weight = run["agent"].action_head.layers[0].weight
    weight.grad = torch.full_like(weight, 1e25)
    run["optimizer"].step()
    assert bool(weight.isfinite().all())


def spoil_an_accumulated_gradient(run: dict[str, Any]) -> None:
    loss = sum(p.sum() for p in run["agent"].parameters())
    run["optimizer"].step(loss, accumulate_steps=2)
    run["agent"].encoder.tokens.bias.grad[0] = math.nan


def spoil_the_memory(run: dict[str, Any]) -> None:
    run["experience"]._state.c[0, 1] = math.nan


def spoil_a_teachers_memory(run: dict[str, Any]) -> None:
    run["kickstarter"]._teachers[0]._after.state.h[0, 1] = math.nan


SPOILT: dict[Callable[[dict[str, Any]], None], str] = {
    spoil_a_weight: "inf in the weights value_head.layers.0.weight",
    spoil_the_reference: "nan in the weights reference",
    spoil_a_moment: "inf in the optimizer's exp_avg_sq of action_head.layers.0.weight",
    spoil_an_accumulated_gradient: "nan in the gradient under way of encoder.tokens.bias",
    spoil_the_memory: "nan in the agent's memory",
    spoil_a_teachers_memory: "nan in the memory of the teacher .*teacher.pt",
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_is_spoilt_is_never_saved(spoil, make_env, make_agent, make_experience, tmp_path) -> None:
    agent, folder = make_agent(), tmp_path / "checkpoints"
    save_agent(make_agent(1), teacher := tmp_path / "teacher.pt", {})
    experience = make_experience(make_env(), agent)
    kickstarter = Kickstarter(KickstartConfig(teacher_uri=str(teacher)), "cpu")
    run = {
        "agent": agent,
        "optimizer": Optimizer(policy=agent),
        "experience": experience,
        "kickstarter": kickstarter,
        "policy_store": None,
    }
    keywords = {"checkpoint_path": folder, "checkpoint_interval": 1, "agent_step": 0}
    rollout(experience, agent)
    train_ppo(agent, run["optimizer"], experience, kickstarter=kickstarter)
    save_checkpoint(**run, **keywords, epoch=1)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    spoil(run)
    last = re.escape(str(folder / "checkpoint_000001.pt"))
    sentence = f"^there is {SPOILT[spoil]}, so no checkpoint was written; the last good one is {last}: go on"
    for epoch in (1, 2):
        with pytest.raises(FloatingPointError, match=sentence):
            save_checkpoint(**run, **keywords, epoch=epoch)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_spoilt_weights_alone_are_not_saved_either(make_agent, tmp_path) -> None:
    agent = make_agent()
    spoil_a_weight({"agent": agent})
    with pytest.raises(FloatingPointError, match=r"inf in the weights .* none was saved before"):
        save_checkpoint(agent, tmp_path, 2)
    assert not list(tmp_path.iterdir())
    save_checkpoint(make_agent(), tmp_path, 1)
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    for epoch in (1, 2):
        with pytest.raises(FloatingPointError, match=r"the last good one is .*checkpoint_000001\.pt"):
            save_checkpoint(agent, tmp_path, epoch)
    with pytest.raises(FloatingPointError, match=r"weights value_head.layers.0.weight are not all finite"):
        PolicyStore(tmp_path).save(agent, 1)
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == before


def test_a_gradient_is_looked_at_once_all_of_its_losses_are_in(make_agent) -> None:
    agent = make_agent()
    optimizer = Optimizer(policy=agent)
    before = [p.detach().clone() for p in agent.parameters()]
    for steep, sentence in ((0, "nan in the gradient of encoder"), (1, "nan in the gradient of encoder")):
        for turn in range(3):
            weight = agent.encoder.tokens.weight
            wrong = 0 * (weight - weight.detach()).abs().sqrt().sum() if turn == steep else 0
            loss = weight.square().sum() + wrong
            if turn < 2:
                assert optimizer.step(loss, accumulate_steps=3) == {}
                continue
            with pytest.raises(FloatingPointError, match=sentence):
                optimizer.step(loss, accumulate_steps=3)
    assert all(torch.equal(now, then) for now, then in zip(agent.parameters(), before, strict=True))
    assert all(p.grad is None for p in agent.parameters())
    assert optimizer.num_updates == 0


@pytest.mark.parametrize(
    ("part", "term"), [("action_head", "ks_action_loss"), ("value_head", "ks_value_loss")]
)
def test_a_teacher_who_gives_no_number_is_named(
    part, term, make_env, make_agent, make_experience, tmp_path
) -> None:
    save_agent(make_agent(1), teacher := tmp_path / "teacher.pt", {})
    agent = make_agent()
    experience = make_experience(make_env(), agent)
    rollout(experience, agent)
    kickstarter = Kickstarter(KickstartConfig(teacher_uri=str(teacher)), "cpu")
    with torch.no_grad():
        getattr(kickstarter._teachers[0].agent, part).layers[-1].bias[0] = math.nan
    before = [p.detach().clone() for p in agent.parameters()]
    with pytest.raises(FloatingPointError, match=f"^in update 1 there is nan in the term {term}"):
        train_ppo(agent, make_optimizer(agent), experience, kickstarter=kickstarter)
    assert all(torch.equal(now, then) for now, then in zip(agent.parameters(), before, strict=True))


def test_a_memory_that_is_no_number_stops_the_next_step(make_env, make_agent, make_experience) -> None:
    agent = make_agent()
    experience = make_experience(make_env(lengths=(50, 60)), agent)
    rollout(experience, agent, 64)
    spoil_the_memory({"experience": experience})
    with pytest.raises(FloatingPointError, match=r"step 9 of agent 1\) there is nan in the policy's"):
        rollout(experience, agent, 64)


def test_observations_can_hold_no_nan(make_agent) -> None:
    """They are bytes, whatever environment they come from: other numbers are refused."""
    agent = make_agent()
    with pytest.raises(ValueError, match=r"obs is torch\.float32"):
        agent.act(torch.full((2, 4, 3), math.nan), agent.initial_state(2))


def test_an_early_stop_does_not_hide_an_infinite_loss(
    make_env, make_agent, make_experience, monkeypatch
) -> None:
    agent = make_agent()
    experience = make_experience(make_env(), agent)
    rollout(experience, agent)
    config = TrainerConfig(**experience.config.model_dump(), ppo={"target_kl": 1e-3})
    plain = MettaAgent.evaluate

    def evaluate(self: MettaAgent, *args: Any) -> Any:
        out = plain(self, *args)
        out.logprobs = out.logprobs + 200  # the ratio overflows
        return out

    monkeypatch.setattr(MettaAgent, "evaluate", evaluate)
    with pytest.raises(FloatingPointError, match="inf in the term policy_loss"):
        train_ppo(agent, make_optimizer(agent), experience, trainer_cfg=config)
