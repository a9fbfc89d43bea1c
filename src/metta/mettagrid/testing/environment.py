"""`check_env`: one call that holds an environment to everything that `VecEnv` promises."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import ValidationError

from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Curriculum, Task
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.map.config import MapBuilderConfig, RoomsConfig
from metta.mettagrid.map.kinds import PeopledMap, most
from metta.mettagrid.registry import get_curriculum
from metta.mettagrid.testing.curricula import FixedCurriculum, check_curriculum, check_tasks
from metta.mettagrid.testing.runs import CheckReport, action_seeds, compare, has_engine, run
from metta.mettagrid.testing.single import check_single
from metta.mettagrid.testing.streams import CheckError
from metta.mettagrid.vec import VecEnv
from metta.mettagrid.world_config import explain

MakeEnv = Callable[..., VecEnv]
"""Makes an environment: called with the number of worlds and the keywords seed, num_threads and num_workers."""

Subject = EnvConfig | Curriculum | Mapping[str, Any] | str | VecEnv | MettaGridEnv | MakeEnv

MAPS_COMPARED = 24
"""Maps that may not all be the same where they are drawn at random."""


def check_env(
    env: Subject, *, steps: int = 200, seed: int = 0, num_worlds: int = 3, num_workers: int = 2
) -> CheckReport:
    """Hold an environment to everything that `VecEnv` promises; print what it returns.

    It is played with random actions: shapes and types, observations, rewards, flags, ends of episodes, outcomes, the
    soundness of every world, legal and illegal actions. It is made anew and played again: with the same seed and
    another one, alone and in other company, on several threads, in worker processes, from a saved state. Configurations
    have to survive YAML, JSON and the way to another process, curricula have to be a function of what they heard and of the
    generator that they are handed.

    Args:
        env: an `EnvConfig`, a mapping of its fields, a curriculum, the registered name of either; or a function that makes the
            environment from (num_worlds, *, seed, num_threads, num_workers), for subclasses of `VecEnv`. An environment that is
            there already is checked as it is; what takes a second one is left out, and the report says so. It is left at the
            beginning of new episodes.
        steps: length of each run. The first run goes on until episodes end, up to 2000 steps.
        seed: of episodes and actions.
        num_worlds: worlds that are stepped together.
        num_workers: worker processes of the run in worker processes; 0 leaves it out, which saves the second that they take to
            start.

    Returns:
        What was checked.

    Raises:
        CheckError: an AssertionError; one sentence says what is wrong, where, and what to do.
        ValueError: the configuration itself is refused, or `steps` is not positive.
        TypeError: nothing that an environment can be made from.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; play 1 step or more.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if isinstance(env, VecEnv | MettaGridEnv):
            report = _check_given(env if isinstance(env, VecEnv) else env.vec, steps, seed)
        else:
            report = _check_made(env, steps, seed, num_worlds, num_workers)
    if caught:
        first = caught[0]
        raise CheckError(
            f"{report.name}: while it was made and stepped there was a {first.category.__name__}, '{first.message}' "
            f"({first.filename}, line {first.lineno}); mend what it warns of."
        )
    report.checks.append("no warnings")
    return report


def _check_made(env: Any, steps: int, seed: int, num_worlds: int, num_workers: int) -> CheckReport:
    """Check what can be made as often as needed."""
    name, make, curriculum = _maker(env)
    report = CheckReport(name)
    if curriculum is not None:
        _check_description(name, env, curriculum, report)
    made: object = make(num_worlds, seed=seed)
    if not isinstance(made, VecEnv):
        raise CheckError(f"{name} made a {type(made).__name__}; return a VecEnv.")
    with made as main:
        reference = check_single(main, name, steps, seed, report)
        frozen_tasks = _fix_tasks(main)
        seeds = action_seeds(seed, num_worlds)
        main.reset(seed)
        alike = run(main, name, steps, seeds) if frozen_tasks else reference
        variations: list[tuple[str, int, dict[str, int], Sequence[int], Sequence[int]]] = [
            ("made again with the same seed", num_worlds, {}, seeds, range(num_worlds)),
            (
                "beside worlds that act otherwise",
                num_worlds,
                {},
                [seeds[0], *action_seeds(seed + 1, num_worlds)[1:]],
                [0],
            ),
            ("on two threads", num_worlds, {"num_threads": 2}, seeds, range(num_worlds)),
            ("alone", 1, {}, seeds[:1], [0]),
            ("among more worlds", num_worlds + 2, {}, action_seeds(seed, num_worlds + 2), range(num_worlds)),
        ]
        if num_workers:
            workers = min(num_workers, num_worlds)
            variations.append(
                (
                    f"in {workers} worker processes",
                    num_worlds,
                    {"num_workers": workers},
                    seeds,
                    range(num_worlds),
                )
            )
        else:
            report.left_out.append("worker processes: num_workers is 0")
        for how, count, options, acting, worlds in variations:
            with make(count, seed=seed, **options) as other:
                _fix_tasks(other)
                played = run(other, name, steps, acting)
                compare(
                    alike,
                    played,
                    worlds,
                    name,
                    how,
                    "a world is a function of rules, map, seed and actions alone",
                )
            report.checks.append(f"the same {how}")
        _check_saved_state(make, main, name, steps, seed, report)
    _check_other_seeds(make, name, seed, report)
    return report


def _check_given(env: VecEnv, steps: int, seed: int) -> CheckReport:
    """Check an environment that is there already."""
    name = type(env).__name__
    report = CheckReport(name)
    before = env.curriculum.state_dict()
    env.reset(seed)
    check_single(env, name, steps, seed, report)
    env.curriculum.load_state_dict(before)
    env.reset(seed)
    report.left_out.append(
        "other numbers of worlds, threads and workers, other seeds: pass a function that makes the environment"
    )
    return report


def _maker(env: Any) -> tuple[str, MakeEnv, Curriculum | None]:
    """What to call a subject, how to make an environment of it, and its curriculum where it is known."""
    if isinstance(env, str):
        return (
            env,
            lambda worlds, **options: VecEnv(get_curriculum(env), worlds, **options),
            get_curriculum(env),
        )
    if isinstance(env, Mapping):
        try:
            env = EnvConfig.model_validate(env)
        except ValidationError as error:
            raise ValueError(explain(error, "the environment")) from None
    if isinstance(env, EnvConfig):
        with VecEnv(env) as single:
            return "the environment", partial(VecEnv, env), single.curriculum
    if callable(env):
        return getattr(env, "__name__", "the environment"), env, None
    if not isinstance(env, Curriculum):
        raise TypeError(
            f"env is a {type(env).__name__}; pass a configuration, a curriculum, a registered name or a function that makes the "
            "environment."
        )
    return (
        type(env).__name__,
        lambda worlds, **options: VecEnv(copy.deepcopy(env), worlds, **options),
        copy.deepcopy(env),
    )


def _check_description(name: str, env: Any, curriculum: Curriculum, report: CheckReport) -> None:
    if isinstance(env, str):
        again = get_curriculum(env).tasks
        if [(task.name, task.config) for task in again] != [
            (task.name, task.config) for task in curriculum.tasks
        ]:
            raise CheckError(
                f"{name}: the registered function returned something else when it was called again; what a name means "
                "must not change, so leave chance to the map and to the curriculum."
            )
    check_tasks(curriculum.tasks, name)
    report.checks.append("configurations survive JSON, YAML and pickling")
    check_curriculum(curriculum)
    report.checks.append("the curriculum is a function of what it heard and of its generator")


def _check_saved_state(
    make: MakeEnv, env: VecEnv, name: str, steps: int, seed: int, report: CheckReport
) -> None:
    """Another environment goes on from a saved state as this one does."""
    saved = copy.deepcopy(env.state_dict())
    seeds = action_seeds(seed + 3, env.num_worlds)
    first = run(env, name, steps, seeds)
    with make(env.num_worlds, seed=seed + 1) as other:
        _fix_tasks(other)
        other.load_state_dict(saved)
        played = run(other, name, steps, seeds)
    compare(
        first,
        played,
        range(env.num_worlds),
        name,
        "in another environment that was given its state",
        "state_dict has to hold everything that the next step reads",
    )
    report.checks.append("another environment goes on from its state")


def _check_other_seeds(make: MakeEnv, name: str, seed: int, report: CheckReport) -> None:
    """Maps that are drawn at random differ between worlds and seeds."""
    with make(MAPS_COMPARED, seed=seed) as env:
        if not all(_varies(task) for task in env.curriculum.tasks):
            report.left_out.append(
                "that another seed gives another map: some maps are fixed, or leave no choice"
            )
            return
        if not has_engine(env):
            report.left_out.append("that another seed gives another map: the worlds are in worker processes")
            return
        env.reset(seed + 1)
        for what, maps in (
            ("worlds", {env.engine.initial_grid_hash(world) for world in range(MAPS_COMPARED)}),
            ("seeds", {_first_map(env, seed + place) for place in range(MAPS_COMPARED)}),
        ):
            if len(maps) == 1:
                raise CheckError(
                    f"{name}: {MAPS_COMPARED} {what} have the same map, and nothing fixes it; draw it from the generator that "
                    "the builder is handed, or state a seed for it."
                )
    report.checks.append("other worlds and seeds have other maps")


def _first_map(env: VecEnv, seed: int) -> int:
    env.reset(seed)
    return env.engine.initial_grid_hash(0)


def _varies(task: Task) -> bool:
    """Whether a task's map has to come out differently now and then."""
    kind: Any = task.config.map_builder
    rooms = kind if isinstance(kind, RoomsConfig) else None
    field = rooms.room if rooms else kind
    if not isinstance(field, PeopledMap) or field.seed is not None or (rooms and rooms.seed is not None):
        return False
    if not isinstance(field, MapBuilderConfig):
        return True
    things = most(field.objects) + field.num_agents
    return field.type == "Random" and things < field.inner_width * field.inner_height


def _fix_tasks(env: VecEnv) -> bool:
    """Keep the curriculum from learning, so that a world's tasks do not depend on how the others fared."""
    learns = len(env.curriculum.tasks) > 1
    if learns:
        env.curriculum = FixedCurriculum(env.curriculum)
    return learns
