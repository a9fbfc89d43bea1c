"""What would fail is ruled out, nothing else: held to the world itself, and the compiled loop to the plain one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_cases import SPEC, make_spec, observation, random_tokens, token
from metta.agent.config import AgentModelConfig
from metta.agent.legality import Legality
from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.rules import compile_rules
from metta.mettagrid.world_config import WorldConfig

FLOAT = torch.zeros(1)
OBJECTS: dict[str, Any] = {
    "wall": {"type_id": 1},
    "block": {"type_id": 2, "swappable": True},
    "mine": {"type_id": 3, "output_resources": {"ore_red": 1}, "initial_resource_count": 2},
    "generator": {
        "type_id": 4,
        "input_resources": {"ore_red": 1},
        "output_resources": {"battery_red": 1},
        "initial_resource_count": 0,
    },
}
ACTIONS = ("attack", "change_color", "get_items", "move", "noop", "put_items", "rotate", "swap")


def crowded_world(seed: int) -> GridEngine:
    """One world of four agents within walls."""
    rng = np.random.default_rng(seed)
    for name in ("mine", "generator"):
        OBJECTS[name] |= {"max_output": 3, "conversion_ticks": 2, "cooldown": 4}
    config = WorldConfig.model_validate(
        {
            "inventory_item_names": ["ore_red", "battery_red"],
            "num_agents": 4,
            "max_steps": 0,
            "obs_width": 11,
            "obs_height": 11,
            "num_observation_tokens": 200,
            "agent": {"default_resource_limit": 200, "freeze_duration": 3},
            "groups": {"agent": {"id": 0}},
            "actions": {name: {"enabled": True} for name in ACTIONS},
            "objects": OBJECTS,
        }
    )
    rules = compile_rules(config)
    things = rng.choice(np.array(["empty", *OBJECTS], "<U12"), size=(5, 6), p=[0.5, 0.1, 0.15, 0.15, 0.1])
    things.flat[rng.permutation(30)[:4]] = "agent.agent"
    grid = np.pad(things, 1, constant_values="wall")
    engine = GridEngine([rules], 1, max_height=7, max_width=8)
    engine.reset([0], [grid], [seed])
    return engine


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_is_ruled_out_fails_in_the_world(seed: int) -> None:
    """One agent acts at a time, so that what it sees is what it meets."""
    engine = crowded_world(seed)
    spec = engine.rule_of(0).spec
    legality = Legality(spec)
    legal, names = np.array(spec.legal_actions), np.array(spec.action_names)
    noop = (spec.action_names.index("noop"), 0)
    ids = {feature.name: feature.id for feature in spec.features}
    rng = np.random.default_rng(seed)
    for step in range(150):
        agent = step % 4
        seen = engine.observations[0, agent].copy()
        allowed = legality(torch.from_numpy(seen[None]), FLOAT)[0].numpy()
        # Mostly what is allowed, so that the world changes.
        able = np.flatnonzero(allowed) if rng.random() < 0.7 else np.arange(len(legal))
        choice = int(rng.choice(able))
        kind, arg = names[legal[choice, 0]], int(legal[choice, 1])
        own = seen[seen[:, 0] == 5 * 16 + 5]
        frozen = own[own[:, 1] == ids["agent:frozen"]][0, 2] > 0
        facing = own[own[:, 1] == ids["agent:orientation"]][0, 2]
        down, right = [(-1, 0), (1, 0), (0, -1), (0, 1)][facing ^ (kind == "move" and arg == 1)]
        ahead = seen[seen[:, 0] == (5 + down) * 16 + 5 + right]
        actions = np.full((1, 4, 2), noop, np.int32)
        actions[0, agent] = legal[choice]
        engine.step(actions)
        success = bool(engine.action_success[0, agent])
        if frozen:
            assert not success
        elif not allowed[choice]:
            # A converter may finish at the beginning of the step; of several attacks on one agent the first will do.
            finished = kind == "get_items" and (ahead[:, 1:] == (ids["converting"], 1)).all(1).any()
            assert not success or finished or (kind == "attack" and arg > 0), (kind, arg)
        elif kind in ("move", "swap", "attack") and ids["agent:group"] not in ahead[:, 1]:
            assert success, (kind, arg)
        elif kind in ("noop", "rotate", "change_color"):
            assert success


@pytest.mark.parametrize("size", [3, 5, 11])
@pytest.mark.parametrize("wild", [False, True])
def test_the_compiled_loop_says_the_same(size: int, wild: bool) -> None:
    spec = make_spec(size, size)
    rng = np.random.default_rng(size)
    tokens = random_tokens(rng, 400, spec, wild=wild)
    own = size // 2 * 16 + size // 2
    tokens[::2, 0] = torch.tensor([own, 4, 0], dtype=torch.uint8)
    tokens[::2, 0, 2] = torch.from_numpy(rng.integers(0, 5, 200))
    near = rng.random(tokens.shape[:2]) < 0.6
    moved = own + rng.choice([0, 1, -1, 16, -16], size=int(near.sum()))
    tokens[..., 0][torch.from_numpy(near) & (tokens[..., 0] != 255)] = torch.from_numpy(moved)[
        : int((torch.from_numpy(near) & (tokens[..., 0] != 255)).sum())
    ].to(torch.uint8)
    fast, plain = Legality(spec, "fast")(tokens, FLOAT), Legality(spec, "plain")(tokens, FLOAT)
    assert torch.equal(fast, plain)
    assert 0.1 < fast.float().mean() < 0.98


def choices(name: str) -> list[int]:
    action = SPEC.action_names.index(name)
    return [i for i, (a, _) in enumerate(SPEC.legal_actions) if a == action]


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_what_may_be_missing_is_allowed(path: Any) -> None:
    legality = Legality(SPEC, path)
    up = token(5, 5, "agent:orientation", 0)
    wall = token(4, 5, "type_id", 1)

    def judged(*tokens: list[int]) -> torch.Tensor:
        return legality(observation(*tokens), FLOAT)[0]

    forward = choices("move")[0]
    assert not judged(up, wall)[forward]
    assert judged(wall).all(), "no facing is shown"
    full = [up, wall] + [token(10, 10, "agent:color", 1)] * (SPEC.num_tokens - 2)
    assert judged(*full).all(), "the buffer is full"
    assert judged(up, token(4, 5, "type_id", 0), token(4, 5, "agent:group", 0))[forward], "an agent may go on"


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_attacks_count_the_agents_in_range(path: Any) -> None:
    legality = Legality(SPEC, path)
    attacks = choices("attack")
    right = token(5, 5, "agent:orientation", 3)
    reached = [token(r, c, "agent:group", 0) for r, c in ((4, 6), (5, 8), (6, 7))]
    missed = [token(r, c, "agent:group", 0) for r, c in ((5, 9), (5, 4), (3, 6), (4, 5))]
    for count in range(4):
        allowed = legality(observation(right, *reached[:count], *missed), FLOAT)[0, attacks]
        assert allowed.tolist() == [n < count for n in range(9)]


@pytest.mark.parametrize("size", [3, 5, 6, 7])
def test_attacks_are_judged_only_where_the_window_shows_all_that_they_reach(size: int) -> None:
    """An even window shows a cell less on one side."""
    spec = make_spec(size, size)
    legality = Legality(spec)
    facing_down = token(size // 2, size // 2, "agent:orientation", 1, spec)
    allowed = legality(observation(facing_down, spec=spec), FLOAT)[0, choices("attack")]
    assert allowed.all() if size < 7 else not allowed.any()


def test_renamed_actions_are_judged_by_what_they_do() -> None:
    spec = make_spec()
    names = ("hit", "grab", "walk", "wait", "drop", "turn", "push")
    renamed = Legality(
        type(spec)(**{**spec.__dict__, "action_names": names, "action_kinds": spec.action_names})
    )
    assert torch.equal(renamed.need, Legality(spec).need)
    assert not Legality(type(spec)(**{**spec.__dict__, "action_names": names})).limits


def test_an_agent_never_does_what_would_fail() -> None:
    tokens = random_tokens(np.random.default_rng(0), 300)
    tokens[:, 0] = torch.tensor([5 * 16 + 5, 4, 1], dtype=torch.uint8)
    allowed = Legality(SPEC)(tokens, FLOAT)
    for masked in (True, False):
        agent = MettaAgent(SPEC, AgentModelConfig(hidden_dim=16, mask_actions=masked))
        out = agent.act(tokens, agent.initial_state(300))
        index = agent.action_table.index(out.actions)
        assert bool(allowed.gather(1, index[:, None]).all()) == masked
        dones = torch.zeros(300, 1, dtype=torch.bool)
        judged = agent.evaluate(tokens[:, None], agent.initial_state(300), dones, out.actions[:, None])
        torch.testing.assert_close(judged.logprobs[:, 0], out.logprobs)
        assert (judged.all_logprobs.exp()[:, 0][~allowed] > 0).any() != masked
        assert judged.entropies.isfinite().all()


def test_a_spec_saved_before_there_were_kinds_is_still_the_world() -> None:
    spec = crowded_world(0).rule_of(0).spec
    saved = spec.to_json()
    del saved["action_kinds"]
    assert type(spec).from_json(saved) == spec
