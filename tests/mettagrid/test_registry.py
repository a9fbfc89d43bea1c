"""Names: registering in Python and from YAML files, and what is said when something is wrong with them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metta.mettagrid import registry
from metta.mettagrid.curriculum.base import MultiTaskCurriculum, SingleTaskCurriculum, Task, make_curriculum
from metta.mettagrid.curriculum.bucketed import BucketedCurriculum
from metta.mettagrid.curriculum.learning_progress import LearningProgressCurriculum
from metta.mettagrid.registry import (
    curriculum_paths,
    env_paths,
    get_env_config,
    register_curriculum,
    register_env,
    register_yaml,
)
from metta.mettagrid.yaml_files import read_description

SIMPLE = "/env/mettagrid/simple"


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_environments", dict(registry._environments))
    monkeypatch.setattr(registry, "_curricula", dict(registry._curricula))


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_curricula_get_names() -> None:
    register_curriculum(
        "/env/mine/both", lambda: MultiTaskCurriculum([Task("a", get_env_config(SIMPLE))] * 1)
    )
    assert "/env/mine/both" in curriculum_paths()
    assert "/env/mine/both" not in env_paths()
    assert isinstance(make_curriculum("/env/mine/both"), MultiTaskCurriculum)
    for register, make in ((register_env, lambda: get_env_config(SIMPLE)), (register_curriculum, list)):
        with pytest.raises(ValueError, match="'/env/mine/both' is taken"):
            register("/env/mine/both", make)
        with pytest.raises(ValueError, match="start with '/'"):
            register("mine", make)


def test_an_environment_of_several_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        ValueError, match="is a curriculum of 15 environments, and one is asked for; use make_curriculum"
    ):
        get_env_config("/env/mettagrid/curriculum/arena/random")
    assert get_env_config("/env/mettagrid/curriculum/simple") == get_env_config(SIMPLE)
    with pytest.raises(ValueError, match="did you mean /env/mettagrid/curriculum/arena/random"):
        make_curriculum("/env/mettagrid/curriculum/arena/rand")


def test_files_of_every_kind(tmp_path: Path) -> None:
    write(
        tmp_path,
        a_curriculum="path: /env/lab/c/weighted\ncurriculum: random\ntasks: {/env/lab/long: 1, /env/mettagrid/simple: 3}\n",
        b_list="path: /env/lab/c/even\ncurriculum: random\ntasks: [/env/lab/long, /env/lab/longer]\n",
        changed=f"path: /env/lab/long\nbase: {SIMPLE}\nset:\n  game.max_steps: 700\n  map_builder.objects.altar: [1, 4]\n",
        further="path: /env/lab/longer\nbase: /env/lab/long\nset: {game.max_steps: 900}\n",
        full="path: /env/lab/full\nenv:\n  game: {num_agents: 2, width: 12, height: 11}\n  map_builder: {objects: {altar: 1}}\n",
        learning=(
            "path: /env/lab/c/learning\ncurriculum: learning_progress\ntasks: [/env/lab/long, /env/mettagrid/simple]\n"
            "config: {memory: 5}\n"
        ),
        buckets=(
            f"path: /env/lab/c/buckets\ncurriculum: bucketed\nbase: {SIMPLE}\nbuckets:\n  game.max_steps: [5, 6]\n"
            "  map_builder.objects.altar: {range: [1, 5], bins: 2}\n"
        ),
    )
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "other.yml").write_text(f"path: /env/lab/other\nbase: {SIMPLE}\n")
    names = register_yaml(tmp_path)
    assert names == sorted(
        f"/env/lab/{name}"
        for name in ("c/weighted", "c/even", "long", "longer", "full", "c/learning", "c/buckets", "other")
    )
    assert set(names) <= {*env_paths(), *curriculum_paths()}
    assert get_env_config("/env/lab/long").map_builder.objects["altar"] == (1, 4)
    assert get_env_config("/env/lab/longer").game.max_steps == 900
    assert get_env_config("/env/lab/longer").map_builder.objects["altar"] == (1, 4)
    assert get_env_config("/env/lab/full").game.num_agents == 2
    assert get_env_config("/env/lab/other") == get_env_config(SIMPLE)
    weighted = make_curriculum("/env/lab/c/weighted")
    assert isinstance(weighted, MultiTaskCurriculum)
    assert weighted.sample(_Rng(0.2)) == 0
    assert weighted.sample(_Rng(0.3)) == 1
    learning = make_curriculum("/env/lab/c/learning")
    assert isinstance(learning, LearningProgressCurriculum)
    assert learning.config.memory == 5
    buckets = make_curriculum("/env/lab/c/buckets")
    assert isinstance(buckets, BucketedCurriculum)
    assert [task.name for task in buckets.tasks][:2] == ["max_steps=5;altar=1-2", "max_steps=5;altar=3-4"]
    assert isinstance(make_curriculum("/env/lab/full"), SingleTaskCurriculum)


class _Rng:
    """A generator that says one number."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


# What a file says, and what is said about it.
MISTAKES = {
    "no yaml": ("path: [", "is no valid YAML"),
    "not a mapping": ("- 1\n- 2", "needs the key path"),
    "empty": ("", "needs the key path"),
    "no path": (f"base: {SIMPLE}", "needs the key path"),
    "path without slash": (f"path: lab\nbase: {SIMPLE}", "does not start with '/'; call it '/lab'"),
    "taken": (f"path: {SIMPLE}\nbase: {SIMPLE}", "is taken"),
    "nothing in it": ("path: /env/x", "give one of the two keys, or curriculum"),
    "both": (f"path: /env/x\nbase: {SIMPLE}\nenv: {{}}", "give one of the two keys"),
    "unknown key": (f"path: /env/x\nbase: {SIMPLE}\nsets: {{}}", "wrong entry at sets: Extra inputs"),
    "key twice": (f"path: /env/x\nbase: {SIMPLE}\npath: /env/y", "the key 'path' is given twice"),
    "unknown base": ("path: /env/x\nbase: /env/mettagrid/simpel", "did you mean /env/mettagrid/simple"),
    "unknown value": (f"path: /env/x\nbase: {SIMPLE}\nset: {{game.hight: 3}}", "game.hight: Extra inputs"),
    "wrong value": (f"path: /env/x\nbase: {SIMPLE}\nset: {{game.max_steps: many}}", "max_steps.*got 'many'"),
    "wrong field": ("path: /env/x\nenv: {game: {hight: 3}}", "wrong entry at env.game.hight"),
    "unknown kind": ("path: /env/x\ncurriculum: best", "the kinds are random, learning_progress, bucketed"),
    "odd kind": ("path: /env/x\ncurriculum: [random]", "the kinds are random"),
    "no tasks": ("path: /env/x\ncurriculum: random", "wrong entry at tasks: Field required"),
    "empty tasks": ("path: /env/x\ncurriculum: learning_progress\ntasks: []", "wrong entry at tasks"),
    "task twice": (
        f"path: /env/x\ncurriculum: random\ntasks: [{SIMPLE}, {SIMPLE}]",
        f"has the task '{SIMPLE}' twice; give it a weight",
    ),
    "weight of nothing": (
        f"path: /env/x\ncurriculum: random\ntasks: {{{SIMPLE}: 0}}",
        "wrong entry at tasks",
    ),
    "unknown task": (
        "path: /env/x\ncurriculum: random\ntasks: [/env/y]",
        "no environment is called '/env/y'",
    ),
    "range": (
        f"path: /env/x\ncurriculum: bucketed\nbase: {SIMPLE}\nbuckets: {{game.max_steps: {{range: [1, 5]}}}}",
        "list the values instead",
    ),
    "itself": ("path: /env/x\nbase: /env/x", "build on each other in a circle"),
    "python object": ("path: !!python/object/apply:os.getcwd []", "is no valid YAML"),
    "no date": ("path: /env/x\nbase: 2020-99-99", "is no valid YAML"),
    "contains itself": (f"path: /env/x\nbase: {SIMPLE}\nset: &a {{game.item_max: *a}}", "a.yaml"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_name_the_file_and_the_remedy(name: str, tmp_path: Path) -> None:
    text, sentence = MISTAKES[name]
    before = [*env_paths(), *curriculum_paths()]
    write(tmp_path, a=text)
    with pytest.raises(ValueError, match=sentence) as error:
        register_yaml(tmp_path / "a.yaml")
    assert "a.yaml" in str(error.value)
    assert [*env_paths(), *curriculum_paths()] == before


def test_one_wrong_file_and_nothing_is_registered(tmp_path: Path) -> None:
    write(
        tmp_path,
        a=f"path: /env/x\nbase: {SIMPLE}",
        b="path: /env/y\nbase: /env/x",
        c="path: /env/z\nbase: /env/zz",
    )
    with pytest.raises(ValueError, match=r"c\.yaml: no environment is called '/env/zz'"):
        register_yaml(tmp_path)
    assert not {"/env/x", "/env/y", "/env/z"} & {*env_paths(), *curriculum_paths()}
    write(tmp_path, c="path: /env/z\nbase: /env/y", d="path: /env/x\nbase: /env/z")
    with pytest.raises(ValueError, match=r"a\.yaml and .*d\.yaml both describe '/env/x'; rename one"):
        register_yaml(tmp_path)
    (tmp_path / "a.yaml").unlink()
    with pytest.raises(ValueError, match=r"b\.yaml, .*d\.yaml build on each other in a circle"):
        register_yaml(tmp_path)
    assert not {"/env/x", "/env/y", "/env/z"} & {*env_paths(), *curriculum_paths()}
    write(tmp_path, d=f"path: /env/x\nbase: {SIMPLE}")
    assert register_yaml(tmp_path) == ["/env/x", "/env/y", "/env/z"]


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(FileNotFoundError, match="found no YAML file"):
            register_yaml(missing)


KEYS = st.sampled_from(["path", "base", "set", "env", "curriculum", "tasks", "buckets", "config", "game"])
SCRAPS = st.recursive(
    st.sampled_from(
        [
            "/env/x",
            SIMPLE,
            "random",
            "bucketed",
            "!!int ''",
            "!!bool maybe",
            "*a",
            "&a",
            "2020-13-45",
            "0b_",
            "~",
        ]
    )
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(KEYS, inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=6,
)


@given(
    content=st.binary(max_size=200)
    | st.dictionaries(KEYS, SCRAPS, max_size=5).map(
        lambda items: "\n".join(f"{key}: {value}" for key, value in items.items()).encode("utf-8", "replace")
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_any_bytes_give_a_description_or_our_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "any.yaml"
    file.write_bytes(content)
    try:
        description: Any = read_description(file)
    except ValueError as error:
        assert str(file) in str(error)  # noqa: PT017 - which of the two it is is part of the example
    else:
        assert description.path


def test_a_name_of_any_length_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"no environment is called 'x+\.\.\.'; known are") as caught:
        make_curriculum("x" * 10_000)
    assert "x" * 1000 not in str(caught.value)
