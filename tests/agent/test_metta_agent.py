import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from agent_cases import PLAIN_GRAPH, RICH_GRAPH, SPEC, make_agent, random_segments, random_tokens
from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.outputs import ActOutput
from metta.agent.state import PolicyState

VARIANTS = [
    {},
    {"backbone": "mlp", "lstm_layers": 2, "mlp_layers": 3},
    {"forward_lstm": False},
    {"obs_process_func": "pool_obs_dict", "bptt_horizon": 3},
    {"path": "plain"},
    {"components": RICH_GRAPH},
    {"components": PLAIN_GRAPH},
]


def act_along(
    agent: MettaAgent, obs: torch.Tensor, start: PolicyState, dones: torch.Tensor, seed: int = 0
) -> tuple[list[ActOutput], torch.Tensor]:
    """What a rollout does: tick by tick, forgetting after every episode end. Outputs and actions `[B, T, 2]`."""
    generator = torch.Generator().manual_seed(seed)
    outputs, state = [], start
    for t in range(obs.shape[1]):
        starts = dones[:, t - 1] if t else None
        outputs.append(agent.act(obs[:, t], state, starts, generator=generator))
        state = outputs[-1].state
    return outputs, torch.stack([out.actions for out in outputs], 1)


def noise_state(agent: MettaAgent, batch: int, seed: int = 0) -> PolicyState:
    generator = torch.Generator().manual_seed(seed)
    empty = agent.initial_state(batch)
    return PolicyState(*(torch.randn(empty.h.shape, generator=generator).to(empty.h) for _ in range(2)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_ratio_one(variant: dict[str, object]) -> None:
    agent = make_agent(**variant)
    obs, dones, _ = random_segments(agent, np.random.default_rng(0), 9, 12)
    assert dones[:, :-1].any()
    start = noise_state(agent, 9)
    outputs, actions = act_along(agent, obs, start, dones)
    judged = agent.evaluate(obs, start, dones, actions)
    logprobs = torch.stack([out.logprobs for out in outputs], 1)
    assert logprobs.std() > 0.1, "a policy this uniform would hide mistakes"
    assert (judged.logprobs - logprobs).abs().max() < 1e-4
    values = torch.stack([out.values for out in outputs], 1)
    torch.testing.assert_close(judged.values, values, atol=1e-4, rtol=1e-4)
    last = outputs[-1].state.zeroed(dones[:, -1])
    torch.testing.assert_close(judged.state.h, last.h, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(judged.state.c, last.c, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_before_an_episode_end_reaches_behind_it(variant: dict[str, object]) -> None:
    agent = make_agent(**variant)
    rng = np.random.default_rng(1)
    obs, dones, actions = random_segments(agent, rng, 3, 8, 0.0)
    dones[1, 4] = True
    start, other_start = noise_state(agent, 3, 0), noise_state(agent, 3, 1)
    other = obs.clone()
    other[:, :5] = random_tokens(rng, 15).view(3, 5, -1, 3)
    before, after = (agent.evaluate(o, s, dones, actions) for o, s in ((obs, start), (other, other_start)))
    for name in ("logprobs", "values", "entropies"):
        ours, theirs = getattr(before, name), getattr(after, name)
        assert torch.equal(ours[1, 5:], theirs[1, 5:]), name
        assert not torch.equal(ours[:, :5], theirs[:, :5]), name
        if agent.core is not None:
            assert not torch.isclose(ours[0, 5:], theirs[0, 5:]).all(), name
    assert torch.equal(before.state.h[:, 1], after.state.h[:, 1])
    acted, other_acted = (act_along(agent, o, s, dones)[0] for o, s in ((obs, start), (other, other_start)))
    for ours, theirs in zip(acted[5:], other_acted[5:], strict=True):
        assert torch.equal(ours.values[1], theirs.values[1])
        assert torch.equal(ours.logprobs[1], theirs.logprobs[1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_neighbours_in_a_batch_do_not_matter(variant: dict[str, object]) -> None:
    agent = make_agent(**variant).double()
    rng = np.random.default_rng(2)
    obs, dones, actions = random_segments(agent, rng, 6, 5)
    start = noise_state(agent, 6)
    everyone = agent.evaluate(obs, start, dones, actions)
    order = torch.tensor([3, 0, 5])
    some = agent.evaluate(obs[order], start.index(order), dones[order], actions[order])
    for name in ("logprobs", "values", "entropies"):
        torch.testing.assert_close(getattr(some, name), getattr(everyone, name)[order], atol=1e-12, rtol=0)
    acted = agent.act(obs[:, 0], start, dones[:, 0], deterministic=True)
    alone = agent.act(obs[order, 0], start.index(order), dones[order, 0], deterministic=True)
    assert torch.equal(alone.actions, acted.actions[order])
    torch.testing.assert_close(alone.values, acted.values[order], atol=1e-12, rtol=0)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if "path" not in v])
def test_fast_and_plain_are_one_function_with_one_gradient(variant: dict[str, object]) -> None:
    rng = np.random.default_rng(3)
    results = []
    obs, dones, actions = random_segments(make_agent(), rng, 5, 7)
    for path in ("fast", "plain"):
        agent = make_agent(path=path, **variant).double()
        judged = agent.evaluate(obs, noise_state(agent, 5), dones, actions)
        loss = judged.logprobs.mean() + judged.values.square().mean() + judged.entropies.mean()
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in agent.parameters())])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_weight_gets_a_gradient_and_moves(variant: dict[str, object]) -> None:
    agent = make_agent(**variant)
    obs, dones, actions = random_segments(agent, np.random.default_rng(4), 8, 8)
    judged = agent.evaluate(obs, noise_state(agent, 8), dones, actions)
    (judged.logprobs.mean() + judged.values.square().mean()).backward()
    before = {name: p.detach().clone() for name, p in agent.named_parameters()}
    torch.optim.Adam(agent.parameters(), 1e-3).step()
    for name, p in agent.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 0, name
        assert not torch.equal(p, before[name]), name


def test_only_legal_pairs_are_chosen_as_often_as_their_probability_says() -> None:
    agent = make_agent()
    num_draws = 10_000
    obs = random_tokens(np.random.default_rng(5), 1).expand(num_draws, -1, -1)
    out = agent.act(obs, agent.initial_state(num_draws), generator=torch.Generator().manual_seed(0))
    seen, counts = out.actions.unique(dim=0, return_counts=True)
    legal = torch.tensor(SPEC.legal_actions)
    assert set(map(tuple, seen.tolist())) <= set(SPEC.legal_actions)
    one = agent.evaluate(
        obs[:1].expand(len(legal), -1, -1).unsqueeze(1),
        agent.initial_state(len(legal)),
        torch.zeros(len(legal), 1, dtype=torch.bool),
        legal.unsqueeze(1),
    )
    probabilities = one.logprobs[:, 0].exp().detach()
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-5)
    expected = dict(zip(SPEC.legal_actions, probabilities.tolist(), strict=True))
    for pair, count in zip(seen.tolist(), counts.tolist(), strict=True):
        p = expected.pop(tuple(pair))
        assert abs(count - num_draws * p) < 5 * (num_draws * p * (1 - p)) ** 0.5 + 5
    assert all(num_draws * p < 10 for p in expected.values())


def test_deterministic_takes_the_most_probable() -> None:
    agent = make_agent()
    obs = random_tokens(np.random.default_rng(6), 1)
    legal = torch.tensor(SPEC.legal_actions)
    logprobs = agent.evaluate(
        obs.expand(len(legal), -1, -1).unsqueeze(1),
        agent.initial_state(len(legal)),
        torch.zeros(len(legal), 1, dtype=torch.bool),
        legal.unsqueeze(1),
    ).logprobs
    chosen = agent.act(obs, agent.initial_state(1), deterministic=True)
    assert chosen.actions[0].tolist() == legal[logprobs.argmax()].tolist()
    assert chosen.logprobs.item() == pytest.approx(logprobs.max().item(), abs=1e-5)


def test_a_generator_decides_everything_random() -> None:
    obs = random_tokens(np.random.default_rng(7), 30)
    draws = []
    for weights, seed in ((1, 1), (1, 1), (1, 2), (2, 1)):
        agent = make_agent(seed=weights)
        torch.manual_seed(len(draws))
        draws.append(
            agent.act(obs, agent.initial_state(30), generator=torch.Generator().manual_seed(seed)).actions
        )
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])


def test_building_with_a_generator_leaves_the_random_numbers_of_torch_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    copy.deepcopy(make_agent())
    assert torch.equal(torch.rand(3), expected)


def test_value_is_what_act_says_and_keeps_the_state() -> None:
    agent = make_agent()
    obs = random_tokens(np.random.default_rng(8), 4)
    state = noise_state(agent, 4)
    kept = state.clone()
    values = agent.value(obs, state)
    out = agent.act(obs, state, torch.tensor([False, False, True, False]))
    assert torch.equal(state.h, kept.h)
    assert torch.equal(state.c, kept.c)
    torch.testing.assert_close(values[[0, 1, 3]], out.values[[0, 1, 3]])
    assert values[2] != out.values[2]
    assert not values.requires_grad
    fresh = agent.act(obs, agent.initial_state(4))
    assert torch.equal(fresh.values[2], out.values[2])


def test_shapes_and_dtypes() -> None:
    agent = make_agent(lstm_layers=2)
    obs, dones, actions = random_segments(agent, np.random.default_rng(9), 3, 4)
    out = agent.act(obs[:, 0], agent.initial_state(3))
    assert (out.actions.dtype, list(out.actions.shape)) == (torch.int64, [3, 2])
    assert (out.logprobs.dtype, list(out.logprobs.shape)) == (torch.float32, [3])
    assert (out.values.dtype, list(out.values.shape)) == (torch.float32, [3])
    assert list(out.state.h.shape) == [2, 3, 24]
    judged = agent(obs, agent.initial_state(3), dones, actions.int())
    for tensor in (judged.logprobs, judged.entropies, judged.values):
        assert (tensor.dtype, list(tensor.shape), tensor.requires_grad) == (torch.float32, [3, 4], True)
    assert list(make_agent(forward_lstm=False).initial_state(5).h.shape) == [0, 5, 24]


def test_any_number_of_tokens_is_read() -> None:
    agent = make_agent()
    obs = random_tokens(np.random.default_rng(10), 4)
    longer = torch.cat([obs, torch.full((4, 40, 3), 255, dtype=torch.uint8)], 1)
    assert torch.equal(agent.value(obs, agent.initial_state(4)), agent.value(longer, agent.initial_state(4)))


def test_half_precision_stays_close_in_both_directions() -> None:
    rng = np.random.default_rng(11)
    obs, dones, actions = random_segments(make_agent(), rng, 6, 6)
    grads, outputs = [], []
    for path in ("fast", "plain"):
        for half in (False, True):
            agent = make_agent(dtypes_fp16=half, path=path)
            judged = agent.evaluate(obs, noise_state(agent, 6), dones, actions)
            (judged.logprobs.mean() + judged.values.square().mean()).backward()
            outputs.append(judged.values.detach())
            grads.append(torch.cat([p.grad.flatten() for p in agent.parameters() if p.grad is not None]))
    single = grads[0]
    for half_grads, values in ((grads[1], outputs[1]), (grads[3], outputs[3])):
        assert 0 < (values - outputs[0]).abs().max() < 0.2
        assert torch.nn.functional.cosine_similarity(half_grads, single, dim=0) > 0.98


def test_a_copy_keeps_weights_and_gradient_clipping() -> None:
    agent = make_agent(clip_range=1e-6)
    twin = copy.deepcopy(agent)
    obs, dones, actions = random_segments(agent, np.random.default_rng(12), 3, 4)
    judged = twin.evaluate(obs, twin.initial_state(3), dones, actions)
    assert torch.equal(judged.values, agent.evaluate(obs, agent.initial_state(3), dones, actions).values)
    judged.values.sum().backward()
    assert max(p.grad.abs().max().item() for p in twin.parameters() if p.grad is not None) == pytest.approx(
        1e-6
    )
    assert all(p.grad is None for p in agent.parameters())


def test_both_l2_losses() -> None:
    agent = make_agent()
    weights = torch.cat([p.detach().flatten() for p in agent.parameters()])
    fresh = MettaAgent(SPEC, AgentModelConfig(hidden_dim=24), generator=torch.Generator().manual_seed(0))
    assert fresh.l2_init_loss().item() == 0.0
    assert agent.l2_reg_loss().item() == pytest.approx(weights.square().mean().item(), rel=1e-5)
    with torch.no_grad():
        for p in fresh.parameters():
            p.add_(0.5)
    loss = fresh.l2_init_loss()
    assert loss.item() == pytest.approx(0.25, rel=1e-4)
    loss.backward()
    count = sum(p.numel() for p in fresh.parameters())
    for p in fresh.parameters():
        torch.testing.assert_close(p.grad, torch.full_like(p, 1.0 / count), rtol=1e-3, atol=0)
    fresh.update_reference()
    assert fresh.l2_init_loss().item() == 0.0


def test_weight_statistics_tell_what_moved_and_what_died() -> None:
    agent = make_agent(analyze_weights_interval=1)
    agent.update_reference()
    obs, dones, actions = random_segments(agent, np.random.default_rng(13), 4, 4)
    with torch.no_grad():
        agent.encoder.project.bias[:6] = -1e6
        agent.value_head.layers[0].weight.mul_(2.0)  # type: ignore[operator, union-attr]
    agent.evaluate(obs, agent.initial_state(4), dones, actions)
    stats = agent.after_update(1)
    assert stats["weights/dead_units"] >= 6 / 24
    assert stats["weights/value_head.layers.0.weight/moved"] == pytest.approx(1.0, rel=1e-4)
    assert stats["weights/action_head.layers.0.weight/moved"] == 0.0
    weights = torch.cat([p.detach().flatten() for p in agent.parameters()])
    assert stats["weights/norm"] == pytest.approx(weights.norm().item(), rel=1e-4)


@pytest.mark.parametrize(
    "obs",
    [
        torch.zeros(2, 60, 3),
        torch.zeros(2, 60, 4, dtype=torch.uint8),
        torch.zeros(60, 3, dtype=torch.uint8),
        torch.zeros(2, 5, 60, 3, dtype=torch.uint8),
    ],
)
def test_observations_that_are_none_are_refused(obs: torch.Tensor) -> None:
    agent = make_agent()
    with pytest.raises(
        ValueError, match=r"obs is torch\.\w+ of shape \[.*\], but this agent reads .* \[B, K, 3\]"
    ):
        agent.act(obs, agent.initial_state(2))
    with pytest.raises(ValueError, match=r"obs is torch\.\w+ of shape"):
        agent.value(obs, agent.initial_state(2))


def test_a_state_for_other_rows_is_refused() -> None:
    agent = make_agent()
    obs = random_tokens(np.random.default_rng(14), 3)
    with pytest.raises(ValueError, match=r"state holds 2 rows .* obs has 3"):
        agent.act(obs, agent.initial_state(2))
    with pytest.raises(ValueError, match=r"state holds 4 rows .* obs has 3"):
        agent.value(obs, agent.initial_state(4))


def test_evaluate_refuses_what_does_not_fit() -> None:
    agent = make_agent()
    obs, dones, actions = random_segments(agent, np.random.default_rng(15), 3, 4)
    state = agent.initial_state(3)
    with pytest.raises(ValueError, match=r"actions contains \(3, 5\), which is not legal"):
        agent.evaluate(obs, state, dones, torch.full_like(actions, 3).add_(torch.tensor([0, 2])))
    with pytest.raises(ValueError, match=r"dones is .*\[3, 3\], .* \[3, 4\]"):
        agent.evaluate(obs, state, dones[:, 1:], actions)
    with pytest.raises(ValueError, match=r"actions is .*\[3, 4\], .* \[3, 4, 2\]"):
        agent.evaluate(obs, state, dones, actions[..., 0])


def test_importing_the_agent_loads_no_compiler() -> None:
    code = "import sys, metta.agent.serialize, metta.agent.metta_agent; print('numba' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
