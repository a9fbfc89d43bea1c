"""The shape of the house: what imports what, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "metta"

# A room may import itself and every room that is listed for it; nothing else of ours.
MAY_IMPORT = {
    "common": set(),
    "viewer": set(),
    "stats": {"common"},
    "tracking": {"common"},
    "mettagrid": {"common"},
    "bench": {"common", "mettagrid"},
    "adapters": {"mettagrid"},
    "agent": {"common", "mettagrid"},
    "rl": {"common", "mettagrid", "agent"},
    "sim": {"common", "mettagrid", "agent", "viewer"},
    "eval": {"common", "mettagrid", "agent", "sim"},
    "interface": {"common", "mettagrid", "agent", "rl", "sim", "eval", "stats", "tracking", "viewer"},
    "api": {"common", "mettagrid", "agent", "rl", "sim", "eval", "stats", "tracking", "interface"},
    "cli": {"bench"},
}


def imported_modules(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; name the module"
            names.add(node.module or "")
    return names


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda f: str(f.relative_to(SOURCE)))
def test_imports_go_one_way(file: Path) -> None:
    room = room_of(file)
    if room == "__init__":
        assert imported_modules(file) == set()
        return
    ours = {name.split(".")[1] for name in imported_modules(file) if name.startswith("metta.")}
    assert ours - {room} <= MAY_IMPORT[room], f"{room} must not import {ours - {room} - MAY_IMPORT[room]}"


@pytest.mark.parametrize("file", sorted((SOURCE / "mettagrid").rglob("*.py")), ids=lambda f: f.name)
def test_the_world_knows_no_torch(file: Path) -> None:
    assert not any(name.split(".")[0] == "torch" for name in imported_modules(file))


def test_importing_metta_loads_nothing_heavy() -> None:
    code = (
        "import sys, metta; print([m for m in ('torch', 'numba', 'numpy', 'gymnasium') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_importing_the_world_loads_no_torch() -> None:
    code = "import sys, metta.mettagrid.env; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


@pytest.mark.parametrize("module", ["gymnasium_env", "gymnasium_vector", "gymnasium_ids"])
def test_the_gymnasium_adapter_loads_no_torch(module: str) -> None:
    code = f"import sys, metta.adapters.{module}; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


def test_nothing_is_pickled() -> None:
    for file in SOURCE.rglob("*.py"):
        text = file.read_text()
        assert not any(
            name.split(".")[0] in {"pickle", "cloudpickle", "dill"} for name in imported_modules(file)
        ), file
        assert "torch.load(" not in text, file
        assert "torch.save(" not in text, file


def test_files_can_be_read_in_one_sitting() -> None:
    lengths = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in SOURCE.rglob("*.py")}
    assert max(lengths.values()) <= 500, {f: n for f, n in lengths.items() if n > 500}


@pytest.mark.parametrize(("script", "most"), [("run.py", 201), ("examples/own_loop.py", 100)])
def test_the_scripts_are_as_short_as_the_readme_says(script: str, most: int) -> None:
    assert len((ROOT / script).read_text().splitlines()) < most
