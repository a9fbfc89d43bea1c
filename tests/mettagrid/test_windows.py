"""Windows of every size, cut short or not, several in a batch, against an observer that knows no tables."""

from __future__ import annotations

import numpy as np
import pytest

from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.rules import compile_rules
from metta.mettagrid.world_config import WorldConfig
from random_worlds import random_actions, random_config, random_grid
from slow_observer import assert_seen

ODD = range(3, 16, 2)
SIZES = [(height, width) for height in ODD for width in ODD]


@pytest.mark.parametrize("turn", range(12))
def test_agents_see_what_is_there(turn: int) -> None:
    """Four or five sizes of a window in each turn, so that all turns together have every one."""
    rng = np.random.default_rng(turn)
    rules = []
    for height, width in SIZES[turn::12]:
        config = random_config(rng)
        config |= {
            "obs_height": height,
            "obs_width": width,
            "num_observation_tokens": int(rng.choice([1, 2, 3, 10, 11, 40, 200, 900])),
        }
        rules.append(compile_rules(WorldConfig.model_validate(config)))
    count = len(rules)
    engine = GridEngine(rules, count, max_height=14, max_width=14, num_threads=1 + turn % 2)
    for seed in range(2):
        of_world = rng.permutation(count).tolist()
        engine.reset(
            range(count), [random_grid(rules[rule], rng) for rule in of_world], [seed] * count, of_world
        )
        actions = np.zeros((count, engine.max_agents, 2), np.int32)
        plans = [random_actions(rules[rule], rng, 9) for rule in of_world]
        for step in range(10):
            if step % 3 == 0:
                for world in range(count):
                    assert_seen(engine, world, actions[world])
            if step < 9:
                for world, plan in enumerate(plans):
                    actions[world, : plan.shape[1]] = plan[step]
                engine.step(actions)
