"""Find the boxes or points of a text: entries, alone or in lists.

`boxes.py` and `points.py` each describe what they look for as a `Kind`; `find_entries` finds it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

from gmma.answers.notation import (
    LONGEST_TEXT_CHARACTERS,
    Group,
    Word,
    as_number,
    bare_runs,
    read_notation,
)
from gmma.answers.reading import Size

_Scale = tuple[float, float]
_THOUSANDTHS = 1000.0
_Y_FIRST_KEYS = frozenset(("box_2d", "boxes_2d"))
BOX_KEYS = (
    _Y_FIRST_KEYS
    | frozenset(("bbox_2d", "bbox", "bboxes", "box", "boxes", "bounding_box", "bounding_boxes"))
    | frozenset(
        f"{of}{order}" for of in ("", "bbox_", "box_") for order in ("xyxy", "xywh", "yxyx")
    )
)
POINT_KEYS = frozenset(
    ("point_2d", "points_2d", "point", "points", "coordinate", "coordinates", "waypoints", "path")
) | {"trajectory"}
_LABEL_KEYS = ("label", "name", "class", "category", "object", "class_name", "category_name")
_LABELS_KEYS = frozenset(("labels", "names", "classes", "categories", "objects"))
_X_KEYS = frozenset(("x", "xs", "x_coords", "x_coordinates"))
_Y_KEYS = frozenset(("y", "ys", "y_coords", "y_coordinates"))
SIZE_KEYS = frozenset(("size", "sizes", "dimensions", "dims", "extent", "extents"))
Order = Literal["xyxy", "xywh", "yxyx", "other"]  # of the four numbers of a box
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


class Entry(NamedTuple):
    """One box or point; an entry without a value is neither."""

    label: str | None
    value: tuple | None
    whole: bool = True  # not cut off at the end of the text


@dataclass(frozen=True)
class Kind:
    """The kind of answer that is looked for."""

    keys: frozenset[str]  # what it stands under
    other_keys: frozenset[str]  # under these stands something else
    # (a group, whether y comes first) → the numbers of the one that it is by itself, x first
    read: Callable[..., list[float] | None]
    make: Callable[[Sequence[float]], tuple | None]
    labelled: bool  # without its label it is not whole
    other_length: int  # of a group of numbers that is something else


@dataclass(frozen=True)
class Found:
    """The entries of a text: those that stand alone, and lists of entries with their key."""

    alone: list[Entry] = field(default_factory=list)
    lists: list[tuple[str | None, list[list[Entry]]]] = field(default_factory=list)
    is_empty: bool = False  # it says an empty list

    def entries(self) -> list[Entry]:
        """Return all entries, in lists or not."""
        inner = [_whole(_joined(lists)) for _, lists in self.lists]
        return _whole(self.alone) + _joined(inner)

    def one_list(self) -> list[Entry] | None:
        """Return the entries of the one list, or those that stand alone; None if lists differ."""
        lists = [_whole(_joined(lists)) for _, lists in self.lists]
        if not lists:
            return _whole(self.alone) if self.alone or self.is_empty else None
        if all(entries == lists[0] for entries in lists):
            return lists[0]
        for (key, _), entries in zip(self.lists, lists, strict=True):
            if key is None or any(entry.label != key for entry in entries):
                return None
        return _joined(lists)  # `cup: [[…], […]]` and `dog: [[…]]`, each under its label


def _joined(lists: list[list[Entry]]) -> list[Entry]:
    return [entry for entries in lists for entry in entries]


def _whole(entries: list[Entry]) -> list[Entry]:
    """Drop entries that the end of the text cut off, unless there is only one."""
    return [entry for entry in entries if entry.whole] if len(entries) > 1 else entries


def find_entries(text: str, kind: Kind, image_size: Size = None) -> Found:
    """Find all entries of a kind in a text."""
    root, found, scale = _rows_of(read_notation(text), kind), Found(), _read_scale(image_size)
    kind = replace(kind, read=partial(kind.read, order=_order_said(text)))
    befores: list[str | None] = []  # a label before each entry that stands alone
    is_empty, others, broken = False, 0, False
    for key, group in root.groups():
        name = key_name(key)
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
        found.alone.append(Entry(None, None))
    if found.alone or found.lists:
        return found
    entries = _find_without_brackets(text, root, kind, scale)
    return Found(alone=entries, is_empty=is_empty and not others)


def _order_said(text: str) -> Order | None:
    """Return the order that a text names for its numbers; "other" if it names several.

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


def _rows_of(group: Group, kind: Kind) -> Group:
    """Turn columns of a group into rows: `labels` beside `boxes`, or a list `x` beside a `y`.

    Columns x and y of unequal length make one row, which is broken.
    """
    columns = [(key_name(key), value) for key, value in group.items if key is not None]
    if sum(name in _X_KEYS | _LABELS_KEYS for name, _ in columns) != 1:
        return group
    read = [(name, group.as_group(value)) for name, value in columns]
    named = [(name, inner) for name, inner in read if inner is not None]
    xs, ys = ([g for name, g in named if name in keys] for keys in (_X_KEYS, _Y_KEYS))
    rows: list[Group] = []
    if len(xs) == 1 and len(ys) == 1:
        x, y = loose_numbers(xs[0]), loose_numbers(ys[0])
        if x is None or y is None or len(x) != len(y):
            rows = [Group(group.depth + 1, items=[(None, 0.0)], closed=True, broken=True)]
        else:
            pairs = zip(x, y, strict=True)
            rows = [
                Group(group.depth + 1, items=[(None, a), (None, b)], closed=True) for a, b in pairs
            ]
            if rows:
                rows[-1].closed = xs[0].closed and ys[0].closed
        others = [item for item in group.items if key_name(item[0]) not in _X_KEYS | _Y_KEYS]
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
    """Return the label in the words before a box: `and a cup is at` → `cup`; None without one."""
    found = _EDGE_SIGNS.sub(" ", words).split()
    first, last = 0, len(found)
    while first < last and found[first].lower() in _WORDS_BEFORE_LABEL:
        first += 1
    while first < last and found[last - 1].lower() in _WORDS_BEHIND_LABEL:
        last -= 1
    return " ".join(found[first:last]) or None


def _labelled(entries: list[Entry], labels: Sequence[str | None]) -> list[Entry]:
    """Label entries by the words before them, if then every entry has a label."""
    found = [
        entry if entry.label is not None else entry._replace(label=label)
        for entry, label in zip(entries, labels, strict=True)
    ]
    return entries if any(entry.label is None for entry in found) else found


def _is_broken(group: Group, kind: Kind) -> bool:
    """Return whether numbers in brackets would be of the kind but for one number: `(1, 2, 3)`."""
    count = sum(as_number(value) is not None for _, value in group.items)
    return count > 0 and (group.broken or count not in (1, kind.other_length))


def _find_without_brackets(text: str, root: Group, kind: Kind, scale: _Scale) -> list[Entry]:
    """Read `x1=1, y1=2, …`, two corners side by side, or bare numbers, one entry a clause."""
    y_first = any(key_name(key) in _Y_FIRST_KEYS for key, _ in root.items)
    read = [_read_value(root, kind, scale, y_first)]
    if read == [None] and not kind.labelled and "<point" in text:
        read = [kind.make(pair) for pair in _attribute_points(root)] or [None]
    if read == [None]:
        bare = not any(group.items for _, group in root.groups())
        runs = bare_runs(text) if bare else None
        rows = [Group(items=[(None, number) for number in run]) for run in runs or []]
        read = [_read_value(row, kind, scale, y_first) for row in rows]
    return [Entry(None, value) for value in read]


def _attribute_points(root: Group) -> list[tuple[float, float]]:
    """Read the points of `<points x1="1" y1="2" x2="3" y2="4">`; none if an x lacks its y."""
    said = [(key_name(key), as_number(value)) for key, value in root.items]
    said = [(name, number) for name, number in said if _NUMBERED.fullmatch(name)]
    points = []
    for (x, a), (y, b) in zip(said[::2], said[1::2], strict=False):
        if x[0] != "x" or y != f"y{x[1:]}" or a is None or b is None:
            return []
        points.append((a, b))
    return points if len(said) % 2 == 0 else []


def _read_value(group: Group, kind: Kind, scale: _Scale, y_first: bool) -> tuple | None:
    """Read a group as one box or point, in the frame; None if it is neither."""
    numbers = kind.read(group, y_first)
    if numbers is not None and y_first:
        numbers = [number * scale[at % 2] for at, number in enumerate(numbers)]
    return None if numbers is None else kind.make(numbers)


def _survey(
    group: Group,
    kind: Kind,
    scale: _Scale,
    label: str | None,
    y_first: bool,
) -> tuple[Entry | None, list[list[Entry]]]:
    """Return the entry that a group is, or else the lists of entries within it."""
    group = _rows_of(group, kind)
    own = _label_of(group)
    label = own or label
    last = len(group.items) - 1
    keyed = any(key_name(key) in kind.keys for key, _ in group.items)
    read = None if keyed else _read_value(group, kind, scale, y_first)
    if read is not None:
        return Entry(own or _only_text(group) or label, read, group.closed), []
    direct: list[Entry] = []
    lists: list[list[Entry]] = []
    for at, (key, value) in enumerate(group.items):
        name = key_name(key)
        is_label = name in _LABEL_KEYS and not isinstance(value, Group)
        if name in kind.other_keys or is_label or (keyed and name not in kind.keys):
            continue
        inner = group.as_group(value)
        whole = group.closed or at < last
        if inner is None:
            if (key is None or keyed) and not isinstance(value, Word):
                direct.append(Entry(label, None, whole))
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
            direct.append(Entry(label, None, inner.closed))
    if (keyed or group.bracket == "<") and len(direct) == 1 and not lists:
        return direct[0], []
    if not keyed and len(direct) == 2 and not lists and (text := _only_text(group)) is not None:
        values = [entry for entry in direct if entry.value is not None]  # ["cup", [1, 2, 3, 4]]
        if len(values) == 1 and values[0].label in (None, label):
            return values[0]._replace(label=text), []
    if own is not None and not direct and not lists:
        return Entry(own, None, group.closed), []
    return None, [direct, *lists] if direct else lists


def key_name(key: str | None) -> str:
    """Return the last word of a key: that of "the bounding box" is "box"."""
    return "" if key is None or not key.strip() else key.split()[-1].lower()


def _label_of(group: Group) -> str | None:
    for key, value in group.items:
        if key is not None and key_name(key) in _LABEL_KEYS and not isinstance(value, Group):
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


def loose_numbers(group: Group) -> list[float] | None:
    """Return the numbers without a key; None if more than them and one text is there."""
    values = [value for key, value in group.items if key is None]
    numbers = [as_number(value) for value in values]
    texts = sum(_is_text(group, value) for value in values)
    known = [number for number in numbers if number is not None]
    whole = not group.broken and texts <= 1 and len(known) + texts == len(values)
    return known if whole else None


def keyed_numbers(group: Group, keys: Sequence[str]) -> list[float] | None:
    if all(key is None for key, _ in group.items):
        return None
    found = [(key_name(key), as_number(value)) for key, value in group.items]
    numbers = [[number for key, number in found if key == name] for name in keys]
    known = [row[0] for row in numbers if len(row) == 1 and row[0] is not None]
    loose = any(key is None and not isinstance(value, Word) for key, value in group.items)
    return known if len(known) == len(keys) and not (group.broken or loose) else None
