"""Change fields of nested frozen dataclasses by their dotted paths."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from gmma.errors import UserError

T = TypeVar("T")


def changed(config: T, changes: Mapping[str, Any], prefix: str = "") -> T:
    """Return a frozen dataclass with some fields, named by dotted paths, replaced all at once.

    Raises UserError for a field that there is not.

    >>> from gmma.config import TreeConfig
    >>> changed(TreeConfig(), {"answers": 8}).answers
    8
    """
    own: dict[str, Any] = {}
    deeper: dict[str, dict[str, Any]] = {}
    known = [field.name for field in fields(config)] if is_dataclass(config) else []
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        if head not in known:
            near = get_close_matches(head, known, n=1) or known[:8]
            raise UserError(f"no field {prefix + head} to change; there is {', '.join(near)}")
        if rest:
            deeper.setdefault(head, {})[rest] = value
        else:
            own[head] = value
    for head, inner in deeper.items():
        own[head] = changed(own.get(head, getattr(config, head)), inner, f"{prefix}{head}.")
    return replace(config, **own)  # type: ignore[type-var]
