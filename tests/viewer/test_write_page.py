"""The replay page as a file: whole, self-contained, and honest about what it was given."""

from __future__ import annotations

import base64
import json
import re
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from metta.viewer.page import SCRIPTS, write_replay_page
from story import play


def embedded_replay(page: str) -> Any:
    found = re.search(r'id="replay-data">([^<]*)</script>', page)
    assert found is not None
    return json.loads(zlib.decompress(base64.b64decode(found[1])))


def test_a_page_holds_the_replay_of_the_file(tmp_path: Path) -> None:
    recorder = play()
    replay = recorder.save(tmp_path / "play.json.z")
    page = write_replay_page(replay, tmp_path / "pages" / "play.html")
    assert page == tmp_path / "pages" / "play.html"
    assert embedded_replay(page.read_text()) == recorder.to_dict()


def test_a_replay_may_come_as_data_and_replaces_an_older_page(tmp_path: Path) -> None:
    page = tmp_path / "play.html"
    page.write_text("older")
    data = play().to_dict()
    write_replay_page(data, page)
    assert embedded_replay(page.read_text()) == data


def test_every_part_is_inside_and_nothing_outside_is_named(tmp_path: Path) -> None:
    page = write_replay_page(play().to_dict(), tmp_path / "play.html").read_text()
    static = resources.files("metta.viewer") / "static"
    for part in static.iterdir():
        if part.name != "page.html":
            assert part.read_text(encoding="utf-8") in page, part.name
    assert {part.name for part in static.iterdir()} == {*SCRIPTS, "style.css", "page.html"}
    addresses = set(re.findall(r"https?://[^\s'\"]*", page))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the page names an address; it must play offline"
    assert not re.search(
        r"<(link|script|img)[^>]+(src|href)=[\"'](?!data:)|url\(|@import|fetch\(|XMLHttp", page
    )
    assert "default-src 'none'" in page


def test_a_label_cannot_carry_markup(tmp_path: Path) -> None:
    data = play().to_dict() | {"file_name": "</title><script>alert(1)</script> /*SCRIPT*/ REPLAY-BASE64"}
    page = write_replay_page(data, tmp_path / "play.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert embedded_replay(page) == data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain", "is no replay: it is not zlib-compressed, or cut short"),
        (zlib.compress(b"{"), "is no replay: it does not hold JSON"),
        (zlib.compress(b"[1]"), "is no replay: a page needs version 2 with its objects, not None"),
        (zlib.compress(b'{"version": 1}'), "not 1"),
        (zlib.compress(b'{"version": 2}'), "needs version 2 with its objects"),
    ],
)
def test_other_files_are_refused_before_a_page_is_written(
    tmp_path: Path, content: bytes, message: str
) -> None:
    replay = tmp_path / "bad.json.z"
    replay.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        write_replay_page(replay, tmp_path / "page.html")
    with pytest.raises(FileNotFoundError, match="There is no replay file"):
        write_replay_page(tmp_path / "none.json.z", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
