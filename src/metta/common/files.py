"""Writing files so that a reader, or a crash, never meets a half-written one."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

StrPath = str | os.PathLike[str]


def atomic_write_bytes(path: StrPath, data: bytes) -> Path:
    """Write `data` to `path`: whoever opens it sees the old content or the new, whole.

    The bytes go to a hidden temporary file in the same folder, reach the disk, and only then take the
    name. A process killed in between leaves that temporary file (`.NAME.*.tmp`) and the old content.
    Missing parent folders are made.

    Args:
        path: the file to write.
        data: its whole new content.

    Returns:
        The path written.

    Raises:
        OSError: the folder cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)
    return target


def atomic_write_json(path: StrPath, value: Any) -> Path:
    """Write `value` as indented UTF-8 JSON with `atomic_write_bytes`.

    Args:
        path: the file to write.
        value: anything `json` can write exactly; not-a-number and infinities are refused.

    Returns:
        The path written.

    Raises:
        TypeError: the value holds something that JSON cannot.
        ValueError: the value holds a float that is not finite.
        OSError: the folder cannot be written.
    """
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    return atomic_write_bytes(path, (text + "\n").encode())


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where the system lets a folder be opened (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
