"""docs/api.md: its blocks run, its tables are the code's, and it leaves nothing out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import metta.api
import metta.interface

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text()


@pytest.mark.slow
def test_the_blocks_run_from_top_to_bottom(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) >= 12
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, "-W", "error", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "64 room=" in done.stdout  # the curriculum's tasks
    assert (tmp_path / "runs" / "a_first_run" / "stats" / "stats.duckdb").is_file()


def test_the_tables_are_those_of_the_code(tmp_path: Path) -> None:
    check = [sys.executable, str(ROOT / "docs" / "reference.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_in_the_table() -> None:
    for name in {*metta.api.__all__, *metta.interface.__all__}:
        assert name.startswith("TYPE_") or f"\n| `{name}` | `metta." in PAGE, name


def test_every_field_has_a_meaning() -> None:
    tables = PAGE.split("## Configurations")[1]
    rows = [re.split(r"(?<!\\)\|", line) for line in tables.splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert {len(cells) for cells in rows} == {6}  # name, type, default, meaning, and the ends of the row
    assert [cells[1] for cells in rows if not cells[4].strip()] == []


def test_names_in_the_text_exist() -> None:
    text = PAGE.split("## Names")[0]
    names = set(re.findall(r"\bapi\.(\w+)", text.replace("`metta.api`", "")))
    assert len(names) > 40
    assert names <= set(metta.api.__all__)
