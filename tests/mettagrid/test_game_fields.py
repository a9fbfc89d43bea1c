"""The rules that an environment states, exactly as their comments say; that all of them matter is shown in tests/options."""

from typing import Any

import numpy as np

from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, MapBuilderConfig, ObjectConfig
from metta.mettagrid.vec import VecEnv

STOCKED = [
    ObjectConfig(type="wall", name="wall"),
    ObjectConfig(type="wall", name="block"),
    ObjectConfig(type="mine", name="mine_red", cooldown=1, initial_resource_count=40),
    ObjectConfig(type="generator", name="generator_red", cooldown=1, initial_resource_count=40),
    ObjectConfig(type="converter", name="altar", cooldown=1, initial_resource_count=40),
    ObjectConfig(type="converter", name="lasery", initial_resource_count=9),
    ObjectConfig(type="converter", name="armory", initial_resource_count=9),
]
GROUPS = {"team_1": {}, "team_2": {}}


def env_of(text: str, actions: list[ActionConfig] | None = None, **game: Any) -> VecEnv:
    overrides: dict[str, Any] = {
        "objects": STOCKED,
        "map_builder": MapBuilderConfig(type="Ascii", ascii_map=text),
    }
    if actions is not None:
        overrides["actions"] = actions
    return VecEnv(EnvConfig(game=GameConfig(**game), **overrides))


def act(env: VecEnv, *names_and_args: tuple[str, int]):
    ids = {name: i for i, name in enumerate(env.spec.action_names)}
    return env.step(np.array([[ids[name], arg] for name, arg in names_and_args]))


def test_time_punishment_is_paid_each_step_by_everyone() -> None:
    env = env_of("@@", time_punishment=-0.25)
    for _ in range(3):
        assert act(env, ("noop", 0), ("noop", 0)).rewards.tolist() == [-0.25, -0.25]


def test_item_rewards_follow_the_holding_up_to_their_cap() -> None:
    env = env_of(
        "_\n@\nm", time_punishment=0, ore_red_reward=0.5, ore_red_max=2, heart_reward=1, heart_max_reward=7
    )
    assert act(env, ("get_items", 0)).rewards.tolist() == [7.0]  # 40 hearts are worth 7 at most
    act(env, ("rotate", 1))
    assert act(env, ("get_items", 0)).rewards.tolist() == [2.0]  # 40 ore would be worth 20


def test_rewards_of_items_are_taken_back_when_they_are_given_away() -> None:
    env = env_of("m\n@\nn", time_punishment=0, ore_red_reward=0.5, ore_red_max=1000, default_item_max=1)
    assert act(env, ("get_items", 0)).rewards.tolist() == [0.5]
    act(env, ("rotate", 1))
    assert act(env, ("put_items", 0)).rewards.tolist() == [-0.5]


def test_stat_rewards_stay() -> None:
    stats = {"ore_red.get": 0.25, "ore_red.get_max": 0.5}
    env = env_of("m\n@\nn", time_punishment=0, ore_red_reward=0, default_item_max=1, stat_rewards=stats)
    assert act(env, ("get_items", 0)).rewards.tolist() == [0.25]
    act(env, ("rotate", 1))
    assert act(env, ("put_items", 0)).rewards.tolist() == [0]
    act(env, ("rotate", 0))
    assert act(env, ("get_items", 0)).rewards.tolist() == [0.25]


def test_max_steps_ends_and_lifetime_cuts_off() -> None:
    env = env_of("@", max_steps=3, episode_lifetime=10)
    flags = [(b.terminals.any(), b.truncations.any()) for b in (act(env, ("noop", 0)) for _ in range(3))]
    assert flags == [(False, False), (False, False), (True, False)]
    env = env_of("@", max_steps=0, episode_lifetime=2)
    flags = [(b.terminals.any(), b.truncations.any()) for b in (act(env, ("noop", 0)) for _ in range(4))]
    assert flags == [(False, False), (False, True)] * 2
    env = env_of("@", max_steps=3, episode_lifetime=3)
    batches = [act(env, ("noop", 0)) for _ in range(3)]
    assert batches[-1].terminals.all()
    assert not batches[-1].truncations.any()  # the task's own end comes first
    env = env_of("@", max_steps=1, episode_truncates=True)
    assert act(env, ("noop", 0)).truncations.all()


def test_shared_rewards_are_divided_within_the_group() -> None:
    env = env_of(
        "_#_\n1#1\n###\n.2.",
        groups=GROUPS,
        reward_sharing_groups={"team_1": 0.5},
        time_punishment=0,
        heart_max=1,
    )
    rewards = act(env, ("get_items", 0), ("noop", 0), ("noop", 0)).rewards
    assert rewards.tolist() == [0.75, 0.25, 0.0]


def test_diversity_bonus_is_paid_at_the_end() -> None:
    common = {"groups": GROUPS, "time_punishment": 0, "heart_max": 1, "max_steps": 2}
    plain = env_of("_#_\n1#1\n###\n.2.", **common)
    bonus = env_of(
        "_#_\n1#1\n###\n.2.", diversity_bonus_enabled=True, similarity_coef=0.5, diversity_coef=0.25, **common
    )
    first = (("get_items", 0), ("noop", 0), ("noop", 0))
    assert act(plain, *first).rewards.tolist() == act(bonus, *first).rewards.tolist() == [1.0, 0.0, 0.0]
    still = (("noop", 0),) * 3
    assert act(plain, *still).rewards.tolist() == [0.0, 0.0, 0.0]
    returns = np.array([1.0, 0.0, 0.0])
    scale = returns.std()
    similarity = np.exp(-abs(1.0 - 0.5) / scale)
    diversity = 1 - np.exp(-abs(1.0 - 0.0) / scale)
    expected = 1.0 * (0.5 * similarity + 0.25 * diversity)
    np.testing.assert_allclose(act(bonus, *still).rewards, [expected, 0.0, 0.0], rtol=1e-6)


def facing(env: VecEnv) -> int:
    (agent,) = [o for o in env.engine.grid_objects(0).values() if "agent_id" in o]
    return agent["orientation"]


def test_relative_rotation_turns_clockwise() -> None:
    turns = [
        ActionConfig(type="rotate", key="left", delta=-1),
        ActionConfig(type="rotate", key="right", delta=1),
    ]
    env = env_of("@", actions=turns)
    up, down, left, right = range(4)
    seen = []
    for name in ("right", "right", "right", "right", "left"):
        act(env, (name, 0))
        seen.append(facing(env))
    assert seen == [right, down, left, up, left]


def test_gift_moves_one_item_and_use_works_on_one_object() -> None:
    actions = [
        ActionConfig(type="use", key="use_altar", use="altar"),
        ActionConfig(type="use", key="use_mine", use="mine_red"),
        ActionConfig(type="gift", key="give_ore", item="ore_red"),
        ActionConfig(type="gift", key="give_battery", item="battery_red"),
        ActionConfig(type="rotate", key="rotate"),
    ]
    env = env_of("m\n@\nS", actions=actions, default_item_max=1)
    inventory = lambda: next(o for o in env.engine.grid_objects(0).values() if "agent_id" in o)["inventory"]  # noqa: E731
    act(env, ("use_altar", 0))
    assert inventory() == {}
    act(env, ("use_mine", 0))
    assert inventory() == {0: 1}
    act(env, ("rotate", 1))
    act(env, ("give_battery", 0))
    assert inventory() == {0: 1}
    act(env, ("give_ore", 0))
    assert inventory() == {}
