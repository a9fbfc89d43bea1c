"""One world behind the familiar interface, and many worlds behind one call."""

import numpy as np
import pytest

from metta.mettagrid.config import EnvConfig, GameConfig, MapBuilderConfig
from metta.mettagrid.curriculum.base import MultiTaskCurriculum, SingleTaskCurriculum, Task, make_curriculum
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.registry import get_env_config, register_env
from metta.mettagrid.vec import VecEnv, as_vec_env

SMALL = EnvConfig(game=GameConfig(num_agents=3, width=14, height=12, max_steps=7, num_observation_tokens=60))


def actions_for(env: VecEnv, rng: np.random.Generator) -> np.ndarray:
    legal = np.array(env.spec.legal_actions)
    return legal[rng.integers(len(legal), size=env.num_agents)]


def test_spaces_and_names_describe_the_world() -> None:
    env = MettaGridEnv(SMALL)
    assert env.num_agents == 3
    assert env.single_observation_space.shape == (60, 3)
    assert env.single_observation_space.spec is env.vec.spec
    assert env.action_names == ("attack", "get_items", "move", "noop", "put_items", "rotate", "swap")
    assert env.max_action_args == (8, 0, 1, 0, 0, 3, 0)
    assert env.single_action_space.nvec.tolist() == [7, 9]
    assert [f.name for f in env.features][14:17] == ["inv:ore_red", "inv:ore_blue", "inv:ore_green"]
    observations, infos = env.reset(seed=1)
    assert observations.shape == (3, 60, 3)
    assert all(env.single_observation_space.contains(o) for o in observations)
    assert infos == {"task": "task"}


def test_a_seed_takes_effect_at_once() -> None:
    env = MettaGridEnv(SMALL, seed=1)
    first, _ = env.reset(seed=5)
    other, _ = env.reset(seed=6)
    again, _ = env.reset(seed=5)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(MettaGridEnv(SMALL, seed=5).vec.observations, first)


def test_an_episode_ends_once_and_then_wants_a_reset() -> None:
    env = MettaGridEnv(SMALL)
    env.reset(seed=0)
    still = np.full((3, 2), 0)
    still[:, 0] = env.action_names.index("noop")
    for step in range(7):
        observations, rewards, terminals, truncations, infos = env.step(still)
        assert terminals.all() == (step == 6)
        assert not truncations.any()
    assert rewards.dtype == np.float32
    assert infos["episode"]["length"] == 7
    np.testing.assert_allclose(infos["episode"]["returns"], [-0.0007] * 3, rtol=1e-5)
    completion = observations[0][observations[0, :, 1] == 8][0, 2]
    assert completion == 255  # the final observation, not the next episode's first
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(still)
    fresh, _ = env.reset()
    assert fresh[0][fresh[0, :, 1] == 8][0, 2] == 0
    env.step(still)


def test_render_draws_the_map() -> None:
    env = MettaGridEnv(SMALL)
    text = env.render()
    assert [len(row) for row in text.split("\n")] == [14] * 12
    assert text.count("@") == 3
    assert text.count("m") == 2


@pytest.mark.parametrize("bad", [np.zeros((2, 2), int), np.zeros((3, 2)), np.zeros(6, int)])
def test_actions_of_the_wrong_shape_or_type_are_refused(bad: np.ndarray) -> None:
    env = MettaGridEnv(SMALL)
    with pytest.raises(ValueError, match="give integers \\[3, 2\\]"):
        env.step(bad)


def test_a_world_plays_as_it_would_alone() -> None:
    """Same seed, another number of worlds, threads and parts: the worlds they have in common do the same."""
    one = VecEnv(SMALL, 2, seed=4)
    many = VecEnv(SMALL, 5, seed=4, num_threads=2)
    rng = np.random.default_rng(0)
    rows = one.num_agents
    for _ in range(20):
        actions = actions_for(many, rng)
        small = one.step(actions[:rows])
        left = many.step(actions[: 3 * 3], slice(0, 3))
        right = many.step(actions[3 * 3 :], slice(3, 5))
        assert np.array_equal(small.observations, left.observations[:rows])
        assert np.array_equal(small.rewards, left.rewards[:rows])
        assert np.array_equal(small.terminals, left.terminals[:rows])
        assert left.final_rows.tolist() == [] or left.final_rows.tolist() == list(range(9))
        assert right.final_rows.tolist() == [] or right.final_rows.tolist() == list(range(9, 15))


def test_ended_worlds_restart_at_once_and_show_their_last_observation() -> None:
    env = VecEnv(SMALL, 3, seed=0)
    rng = np.random.default_rng(1)
    assert env.starts.all()
    for step in range(1, 22):
        batch = env.step(actions_for(env, rng))
        ended = step % 7 == 0
        assert env.starts.all() == ended == batch.terminals.all()
        assert len(batch.episodes) == 3 * ended
        assert batch.final_rows.tolist() == (list(range(9)) if ended else [])
        for row, last in zip(batch.final_rows, batch.final_observations, strict=True):
            assert last[last[:, 1] == 8][0, 2] == 255
            first = batch.observations[row]
            assert first[first[:, 1] == 8][0, 2] == 0


def test_returns_are_the_sum_of_the_rewards_received() -> None:
    config = get_env_config("/env/mettagrid/simple")
    env = VecEnv(config, 2, seed=0)
    rng = np.random.default_rng(1)
    total = np.zeros(env.num_agents)
    episodes = []
    while not episodes:
        batch = env.step(actions_for(env, rng))
        total += batch.rewards
        episodes = batch.episodes
    np.testing.assert_allclose(np.concatenate([e.returns for e in episodes]), total, rtol=1e-4)
    assert total.any()


def test_state_dict_goes_on_exactly() -> None:
    tasks = [Task("a", SMALL), Task("b", SMALL.with_overrides(max_steps=5))]
    env = VecEnv(MultiTaskCurriculum(tasks), 3, seed=2)
    rng = np.random.default_rng(3)
    for _ in range(9):
        env.step(actions_for(env, rng))
    saved = env.state_dict()
    plan = [actions_for(env, rng) for _ in range(12)]
    expected = [(b.observations.copy(), b.rewards, b.terminals) for b in map(env.step, plan)]
    other = VecEnv(MultiTaskCurriculum(tasks), 3, seed=99)
    other.load_state_dict(saved)
    for actions, (observations, rewards, terminals) in zip(plan, expected, strict=True):
        batch = other.step(actions)
        assert np.array_equal(batch.observations, observations)
        assert np.array_equal(batch.rewards, rewards)
        assert np.array_equal(batch.terminals, terminals)
    with pytest.raises(ValueError, match="make the environment as it was"):
        VecEnv(SMALL, 2).load_state_dict(saved)


def test_tasks_that_do_not_fit_together_are_refused() -> None:
    tasks = [Task("a", SMALL), Task("b", SMALL.with_overrides(num_agents=2))]
    with pytest.raises(ValueError, match="task 'b' differs from 'a'"):
        VecEnv(MultiTaskCurriculum(tasks))


def test_a_map_too_full_is_refused_at_construction() -> None:
    with pytest.raises(ValueError, match="do not fit on the 36 cells"):
        VecEnv(EnvConfig(game=GameConfig(num_agents=40, width=10, height=10)))


def test_as_vec_env_is_the_batch_behind_either_form() -> None:
    env = MettaGridEnv(SMALL)
    assert as_vec_env(env) is env.vec
    assert as_vec_env(env.vec) is env.vec


def test_scenes_make_a_curriculum_that_plays_all_of_them() -> None:
    simple = get_env_config("/env/mettagrid/simple")
    short = simple.with_overrides(max_steps=5)
    curriculum = make_curriculum(scenes=["/env/mettagrid/simple", short, short.map_builder])
    assert isinstance(curriculum, MultiTaskCurriculum)
    assert [task.name for task in curriculum.tasks] == [
        "/env/mettagrid/simple",
        "scene_1",
        "/env/mettagrid/simple#2",
    ]
    rng = np.random.default_rng(0)
    drawn = np.bincount([curriculum.sample(rng) for _ in range(3000)])
    assert (abs(drawn - 1000) < 120).all()
    curriculum.update(1, 2.0)
    curriculum.update(1, 4.0)
    assert curriculum.scores() == {"scene_1": 3.0}
    env = VecEnv(curriculum, 8, seed=0)
    assert {env.task_name(w) for w in range(8)} == {task.name for task in curriculum.tasks}


def test_curriculum_hears_outcomes_and_evaluation_copies_do_not() -> None:
    curriculum = MultiTaskCurriculum([Task("a", SMALL)])
    env = VecEnv(curriculum, 2)
    rng = np.random.default_rng(0)
    copy = curriculum.for_evaluation()
    for _ in range(7):
        env.step(actions_for(env, rng))
    assert set(curriculum.scores()) == {"a"}
    assert copy.scores() == {}


def test_weights_decide_how_often_a_task_is_drawn() -> None:
    tasks = [Task("a", SMALL), Task("b", SMALL), Task("c", SMALL)]
    rng = np.random.default_rng(0)
    curriculum = MultiTaskCurriculum(tasks, [1, 0, 3])
    drawn = np.bincount([curriculum.sample(rng) for _ in range(4000)], minlength=3)
    assert drawn[1] == 0
    assert abs(drawn[2] - 3000) < 150
    for bad in ([1, 2], [-1, 1, 1], [0, 0, 0]):
        with pytest.raises(ValueError, match="do not fit 3 tasks"):
            MultiTaskCurriculum(tasks, bad)


def test_unknown_names_list_close_matches() -> None:
    with pytest.raises(ValueError, match="did you mean /env/mettagrid/simple"):
        make_curriculum("/env/mettagrid/simpel")
    with pytest.raises(ValueError, match="known are"):
        get_env_config("zzz")
    with pytest.raises(ValueError, match="is empty"):
        make_curriculum(scenes=[])
    with pytest.raises(ValueError, match="scenes is '/env/mettagrid/simple'; give a list"):
        make_curriculum(scenes="/env/mettagrid/simple")
    with pytest.raises(ValueError, match=r"scene 1 is \{'width': 9\}; give the name of an environment"):
        make_curriculum(scenes=["/env/mettagrid/simple", {"width": 9}])  # type: ignore[list-item]


def test_registered_environments_are_found() -> None:
    register_env("/env/test_env/small", lambda: SMALL)
    assert isinstance(make_curriculum("/env/test_env/small"), SingleTaskCurriculum)
    assert make_curriculum("/env/test_env/small").tasks[0].config == SMALL
    with pytest.raises(ValueError, match="is taken"):
        register_env("/env/test_env/small", lambda: SMALL)
    with pytest.raises(ValueError, match="start with '/'"):
        register_env("small", lambda: SMALL)


def test_staggered_worlds_do_not_march_in_step() -> None:
    env = VecEnv(SMALL.with_overrides(max_steps=40), 30, seed=0, stagger=True)
    rng = np.random.default_rng(0)
    ends: list[list[int]] = [[] for _ in range(30)]
    for step in range(1, 121):
        batch = env.step(actions_for(env, rng))
        for world in np.unique(batch.final_rows // 3):
            first = not ends[world]
            ends[world].append(step)
            rows = slice(3 * world, 3 * world + 3)
            cut = first and step < 40
            assert batch.truncations[rows].all() == cut
            assert batch.terminals[rows].all() != cut
            assert (world in [e.world for e in batch.episodes]) != cut
    firsts = np.array([e[0] for e in ends])
    assert len(set(firsts)) > 12
    assert firsts.min() >= 1
    assert all(e[1] - e[0] == 40 for e in ends)


def test_staggering_works_where_only_the_lifetime_ends_episodes() -> None:
    env = VecEnv(SMALL.with_overrides(max_steps=0, episode_lifetime=30), 20, seed=0, stagger=True)
    rng = np.random.default_rng(0)
    firsts: set[int] = set()
    for step in range(1, 31):
        if env.step(actions_for(env, rng)).final_rows.size:
            firsts.add(step)
    assert len(firsts) > 8


def test_the_first_reset_plays_the_first_episode_of_the_seed() -> None:
    env = MettaGridEnv(SMALL, seed=3)
    first, _ = env.reset()
    assert np.array_equal(first, MettaGridEnv(SMALL).reset(seed=3)[0])
    second, _ = env.reset()
    assert not np.array_equal(first, second)


def test_a_map_as_a_scene_takes_the_rest_from_the_environment() -> None:
    curriculum = make_curriculum(
        scenes=[MapBuilderConfig(width=16, height=14), MapBuilderConfig(objects={"altar": 7})]
    )
    wide, rich = (task.config for task in curriculum.tasks)
    assert (wide.game.width, wide.game.height, wide.map_builder.border_width) == (16, 14, 1)
    assert wide.map_builder.objects == get_env_config("/env/mettagrid/simple").map_builder.objects
    assert (rich.game.width, rich.map_builder.objects) == (12, {"altar": 7})
    assert VecEnv(curriculum, 4).num_agents == 16
