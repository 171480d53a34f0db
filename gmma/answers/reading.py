"""Read an answer's box, labelled boxes, points or path. There is one reader of each.

Rewards, metrics and pictures all read through here, so an answer that earns is an answer that
counts and is drawn. Every reader takes the text and one of two readings:

    strict    the whole text is the form that the prompt asks for
    lenient   any common way of writing it, in prose, a fence or a list (`gmma.answers.notation`)

Coordinates are the frame's of the prompt, x first, whatever they are called; but a `box_2d` is y
first and in thousandths of the image, as its families write it, and `image_size` takes it into the
frame. An answer that says another order, as `xywh` or `[y1, x1, y2, x2]`, is read in that one.
What is said twice alike is said once, what "not" stands before is not said, and two answers where
one was asked for are none. Of a list that ends in mid-entry the whole entries count. Nothing
here raises or takes more than time proportional to the text.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np

from gmma.answers.folding import fold_text
from gmma.answers.notation import (
    LONGEST_TEXT_CHARACTERS,
    Group,
    Word,
    as_number,
    bare_runs,
    read_notation,
)
from gmma.errors import UserError

Reading = Literal["lenient", "strict"]
Action = Literal["push", "pull"]
Box = tuple[float, float, float, float]
Number = float | int  # the tests check types at run time, where an int is no float
Size = Sequence[Number] | None  # width and height of the image in the frame of the answer

_Scale = tuple[float, float]
_THOUSANDTHS = 1000.0
_LARGEST_COORDINATE = 1e9  # no image is that wide, and squares of such numbers stay finite
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_PAIR = rf"[\[(]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[\])]"
_STRICT_BOX = re.compile(
    r"\s*\[\s*" + r"\s*,\s*".join([f"({_NUMBER})"] * 4) + r"\s*\]\s*", re.ASCII
)
_STRICT_POINT = re.compile(_PAIR, re.ASCII)
_STRICT_POINTS = re.compile(rf"\s*\[\s*(?:{_PAIR}\s*(?:,\s*{_PAIR}\s*)*)?\]\s*", re.ASCII)
_FENCE = re.compile(r"\s*```(?:json)?[^\S\n]*\n(.*?)```\s*", re.DOTALL)

_Y_FIRST_KEYS = frozenset(("box_2d", "boxes_2d"))
_BOX_KEYS = (
    _Y_FIRST_KEYS
    | frozenset(("bbox_2d", "bbox", "bboxes", "box", "boxes", "bounding_box", "bounding_boxes"))
    | frozenset(
        f"{of}{order}" for of in ("", "bbox_", "box_") for order in ("xyxy", "xywh", "yxyx")
    )
)
_POINT_KEYS = frozenset(
    ("point_2d", "points_2d", "point", "points", "coordinate", "coordinates", "waypoints", "path")
) | {"trajectory"}
_LABEL_KEYS = ("label", "name", "class", "category", "object", "class_name", "category_name")
_LABELS_KEYS = frozenset(("labels", "names", "classes", "categories", "objects"))
_X_KEYS = frozenset(("x", "xs", "x_coords", "x_coordinates"))
_Y_KEYS = frozenset(("y", "ys", "y_coords", "y_coordinates"))
_SIZE_KEYS = frozenset(("size", "sizes", "dimensions", "dims", "extent", "extents"))
_CENTER_KEYS = frozenset(("center", "centre", "centered", "centred"))
_CORNER_KEYS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
_EXTENT_KEYS = (("x", "y", "w", "h"), ("x", "y", "width", "height"))
_SIDES = frozenset(("w", "h", "width", "height"))
_Order = Literal["xyxy", "xywh", "yxyx", "other"]  # of the four numbers of a box
_LEFT, _TOP = "(?:x ?min|x[01]?|left) ?", "(?:y ?min|y[01]?|top) ?"
_RIGHT, _BOTTOM = "(?:x ?max|x[12]?|right) ?", "(?:y ?max|y[12]?|bottom) ?"
_WIDTH, _HEIGHT, _MIDDLE = "(?:w|width) ?", "(?:h|height) ?", "(?:center|centre|cent|c) ?"
_ORDER = re.compile(  # in a text with a space for each run of what is no letter or digit
    "(?<![a-z0-9])(?:"
    f"(?P<xyxy>{_LEFT}{_TOP}{_RIGHT}{_BOTTOM})"
    f"|(?P<xywh>{_LEFT}{_TOP}{_WIDTH}{_HEIGHT}|(?:format coco|coco format) ?)"
    f"|(?P<yxyx>{_TOP}{_LEFT}{_BOTTOM}{_RIGHT})"
    f"|(?P<other>(?:{_MIDDLE}x ?{_MIDDLE}y ?|x ?{_MIDDLE}y ?{_MIDDLE})(?:{_WIDTH}{_HEIGHT})?"
    f"|{_TOP}{_LEFT}{_HEIGHT}{_WIDTH}"
    f"|{_LEFT}{_TOP}{_HEIGHT}{_WIDTH}|{_LEFT}{_RIGHT}{_TOP}{_BOTTOM}"
    f"|format {_MIDDLE}|(?:format yolo|yolo format) ?))"
    "(?:(?<= )|(?![a-z0-9]))"
)
_SEPARATORS = re.compile(r"[\W_]++")
_Y_FIRST_POINT = re.compile(r"[\[(]\s*+(?:y|row)\s*+,\s*+(?:x|col|column)\s*+[\])]", re.IGNORECASE)
_NUMBERED = re.compile(r"[xy]([0-9]*+)")
_EDGE_SIGNS = re.compile(r"[*`|$\\]++")
_WORDS_BEFORE_LABEL = frozenset(
    ("and", "also", "then", "a", "an", "the", "one", "another", "there", "is", "are", "i", "see")
)
_WORDS_BEHIND_LABEL = frozenset(
    ("at", "in", "is", "are", "located", "found", "here", "position", "box", "bbox")
)
_NO_OBJECTS = re.compile(
    r"(?:there (?:is|are) |i (?:can )?(?:see|find|detect) )?"
    r"(?:nothing|none|no (?:such |matching |visible )?(?:objects?|instances?|detections?|boxes))"
    r"(?: (?:here|there|visible|present|found|detected|to detect|were|was|are|is"
    r"|(?:in|of) (?:the|this) (?:image|picture|photo)))*+"
)
_ACTION = re.compile(r"\b(push|pull)\b")
_DENIED_ACTION = re.compile(r"(?:\bnot|n't|\bnever)\s+(?:push|pull)\b")


class Detection(NamedTuple):
    """One labelled box; the label is folded. Without a box or a label it matches nothing."""

    label: str | None
    box: Box | None


class Touch(NamedTuple):
    """A point of the image, and what is done there."""

    point: tuple[float, float]
    action: Action


def check_reading(reading: str) -> Reading:
    """The reading of that name. Raises UserError where there is none."""
    if reading not in ("lenient", "strict"):
        raise UserError(f"reading = {reading!r}; it must be lenient or strict")
    return reading  # type: ignore[return-value]


# Boxes


def order_box(numbers: Sequence[float]) -> Box | None:
    """Four numbers as a box with `x1 <= x2` and `y1 <= y2`; None unless four finite numbers."""
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        return None
    x1, y1, x2, y2 = numbers
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def parse_box(text: str, reading: Reading = "lenient", image_size: Size = None) -> Box | None:
    """The one box that a text says, corners ordered; None where it says none, or several.

    Strict: `[x1, y1, x2, y2]` and nothing else. Any two opposite corners are accepted.
    """
    if reading == "strict":
        matched = _STRICT_BOX.fullmatch(text)
        return order_box([float(number) for number in matched.groups()]) if matched else None
    boxes = {entry.value for entry in _find(text, _BOXES, image_size).entries()}
    return boxes.pop() if len(boxes) == 1 else None


def says_boxes(text: str, reading: Reading = "lenient", image_size: Size = None) -> bool:
    """Return whether a text says a box, or several where one was asked for."""
    if reading == "strict":
        return parse_box(text, reading) is not None
    return any(entry.value is not None for entry in _find(text, _BOXES, image_size).entries())


def parse_detections(
    text: str, reading: Reading = "lenient", image_size: Size = None
) -> list[Detection] | None:
    """The labelled boxes of a text; None where it has no list of them, or two that differ.

    An entry of the list without a box counts as one detection, which matches nothing. Strict: a
    JSON list of `{"label": …, "box": [x1, y1, x2, y2]}` and nothing but a fence around it, with
    `bbox_2d` for `box` as Qwen2.5-VL writes it.
    """
    if reading == "strict":
        return _parse_json_detections(text)
    entries = _find(text, _BOXES, image_size).one_list()
    if entries is None:
        return [] if _NO_OBJECTS.fullmatch(fold_text(text).rstrip(". !")) else None
    return [Detection(None if e.label is None else fold_text(e.label), e.value) for e in entries]


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
    """A reference box from a record: four numbers, or the text of them; None if it is neither."""
    if isinstance(gold, str):
        return parse_box(gold, "strict")
    try:
        return order_box([float(number) for number in gold])  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        return None


# Points and paths


def parse_points(text: str, reading: Reading = "lenient") -> np.ndarray | None:
    """The points of a text as float64[N, 2], of magnitude up to 1e9; `[]` has N = 0.

    None where it has none, where an entry is no point, or where there are two lists that differ.
    Points without a list are one list, in order. Strict: `[[x, y], …]` or `[(x, y), …]` alone.
    """
    if reading == "strict":
        if not _STRICT_POINTS.fullmatch(text):
            return None
        return _as_points([[float(x), float(y)] for x, y in _STRICT_POINT.findall(text)])
    return _points_said(_find(text, _POINTS))


def _points_said(found: "_Found") -> np.ndarray | None:
    entries = found.one_list()
    if entries is None or any(entry.value is None for entry in entries):
        return None
    return _as_points([entry.value for entry in entries if entry.value is not None])


def parse_path(text: str, reading: Reading = "lenient") -> np.ndarray | None:
    """The path of a text as float64[N, 2], N ≥ 1, read as points in their order."""
    if reading == "strict":
        points = parse_points(text, reading)
    else:
        found = _find(text, _POINTS)
        several = any(len(lists) > 1 for _, lists in found.lists)  # within one list
        points = None if several else _points_said(found)
    return points if points is not None and len(points) else None


def parse_point(text: str, reading: Reading = "lenient") -> tuple[float, float] | None:
    """The one point that a text says. Strict: `[x, y]`, `(x, y)`, or a list of one such point."""
    if reading == "lenient":
        said = {entry.value for entry in _find(text, _POINTS).entries()}
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
    """Reference points of a record, a list of pairs or the text of one; None if unreadable."""
    if isinstance(gold, str):
        return parse_points(gold, "strict")
    try:
        points = np.asarray(gold, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return _as_points(points) if points.ndim == 2 and points.shape[1] == 2 else None


def _as_points(points: Sequence[Sequence[Number]] | np.ndarray) -> np.ndarray | None:
    array = np.asarray(points, np.float64).reshape(-1, 2)
    return array if np.all(np.abs(array) <= _LARGEST_COORDINATE) else None


def parse_touch(text: str, reading: Reading = "lenient") -> Touch | None:
    """The one point of a text, and the one of "push" and "pull" that it names.

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
        if _key_name(key) == "action" and isinstance(value, str)
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


# What boxes and points have in common: entries, alone or in lists


class _Entry(NamedTuple):
    """One box or point; without a value it is an entry that is none."""

    label: str | None
    value: tuple | None
    whole: bool = True  # not cut off at the end of the text


@dataclass(frozen=True)
class _Kind:
    """The kind of answer that is looked for."""

    keys: frozenset[str]  # what it stands under
    other_keys: frozenset[str]  # under these stands something else
    # (a group, whether y comes first) → the numbers of the one that it is by itself, x first
    read: Callable[..., list[float] | None]
    make: Callable[[Sequence[float]], tuple | None]
    labelled: bool  # without its label it is not whole
    other_length: int  # of a group of numbers that is something else


@dataclass(frozen=True)
class _Found:
    """The entries of a text: those that stand alone, and lists of entries with their key."""

    alone: list[_Entry] = field(default_factory=list)
    lists: list[tuple[str | None, list[list[_Entry]]]] = field(default_factory=list)
    is_empty: bool = False  # it says an empty list

    def entries(self) -> list[_Entry]:
        """All entries, in lists or not."""
        inner = [_whole(_joined(lists)) for _, lists in self.lists]
        return _whole(self.alone) + _joined(inner)

    def one_list(self) -> list[_Entry] | None:
        """The entries of the one list, or those that stand alone; None where lists differ."""
        lists = [_whole(_joined(lists)) for _, lists in self.lists]
        if not lists:
            return _whole(self.alone) if self.alone or self.is_empty else None
        if all(entries == lists[0] for entries in lists):
            return lists[0]
        for (key, _), entries in zip(self.lists, lists, strict=True):
            if key is None or any(entry.label != key for entry in entries):
                return None
        return _joined(lists)  # `cup: [[…], […]]` and `dog: [[…]]`, each under its label


def _joined(lists: list[list[_Entry]]) -> list[_Entry]:
    return [entry for entries in lists for entry in entries]


def _whole(entries: list[_Entry]) -> list[_Entry]:
    """The entries but what the end of the text cut off; a single one is left."""
    return [entry for entry in entries if entry.whole] if len(entries) > 1 else entries


def _find(text: str, kind: _Kind, image_size: Size = None) -> _Found:
    """All that a text says of a kind."""
    root, found, scale = _rows_of(read_notation(text), kind), _Found(), _read_scale(image_size)
    kind = replace(kind, read=partial(kind.read, order=_order_said(text)))
    befores: list[str | None] = []  # a label before each entry that stands alone
    is_empty, others, broken = False, 0, False
    for key, group in root.groups():
        name = _key_name(key)
        if group.denied or name in kind.other_keys:
            continue
        label = key if kind.labelled and name not in kind.keys else None
        single, lists = _survey(group, kind, scale, label, name in _Y_FIRST_KEYS)
        if single is not None:
            found.alone.append(single)
            befores.append(_label_before(group.before) if key is None else None)
        elif any(entry.value is not None for entry in _joined(lists)):
            found.lists.append((label, lists))
        elif lists:
            others += 1
            broken |= _is_broken(group, kind)
        else:
            is_empty |= not group.items or any(not inner.items for _, inner in group.groups())
    if kind.labelled:
        found.alone[:] = _labelled(found.alone, befores)
    if broken and not found.lists:
        found.alone.append(_Entry(None, None))
    if found.alone or found.lists:
        return found
    entries = _find_without_brackets(text, root, kind, scale)
    return _Found(alone=entries, is_empty=is_empty and not others)


def _order_said(text: str) -> _Order | None:
    """The order that a text gives its numbers in, wherever it says so; "other" where it differs.

    >>> _order_said("[y1, x1, y2, x2] = [1, 2, 3, 4]"), _order_said('{"format": "xywh"}')
    ('yxyx', 'xywh')
    """
    if len(text) > LONGEST_TEXT_CHARACTERS:
        return None
    said = {m.lastgroup for m in _ORDER.finditer(_SEPARATORS.sub(" ", text.lower()))}
    if _Y_FIRST_POINT.search(text):
        said.add("yxyx")
    if len(said) > 1:
        return "other"
    return said.pop() if said else None  # type: ignore[return-value]


def _rows_of(group: Group, kind: _Kind) -> Group:
    """A group whose columns are made rows: `labels` beside `boxes`, or a list `x` beside a `y`.

    Columns x and y of unequal length make one row, which is broken.
    """
    columns = [(_key_name(key), value) for key, value in group.items if key is not None]
    if sum(name in _X_KEYS | _LABELS_KEYS for name, _ in columns) != 1:
        return group
    read = [(name, group.as_group(value)) for name, value in columns]
    named = [(name, inner) for name, inner in read if inner is not None]
    xs, ys = ([g for name, g in named if name in keys] for keys in (_X_KEYS, _Y_KEYS))
    rows: list[Group] = []
    if len(xs) == 1 and len(ys) == 1:
        x, y = _loose_numbers(xs[0]), _loose_numbers(ys[0])
        if x is None or y is None or len(x) != len(y):
            rows = [Group(group.depth + 1, items=[(None, 0.0)], closed=True, broken=True)]
        else:
            pairs = zip(x, y, strict=True)
            rows = [
                Group(group.depth + 1, items=[(None, a), (None, b)], closed=True) for a, b in pairs
            ]
            if rows:
                rows[-1].closed = xs[0].closed and ys[0].closed
        others = [item for item in group.items if _key_name(item[0]) not in _X_KEYS | _Y_KEYS]
        return replace(group, items=[*others, *((None, row) for row in rows)])
    if not kind.labelled:
        return group
    labels = [g for name, g in named if name in _LABELS_KEYS]
    boxes = [(name, g) for name, g in named if name in kind.keys]
    if len(labels) != 1 or len(boxes) != 1:
        return group
    (name, boxes_said), texts = boxes[0], [value for _, value in labels[0].items]
    inner = [g for _, g in boxes_said.groups()]
    if not len(texts) == len(inner) == len(boxes_said.items):
        return group
    if not all(isinstance(text, str) for text in texts):
        return group
    for text, box in zip(texts, inner, strict=True):
        row = Group(group.depth + 1, "{", [("label", text), (name, box)], closed=box.closed)
        rows.append(row)
    return replace(group, items=[(None, row) for row in rows])


def _label_before(words: str) -> str | None:
    """The label in the words before a box, `and a cup is at` → `cup`; None where there is none."""
    found = _EDGE_SIGNS.sub(" ", words).split()
    first, last = 0, len(found)
    while first < last and found[first].lower() in _WORDS_BEFORE_LABEL:
        first += 1
    while first < last and found[last - 1].lower() in _WORDS_BEHIND_LABEL:
        last -= 1
    return " ".join(found[first:last]) or None


def _labelled(entries: list[_Entry], labels: Sequence[str | None]) -> list[_Entry]:
    """Entries with the labels before them, where each that has none of its own has one there."""
    found = [
        entry if entry.label is not None else entry._replace(label=label)
        for entry, label in zip(entries, labels, strict=True)
    ]
    return entries if any(entry.label is None for entry in found) else found


def _is_broken(group: Group, kind: _Kind) -> bool:
    """Return whether numbers in brackets would be of the kind but for one number: `(1, 2, 3)`."""
    count = sum(as_number(value) is not None for _, value in group.items)
    return count > 0 and (group.broken or count not in (1, kind.other_length))


def _find_without_brackets(text: str, root: Group, kind: _Kind, scale: _Scale) -> list[_Entry]:
    """`x1=1, y1=2, …`, two corners side by side, or bare numbers, an entry a line or clause."""
    y_first = any(_key_name(key) in _Y_FIRST_KEYS for key, _ in root.items)
    read = [_read_value(root, kind, scale, y_first)]
    if read == [None] and not kind.labelled and "<point" in text:
        read = [kind.make(pair) for pair in _attribute_points(root)] or [None]
    if read == [None]:
        bare = not any(group.items for _, group in root.groups())
        runs = bare_runs(text) if bare else None
        rows = [Group(items=[(None, number) for number in run]) for run in runs or []]
        read = [_read_value(row, kind, scale, y_first) for row in rows]
    return [_Entry(None, value) for value in read]


def _attribute_points(root: Group) -> list[tuple[float, float]]:
    """The points of `<points x1="1" y1="2" x2="3" y2="4">`; none where an x has no y behind it."""
    said = [(_key_name(key), as_number(value)) for key, value in root.items]
    said = [(name, number) for name, number in said if _NUMBERED.fullmatch(name)]
    points = []
    for (x, a), (y, b) in zip(said[::2], said[1::2], strict=False):
        if x[0] != "x" or y != f"y{x[1:]}" or a is None or b is None:
            return []
        points.append((a, b))
    return points if len(said) % 2 == 0 else []


def _read_value(group: Group, kind: _Kind, scale: _Scale, y_first: bool) -> tuple | None:
    """The box or point that a group is by itself, in the frame; None if it is none."""
    numbers = kind.read(group, y_first)
    if numbers is not None and y_first:
        numbers = [number * scale[at % 2] for at, number in enumerate(numbers)]
    return None if numbers is None else kind.make(numbers)


def _survey(
    group: Group,
    kind: _Kind,
    scale: _Scale,
    label: str | None,
    y_first: bool,
) -> tuple[_Entry | None, list[list[_Entry]]]:
    """The entry that a group is, or else the lists of entries within it."""
    group = _rows_of(group, kind)
    own = _label_of(group)
    label = own or label
    last = len(group.items) - 1
    keyed = any(_key_name(key) in kind.keys for key, _ in group.items)
    read = None if keyed else _read_value(group, kind, scale, y_first)
    if read is not None:
        return _Entry(own or _only_text(group) or label, read, group.closed), []
    direct: list[_Entry] = []
    lists: list[list[_Entry]] = []
    for at, (key, value) in enumerate(group.items):
        name = _key_name(key)
        is_label = name in _LABEL_KEYS and not isinstance(value, Group)
        if name in kind.other_keys or is_label or (keyed and name not in kind.keys):
            continue
        inner = group.as_group(value)
        whole = group.closed or at < last
        if inner is None:
            if (key is None or keyed) and not isinstance(value, Word):
                direct.append(_Entry(label, None, whole))
            continue
        if inner.denied:
            continue
        known = label if key is None or keyed else own or key
        turned = name in _Y_FIRST_KEYS or (y_first and not keyed)
        single, deeper = _survey(inner, kind, scale, known, turned)
        if single is not None:
            lost_label = kind.labelled and keyed and not group.closed and label is None
            direct.append(single._replace(whole=single.whole and not lost_label))
        elif any(entry.value is not None for entry in _joined(deeper)):
            lists += deeper
        elif inner.items and (key is None or keyed or _is_broken(inner, kind)):
            direct.append(_Entry(label, None, inner.closed))
    if (keyed or group.bracket == "<") and len(direct) == 1 and not lists:
        return direct[0], []
    if not keyed and len(direct) == 2 and not lists and (text := _only_text(group)) is not None:
        values = [entry for entry in direct if entry.value is not None]  # ["cup", [1, 2, 3, 4]]
        if len(values) == 1 and values[0].label in (None, label):
            return values[0]._replace(label=text), []
    if own is not None and not direct and not lists:
        return _Entry(own, None, group.closed), []
    return None, [direct, *lists] if direct else lists


def _key_name(key: str | None) -> str:
    """The last word of a key: that of "the bounding box" is "box"."""
    return "" if key is None or not key.strip() else key.split()[-1].lower()


def _label_of(group: Group) -> str | None:
    for key, value in group.items:
        if key is not None and _key_name(key) in _LABEL_KEYS and not isinstance(value, Group):
            return value if isinstance(value, str) else f"{value:g}"
    return None


def _only_text(group: Group) -> str | None:
    texts = [value for key, value in group.items if key is None and _is_text(group, value)]
    return str(texts[0]) if len(texts) == 1 else None


def _is_text(group: Group, value: object) -> bool:
    """Return whether a value of the group is a quoted text that spells neither number nor group."""
    if not isinstance(value, str) or isinstance(value, Word):
        return False
    return as_number(value) is None and group.as_group(value) is None


def _read_scale(image_size: Size) -> _Scale:
    """Return the length of a thousandth in the frame; without a size the frame is thousandths."""
    if image_size is None:
        return 1.0, 1.0
    width, height = image_size
    return width / _THOUSANDTHS, height / _THOUSANDTHS


def _loose_numbers(group: Group) -> list[float] | None:
    """The numbers without a key; None where anything but them and one text stands among them."""
    values = [value for key, value in group.items if key is None]
    numbers = [as_number(value) for value in values]
    texts = sum(_is_text(group, value) for value in values)
    known = [number for number in numbers if number is not None]
    whole = not group.broken and texts <= 1 and len(known) + texts == len(values)
    return known if whole else None


def _keyed_numbers(group: Group, keys: Sequence[str]) -> list[float] | None:
    if all(key is None for key, _ in group.items):
        return None
    found = [(_key_name(key), as_number(value)) for key, value in group.items]
    numbers = [[number for key, number in found if key == name] for name in keys]
    known = [row[0] for row in numbers if len(row) == 1 and row[0] is not None]
    loose = any(key is None and not isinstance(value, Word) for key, value in group.items)
    return known if len(known) == len(keys) and not (group.broken or loose) else None


def _read_box(group: Group, y_first: bool, order: _Order | None = None) -> list[float] | None:
    if order == "other" or (y_first and order not in (None, "yxyx")):
        return None
    for keys in _CORNER_KEYS:
        if (corners := _keyed_numbers(group, keys)) is not None:
            return corners
    for keys in _EXTENT_KEYS:
        if (extent := _keyed_numbers(group, keys)) is not None:
            x, y, width, height = extent
            return [x, y, x + width, y + height]
    numbers = _loose_numbers(group)
    if numbers is None or len(numbers) != 4:
        numbers = _read_corners(group)
    if numbers is None:
        return None
    a, b, c, d = numbers
    if order == "xywh":
        return [a, b, a + c, b + d]
    return [b, a, d, c] if y_first or order == "yxyx" else numbers


def _read_corners(group: Group) -> list[float] | None:
    """Two points side by side, of which none is a centre or a size."""
    said = ((key, inner) for key, inner in group.groups() if not (inner.denied or _is_prose(inner)))
    inner = list(islice(said, 3))
    named = [word for key, g in inner for word in (key or g.before).lower().split()[-3:]]
    if not (_SIZE_KEYS | _CENTER_KEYS).isdisjoint(named):
        return None
    numbers = [number for _, g in inner for number in _read_point(g, False) or ()]
    return numbers if len(inner) == 2 and len(numbers) == 4 else None


def _is_prose(group: Group) -> bool:
    return all(isinstance(value, Word) for _, value in group.items)


def _read_point(group: Group, y_first: bool, order: _Order | None = None) -> list[float] | None:
    if any(_key_name(key) in _SIDES for key, _ in group.items):
        return None
    if (pair := _keyed_numbers(group, ("x", "y"))) is not None:
        return pair
    numbers = _loose_numbers(group)
    if numbers is None or len(numbers) != 2:
        return None
    return numbers[::-1] if order == "yxyx" else numbers


def _make_point(numbers: Sequence[float]) -> tuple[float, float]:
    x, y = numbers
    return x, y


_BOXES = _Kind(
    keys=_BOX_KEYS,
    other_keys=_POINT_KEYS,
    read=_read_box,
    make=order_box,
    labelled=True,
    other_length=2,
)
_POINTS = _Kind(
    keys=_POINT_KEYS,
    other_keys=_BOX_KEYS | _SIZE_KEYS,
    read=_read_point,
    make=_make_point,
    labelled=False,
    other_length=4,
)
