"""Marks beside the fields of a config: what a resumed run may have otherwise."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class Mark:
    """Something that the annotation of a field says of it."""

    words: str


NO_NUMBER = Mark("no number of a run depends on it, beyond the rounding of sums")
END = Mark("it may change as long as the steps that are done stay what they would have been")

ChangesNoNumber = Annotated[T, NO_NUMBER]  # workers: ChangesNoNumber[int] = 1
EndOfPhase = Annotated[T, END]


def marked_fields(held: Any, mark: Mark, prefix: str = "") -> Iterator[str]:
    """Yield the paths `a/b` of a dataclass's fields with a mark; those below them are meant too."""
    hints = get_type_hints(type(held), include_extras=True)
    for part in fields(held):
        path = f"{prefix}{part.name}"
        if mark in getattr(hints[part.name], "__metadata__", ()):
            yield path
        elif is_dataclass(value := getattr(held, part.name)):
            yield from marked_fields(value, mark, f"{path}/")
