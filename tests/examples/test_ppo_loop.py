"""The loop written out in `examples/ppo_loop.py` learns, and not when rows are mixed up or weights stay."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from metta.adapters.gymnasium_vector import GymnasiumVectorEnv
from metta.mettagrid.config import EnvConfig
from small_worlds import CARRYING_ORE

THRESHOLD = 4.0
EXAMPLE = Path(__file__).parents[2] / "examples" / "ppo_loop.py"


@pytest.fixture(scope="module")
def ppo_loop() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ppo_loop", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def learn(ppo_loop: ModuleType, env_config: EnvConfig = CARRYING_ORE) -> float:
    torch.manual_seed(0)
    scores = ppo_loop.train(GymnasiumVectorEnv(env_config, 32), 12)
    assert scores[0] < 1.0
    return scores[-1]


def test_it_learns(ppo_loop: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert learn(ppo_loop) > THRESHOLD
    assert "update  12    24,576 steps  return" in capsys.readouterr().out


def test_it_learns_where_episodes_are_cut_off(ppo_loop: ModuleType) -> None:
    game = CARRYING_ORE.game.model_copy(update={"max_steps": 0, "episode_lifetime": 40})
    assert learn(ppo_loop, CARRYING_ORE.model_copy(update={"game": game})) > THRESHOLD


def _never_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.optim.Adam, "step", lambda self: None)


def _rows_mixed_up(patch: pytest.MonkeyPatch) -> None:
    plain = GymnasiumVectorEnv.step

    def step(self: GymnasiumVectorEnv, actions: np.ndarray) -> tuple[Any, ...]:
        observations, rewards, *rest = plain(self, actions)
        return observations, np.roll(rewards, 1), *rest

    patch.setattr(GymnasiumVectorEnv, "step", step)


@pytest.mark.parametrize("fault", [_never_step, _rows_mixed_up])
def test_a_broken_loop_does_not(
    ppo_loop: ModuleType, fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert learn(ppo_loop) < THRESHOLD / 2


def test_a_cut_off_episode_counts_on_with_the_value_of_its_last_observation(ppo_loop: ModuleType) -> None:
    """The network is asked once more wherever episodes were cut off, about exactly their last observations."""
    game = CARRYING_ORE.game.model_copy(update={"max_steps": 0, "episode_lifetime": 5})
    env = GymnasiumVectorEnv(CARRYING_ORE.model_copy(update={"game": game}), 4)
    asked: list[torch.Tensor] = []
    lasts: list[np.ndarray] = []
    with pytest.MonkeyPatch.context() as patch:
        plain_forward, plain_step = ppo_loop.Net.forward, env.step

        def forward(self: Any, tokens: torch.Tensor) -> Any:
            asked.append(tokens.clone())
            return plain_forward(self, tokens)

        def step(actions: np.ndarray) -> tuple[Any, ...]:
            out = plain_step(actions)
            if "final_obs" in out[-1]:
                lasts.append(np.stack(out[-1]["final_obs"]))
            return out

        patch.setattr(ppo_loop.Net, "forward", forward)
        patch.setattr(env, "step", step)
        ppo_loop.train(env, 1, steps=12)
    assert len(lasts) == 2
    for place, last in zip((5, 11), lasts, strict=True):
        assert np.array_equal(asked[place].numpy(), last)


def test_the_loop_is_as_short_as_it_is_said_to_be() -> None:
    lines = EXAMPLE.read_text().splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("    for update in"))
    assert lines.index("    return scores") - start <= 42
