"""Adam, Muon, schedules and gradient statistics."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from metta.rl.muon import MuonWithAdam, hidden_matrices
from metta.rl.optimizer import compute_gradient_stats, make_lr_scheduler, make_optimizer
from metta.rl.trainer_config import OptimizerConfig


def fill_gradients(module: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def change_of(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, torch.Tensor]:
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer.step()
    return {name: parameter.detach() - before[name] for name, parameter in module.named_parameters()}


def test_adam_has_the_configured_constants(make_agent) -> None:
    optimizer = make_optimizer(
        make_agent(),
        OptimizerConfig(learning_rate=0.1, beta1=0.2, beta2=0.3, eps=0.4, weight_decay=0.5),
    )
    assert type(optimizer) is torch.optim.Adam
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.1, (0.2, 0.3), 0.4, 0.5)
    (default,) = make_optimizer(make_agent()).param_groups
    assert (default["lr"], default["betas"], default["eps"], default["weight_decay"]) == (
        0.000457,
        (0.9, 0.999),
        1e-12,
        0,
    )


def test_muon_takes_the_hidden_matrices_and_adam_the_rest(make_agent) -> None:
    agent = make_agent(mlp_layers=3, lstm_layers=2)
    names = {id(parameter): name for name, parameter in agent.named_parameters()}
    chosen = {names[id(parameter)]: stacked for parameter, stacked in hidden_matrices(agent)}
    heads = {f"{head}_head.layers.{i}.weight": 1 for head in ("action", "value") for i in (0, 1)}
    core = {f"core.layers.{i}.weight_{kind}": 4 for i in (0, 1) for kind in ("ih", "hh")}
    assert chosen == {"encoder.project.weight": 1, **core, **heads}
    optimizer = make_optimizer(agent, OptimizerConfig(type="muon"))
    muon, adam = optimizer.param_groups
    assert {names[id(p)] for p in muon["params"]} == set(chosen)
    assert {names[id(p)] for p in adam["params"]} == set(names.values()) - set(chosen)


def test_muon_moves_every_direction_of_a_matrix_about_equally_far(make_agent) -> None:
    """One direction of the gradient is eleven times as strong as the others; the update does not care."""
    agent = make_agent(hidden_dim=32)
    rate = 0.1
    optimizer = make_optimizer(agent, OptimizerConfig(type="muon", learning_rate=rate))
    generator = torch.Generator().manual_seed(0)
    fill_gradients(agent)
    for parameter, stacked in hidden_matrices(agent):
        for part in parameter.grad.chunk(stacked):
            nn.init.orthogonal_(part, generator=generator)
            part += 10 * torch.outer(part[:, 0], torch.eye(part.shape[1])[0])
            assert float(torch.linalg.cond(part)) > 10
    changes = change_of(optimizer, agent)
    for parameter, stacked in hidden_matrices(agent):
        name = next(name for name, p in agent.named_parameters() if p is parameter)
        for part in changes[name].chunk(stacked):
            singular = torch.linalg.svdvals(part) / (rate * 0.2 * math.sqrt(max(part.shape)))
            assert float(singular.min()) > 0.5, name
            assert float(singular.max()) < 1.5, name
            # As large as Adam's steps: the root mean square is about 0.2 learning rates.
            assert float(part.pow(2).mean().sqrt()) == pytest.approx(0.2 * rate, rel=0.3)


def test_muon_is_torchs_own_on_a_plain_matrix() -> None:
    torch.manual_seed(0)
    matrix = nn.Parameter(torch.randn(6, 9))
    twin = nn.Parameter(matrix.detach().clone())
    options = {"lr": 0.1, "weight_decay": 0.01, "momentum": 0.9, "adjust_lr_fn": "match_rms_adamw"}
    ours = MuonWithAdam([(matrix, 1)], [], muon=options, adam={})
    torchs = torch.optim.Muon([twin], **options)
    for step in range(4):
        matrix.grad = torch.randn(6, 9, generator=torch.Generator().manual_seed(step))
        twin.grad = matrix.grad.clone()
        ours.step()
        torchs.step()
        assert torch.equal(matrix, twin)


def test_convolution_kernels_count_as_matrices() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    optimizer = make_optimizer(model, OptimizerConfig(type="muon", learning_rate=1.0))
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [(8, 8, 3, 3)]
    fill_gradients(model)
    change = change_of(optimizer, model)["1.weight"]
    singular = torch.linalg.svdvals(change.flatten(1)) / (0.2 * math.sqrt(72))
    assert 0.5 < float(singular.min()) <= float(singular.max()) < 1.5


def test_muon_continues_from_its_saved_state(make_agent) -> None:
    agent = make_agent()
    optimizer = make_optimizer(agent, OptimizerConfig(type="muon", learning_rate=0.1))
    for step in range(2):
        fill_gradients(agent, step)
        optimizer.step()
    twin = copy.deepcopy(agent)
    resumed = make_optimizer(twin, OptimizerConfig(type="muon", learning_rate=0.7))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(2, 4):
        for module, its in ((agent, optimizer), (twin, resumed)):
            fill_gradients(module, step)
            its.step()
    for a, b in zip(agent.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(group["lr"] == 0.1 for group in resumed.param_groups)


def test_muon_skips_what_has_no_gradient_and_zero_grad_clears(make_agent) -> None:
    agent = make_agent()
    optimizer = make_optimizer(agent, OptimizerConfig(type="muon"))
    fill_gradients(agent)
    optimizer.zero_grad()
    assert all(float(change.abs().sum()) == 0 for change in change_of(optimizer, agent).values())
    fill_gradients(agent)
    agent.core.layers[0].weight_hh.grad = None
    moved = {name for name, change in change_of(optimizer, agent).items() if float(change.abs().sum())}
    assert moved == {name for name, _ in agent.named_parameters()} - {"core.layers.0.weight_hh"}


def test_muon_evaluates_a_closure() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    optimizer = make_optimizer(model, OptimizerConfig(type="muon", learning_rate=0.02))
    inputs, targets = torch.randn(32, 3), torch.randn(32, 1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(inputs) - targets).pow(2).mean()
        loss.backward()
        return loss.detach()

    first = float(optimizer.step(closure))
    for _ in range(20):
        last = float(optimizer.step(closure))
    assert last < first


def test_muon_without_a_hidden_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match='"muon" needs hidden weight matrices'):
        make_optimizer(nn.Linear(3, 3), OptimizerConfig(type="muon"))


def factors(model, kind="adam", **arguments) -> list[list[float]]:
    optimizer = make_optimizer(model, OptimizerConfig(type=kind, learning_rate=0.5))
    scheduler = make_lr_scheduler(optimizer, **arguments)
    used = []
    for _ in range(8):
        used.append([group["lr"] / 0.5 for group in optimizer.param_groups])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fill_gradients(model)
            optimizer.step()
            scheduler.step()
    return used


@pytest.mark.parametrize(("kind", "groups"), [("adam", 1), ("muon", 2)])
def test_schedules_take_every_group_to_zero(make_agent, kind, groups) -> None:
    used = factors(make_agent(), kind, total_timesteps=390, batch_size=100)
    np.testing.assert_allclose(used, [[f] * groups for f in (1, 0.75, 0.5, 0.25, 0, 0, 0, 0)])
    used = factors(make_agent(), kind, total_timesteps=400, batch_size=100, schedule_type="cosine")
    half = math.sqrt(0.5) / 2
    expected = (1, 0.5 + half, 0.5, 0.5 - half, 0, 0, 0, 0)
    np.testing.assert_allclose(used, [[f] * groups for f in expected], atol=1e-12)


def test_warm_up_rises_before_the_way_down(make_agent) -> None:
    used = factors(make_agent(), total_timesteps=600, batch_size=100, warmup_steps=150)
    np.testing.assert_allclose(used, [[f] for f in (1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25, 0, 0)])


def test_a_schedule_continues_from_its_saved_state(make_agent) -> None:
    optimizer = make_optimizer(make_agent())
    arguments = {"total_timesteps": 1000, "batch_size": 100, "warmup_steps": 200}
    scheduler = make_lr_scheduler(optimizer, **arguments)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    other = make_optimizer(make_agent())
    other.load_state_dict(optimizer.state_dict())
    resumed = make_lr_scheduler(other, **arguments)
    resumed.load_state_dict(scheduler.state_dict())
    for _ in range(3):
        for opt, sched in ((optimizer, scheduler), (other, resumed)):
            opt.step()
            sched.step()
        assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_a_schedule_goes_on_with_batches_of_another_size(make_agent) -> None:
    optimizer = make_optimizer(make_agent(), OptimizerConfig(learning_rate=1.0))
    scheduler = make_lr_scheduler(optimizer, 1000, 100)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    resumed = make_lr_scheduler(optimizer, 1000, 200)
    resumed.load_state_dict(scheduler.state_dict())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.6)
    for _ in range(2):
        optimizer.step()
        resumed.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)


def test_a_schedule_that_makes_no_sense_is_refused(make_agent) -> None:
    optimizer = make_optimizer(make_agent())
    assert make_lr_scheduler(optimizer, 100, 10, anneal_lr=False) is None
    with pytest.raises(ValueError, match="warmup_steps=100 takes 10 batches of the run's 10"):
        make_lr_scheduler(optimizer, 100, 10, warmup_steps=100)
    with pytest.raises(ValueError, match="'exponential'; known are"):
        make_lr_scheduler(optimizer, 100, 10, schedule_type="exponential")
    with pytest.raises(ValueError, match="total_timesteps=0"):
        make_lr_scheduler(optimizer, 0, 10)


def test_gradient_statistics_by_hand() -> None:
    model = nn.Module()
    model.a = nn.Parameter(torch.tensor([3.0, 4.0]))
    model.b = nn.Parameter(torch.tensor([[0.0, 5.0], [12.0, 0.0]]))
    model.without = nn.Parameter(torch.ones(9))
    assert compute_gradient_stats(model) == {
        "grad_norm_mean": 0.0,
        "grad_norm_max": 0.0,
        "grad_norm_min": 0.0,
        "param_norm_mean": (5 + 13 + 3) / 3,
    }
    model.a.grad = torch.tensor([0.0, 2.0])
    model.b.grad = torch.tensor([[6.0, 0.0], [0.0, 8.0]])
    assert compute_gradient_stats(model) == {
        "grad_norm_mean": 6.0,
        "grad_norm_max": 10.0,
        "grad_norm_min": 2.0,
        "param_norm_mean": 9.0,
    }
