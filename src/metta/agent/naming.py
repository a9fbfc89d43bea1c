"""What to say of a name that nothing has, and of values that a configuration refuses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError


def close_first(name: str, known: Iterable[str]) -> str:
    """The known names as text, those that resemble `name` first, the others in their own order."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, n=3)
    return ", ".join(close + [other for other in names if other not in close])


def refusal(error: ValidationError) -> str:
    """What a configuration refused, in one line: each place and what is wrong there."""
    reasons = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "value_error":  # a sentence of our own, which names the place itself
            reason = problem["msg"].removeprefix("Value error, ").removesuffix(".")
        elif problem["type"] == "missing":
            reason = f"{place} is missing"
        else:
            reason = f"{place} is {problem['input']!r}: {problem['msg']}"
        reasons.append(reason)
    return "; ".join(reasons) + "."
