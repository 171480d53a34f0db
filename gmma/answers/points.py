"""Read the points, path or touch of an answer (`gmma.answers.reading` has the rules)."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from gmma.answers.entries import (
    BOX_KEYS,
    POINT_KEYS,
    SIZE_KEYS,
    Found,
    Kind,
    Order,
    find_entries,
    key_name,
    keyed_numbers,
    loose_numbers,
)
from gmma.answers.notation import Group, read_notation
from gmma.answers.reading import NUMBER, Number, Reading

Action = Literal["push", "pull"]
_LARGEST_COORDINATE = 1e9  # no image is that wide, and squares of such numbers stay finite
_PAIR = rf"[\[(]\s*({NUMBER})\s*,\s*({NUMBER})\s*[\])]"
_STRICT_POINT = re.compile(_PAIR, re.ASCII)
_STRICT_POINTS = re.compile(rf"\s*\[\s*(?:{_PAIR}\s*(?:,\s*{_PAIR}\s*)*)?\]\s*", re.ASCII)
_SIDES = frozenset(("w", "h", "width", "height"))
_ACTION = re.compile(r"\b(push|pull)\b")
_DENIED_ACTION = re.compile(r"(?:\bnot|n't|\bnever)\s+(?:push|pull)\b")


class Touch(NamedTuple):
    """A point of the image, and the action there."""

    point: tuple[float, float]
    action: Action


def parse_points(text: str, reading: Reading = "lenient") -> np.ndarray | None:
    """Read the points of a text as float64[N, 2], of magnitude up to 1e9; `[]` has N = 0.

    None where it has none, where an entry is no point, or where there are two lists that differ.
    Points without a list are one list, in order. Strict: `[[x, y], …]` or `[(x, y), …]` alone.
    """
    if reading == "strict":
        if not _STRICT_POINTS.fullmatch(text):
            return None
        return _as_points([[float(x), float(y)] for x, y in _STRICT_POINT.findall(text)])
    return _points_said(find_entries(text, _POINTS))


def _points_said(found: "Found") -> np.ndarray | None:
    entries = found.one_list()
    if entries is None or any(entry.value is None for entry in entries):
        return None
    return _as_points([entry.value for entry in entries if entry.value is not None])


def parse_path(text: str, reading: Reading = "lenient") -> np.ndarray | None:
    """Read the path of a text as float64[N, 2], N ≥ 1: its points in their order."""
    if reading == "strict":
        points = parse_points(text, reading)
    else:
        found = find_entries(text, _POINTS)
        several = any(len(lists) > 1 for _, lists in found.lists)  # within one list
        points = None if several else _points_said(found)
    return points if points is not None and len(points) else None


def parse_point(text: str, reading: Reading = "lenient") -> tuple[float, float] | None:
    """Read the one point of a text. Strict: `[x, y]`, `(x, y)`, or a list of one such point."""
    if reading == "lenient":
        said = {entry.value for entry in find_entries(text, _POINTS).entries()}
    else:
        points = parse_points(text, reading)
        if points is None:
            points = parse_points(f"[{text}]", reading)
        said = set() if points is None else set(map(tuple, points))
    point = said.pop() if len(said) == 1 else None
    if point is None or _as_points([point]) is None:
        return None
    return float(point[0]), float(point[1])


def read_gold_points(gold: object) -> np.ndarray | None:
    """Read a record's reference points: a list of pairs, or the text of one; None if neither."""
    if isinstance(gold, str):
        return parse_points(gold, "strict")
    try:
        points = np.asarray(gold, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return _as_points(points) if points.ndim == 2 and points.shape[1] == 2 else None


def _as_points(points: Sequence[Sequence[Number]] | np.ndarray) -> np.ndarray | None:
    array = np.asarray(points, np.float64).reshape(-1, 2)
    return array if np.all(np.abs(array) <= _LARGEST_COORDINATE) else None


def parse_touch(text: str, reading: Reading = "lenient") -> Touch | None:
    """Read the one point of a text, and the one of "push" and "pull" that it names.

    Strict: the JSON object `{"point": [x, y], "action": "push" | "pull"}` and nothing else.
    """
    if reading == "strict":
        return _parse_json_touch(text)
    point = parse_point(text, reading)
    action = None if point is None else _find_action(text)
    return None if point is None or action is None else Touch(point, action)


def _find_action(text: str) -> Action | None:
    lowered = text.lower()
    keyed = {
        value.strip().lower()
        for group in _all_groups(read_notation(text))
        for key, value in group.items
        if key_name(key) == "action" and isinstance(value, str)
    }
    said = keyed or set(_ACTION.findall(lowered))
    if len(said) != 1 or (not keyed and _DENIED_ACTION.search(lowered)):
        return None
    return "push" if said == {"push"} else "pull" if said == {"pull"} else None


def _all_groups(group: Group) -> Iterator[Group]:
    yield group
    for _, inner in group.groups():
        yield from _all_groups(inner)


def _parse_json_touch(text: str) -> Touch | None:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or set(fields) != {"point", "action"}:
        return None
    point, action = fields["point"], fields["action"]
    if action not in ("push", "pull") or not isinstance(point, list) or len(point) != 2:
        return None
    if not all(type(coordinate) in (int, float) for coordinate in point):
        return None
    try:
        x, y = float(point[0]), float(point[1])
    except OverflowError:
        return None
    return Touch((x, y), action) if math.isfinite(x) and math.isfinite(y) else None


def read_point(group: Group, y_first: bool, order: Order | None = None) -> list[float] | None:
    if any(key_name(key) in _SIDES for key, _ in group.items):
        return None
    if (pair := keyed_numbers(group, ("x", "y"))) is not None:
        return pair
    numbers = loose_numbers(group)
    if numbers is None or len(numbers) != 2:
        return None
    return numbers[::-1] if order == "yxyx" else numbers


def _make_point(numbers: Sequence[float]) -> tuple[float, float]:
    x, y = numbers
    return x, y


_POINTS = Kind(
    keys=POINT_KEYS,
    other_keys=BOX_KEYS | SIZE_KEYS,
    read=read_point,
    make=_make_point,
    labelled=False,
    other_length=4,
)
