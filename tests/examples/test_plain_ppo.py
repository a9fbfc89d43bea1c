"""The loop written out in `examples/plain_ppo.py` learns, and a broken one does not; its parts do what they say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from examples import plain_ppo
from examples.plain_ppo import Net, PlainConfig, PlainPPO, Planes, advantages_of
from metta.mettagrid.spec import PADDING
from metta.mettagrid.vec import VecEnv
from small_worlds import CARRYING_ORE

THRESHOLD = 3.5
QUICK = PlainConfig(
    num_worlds=16,
    num_steps=20,
    hidden_dim=64,
    learning_rate=3e-3,
    anneal_lr=False,
    gamma=0.95,
    gae_lambda=0.9,
    clip_coef=0.2,
    clip_vloss=False,
    ent_coef=0.003,
)
BATCHES = 20


def learn() -> float:
    torch.manual_seed(0)
    env = VecEnv(CARRYING_ORE, QUICK.num_worlds, seed=0)
    ppo = PlainPPO(env, QUICK, BATCHES * QUICK.num_steps * env.num_agents)
    batches = [[episode.score for episode in ppo.advance()] for _ in range(BATCHES)]
    assert ppo.num_batches == BATCHES
    scores = [float(np.mean(batch)) for batch in batches if batch]  # an episode lasts two batches
    assert scores[0] < 1.5
    return scores[-1]


@pytest.mark.slow
def test_it_learns() -> None:
    assert learn() > THRESHOLD


def _rows_mixed_up(patch: pytest.MonkeyPatch) -> None:
    plain = advantages_of
    patch.setattr(plain_ppo, "advantages_of", lambda *args: plain(*args).roll(1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("fault", [_rows_mixed_up])
def test_a_broken_loop_does_not(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert learn() < THRESHOLD / 2


GOES_ON, TERMINAL, TRUNCATED = 0, 1, 2


def oracle(values: Any, rewards: Any, ends: Any, cut: Any, last: float, gamma: float, lam: float) -> Any:
    """The sum from the definition, float64, no recursion."""
    length = len(rewards)
    result = np.zeros(length)
    for t in range(length):
        for k in range(t, length):
            following = last if k == length - 1 else values[k + 1]
            after = {GOES_ON: following, TERMINAL: 0.0, TRUNCATED: cut[k]}[ends[k]]
            result[t] += (gamma * lam) ** (k - t) * (rewards[k] + gamma * after - values[k])
            if ends[k] != GOES_ON:
                break
    return result


def test_advantages_over_every_pattern_of_ends() -> None:
    length, gamma, lam = 5, 0.9, 0.8
    patterns = np.array(list(product((GOES_ON, TERMINAL, TRUNCATED), repeat=length)))
    values, rewards, cut = np.random.default_rng(0).normal(size=(3, *patterns.shape))
    last = np.random.default_rng(1).normal(size=len(patterns))
    paid = rewards + gamma * cut * (patterns == TRUNCATED)  # as `collect` pays it
    given = [torch.from_numpy(x.T) for x in (paid, values, patterns != GOES_ON)]
    got = advantages_of(*given, torch.from_numpy(last), gamma, lam).T.numpy()
    expected = [oracle(*rest, gamma, lam) for rest in zip(values, rewards, patterns, cut, last, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def remembering(step: Callable[..., Any], seen: list[Any]) -> Callable[..., Any]:
    def remembered(actions: Any) -> Any:
        seen.append(step(actions))
        return seen[-1]

    return remembered


def test_a_cut_is_paid_with_the_value_of_the_last_observation_and_an_end_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cut in (True, False):
        seen: list[Any] = []
        steps = {"max_steps": 0, "episode_lifetime": 5} if cut else {"max_steps": 5}
        game = CARRYING_ORE.game.model_copy(update=steps)
        env = VecEnv(CARRYING_ORE.model_copy(update={"game": game}), 4, seed=0)
        torch.manual_seed(0)
        ppo = PlainPPO(env, PlainConfig(num_worlds=4, num_steps=7, hidden_dim=16), 1000)
        monkeypatch.setattr(env, "step", remembering(env.step, seen))
        torch.nn.init.constant_(ppo.net.critic[-1].bias, 3.0)  # so that no value is near 0
        with torch.no_grad():
            ppo.collect()
            rewards = torch.from_numpy(np.stack([step.rewards for step in seen]))
            extra = (ppo.rewards - rewards) / ppo.config.gamma
            expected = torch.zeros_like(extra)
            if cut:
                # The last observation of an episode, seen with the memory of its five ticks, judged in one go.
                tokens = torch.cat(
                    [ppo.tokens[:5], torch.from_numpy(seen[4].final_observations.copy())[None]]
                )
                starts = torch.zeros(6, env.num_agents, dtype=torch.bool)
                expected[4] = ppo.net(tokens, ppo.net.initial_state(env.num_agents), starts)[1][5]
        torch.testing.assert_close(extra, expected, atol=1e-5, rtol=0)


def test_collecting_and_learning_see_the_same_network() -> None:
    """Values and log probabilities of a batch are found again, over ends of episodes and from batch to batch."""
    game = CARRYING_ORE.game.model_copy(update={"max_steps": 5})
    env = VecEnv(CARRYING_ORE.model_copy(update={"game": game}), 4, seed=0, stagger=True)
    torch.manual_seed(0)
    ppo = PlainPPO(env, PlainConfig(num_worlds=4, num_steps=7, hidden_dim=16), 1000)
    with torch.no_grad():
        for _ in range(2):
            before = ppo.state
            ppo.collect()
            choice, values, after = ppo.net(ppo.tokens, before, ppo.starts)
            torch.testing.assert_close(values, ppo.values, atol=1e-6, rtol=0)
            torch.testing.assert_close(choice.log_prob(ppo.actions), ppo.logprobs, atol=1e-6, rtol=0)
            torch.testing.assert_close(after[1], ppo.state[1], atol=1e-6, rtol=0)
            assert ppo.starts.any()
            assert not ppo.starts.all()


def test_a_memory_begins_anew_with_an_episode() -> None:
    env = VecEnv(CARRYING_ORE, 3, seed=0)
    net = Net(env.spec, 16)
    tokens = torch.randint(0, 9, (4, 3, 20, 3), dtype=torch.uint8)
    starts = torch.zeros(4, 3, dtype=torch.bool)
    starts[2, 1] = True
    state = net.initial_state(3)
    with torch.no_grad():
        whole = net(tokens, state, starts)[1]
        later = net(tokens[2:], state, starts[2:] & False)[1]
        without = net(tokens, state, starts & False)[1]
    torch.testing.assert_close(whole[2:, 1], later[:, 1])
    torch.testing.assert_close(whole[:, [0, 2]], without[:, [0, 2]])
    assert not torch.allclose(whole[2:, 1], without[2:, 1])


def test_planes_are_drawn_token_by_token() -> None:
    env = VecEnv(CARRYING_ORE, 4, seed=0)
    env.step(np.zeros((env.num_agents, 2), np.int64))
    spec, tokens = env.spec, env.observations
    expected = np.zeros((len(tokens), len(spec.features), spec.obs_height, spec.obs_width), np.float32)
    for row, seen in enumerate(tokens):
        for location, feature, value in seen:
            if location == PADDING:
                break
            place = [f.id for f in spec.features].index(feature)
            scale = spec.features[place].normalization
            expected[row, place, location // 16, location % 16] = value / scale
    assert expected.any()
    drawn = Planes(spec)(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)


def test_the_learning_rate_falls_to_nothing() -> None:
    env = VecEnv(CARRYING_ORE, 4, seed=0)
    config = PlainConfig(num_worlds=4, num_steps=8, hidden_dim=16)
    ppo = PlainPPO(env, config, 4 * 8 * env.num_agents)
    rates = []
    for _ in range(5):
        ppo.advance()
        rates.append(ppo.optimizer.param_groups[0]["lr"] / config.learning_rate)
    assert rates == pytest.approx([1, 0.75, 0.5, 0.25, 0])
