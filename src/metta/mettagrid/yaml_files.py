"""Environments and curricula that are described in YAML files.

An environment is a registered one with some values changed, or stated in full:

    path: /env/my_lab/long_arena           path: /env/my_lab/field
    base: /env/mettagrid/arena/basic       env:
    set:                                     game: {num_agents: 2, width: 12, height: 12}
      game.max_steps: 3000                   map_builder: {objects: {altar: [1, 3]}}
      map_builder.room.objects.altar: [2, 4]

A curriculum says how it chooses (`random`, `bucketed` or `learning_progress`) and among what:

    path: /env/my_lab/curriculum/arena     path: /env/my_lab/curriculum/altars
    curriculum: random                     curriculum: bucketed
    tasks:                                 base: /env/mettagrid/arena/basic
      /env/mettagrid/arena/basic: 1        buckets:
      /env/my_lab/long_arena: 3              game.max_steps: [500, 1000]
                                             map_builder.room.objects.altar: {range: [2, 18], bins: 4}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PositiveFloat, ValidationError

from metta.common.config import Config
from metta.common.reading import DEEPEST, one_line, read_bytes, repeated
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Curriculum, MultiTaskCurriculum, Task
from metta.mettagrid.curriculum.bucketed import BucketedCurriculum
from metta.mettagrid.curriculum.learning_progress import LearningProgressConfig, LearningProgressCurriculum
from metta.mettagrid.dotted import with_values
from metta.mettagrid.world_config import explain

GetEnv = Callable[[str], EnvConfig]
"""Looks up the environment of a name."""


class ChangedEnvFile(Config):
    """An environment: a registered one, with other values for some dotted paths (`metta.mettagrid.dotted`)."""

    path: str
    base: str
    set: dict[str, Any] = Field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of environments that it is made of."""
        return [self.base]

    def make(self, get_env: GetEnv) -> EnvConfig:
        """The environment."""
        return with_values(get_env(self.base), self.set)


class FullEnvFile(Config):
    """An environment that is stated in full."""

    path: str
    env: EnvConfig

    @property
    def names(self) -> list[str]:
        """It is made of no other."""
        return []

    def make(self, get_env: GetEnv) -> EnvConfig:
        """The environment."""
        del get_env
        return self.env


class RandomFile(Config):
    """A curriculum that draws by fixed weights."""

    path: str
    curriculum: Literal["random"]
    tasks: dict[str, PositiveFloat] = Field(min_length=1)
    """Name of an environment to its weight; of a plain list, all weigh the same."""

    @property
    def names(self) -> list[str]:
        """Names of environments that it is made of."""
        return list(self.tasks)

    def make(self, get_env: GetEnv) -> Curriculum:
        """The curriculum."""
        return MultiTaskCurriculum(
            [Task(name, get_env(name)) for name in self.tasks], list(self.tasks.values())
        )


class LearningProgressFile(Config):
    """A curriculum that draws by learning progress."""

    path: str
    curriculum: Literal["learning_progress"]
    tasks: list[str] = Field(min_length=1)
    config: LearningProgressConfig = Field(default_factory=LearningProgressConfig)

    @property
    def names(self) -> list[str]:
        """Names of environments that it is made of."""
        return self.tasks

    def make(self, get_env: GetEnv) -> Curriculum:
        """The curriculum."""
        return LearningProgressCurriculum([Task(name, get_env(name)) for name in self.tasks], self.config)


class BucketedFile(Config):
    """A curriculum over every combination of some values."""

    path: str
    curriculum: Literal["bucketed"]
    base: str
    buckets: dict[str, list[Any] | dict[str, Any]] = Field(min_length=1)
    config: LearningProgressConfig = Field(default_factory=LearningProgressConfig)

    @property
    def names(self) -> list[str]:
        """Names of environments that it is made of."""
        return [self.base]

    def make(self, get_env: GetEnv) -> Curriculum:
        """The curriculum."""
        return BucketedCurriculum(get_env(self.base), self.buckets, self.config)


EnvDescription = ChangedEnvFile | FullEnvFile
CurriculumDescription = RandomFile | LearningProgressFile | BucketedFile
Description = EnvDescription | CurriculumDescription

CURRICULA: dict[str, type[CurriculumDescription]] = {
    "random": RandomFile,
    "learning_progress": LearningProgressFile,
    "bucketed": BucketedFile,
}


MOST_BYTES = 2**20
"""Bytes that a description may have."""

MOST_VALUES = 100_000
"""Values that it may come to when its anchors are written out."""

MOST_DIGITS = 40
"""Characters of a number in it."""


class _Loader(yaml.SafeLoader):
    """Plain data only, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [child.value for child, _ in node.value if isinstance(child, yaml.ScalarNode)]
        twice = [key for key in repeated(keys) if key != "<<"]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key '{twice[0]}' is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)

    def get_single_node(self) -> yaml.Node | None:
        """The only document, if it is of a size that can be looked at."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _check_extent(node)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number that can be written out again."""
        if len(node.value) > MOST_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value)} characters is too long", node.start_mark
            )
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _check_extent(root: yaml.Node) -> None:
    """Refuse what contains itself, or becomes too large when its anchors are written out."""
    sizes: dict[int, int] = {}  # by node; 0 while it is being counted
    depths: dict[int, int] = {}
    waiting = [(root, False)]
    while waiting:
        node, counted = waiting.pop()
        children = _children(node)
        if counted:
            sizes[id(node)] = size = 1 + sum(sizes[id(child)] for child in children)
            depths[id(node)] = depth = 1 + max((depths[id(child)] for child in children), default=0)
            if depth > DEEPEST:
                raise yaml.constructor.ConstructorError(
                    None, None, f"more than {DEEPEST} levels", node.start_mark
                )
            if size > MOST_VALUES:
                raise yaml.constructor.ConstructorError(
                    None, None, f"more than {MOST_VALUES} values, anchors written out", node.start_mark
                )
        elif id(node) not in sizes:
            sizes[id(node)] = 0
            waiting.append((node, True))
            waiting += [(child, False) for child in children]
        elif sizes[id(node)] == 0:
            raise yaml.constructor.ConstructorError(
                None, None, "something that contains itself; write it out without anchors", node.start_mark
            )


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def read_description(file: Path) -> Description:
    """Read one file.

    Raises:
        ValueError: it is no YAML, or does not describe an environment or a curriculum; the sentence names file and key.
    """
    content = read_bytes(file, MOST_BYTES)
    try:
        data = yaml.load(content, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no valid YAML: {one_line(error, 500)}; correct it.") from None
    # What the scanner takes for a date, a number or a flag can still be none, which the parser says in many ways.
    except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{file} is no valid YAML: {type(error).__name__}: {one_line(error)}; correct it."
        ) from None
    if not isinstance(data, dict) or not isinstance(data.get("path"), str):
        raise ValueError(
            f"{file} does not begin to describe anything; it needs the key path, for instance 'path: /env/my_lab/maze'."
        )
    if "curriculum" in data:
        kind = CURRICULA.get(str(data["curriculum"]))
        if kind is None:
            raise ValueError(
                f"{file} has the curriculum {one_line(repr(data['curriculum']))}; the kinds are {', '.join(CURRICULA)}."
            )
        if isinstance(data.get("tasks"), list) and kind is RandomFile:
            names = [str(name) for name in data["tasks"]]
            if twice := repeated(names):
                raise ValueError(
                    f"{file} has the task '{twice[0]}' twice; give it a weight, 'tasks: {{{twice[0]}: 2}}'."
                )
            data = {**data, "tasks": dict.fromkeys(names, 1)}
        return _validated(kind, data, file)
    if ("env" in data) == ("base" in data):
        raise ValueError(
            f"{file} describes an environment by base (and set), or in full by env; give one of the two keys, or curriculum."
        )
    return _validated(FullEnvFile if "env" in data else ChangedEnvFile, data, file)


def _validated(kind: type[Any], data: Mapping[Any, Any], file: Path) -> Description:
    try:
        description: Description = kind.model_validate({str(key): value for key, value in data.items()})
        return description
    except ValidationError as error:
        raise ValueError(explain(error, str(file))) from None
    except RecursionError:
        raise ValueError(f"{file} contains itself somewhere; write it out without anchors.") from None
