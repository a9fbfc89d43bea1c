"""A policy acts by names: in a world with other ids it does what it did at home."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agent_cases import (
    RICH_GRAPH,
    SPEC,
    make_agent,
    make_spec,
    observation,
    random_segments,
    random_tokens,
    token,
)
from metta.agent.metta_agent import MettaAgent
from metta.agent.remap import remap
from metta.agent.serialize import load_agent, load_weights, save_agent
from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, ObjectConfig
from metta.mettagrid.spec import EnvSpec, Feature
from metta.mettagrid.vec import VecEnv

HOME = replace(SPEC, object_type_names=("agent", "wall", "mine_red", "", "altar"))

# The same names in another order, by the author of this test.
ACTIONS = [6, 2, 0, 5, 1, 4, 3]  # which of home's actions has this id there
ITEMS = (2, 0, 1)
KINDS = ("altar", "agent", "", "wall", "mine_red")
FEATURES = list(np.random.default_rng(5).permutation(len(HOME.features)))  # id there of home's feature

AWAY = replace(
    HOME,
    action_names=tuple(HOME.action_names[i] for i in ACTIONS),
    max_action_args=tuple(HOME.max_action_args[i] for i in ACTIONS),
    features=tuple(
        sorted(
            (Feature(int(FEATURES[f.id]), f.name, f.normalization) for f in HOME.features), key=lambda f: f.id
        )
    ),
    object_type_names=KINDS,
    item_names=tuple(HOME.item_names[i] for i in ITEMS),
)


def reward_byte(items: tuple[str, ...], rewarded: set[str]) -> int:
    return sum(1 << (7 - i) for i, item in enumerate(items) if item in rewarded)


def sent_away(tokens: torch.Tensor) -> torch.Tensor:
    """What the world away shows of the same things."""
    result = tokens.clone()
    names = {f.id: f.name for f in HOME.features}
    for row in result.view(-1, 3):
        location, feature, value = row.tolist()
        if location == 255 or feature not in names:
            continue
        if names[feature] == "type_id" and value < 5 and HOME.object_type_names[value]:
            value = KINDS.index(HOME.object_type_names[value])
        elif names[feature] == "last_action" and value < 7:
            value = ACTIONS.index(value)
        elif names[feature] == "resource_rewards":
            rewarded = {item for i, item in enumerate(HOME.item_names) if value >> (7 - i) & 1}
            value = reward_byte(AWAY.item_names, rewarded)
        row[1], row[2] = int(FEATURES[feature]), value
    return result


def home_tokens(seed: int, num_rows: int) -> torch.Tensor:
    """Tokens of the home world: kinds, actions and reward bytes that it has."""
    tokens = random_tokens(np.random.default_rng(seed), num_rows, HOME)
    ids = {f.name: f.id for f in HOME.features}
    for row in tokens.view(-1, 3):
        if row[0] != 255:
            if row[1] == ids["type_id"]:
                row[2] = (0, 1, 2, 4)[int(row[2]) % 4]
            elif row[1] == ids["last_action"]:
                row[2] = int(row[2]) % 7
            elif row[1] == ids["resource_rewards"]:
                row[2] = reward_byte(HOME.item_names, set(HOME.item_names[: int(row[2]) % 4]))
    return tokens


def named(spec: EnvSpec, actions: torch.Tensor) -> list[tuple[str, int]]:
    return [(spec.action_names[a], arg) for a, arg in actions.view(-1, 2).tolist()]


@pytest.mark.parametrize("path", ["fast", "plain"])
@pytest.mark.parametrize(
    "config", [{}, {"components": RICH_GRAPH}, {"backbone": "mlp", "forward_lstm": False}]
)
def test_with_other_ids_it_acts_as_at_home_bit_for_bit(config: dict[str, object], path: str) -> None:
    agent = make_agent(HOME, path=path, **config)
    guest = remap(agent, AWAY)
    assert guest.spec == AWAY
    states = [agent.initial_state(12), guest.initial_state(12)]
    taken = set()
    for t in range(4):
        tokens = home_tokens(t, 12)
        starts = torch.arange(12) % 3 == t
        ours = agent.act(tokens, states[0], starts, generator=torch.Generator().manual_seed(t))
        theirs = guest.act(sent_away(tokens), states[1], starts, generator=torch.Generator().manual_seed(t))
        assert named(HOME, ours.actions) == named(AWAY, theirs.actions)
        assert torch.equal(ours.logprobs, theirs.logprobs)
        assert torch.equal(ours.values, theirs.values)
        assert torch.equal(ours.state.h, theirs.state.h)
        assert torch.equal(agent.value(tokens, states[0]), guest.value(sent_away(tokens), states[1]))
        states = [ours.state, theirs.state]
        taken |= set(named(HOME, ours.actions))
    assert len(taken) > 5
    strangers = make_agent(AWAY, path=path, **config)
    strangers.load_state_dict(agent.state_dict())
    astray = strangers.value(sent_away(tokens), strangers.initial_state(12))
    assert not torch.allclose(astray, agent.value(tokens, agent.initial_state(12)))


@pytest.mark.parametrize("config", [{}, {"components": RICH_GRAPH}])
def test_segments_are_judged_as_at_home(config: dict[str, object]) -> None:
    agent = make_agent(HOME, **config)
    guest = remap(agent, AWAY)
    _, dones, actions = random_segments(agent, np.random.default_rng(1), 5, 6)
    tokens = home_tokens(9, 30).view(5, 6, -1, 3)
    there = [[list(AWAY.action_names).index(n), arg] for n, arg in named(HOME, actions)]
    ours = agent.evaluate(tokens, agent.initial_state(5), dones, actions)
    theirs = guest.evaluate(
        sent_away(tokens), guest.initial_state(5), dones, torch.tensor(there).view_as(actions)
    )
    assert torch.equal(ours.logprobs, theirs.logprobs)
    assert torch.equal(ours.values, theirs.values)
    torch.testing.assert_close(ours.entropies, theirs.entropies)
    home = [(HOME.action_names[a], arg) for a, arg in HOME.legal_actions]
    for place, (action, arg) in enumerate(AWAY.legal_actions):
        at_home = home.index((AWAY.action_names[action], arg))
        assert torch.equal(theirs.all_logprobs[..., place], ours.all_logprobs[..., at_home])


SMALL = replace(  # like navigation: fewer actions, shorter arguments
    HOME, action_names=("get_items", "move", "noop", "rotate"), max_action_args=(0, 1, 0, 2)
)


def test_actions_that_the_world_lacks_leave_their_share_to_the_others() -> None:
    agent = make_agent(HOME)
    guest = remap(agent, SMALL)
    tokens = home_tokens(3, 1).expand(5000, -1, -1)
    dones = torch.zeros(1, 1, dtype=torch.bool)
    one = tokens[:1].unsqueeze(1)
    full = agent.evaluate(one, agent.initial_state(1), dones, torch.zeros(1, 1, 2)).all_logprobs[0, 0]
    part = guest.evaluate(one, guest.initial_state(1), dones, torch.zeros(1, 1, 2))
    home = named(HOME, torch.tensor(HOME.legal_actions))
    kept = torch.tensor([home.index(name) for name in named(SMALL, torch.tensor(SMALL.legal_actions))])
    assert len(kept) == 7
    expected = full[kept].exp() / full[kept].exp().sum()
    torch.testing.assert_close(part.all_logprobs[0, 0].exp(), expected, atol=1e-6, rtol=1e-5)
    assert part.entropies.item() == pytest.approx(-(expected * expected.log()).sum().item(), abs=1e-5)
    assert full.exp().sum() - full[kept].exp().sum() > 0.05, "something has to be cut off"
    drawn = guest.act(tokens, guest.initial_state(5000), generator=torch.Generator().manual_seed(0)).actions
    assert set(map(tuple, drawn.tolist())) <= set(SMALL.legal_actions)
    shares = [(drawn == torch.tensor(pair)).all(-1).float().mean().item() for pair in SMALL.legal_actions]
    assert shares == pytest.approx(expected.tolist(), abs=0.04)


def test_actions_that_only_the_world_has_are_never_taken_and_do_no_harm() -> None:
    agent = make_agent(SMALL)
    guest = remap(agent, HOME)
    obs, dones, _ = random_segments(guest, np.random.default_rng(4), 30, 5)
    drawn = guest.act(obs[:, 0], guest.initial_state(30), generator=torch.Generator().manual_seed(0)).actions
    assert {name for name, _ in named(HOME, drawn)} <= set(SMALL.action_names)
    legal = torch.tensor(HOME.legal_actions)
    actions = legal[torch.arange(150).view(30, 5) % len(legal)]
    judged = guest.evaluate(obs, guest.initial_state(30), dones, actions)
    known = torch.tensor(
        [pair in named(SMALL, torch.tensor(SMALL.legal_actions)) for pair in named(HOME, actions)]
    )
    assert judged.logprobs.exp().flatten()[~known].eq(0).all()
    assert judged.logprobs.exp().flatten()[known].gt(0).all()
    assert judged.all_logprobs.exp().sum(-1).allclose(torch.ones(30, 5))
    assert judged.entropies.gt(0).all()
    (judged.entropies.mean() + judged.values.mean() + judged.all_logprobs.exp().square().sum()).backward()
    for name, p in guest.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0, name


def test_what_it_does_not_know_is_not_seen() -> None:
    agent = make_agent(HOME)
    more = replace(
        HOME,
        features=(*HOME.features, Feature(len(HOME.features), "inv:gold", 100.0)),
        object_type_names=(*HOME.object_type_names, "lasery"),
        action_names=(*HOME.action_names, "jump"),
        max_action_args=(*HOME.max_action_args, 0),
    )
    guest = remap(agent, more)

    def value(*tokens: list[int]) -> torch.Tensor:
        return guest.value(observation(*tokens, spec=more), guest.initial_state(1))

    wall = token(4, 4, "type_id", 1)
    gold, lasery, jump = (
        token(3, 3, "inv:gold", 5, more),
        token(3, 3, "type_id", 5),
        token(5, 5, "last_action", 7),
    )
    assert torch.equal(value(wall, gold, lasery, jump), value(wall))
    assert not torch.equal(value(wall, token(3, 3, "type_id", 4)), value(wall))
    assert not torch.equal(value(wall, token(5, 5, "last_action", 6)), value(wall))
    assert torch.equal(agent.value(observation(wall), agent.initial_state(1)), value(wall))


def test_worlds_without_names_of_kinds_have_the_standard_ids() -> None:
    nameless = replace(HOME, object_type_names=())
    for known, world in ((HOME, nameless), (nameless, HOME)):
        agent = make_agent(known)
        tokens = home_tokens(6, 8)
        values = [a.value(tokens, a.initial_state(8)) for a in (agent, remap(agent, world))]
        assert torch.equal(*values)


@pytest.mark.parametrize(
    ("world", "message"),
    [
        (make_spec(9, 11), "window of 11 x 11 cells and this world shows 9 x 11; .* set observation_height"),
        (
            replace(HOME, action_names=("jump", "fly"), max_action_args=(0, 0)),
            "knows the actions attack, .*swap and this world has jump, fly; there is none in common",
        ),
    ],
)
def test_worlds_without_anything_in_common_are_refused(world: EnvSpec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        remap(make_agent(HOME), world)


def same(agent: MettaAgent, other: MettaAgent, tokens: torch.Tensor) -> bool:
    outs = [
        a.act(tokens, a.initial_state(len(tokens)), generator=torch.Generator().manual_seed(0))
        for a in (agent, other)
    ]
    return torch.equal(outs[0].actions, outs[1].actions) and torch.equal(outs[0].logprobs, outs[1].logprobs)


def through_a_file(agent: MettaAgent, path: Path) -> MettaAgent:
    save_agent(agent, path, {})
    return load_agent(path)[0]


@pytest.mark.parametrize("config", [{}, {"components": RICH_GRAPH}])
@pytest.mark.parametrize(
    "carry",
    [lambda agent, path: copy.deepcopy(agent), through_a_file, lambda agent, path: remap(agent, AWAY)],
)
def test_a_guest_is_copied_saved_and_sent_on(
    carry: Callable[[MettaAgent, Path], MettaAgent], config: dict[str, object], tmp_path: Path
) -> None:
    agent = make_agent(HOME, clip_range=0.25, **config)
    guest = remap(agent, AWAY)
    tokens = sent_away(home_tokens(7, 20))
    carried = carry(guest, tmp_path / "guest.pt")
    assert same(carried, guest, tokens)
    assert (carried.spec, carried.trained_on, carried.config) == (AWAY, HOME, agent.config)
    assert same(remap(carried, HOME), agent, home_tokens(8, 20))
    assert remap(carried, HOME).translation is None
    with torch.no_grad():
        next(carried.parameters()).zero_()
    assert not same(carried, guest, tokens), "a copy has weights of its own"


def test_weights_from_home_fit_a_guest(tmp_path: Path) -> None:
    agent = make_agent(HOME, seed=1)
    save_agent(agent, tmp_path / "home.pt", {"epoch": 3})
    guest = remap(make_agent(HOME, seed=2), AWAY)
    assert load_weights(guest, tmp_path / "home.pt") == {"epoch": 3}
    tokens = sent_away(home_tokens(7, 20))
    assert same(guest, remap(agent, AWAY), tokens)
    with pytest.raises(ValueError, match="trained for another world"):
        load_weights(make_agent(AWAY), tmp_path / "home.pt")


FACING_UP = token(5, 5, "agent:orientation", 0)
WALL_AHEAD = token(4, 5, "type_id", 1)


@pytest.mark.parametrize("path", ["fast", "plain"])
@pytest.mark.parametrize("config", [{}, {"components": RICH_GRAPH}])
def test_what_would_fail_is_judged_by_what_the_world_shows(config: dict[str, object], path: str) -> None:
    """A guest that does not know gold may put what it holds of it all the same."""
    more = replace(HOME, features=(*HOME.features, Feature(len(HOME.features), "inv:gold", 100.0)))
    home = named(HOME, torch.tensor(HOME.legal_actions))
    machine = token(4, 5, "converting", 0)
    gold = token(5, 5, "inv:gold", 1, more)
    for world, swapped in ((more, False), (AWAY, True)):
        guest = remap(make_agent(HOME, path=path, **config), world)
        for held, may_put in (([token(5, 5, "inv:heart", 1)], True), ([], False), ([gold], True)):
            if swapped and held == [gold]:
                continue
            tokens = observation(FACING_UP, WALL_AHEAD, machine, *held, spec=more)
            tokens = sent_away(tokens) if swapped else tokens
            dones = torch.zeros(1, 1, dtype=torch.bool)
            some = torch.zeros(1, 1, 2)
            judged = guest.evaluate(tokens.unsqueeze(1), guest.initial_state(1), dones, some)
            possible = judged.all_logprobs[0, 0].exp() > 0
            there = named(world, torch.tensor(world.legal_actions))
            assert possible[there.index(("put_items", 0))] == may_put
            assert not possible[there.index(("move", 0))]
            assert possible[there.index(("move", 1))]
            assert len(there) == len(home)


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_where_nothing_known_is_allowed_it_does_what_the_world_has(path: str) -> None:
    """At home it could wait; here all that it knows would fail, and only what it does not know would not."""
    for names, arguments in (
        (("swap", "move"), (0, 1)),
        (("swap", "move", "jump"), (0, 1, 0)),
    ):
        world = replace(HOME, action_names=names, max_action_args=arguments)
        guest = remap(make_agent(HOME, path=path), world)
        tokens = observation(FACING_UP, WALL_AHEAD, token(6, 5, "type_id", 1)).expand(200, -1, -1)
        acted = guest.act(tokens, guest.initial_state(200), generator=torch.Generator().manual_seed(0))
        assert set(named(world, acted.actions)) <= {("swap", 0), ("move", 0), ("move", 1)}
        assert len(set(named(world, acted.actions))) > 1
        dones = torch.zeros(200, 1, dtype=torch.bool)
        judged = guest.evaluate(
            tokens.unsqueeze(1), guest.initial_state(200), dones, acted.actions.unsqueeze(1)
        )
        torch.testing.assert_close(judged.logprobs[:, 0], acted.logprobs)
        assert judged.all_logprobs.exp().sum(-1).allclose(torch.ones(200, 1))


def test_a_guest_can_be_trained() -> None:
    guest = remap(make_agent(HOME), SMALL)
    obs, dones, _ = random_segments(guest, np.random.default_rng(2), 9, 8)
    state, acted = guest.initial_state(9), []
    for t in range(8):
        acted.append(
            guest.act(
                obs[:, t], state, dones[:, t - 1] if t else None, generator=torch.Generator().manual_seed(t)
            )
        )
        state = acted[-1].state
    actions = torch.stack([out.actions for out in acted], 1)
    judged = guest.evaluate(obs, guest.initial_state(9), dones, actions)
    assert (judged.logprobs - torch.stack([out.logprobs for out in acted], 1)).abs().max() < 1e-4
    judged.logprobs.mean().backward()
    before = guest.l2_init_loss().item()
    torch.optim.SGD(guest.parameters(), 1.0).step()
    assert guest.l2_init_loss().item() > before


def test_between_real_worlds_in_both_directions() -> None:
    """A world of few actions and kinds of its own, and the standard one."""
    few = EnvConfig(
        game=GameConfig(num_agents=3, width=12, height=12, inventory_item_names=["heart", "ore_red"]),
        objects=[
            ObjectConfig(type="wall", name="wall", color=0),
            ObjectConfig(type="wall", name="hedge", color=1),
        ],
        actions=[ActionConfig(type=name, key=name) for name in ("rotate", "noop", "move", "get_items")],
    )
    many = EnvConfig(game=GameConfig(num_agents=3, width=12, height=12))
    for own, other in ((few, many), (many, few)):
        home, away = VecEnv(own, 2), VecEnv(other, 2)
        agent = make_agent(home.spec)
        guest = remap(agent, away.spec)
        state, starts = guest.initial_state(6), torch.from_numpy(away.starts.copy())
        taken = set()
        for t in range(20):
            out = guest.act(
                torch.from_numpy(away.observations.copy()),
                state,
                starts,
                generator=torch.Generator().manual_seed(t),
            )
            taken |= set(named(away.spec, out.actions))
            away.step(out.actions.numpy().astype(np.int32))
            state, starts = out.state, torch.from_numpy(away.starts.copy())
        common = set(named(home.spec, torch.tensor(home.spec.legal_actions)))
        common &= set(named(away.spec, torch.tensor(away.spec.legal_actions)))
        assert len(common) == 8
        assert taken <= common
        assert len(taken) > 3
