"""Actions may be any integers in any layout; numbers beyond 32 bits become the nearest one, which is no valid action."""

from __future__ import annotations

import numpy as np
import pytest

from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.vec import VecEnv

SMALL = EnvConfig(game=GameConfig(num_agents=3, width=14, height=12, max_steps=50, num_observation_tokens=60))
ODD = (-(2**63), -(2**32), -(2**32) + 1, -(2**31) - 1, -(2**31), -1, 0, 1, 2, 255)
LARGE = (2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1, 2**64 - 1)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">i8", ">u8"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_actions_are_taken_as_the_nearest_numbers_of_32_bits(dtype: str, num_workers: int) -> None:
    limits = np.iinfo(np.dtype(dtype))
    numbers = [number for number in (*ODD, *LARGE) if limits.min <= number <= limits.max]
    rng = np.random.default_rng(0)
    with VecEnv(SMALL, 4, num_workers=num_workers) as env:
        actions = np.array([numbers[k] for k in rng.integers(len(numbers), size=24)], dtype).reshape(12, 2)
        fixed = actions.copy()
        fixed.flags.writeable = False
        for given in (
            actions,
            fixed,
            np.asfortranarray(actions),
            np.repeat(actions, 2, 0)[::2],
            actions[::-1],
        ):
            env.step(given)
            nearest = [min(max(number, -(2**31)), 2**31 - 1) for number in given.ravel().tolist()]
            assert env._fleet.episodes.actions.ravel().tolist() == nearest


def test_an_engine_reads_no_further_than_the_actions_that_it_was_given() -> None:
    with VecEnv(SMALL, 4) as env:
        before = env.engine.snapshot()
        for rows in (0, 11, 13):
            with pytest.raises(ValueError, match=r"worlds 0 to 3 take 12 rows"):
                env.engine.play(np.zeros((rows, 2), np.int32), 0, 4)
        after = env.engine.snapshot()
        assert all(np.array_equal(before[name], after[name]) for name in before)
