"""Tables of Markdown pages that a command writes."""

from __future__ import annotations

import re


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_between(page: str, name: str, text: str) -> str:
    """The page with a text between `<!-- NAME -->` and `<!-- end of NAME -->`, in the place of what is there.

    Raises:
        ValueError: the page has no such marks.
    """
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not place.search(page):
        raise ValueError(
            f"the page has no '<!-- {name} -->' ... '<!-- end of {name} -->'; put these marks where the table goes."
        )
    return place.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)
