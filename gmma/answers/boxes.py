"""Read the box or the labelled boxes of an answer (`gmma.answers.reading` has the rules)."""

import json
import math
import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from gmma.answers.entries import (
    BOX_KEYS,
    POINT_KEYS,
    SIZE_KEYS,
    Kind,
    Order,
    find_entries,
    keyed_numbers,
    loose_numbers,
)
from gmma.answers.folding import fold_text
from gmma.answers.notation import Group, Word
from gmma.answers.points import read_point
from gmma.answers.reading import NUMBER, Reading, Size

Box = tuple[float, float, float, float]
_STRICT_BOX = re.compile(r"\s*\[\s*" + r"\s*,\s*".join([f"({NUMBER})"] * 4) + r"\s*\]\s*", re.ASCII)
_BOX_NUMBERS = re.compile(r"\[\s*" + r"\s*,\s*".join([f"({NUMBER})"] * 4) + r"\s*\]", re.ASCII)
_STRICT_BOXES = re.compile(
    rf"\s*\[\s*(?:{_BOX_NUMBERS.pattern}\s*(?:,\s*{_BOX_NUMBERS.pattern}\s*)*)?\]\s*", re.ASCII
)
_FENCE = re.compile(r"\s*```(?:json)?[^\S\n]*\n(.*?)```\s*", re.DOTALL)
_CENTER_KEYS = frozenset(("center", "centre", "centered", "centred"))
_CORNER_KEYS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
_EXTENT_KEYS = (("x", "y", "w", "h"), ("x", "y", "width", "height"))
_NO_OBJECTS = re.compile(
    r"(?:there (?:is|are) |i (?:can )?(?:see|find|detect) )?"
    r"(?:nothing|none|no (?:such |matching |visible )?(?:objects?|instances?|detections?|boxes))"
    r"(?: (?:here|there|visible|present|found|detected|to detect|were|was|are|is"
    r"|(?:in|of) (?:the|this) (?:image|picture|photo)))*+"
)


class Detection(NamedTuple):
    """One labelled box; the label is folded. Without a box or a label it matches nothing."""

    label: str | None
    box: Box | None


def order_box(numbers: Sequence[float]) -> Box | None:
    """Order four numbers as a box with `x1 <= x2`, `y1 <= y2`; None unless four finite numbers."""
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        return None
    x1, y1, x2, y2 = numbers
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def parse_box(text: str, reading: Reading = "lenient", image_size: Size = None) -> Box | None:
    """Read the one box of a text, corners ordered; None where it has none, or several.

    Strict: `[x1, y1, x2, y2]` and nothing else. Any two opposite corners are accepted.
    """
    matched = _STRICT_BOX.fullmatch(text)
    if matched or reading == "strict":  # both read that form alike; it is most of what is scored
        return order_box([float(number) for number in matched.groups()]) if matched else None
    boxes = {entry.value for entry in find_entries(text, _BOXES, image_size).entries()}
    return boxes.pop() if len(boxes) == 1 else None


def says_boxes(text: str, reading: Reading = "lenient", image_size: Size = None) -> bool:
    """Return whether a text says a box, or several where one was asked for."""
    if reading == "strict":
        return parse_box(text, reading) is not None
    return any(
        entry.value is not None for entry in find_entries(text, _BOXES, image_size).entries()
    )


def parse_detections(
    text: str, reading: Reading = "lenient", image_size: Size = None
) -> list[Detection] | None:
    """Read the labelled boxes of a text; None where it has no list of them, or two that differ.

    An entry of the list without a box counts as one detection, which matches nothing. Strict: a
    JSON list of `{"label": …, "box": [x1, y1, x2, y2]}` and nothing but a fence around it, with
    `bbox_2d` for `box` as Qwen2.5-VL writes it.
    """
    if reading == "strict":
        return _parse_json_detections(text)
    entries = find_entries(text, _BOXES, image_size).one_list()
    if entries is None:
        return [] if _NO_OBJECTS.fullmatch(fold_text(text).rstrip(". !")) else None
    return [Detection(None if e.label is None else fold_text(e.label), e.value) for e in entries]


def parse_boxes(
    text: str, reading: Reading = "lenient", image_size: Size = None
) -> list[Box | None] | None:
    """Read the boxes of a text, labels left aside; None where it has no list, or two that differ.

    An entry of the list without a box is None. Strict: `[[x1, y1, x2, y2], …]` and nothing else.
    """
    if reading == "lenient":
        found = parse_detections(text, reading, image_size)
        return None if found is None else [entry.box for entry in found]
    if not _STRICT_BOXES.fullmatch(text):
        return None
    return [order_box([float(side) for side in box]) for box in _BOX_NUMBERS.findall(text)]


def _parse_json_detections(text: str) -> list[Detection] | None:
    fenced = _FENCE.fullmatch(text)
    try:
        entries = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None
    return [_read_json_entry(entry) for entry in entries] if isinstance(entries, list) else None


def _read_json_entry(entry: object) -> Detection:
    if not isinstance(entry, dict):
        return Detection(None, None)
    label, box = entry.get("label"), entry.get("box", entry.get("bbox_2d"))
    return Detection(
        fold_text(label) if isinstance(label, str) else None,
        read_gold_box(box) if isinstance(box, list) else None,
    )


def read_gold_box(gold: object) -> Box | None:
    """Read a record's reference box: four numbers, or the text of them; None if neither."""
    if isinstance(gold, str):
        return parse_box(gold, "strict")
    try:
        return order_box([float(number) for number in gold])  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        return None


def _read_box(group: Group, y_first: bool, order: Order | None = None) -> list[float] | None:
    if order == "other" or (y_first and order not in (None, "yxyx")):
        return None
    for keys in _CORNER_KEYS:
        if (corners := keyed_numbers(group, keys)) is not None:
            return corners
    for keys in _EXTENT_KEYS:
        if (extent := keyed_numbers(group, keys)) is not None:
            x, y, width, height = extent
            return [x, y, x + width, y + height]
    numbers = loose_numbers(group)
    if numbers is None or len(numbers) != 4:
        numbers = _read_corners(group)
    if numbers is None:
        return None
    a, b, c, d = numbers
    if order == "xywh":
        return [a, b, a + c, b + d]
    return [b, a, d, c] if y_first or order == "yxyx" else numbers


def _read_corners(group: Group) -> list[float] | None:
    """Read a box from two points side by side, of which none is a centre or a size."""
    said = ((key, inner) for key, inner in group.groups() if not (inner.denied or _is_prose(inner)))
    inner = list(islice(said, 3))
    named = [word for key, g in inner for word in (key or g.before).lower().split()[-3:]]
    if not (SIZE_KEYS | _CENTER_KEYS).isdisjoint(named):
        return None
    numbers = [number for _, g in inner for number in read_point(g, False) or ()]
    return numbers if len(inner) == 2 and len(numbers) == 4 else None


def _is_prose(group: Group) -> bool:
    return all(isinstance(value, Word) for _, value in group.items)


_BOXES = Kind(
    keys=BOX_KEYS,
    other_keys=POINT_KEYS,
    read=_read_box,
    make=order_box,
    labelled=True,
    other_length=2,
)
