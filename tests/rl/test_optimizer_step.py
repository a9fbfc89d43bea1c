"""The documented loop's `Optimizer`: backward, accumulation, clipping, update, and everything around it."""

import copy
import math

import pytest
import torch

import metta.rl.finite
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.optimizer import Optimizer, make_lr_scheduler, make_optimizer
from metta.rl.rollout import rollout
from metta.rl.trainer_config import OptimizerConfig
from metta.rl.update import train_ppo

CONSTANTS = {"learning_rate": 0.05, "eps": 0.1, "betas": (0.5, 0.9), "weight_decay": 0.01}


def loss_of(agent, seed: int, rows: slice = slice(None)) -> torch.Tensor:
    """A mean over the rows of random segments that every weight has a part in."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randint(0, 3, (6, 5, 4, 3), generator=generator, dtype=torch.uint8)
    dones = torch.rand(6, 5, generator=generator) < 0.3
    actions = torch.zeros(6, 5, 2, dtype=torch.int64)
    state = agent.initial_state(6).index(rows)
    out = agent.evaluate(obs[rows], state, dones[rows], actions[rows])
    return (out.values - 1).pow(2).mean() - out.logprobs.mean()


def vector(agent) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(agent.parameters()).detach().clone()


@pytest.mark.parametrize("kind", ["adam", "muon"])
@pytest.mark.parametrize("max_grad_norm", [0.0, 0.05])
def test_accumulated_gradients_are_those_of_one_big_batch(make_agent, kind, max_grad_norm) -> None:
    def train(parts: int) -> tuple[torch.Tensor, list[dict[str, float]]]:
        agent = make_agent().double()
        optimizer = Optimizer(kind, policy=agent, max_grad_norm=max_grad_norm, **CONSTANTS)
        results = []
        size = 6 // parts
        for update in range(3):
            for part in range(parts):
                loss = loss_of(agent, update, slice(part * size, (part + 1) * size))
                results.append(optimizer.step(loss, 0, accumulate_steps=parts))
        assert optimizer.num_updates == 3
        return vector(agent), results

    whole, plain = train(1)
    for parts in (2, 3, 6):
        accumulated, results = train(parts)
        torch.testing.assert_close(accumulated, whole, rtol=1e-9, atol=1e-11)
        assert [bool(result) for result in results] == ([False] * (parts - 1) + [True]) * 3
        norms = [result["grad_norm"] for result in results if result]
        assert norms == pytest.approx([result["grad_norm"] for result in plain], rel=1e-9)


def test_nothing_is_left_of_a_gradient_after_its_update(make_agent) -> None:
    def train(count: int) -> torch.Tensor:
        agent = make_agent()
        optimizer = Optimizer(policy=agent, **CONSTANTS)
        agent.l2_reg_loss().backward()
        optimizer.zero_grad()
        for seed in range(count):
            optimizer.step(loss_of(agent, seed), 0)
        assert all(p.grad is None for p in agent.parameters())
        return vector(agent)

    agent = make_agent()
    plain = make_optimizer(
        agent, OptimizerConfig(learning_rate=0.05, eps=0.1, beta1=0.5, beta2=0.9, weight_decay=0.01)
    )
    for seed in range(3):
        plain.zero_grad()
        loss_of(agent, seed).backward()
        torch.nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
        plain.step()
    assert torch.equal(train(3), vector(agent))


def test_the_gradient_is_clipped_and_its_norm_told(make_agent) -> None:
    def first_moment(max_grad_norm: float) -> tuple[float, float]:
        agent = make_agent()
        optimizer = Optimizer(policy=agent, betas=(0.0, 0.9), max_grad_norm=max_grad_norm)
        told = optimizer.step(loss_of(agent, 0), 0)["grad_norm"]
        moments = [optimizer.state[p]["exp_avg"].flatten() for p in agent.parameters()]
        return float(torch.cat(moments).norm()), told

    moved, norm = first_moment(0)
    assert moved == pytest.approx(norm, rel=1e-5)
    moved, told = first_moment(norm / 7)
    assert moved == pytest.approx(norm / 7, rel=1e-4)
    assert told == pytest.approx(norm, rel=1e-5)


def test_clip_range_clamps_each_loss_s_gradient_before_the_mean(make_agent) -> None:
    """So its meaning does not depend on how many losses make an update."""
    limit = 0.01
    agent = make_agent(clip_range=limit)
    optimizer = Optimizer(policy=agent, betas=(0.0, 0.9), max_grad_norm=0)
    for part in (slice(0, 3), slice(3, 6)):
        optimizer.step(loss_of(agent, 0, part), 0, accumulate_steps=2)
    free = make_agent()
    expected = []
    for part in (slice(0, 3), slice(3, 6)):
        free.zero_grad()
        loss_of(free, 0, part).backward()
        expected.append(torch.cat([p.grad.flatten().clamp(-limit, limit) for p in free.parameters()]))
    assert float(expected[0].abs().max()) == pytest.approx(limit)
    moments = torch.cat([optimizer.state[p]["exp_avg"].flatten() for p in agent.parameters()])
    torch.testing.assert_close(moments, (expected[0] + expected[1]) / 2)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused_and_forgotten(make_agent, number) -> None:
    agent, twin = make_agent(), make_agent()
    optimizers = [Optimizer(policy=one, **CONSTANTS) for one in (agent, twin)]
    before = vector(agent)
    optimizers[0].step(loss_of(agent, 0), 7, accumulate_steps=3)
    with pytest.raises(
        FloatingPointError,
        match=rf"in update 1 \(epoch 7\) there is {number} in the loss, and the weights were left alone: start",
    ):
        optimizers[0].step(loss_of(agent, 0) * number, 7, accumulate_steps=3)
    assert torch.equal(vector(agent), before)
    for one, optimizer in zip((agent, twin), optimizers, strict=True):
        optimizer.step(loss_of(one, 1), 8)
    assert torch.equal(vector(agent), vector(twin))


def test_a_gradient_that_is_not_finite_is_refused(make_agent) -> None:
    agent = make_agent()
    optimizer = Optimizer(policy=agent)
    before = vector(agent)
    loss = loss_of(agent, 0)
    steep = (agent.value_head.layers[-1].bias * 0).abs().sqrt().sum()
    with pytest.raises(
        FloatingPointError,
        match=r"in update 1 \(epoch 2\) there is nan in the gradient of value_head.layers.1.bias",
    ):
        optimizer.step(loss + steep, 2)
    assert torch.equal(vector(agent), before)
    assert all(p.grad is None for p in agent.parameters())


def test_what_is_not_finite_in_another_process_stops_this_one_too(make_agent, monkeypatch) -> None:
    agent = make_agent()
    optimizer = Optimizer(policy=agent)
    before = vector(agent)
    monkeypatch.setattr(metta.rl.finite, "any_rank", lambda flag: True)
    with pytest.raises(
        FloatingPointError, match="there is nan or inf in another process, and the weights were left alone"
    ):
        optimizer.step(loss_of(agent, 0), 0)
    assert torch.equal(vector(agent), before)


@pytest.mark.parametrize("kind", ["adam", "muon"])
@pytest.mark.parametrize("stop", [2, 3], ids=["between updates", "within an update"])
def test_goes_on_exactly_from_a_checkpoint(make_agent, tmp_path, kind, stop) -> None:
    def make(seed: int, rate: float):
        agent = make_agent(seed)
        optimizer = Optimizer(kind, policy=agent, **{**CONSTANTS, "learning_rate": rate})
        return agent, optimizer, make_lr_scheduler(optimizer, 800, 100)

    def go(run, steps) -> None:
        agent, optimizer, scheduler = run
        for step in steps:
            if optimizer.step(loss_of(agent, step), 0, accumulate_steps=2):
                scheduler.step()

    whole = make(0, 0.05)
    go(whole, range(stop))
    save_checkpoint(
        whole[0],
        epoch=1,
        agent_step=100,
        optimizer=whole[1],
        lr_scheduler=whole[2],
        policy_store=None,
        checkpoint_path=tmp_path,
        checkpoint_interval=1,
    )
    go(whole, range(stop, 8))
    resumed = make(1, 0.05)
    load_checkpoint(resumed[0], checkpoint_dir=tmp_path, optimizer=resumed[1], lr_scheduler=resumed[2])
    assert resumed[1].num_updates == 1
    go(resumed, range(stop, 8))
    assert torch.equal(vector(whole[0]), vector(resumed[0]))
    assert [g["lr"] for g in resumed[1].param_groups] == [g["lr"] for g in whole[1].param_groups]
    assert whole[1].num_updates == resumed[1].num_updates == 4


def test_takes_over_from_the_plain_optimizer_and_back(make_agent) -> None:
    agent = make_agent()
    plain = make_optimizer(agent, OptimizerConfig(learning_rate=0.05))
    loss_of(agent, 0).backward()
    plain.step()
    ours = Optimizer(policy=agent)
    ours.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert ours.param_groups[0]["lr"] == 0.05
    assert torch.equal(
        ours.state[next(agent.parameters())]["exp_avg"], plain.state[next(agent.parameters())]["exp_avg"]
    )
    plain.load_state_dict({name: ours.state_dict()[name] for name in ("state", "param_groups")})


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_train_ppo_takes_it_like_any_other(make_env, make_agent, make_experience, kind) -> None:
    def train(make) -> torch.Tensor:
        agent = make_agent()
        experience = make_experience(make_env(), agent)
        rollout(experience, agent)
        train_ppo(agent, make(agent), experience, update_epochs=2)
        return vector(agent)

    ours = train(lambda agent: Optimizer(kind, policy=agent, learning_rate=0.01))
    plain = train(lambda agent: make_optimizer(agent, OptimizerConfig(type=kind, learning_rate=0.01)))
    assert torch.equal(ours, plain)


def test_the_agent_does_what_is_due_after_an_update(make_agent) -> None:
    agent = make_agent(analyze_weights_interval=2, l2_init_weight_update_interval=3)
    optimizer = Optimizer(policy=agent)
    results = [optimizer.step(loss_of(agent, seed), 0, accumulate_steps=2) for seed in range(6)]
    sizes = [len(result) for result in results]
    assert sizes[::2] == [0, 0, 0]
    assert sizes[1] == sizes[5] == 2 < sizes[3]
    assert float(agent.l2_init_loss().detach()) == 0


def test_senseless_arguments_are_refused(make_agent) -> None:
    agent = make_agent()
    with pytest.raises(ValueError, match="max_grad_norm=-1"):
        Optimizer(policy=agent, max_grad_norm=-1)
    with pytest.raises(ValueError, match="learning_rate"):
        Optimizer(policy=agent, learning_rate=0)
    with pytest.raises(ValueError, match="adam"):
        Optimizer("sgd", policy=agent)
    with pytest.raises(ValueError, match="policy is a dict, which has no weights"):
        Optimizer(policy={})
    with pytest.raises(ValueError, match="accumulate_steps=0"):
        Optimizer(policy=agent).step(loss_of(agent, 0), 0, accumulate_steps=0)
