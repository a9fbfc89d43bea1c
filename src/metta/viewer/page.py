"""Writes the replay page: one HTML file that plays one replay, offline, in any current browser.

The page is put together from the parts in `static/`: style and script go inside, and so does the
replay, compressed as in its file. Nothing is fetched when it is opened, and its own security policy
forbids that anything could be.
"""

from __future__ import annotations

import base64
import html
import json
import re
import zlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

MOST_BYTES = 2**28
"""Bytes that a replay may unpack to."""

SCRIPTS = (
    "replay.js",
    "events.js",
    "colors.js",
    "icons.js",
    "world.js",
    "timeline.js",
    "panel.js",
    "player.js",
    "main.js",
)
"""The parts of the page's script in the order in which they are joined."""


def write_replay_page(replay_path_or_dict: str | Path | Mapping[str, Any], html_path: str | Path) -> Path:
    """Write a self-contained page that plays a replay.

    Args:
        replay_path_or_dict: a `.json.z` file, or the JSON object that such a file holds.
        html_path: the page to write; missing folders are made, an older page is replaced.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: there is no such replay file.
        ValueError: the file is not zlib-compressed JSON, or it is no replay of version 2.
    """
    if isinstance(replay_path_or_dict, Mapping):
        source = "The replay"
        packed = zlib.compress(json.dumps(replay_path_or_dict, separators=(",", ":")).encode(), 9)
    else:
        path = Path(replay_path_or_dict)
        if not path.is_file():
            raise FileNotFoundError(f"There is no replay file {path}.")
        source = str(path)
        packed = path.read_bytes()
    title = _check(source, packed)
    page = Path(html_path)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_assemble(title, packed), encoding="utf-8")
    return page


def _check(source: str, packed: bytes) -> str:
    """The replay's label, once it is clear that the page will be able to read it."""
    try:
        stream = zlib.decompressobj()
        text = stream.decompress(packed, MOST_BYTES)
    except zlib.error:
        raise ValueError(f"{source} is no replay: it is not zlib-compressed, or cut short.") from None
    if stream.unconsumed_tail:
        raise ValueError(f"{source} is no replay: it unpacks to more than {MOST_BYTES:,} bytes.")
    if not stream.eof:
        raise ValueError(f"{source} is no replay: it is not zlib-compressed, or cut short.")
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError(f"{source} is no replay: it is nested too deeply.") from None
    except ValueError:
        raise ValueError(f"{source} is no replay: it does not hold JSON.") from None
    version = data.get("version") if isinstance(data, dict) else None
    if version != 2 or not isinstance(data.get("objects"), list):
        raise ValueError(f"{source} is no replay: a page needs version 2 with its objects, not {version!r}.")
    return str(data.get("file_name", "replay"))


def _assemble(title: str, packed: bytes) -> str:
    parts = resources.files("metta.viewer").joinpath("static")

    def read(name: str) -> str:
        return parts.joinpath(name).read_text(encoding="utf-8")

    script = "\n".join(read(name) for name in SCRIPTS)
    fillings = {
        "<!--TITLE-->": html.escape(title),
        "/*STYLE*/": read("style.css"),
        "/*SCRIPT*/": f'"use strict";\n(() => {{\n{script}\n}})();',
        "REPLAY-BASE64": base64.b64encode(packed).decode("ascii"),
    }
    marks = re.compile("|".join(map(re.escape, fillings)))
    return marks.sub(lambda mark: fillings[mark[0]], read("page.html"))
