"""Named environments and curricula: paths such as `/env/mettagrid/simple` and what is behind them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from metta.common.reading import one_line
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Curriculum, SingleTaskCurriculum
from metta.mettagrid.worlds.arena import ARENA, ARENA_TASKS, puffer
from metta.mettagrid.worlds.curricula import (
    arena_learning_progress,
    arena_random,
    navigation_bucketed,
    simple_curriculum,
)
from metta.mettagrid.worlds.navigation import (
    EVALS,
    TRAINING,
    evaluation,
    evaluation_maps,
    terrain_rooms,
    training,
)
from metta.mettagrid.worlds.newcomer import simple
from metta.mettagrid.yaml_files import Description, EnvDescription, read_description

SIMPLE = "/env/mettagrid/simple"

MakeEnv = Callable[[], EnvConfig]
MakeCurriculum = Callable[[], Curriculum]

_environments: dict[str, MakeEnv] = {
    SIMPLE: simple,
    "/env/mettagrid/puffer": puffer,
    **{f"{ARENA}/{name}": make for name, make in ARENA_TASKS.items()},
    **{f"{TRAINING}/{name}": partial(training, room) for name, room in terrain_rooms().items()},
    **{f"{EVALS}/{name}": partial(evaluation, name) for name in evaluation_maps()},
}

_curricula: dict[str, MakeCurriculum] = {
    "/env/mettagrid/curriculum/simple": simple_curriculum,
    "/env/mettagrid/curriculum/navigation/bucketed": navigation_bucketed,
    "/env/mettagrid/curriculum/arena/random": arena_random,
    "/env/mettagrid/curriculum/arena/learning_progress": arena_learning_progress,
}


def register_env(path: str, make_config: MakeEnv) -> None:
    """Give an environment a name that `make_curriculum`, `make_environment` and `run.py` understand.

    Args:
        path: a name starting with "/", for instance "/env/my_lab/maze".
        make_config: returns its configuration; called each time that the name is used.

    Raises:
        ValueError: the path does not start with "/" or is taken.
    """
    check_free(path)
    _environments[path] = make_config


def register_curriculum(path: str, make_curriculum: MakeCurriculum) -> None:
    """Give a curriculum a name, in the same space as the names of environments.

    Args:
        path: a name starting with "/", for instance "/env/my_lab/curriculum/mazes".
        make_curriculum: returns a new curriculum; called each time that the name is used.

    Raises:
        ValueError: the path does not start with "/" or is taken.
    """
    check_free(path)
    _curricula[path] = make_curriculum


def register_yaml(file_or_folder: str | Path) -> list[str]:
    """Register what YAML files describe; `metta.mettagrid.yaml_files` shows their form.

    Args:
        file_or_folder: one file, or a folder of which all `.yaml` and `.yml` files are read, those of folders in it too. They may
            refer to each other. If one of them is wrong nothing is registered.

    Returns:
        The new names, sorted.

    Raises:
        FileNotFoundError: there is no such file or folder, or no YAML file in it.
        ValueError: a description is wrong; the sentence names the file and the key.
    """
    path = Path(file_or_folder)
    files = sorted({*path.rglob("*.yaml"), *path.rglob("*.yml")}) if path.is_dir() else [path]
    if not path.exists() or not files:
        raise FileNotFoundError(f"found no YAML file at {path}; give a file or a folder that has some.")
    waiting: dict[str, tuple[Path, Description]] = {}
    for file in files:
        about = read_description(file)
        try:
            check_free(about.path)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        if about.path in waiting:
            raise ValueError(f"{waiting[about.path][0]} and {file} both describe '{about.path}'; rename one.")
        waiting[about.path] = file, about
    names = sorted(waiting)
    try:
        while waiting:
            # Those that build on others wait until these are there.
            ready = [name for name, (_, about) in waiting.items() if not waiting.keys() & set(about.names)]
            if not ready:
                circle = ", ".join(str(file) for file, _ in waiting.values())
                raise ValueError(
                    f"{circle} build on each other in a circle; let one of them stand on its own."
                )
            for name in ready:
                _register_description(*waiting.pop(name))
    except ValueError:
        for name in names:
            _environments.pop(name, None)
            _curricula.pop(name, None)
        raise
    return names


def _register_description(file: Path, about: Description) -> None:
    """Register what a file describes, once it is known that it can be made."""
    try:
        about.make(get_env_config)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: {error}") from None
    if isinstance(about, EnvDescription):
        register_env(about.path, partial(about.make, get_env_config))
    else:
        register_curriculum(about.path, partial(about.make, get_env_config))


def check_free(path: str) -> None:
    """See to it that a name can be registered.

    Raises:
        ValueError: it does not start with "/" or is taken.
    """
    if not path.startswith("/"):
        raise ValueError(f"environment name '{path}' does not start with '/'; call it '/{path}'.")
    if path in _environments or path in _curricula:
        raise ValueError(f"environment name '{path}' is taken; choose another.")


def env_paths() -> list[str]:
    """The names of all environments, sorted."""
    return sorted(_environments)


def curriculum_paths() -> list[str]:
    """The names of all curricula, sorted. Environments serve as curricula of one task too."""
    return sorted(_curricula)


def get_env_config(path: str) -> EnvConfig:
    """The configuration behind the name of an environment, or of a curriculum of a single one.

    Raises:
        ValueError: the name is unknown (the sentence lists close matches) or stands for several environments.
    """
    if path in _environments:
        return _environments[path]()
    tasks = get_curriculum(path).tasks
    if len(tasks) > 1:
        raise ValueError(
            f"'{path}' is a curriculum of {len(tasks)} environments, and one is asked for; use make_curriculum, or a name "
            "from env_paths()."
        )
    return tasks[0].config


def get_curriculum(path: str) -> Curriculum:
    """A new curriculum by its name, or one of a single task by the name of an environment.

    Raises:
        ValueError: the name is unknown; the sentence lists close matches.
    """
    if path in _curricula:
        return _curricula[path]()
    if path in _environments:
        return SingleTaskCurriculum(_environments[path](), path)
    known = [*_environments, *_curricula]
    close = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(sorted(known))}."
    raise ValueError(f"no environment is called '{one_line(path)}'; {hint}")
