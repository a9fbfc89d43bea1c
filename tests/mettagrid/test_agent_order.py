"""The agent order: numpy's generator, and a slow shuffle written from the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.mettagrid.engine import state as cols
from metta.mettagrid.grid_engine import GridEngine
from metta.mettagrid.world_config import WorldConfig
from random_worlds import small_config


def make_engine(agents: int, seed: int) -> GridEngine:
    config = WorldConfig.model_validate(small_config(num_agents=agents, num_observation_tokens=1))
    engine = GridEngine([config], 1, max_height=1, max_width=agents)
    engine.reset([0], [[["agent.agent"] * agents]], [seed])
    return engine


class SlowShuffle:
    """std::shuffle over numpy's raw 32-bit words, with whole numbers of any size."""

    def __init__(self, seed: int) -> None:
        self.bits = np.random.RandomState(seed)._bit_generator

    def bounded(self, n: int) -> int:
        while True:
            product = int(self.bits.random_raw()) * n
            if product % 2**32 >= 2**32 % n:
                return product // 2**32

    def order(self, count: int) -> list[int]:
        v = list(range(count))
        if count < 2:
            return v
        start = 1
        if count % 2 == 0:
            j = self.bounded(2)
            v[1], v[j] = v[j], v[1]
            start = 2
        for i in range(start, count, 2):
            a, b = divmod(self.bounded((i + 1) * (i + 2)), i + 2)
            v[i], v[a] = v[a], v[i]
            v[i + 1], v[b] = v[b], v[i + 1]
        return v


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1])
@pytest.mark.parametrize("agents", [1, 2, 3, 4, 7, 24])
def test_orders_are_those_of_the_definition(agents: int, seed: int) -> None:
    engine, slow = make_engine(agents, seed), SlowShuffle(seed)
    actions = np.zeros((1, agents, 2), np.int32)
    for _ in range(60):
        engine.step(actions)
        assert engine.agent_order(0).tolist() == slow.order(agents)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 300))
def test_orders_match_for_any_seed_and_number_of_agents(seed: int, agents: int) -> None:
    engine, slow = make_engine(agents, seed), SlowShuffle(seed)
    actions = np.zeros((1, agents, 2), np.int32)
    for _ in range(8):
        engine.step(actions)
        assert engine.agent_order(0).tolist() == slow.order(agents)


def test_thousands_of_words_are_those_of_numpy() -> None:
    engine, slow = make_engine(101, 7), SlowShuffle(7)
    actions = np.zeros((1, 101, 2), np.int32)
    for _ in range(60):
        engine.step(actions)
        last = slow.order(101)
    assert engine.agent_order(0).tolist() == last


def test_every_agent_goes_first_equally_often() -> None:
    engine = make_engine(5, 3)
    actions = np.zeros((1, 5, 2), np.int32)
    first = np.zeros(5)
    for _ in range(5000):
        engine.step(actions)
        first[engine.agent_order(0)[0]] += 1
    assert (np.abs(first - 1000) < 150).all(), first


def test_a_word_that_would_favour_an_order_is_drawn_again() -> None:
    engine = make_engine(3, 0)
    engine.step(np.zeros((1, 3, 2), np.int32))
    saved = engine.snapshot()
    at = int(saved["worlds"][0, cols.RNG_AT])
    # Three agents take one number below 6; of the 2^32 words, 4 are too many, and 0 is one of them.
    saved["random"][0, at] = 0
    engine.restore(saved)
    engine.step(np.zeros((1, 3, 2), np.int32))
    assert engine.snapshot()["worlds"][0, cols.RNG_AT] == at + 2
    words = SlowShuffle(0)
    words.order(3)
    words.bounded(1)
    assert engine.agent_order(0).tolist() == words.order(3)
