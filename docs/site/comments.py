"""An extension of the site's reader of docstrings.

A field's comment becomes its text, as it is its help on the command line; a doctest becomes code.
"""

import re
from typing import Any

import griffe

COMMENT = re.compile(r"#\s?(.*)")
DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


def comment_of(lines: list[str], first: int, last: int) -> str:
    """Return the comment behind a field, or else those above it; lines count from 1."""
    behind = COMMENT.search(lines[last - 1])
    if behind:
        return behind[1]
    above: list[str] = []
    for line in reversed(lines[: first - 1]):
        if not line.strip().startswith("#"):
            break
        above.insert(0, line.strip().removeprefix("#").strip())
    return " ".join(above)


class Comments(griffe.Extension):
    """Change docstrings as they are read."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Give a field of a class the text of its comment."""
        if attr.docstring or not isinstance(attr.parent, griffe.Class) or not attr.lineno:
            return
        lines = attr.lines_collection[attr.filepath]
        text = comment_of(lines, attr.lineno, attr.endlineno or attr.lineno)
        if text:
            attr.docstring = griffe.Docstring(text, parent=attr)

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Put doctests, which Markdown would take for quotations, into code blocks."""
        if obj.docstring:
            value = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
            obj.docstring.value = value
