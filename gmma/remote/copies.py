"""Paths of a config that lead elsewhere, and the same config with their copies on this machine.

A path that begins with a scheme (`gs://BUCKET/FOLDER`, `hf://OWNER/NAME`) may stand wherever a
config of a task or of a model has a path. A run saves the config as it was given; whoever reads
files gets the one with copies.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path, PurePath
from typing import Any, TypeVar

from gmma.files import RunPath, run_path
from gmma.remote.bucket import copy_from_bucket, list_bucket
from gmma.remote.hub import copy_from_hub, list_hub
from gmma.remote.listing import Listing

T = TypeVar("T")
CACHE = "GMMA_CACHE"  # in the environment: the folder of copies


def cache_home() -> Path:
    """Return the folder of copies: `GMMA_CACHE`, or `gmma` where programs keep such things."""
    given = os.environ.get(CACHE)
    if given:
        return Path(given).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gmma"


def place_of(path: object) -> str | None:
    """Return the place that a path leads to, if it has a scheme.

    >>> place_of(Path("gs://bucket/x")), place_of(Path("data/x"))
    ('gs://bucket/x', None)
    """
    if not isinstance(path, PurePath):
        return None
    known = run_path(path)
    return None if isinstance(known, Path) else str(known)


@cache  # a process sees one version of a place, whenever it reads it
def look(place: str) -> Listing:
    """List a place. Raises UserError where nothing is there, or it cannot be read."""
    return list_hub(place) if place.startswith("hf://") else list_bucket(place)


def bring(place: str) -> Path:
    """Return this machine's copy of a place, fetching what of it is not here."""
    listing = look(place)
    copy = copy_from_hub if place.startswith("hf://") else copy_from_bucket
    return copy(listing, cache_home())


def here(path: RunPath) -> Path:
    """Return the path, or the copy of a place elsewhere."""
    place = place_of(path)
    return Path(path) if place is None else bring(place)


def places_in(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each path of a config that leads elsewhere: its field's name, and the place."""
    place = place_of(values)
    if place is not None:
        yield prefix, place
    for name, value in _members(values):
        yield from places_in(value, f"{prefix}.{name}".lstrip("."))


def with_paths(values: T, copies: Mapping[str, Path]) -> T:
    """Replace each path that leads to one of these places by the path of its copy."""
    place = place_of(values)
    if place is not None:
        return copies.get(place, values)  # type: ignore[return-value]
    new: dict[Any, Any] = {name: with_paths(value, copies) for name, value in _members(values)}
    changed = {name: new[name] for name, value in _members(values) if new[name] is not value}
    if not changed:
        return values
    if is_dataclass(values):
        return replace(values, **changed)  # type: ignore[type-var, return-value]
    if isinstance(values, Mapping):
        return {**values, **changed}  # type: ignore[return-value]
    return type(values)(new.values())  # type: ignore[call-arg]


def _members(values: Any) -> list[tuple[Any, Any]]:
    if is_dataclass(values) and not isinstance(values, type):
        return [(field.name, getattr(values, field.name)) for field in fields(values)]
    if isinstance(values, Mapping):
        return list(values.items())
    return list(enumerate(values)) if isinstance(values, list | tuple) else []
