"""Valid files made invalid: by bytes, by words and by structure. All of it a function of a generator."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

WORDS = (
    "0", "-1", "1", "255", "256", "65536", "2147483648", "999999999", "1000000000000", "9" * 30, "9" * 5000, "0x" + "F" * 400,
    "1:1:1:1:1:1:1:1", "-0", "1e308", "1e400", "-1e39", ".inf", "-.inf", ".nan", "NaN", "Infinity", "null", "~", "true", "no",
    "2001-12-14", "2001-99-99", "!!binary aGk=", "!!python/object:os.system", "!!set {a}", "!!float x", "&a [*a]", "*a",
    "<<: *a", "<<: {}", "---", "...", "%YAML 9.9", "? [a]", "|", ">", "'", '"', "[", "]", "{", "}", ":", ",", "#", "\t", "\0",
    "[" * 2000, "{a: " * 300, "\ud800", "\x1b[31m", "é", "𝕏", "\u2028", "../../etc/passwd", "/dev/zero", "a" * 3000,
)  # fmt: skip
"""What readers stumble over."""

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**63, 10**12, 10**30, 0.5, -0.0, 1e39, 1e308,
    float("inf"), float("-inf"), float("nan"), "", "a", "agent", "wall", "\x00", "é", "x" * 2000,
    [], [1, 2], ["a", "a"], [[]], [None],
    {}, {"a": 1}, {"": None}, {"__class__": "x"}, [0] * 300, {str(n): n for n in range(300)},
)  # fmt: skip
"""What a field does not expect."""


def mangle_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, left out, repeated, or replaced by words."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        place = rng.randrange(len(content) + 1)
        other = rng.randrange(len(content) + 1)
        start, stop = min(place, other), max(place, other)
        short = min(stop, start + rng.randrange(1, 40))
        match rng.randrange(9):
            case 0 if content:
                content[min(place, len(content) - 1)] ^= 1 << rng.randrange(8)
            case 1 if content:
                content[min(place, len(content) - 1)] = rng.randrange(256)
            case 2:
                del content[start:short]
            case 3:
                content[place:place] = content[start:short]
            case 4:
                content[place:place] = rng.randbytes(rng.randrange(1, 12))
            case 5:
                content[place:place] = rng.choice(WORDS).encode(errors="surrogatepass")
            case 6:
                content[start:short] = rng.choice(WORDS).encode(errors="surrogatepass")
            case 7:
                del content[place:]
            case _:
                content[start:short] = bytes([rng.randrange(256)]) * (short - start)
    return bytes(content)


def mangle_words(text: str, rng: random.Random) -> str:
    """Some words of a text replaced."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                head, colon, _ = lines[place].partition(":")
                lines[place] = f"{head}{colon} {rng.choice(WORDS)}"
            case 1:
                lines.insert(place, rng.choice(lines))
            case 2:
                lines[place] = " " * rng.randrange(6) + lines[place]
            case 3:
                words = lines[place].split(" ")
                words[rng.randrange(len(words))] = rng.choice(WORDS)
                lines[place] = " ".join(words)
            case _:
                del lines[place : place + 1]
                lines = lines or [""]
    return "\n".join(lines)


def mangle_value(value: Any, rng: random.Random) -> Any:
    """Some values of a nested one replaced, left out, renamed or doubled."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        places = [((), value), *_places(value)]
        parent, key = rng.choice([place for place in places if place[0] != ()] or [((), None)])
        if parent == ():
            return rng.choice(VALUES)
        match rng.randrange(6):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[rng.choice(("", "a", "type", "x" * 500, "\x00"))] = parent.pop(key)
            case 1:
                parent.insert(key, copy.deepcopy(parent[key]))
            case 2:
                parent[key] = nested(rng.choice((3, 50, 900)), rng)
            case 3 if isinstance(parent[key], str) and len(parent[key]) < 10_000:
                parent[key] = mangle_words(parent[key], rng)
            case _:
                parent[key] = copy.deepcopy(rng.choice(VALUES))
    return value


def nested(depth: int, rng: random.Random) -> Any:
    """A value so many levels deep."""
    value: Any = 0
    in_lists = rng.random() < 0.5
    for _ in range(depth):
        value = [value] if in_lists else {"a": value}
    return value


def to_json(value: Any) -> bytes:
    """JSON of a value; a few of the values have none, and become text."""
    return json.dumps(value, default=str).encode(errors="surrogatepass")


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a nested value, up to a few thousand."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 5000:
        container = waiting.pop()
        keys = (
            list(container)
            if isinstance(container, dict)
            else range(len(container))
            if isinstance(container, list)
            else ()
        )
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                waiting.append(container[key])
    return found
