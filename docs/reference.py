"""The generated parts of docs/api.md: which name lives where, and every field of every configuration.

python docs/reference.py            rewrites the parts between the markers
python docs/reference.py --check    says whether they are up to date, by its exit status
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import metta.api
from metta.common.config import Config

PAGE = Path(__file__).with_name("api.md")


def names_table() -> str:
    """Every public name with its home and the first line of its description."""
    rows = ["| name | lives in | what it is |", "| --- | --- | --- |"]
    for name in metta.api.__all__:
        if name.startswith("TYPE_"):
            continue
        thing = getattr(metta.api, name)
        rows.append(f"| `{name}` | `{home(name)}` | {first_line(thing)} |")
    constants = ", ".join(
        f"`{n}` {getattr(metta.api, n)}" for n in metta.api.__all__ if n.startswith("TYPE_")
    )
    rows.append(f"| `TYPE_*` | `metta.mettagrid.objects` | Ids of the object types: {constants}. |")
    return "\n".join(rows)


def home(name: str) -> str:
    """The module that defines a public name, read from the imports of `metta.api`."""
    for node in ast.parse(inspect.getsource(metta.api)).body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            assert node.module is not None
            return node.module
    raise LookupError(f"metta.api lists {name} but does not import it.")


def first_line(thing: Any) -> str:
    """The first sentence of a docstring, on one line."""
    text = inspect.getdoc(thing) or ""
    return " ".join(text.split("\n\n")[0].split())


def config_tables() -> str:
    """A table for every configuration class."""
    return "\n\n".join(
        config_table(getattr(metta.api, name))
        for name in metta.api.__all__
        if inspect.isclass(getattr(metta.api, name)) and issubclass(getattr(metta.api, name), Config)
    )


def config_table(cls: type[Config]) -> str:
    """Fields of one class: name, type, default, meaning. Those of a public base stand with the base."""
    public = [
        base for base in cls.__mro__[1:] if base.__name__ in metta.api.__all__ and issubclass(base, Config)
    ]
    parts = [
        part for part in reversed(cls.__mro__) if issubclass(part, Config) and part not in (Config, *public)
    ]
    told = {name: text for part in parts for name, text in attribute_docs(part).items()}
    types = {name: text for part in parts for name, text in type_texts(part).items()}
    lines = [f"### {cls.__name__}", "", first_line(cls)]
    if public:
        lines += ["", f"Has the fields of `{public[0].__name__}` too."]
    lines += ["", "| field | type | default | |", "| --- | --- | --- | --- |"]
    for name, field in cls.model_fields.items():
        if name in types:
            meaning = " ".join((field.description or told.get(name) or follows(field)).split())
            lines.append(
                f"| `{name}` | {types[name]} | {default_text(field)} | {meaning} |".replace("  ", " ")
            )
    return "\n".join(lines)


def follows(field: FieldInfo) -> str:
    """What a field's type alone tells of it."""
    if isinstance(field.default, Config):
        return first_line(type(field.default))
    if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
        return "Says which kind this is, where there is a choice."
    return ""


def class_body(cls: type[Config]) -> list[ast.stmt]:
    """The statements of a class, from its source."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    return definition.body


def attribute_docs(cls: type[Config]) -> dict[str, str]:
    """What the source says of each field: the string below it, or its entry under `Attributes:`."""
    told: dict[str, str] = {}
    body = class_body(cls)
    for node, following in pairwise(body):
        match node, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                told[name] = text
    section = re.search(
        r"^Attributes:\n(.*?)(?:\n\S|\Z)", inspect.getdoc(cls) or "", re.DOTALL | re.MULTILINE
    )
    if section:
        for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n     .*)*)", section[1], re.MULTILINE):
            told |= dict.fromkeys((name.strip() for name in names.split(",")), text)
    return told


def type_texts(cls: type[Config]) -> dict[str, str]:
    """The fields that a class itself states, with their types as the source writes them."""
    return {
        node.target.id: f"`{ast.unparse(node.annotation)}`".replace("|", "\\|")
        for node in class_body(cls)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def default_text(field: FieldInfo) -> str:
    """A field's default as it would be typed; `required` without one."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Config):
        return f"`{type(value).__name__}()`"
    if isinstance(value, list) and value and isinstance(value[0], Config):
        return "the standard ones"
    return f"`{value!r}`".replace("|", "\\|")


PARTS = {"names": names_table, "configurations": config_tables}


def regenerated(page: str) -> str:
    """The page with its generated parts written anew."""
    for part, make in PARTS.items():
        begin, end = f"<!-- {part}: generated by docs/reference.py -->", f"<!-- end of {part} -->"
        pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
        assert len(pattern.findall(page)) == 1, f"docs/api.md needs the markers of the part '{part}' once"
        before, after = pattern.split(page)
        page = f"{before}{begin}\n{make()}\n{end}{after}"
    return page


if __name__ == "__main__":
    before = PAGE.read_text()
    after = regenerated(before)
    if "--check" in sys.argv[1:]:
        sys.exit(0 if before == after else "docs/api.md is out of date: run python docs/reference.py")
    PAGE.write_text(after)
