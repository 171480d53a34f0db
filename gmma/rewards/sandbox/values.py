"""Python values as JSON, safe to read from a hostile writer: reading builds plain data only.

JSON's own values stand for themselves; everything else is `{"t": tag, "v": payload}`. A container
that can be changed has a number `"n"` besides: `{"t": "same", "v": n}` is that object once more, so
that aliases and cycles survive, and the reply to a message names the objects of the message.
"""

import base64
import datetime
import operator
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

Json = Any
_EXACT_IN_JSON = 1 << 53
_MANY = 256  # numbers of one kind, from which on they are packed
_SCALARS = frozenset({type(None), bool, str, float})


def _pairs(mapping: dict) -> list:
    """Return key, value, key, value, …"""
    return [part for pair in mapping.items() for part in pair]


# exact type → (tag, its parts as a text or a list of values, the value from decoded parts)
_FORMS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    int: ("int", hex, lambda text: int(text, 16)),
    complex: ("complex", lambda z: [z.real, z.imag], lambda parts: complex(*parts)),
    bytes: ("bytes", lambda b: b.decode("latin-1"), lambda text: str.encode(text, "latin-1")),
    tuple: ("tuple", list, tuple),
    frozenset: ("frozenset", list, frozenset),
    range: ("range", lambda r: [r.start, r.stop, r.step], lambda parts: range(*parts)),
    slice: ("slice", lambda s: [s.start, s.stop, s.step], lambda parts: slice(*parts)),
    Decimal: ("decimal", str, Decimal),
    Fraction: ("fraction", lambda q: [q.numerator, q.denominator], lambda p: Fraction(*p)),
    datetime.date: ("date", lambda d: d.isoformat(), datetime.date.fromisoformat),
    datetime.time: ("time", lambda d: d.isoformat(), datetime.time.fromisoformat),
    datetime.datetime: ("datetime", lambda d: d.isoformat(), datetime.datetime.fromisoformat),
    datetime.timedelta: (
        "timedelta",
        lambda d: [d.days, d.seconds, d.microseconds],
        lambda parts: datetime.timedelta(*parts),
    ),
}
_READERS = {tag: read for tag, _, read in _FORMS.values()}


def _fill_mapping(target: dict, parts: Sequence[Any]) -> None:
    target.update(dict(zip(parts[::2], parts[1::2], strict=True)))


# exact type → (tag, its parts, how an empty one is filled with decoded parts)
_CONTAINERS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any, Any], None]]] = {
    list: ("list", list, list.extend),
    set: ("set", list, set.update),
    deque: ("deque", list, deque.extend),
    bytearray: (
        "bytearray",
        lambda b: b.decode("latin-1"),
        lambda b, text: b.extend(str.encode(text, "latin-1")),
    ),
    dict: ("dict", _pairs, _fill_mapping),
    OrderedDict: ("ordered", _pairs, _fill_mapping),
    Counter: ("counter", _pairs, _fill_mapping),
    defaultdict: ("dict", _pairs, _fill_mapping),
}
_EMPTY = {tag: kind for kind, (tag, _, _) in reversed(_CONTAINERS.items())}
_FILL = {tag: fill for tag, _, fill in _CONTAINERS.values()}


@dataclass(kw_only=True)
class Shared:
    """The containers of one exchange by number, the same on both sides."""

    objects: list[Any] = field(default_factory=list)  # kept alive, so that an id stays theirs
    numbers: dict[int, int] = field(default_factory=dict)  # id → where in `objects`

    def add(self, container: Any) -> int:
        self.numbers[id(container)] = len(self.objects)
        self.objects.append(container)
        return len(self.objects) - 1


def encode(value: Any, refer: Callable[[Any], Json], shared: Shared) -> Json:
    """Encode a value as JSON; `refer` stands in for all but plain data of the exact types above."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is int and abs(value) < _EXACT_IN_JSON:
        return value
    if kind in _CONTAINERS:
        if (number := shared.numbers.get(id(value))) is not None:
            return {"t": "same", "v": number}
        return {"n": shared.add(value), **encode_parts(value, refer, shared)}
    if kind not in _FORMS:
        return refer(value)
    tag, parts, _ = _FORMS[kind]
    return {"t": tag, "v": _encode_items(parts(value), refer, shared)}


def encode_parts(value: Any, refer: Callable[[Any], Json], shared: Shared) -> dict[str, Json]:
    """Encode what a container holds now."""
    tag, parts, _ = _CONTAINERS[type(value)]
    return {"t": tag, "v": _encode_items(parts(value), refer, shared)}


def _encode_items(parts: Any, refer: Callable[[Any], Json], shared: Shared) -> Json:
    if isinstance(parts, str):
        return parts
    kinds = set(map(type, parts))  # 200,000 numbers are looked at by C alone
    if len(parts) >= _MANY and kinds == {float}:
        return {"d": _pack("d", parts)}
    if kinds == {int} and min(parts) > -_EXACT_IN_JSON and max(parts) < _EXACT_IN_JSON:
        return {"q": _pack("q", parts)} if len(parts) >= _MANY else parts
    if kinds <= _SCALARS:
        return parts
    return [encode(item, refer, shared) for item in parts]


def _pack(form: str, numbers: list) -> str:
    return base64.b64encode(array(form, numbers).tobytes()).decode()


def _unpack(form: str, text: str) -> list:
    numbers = array(form)
    numbers.frombytes(base64.b64decode(text, validate=True))
    return numbers.tolist()


def decode(wire: Json, resolve: Callable[[dict[str, Any]], Any], shared: Shared) -> Any:
    """Decode what `encode` wrote; `resolve` reads what `refer` wrote.

    Raises an exception of any kind where the wire is not what `encode` writes.
    """
    if not isinstance(wire, dict):
        if isinstance(wire, list):
            raise ValueError("a list without a number")
        return wire
    tag = wire["t"]
    if tag == "same":
        return shared.objects[_index(wire["v"])]
    if tag in _EMPTY:
        if wire["n"] != len(shared.objects):
            raise ValueError("a container whose number is taken")
        container = _EMPTY[tag]()
        shared.add(container)
        _FILL[tag](container, _decode_items(wire["v"], resolve, shared))
        return container
    if tag in _READERS:
        return _READERS[tag](_decode_items(wire["v"], resolve, shared))
    return resolve(wire)


def overwrite(target: Any, wire: Json, resolve: Callable[..., Any], shared: Shared) -> None:
    """Give a container what `encode_parts` wrote of another. Raises TypeError if kinds differ."""
    tag = _CONTAINERS[type(target)][0]
    if wire["t"] != tag:
        raise TypeError(f"a {type(target).__name__} cannot become a {wire['t']}")
    parts = _decode_items(wire["v"], resolve, shared)
    target.clear()
    _FILL[tag](target, parts)


def snapshot(container: Any) -> Any:
    """Keep the very objects that a container holds, for `is_changed` to compare with later."""
    return bytes(container) if isinstance(container, bytearray) else _items(container)


def is_changed(container: Any, before: Any) -> bool:
    """Return whether a container holds other objects than before, or in another order."""
    after = snapshot(container)
    if isinstance(after, bytes):
        return bool(after != before)
    return len(after) != len(before) or not all(map(operator.is_, after, before))


def plain(value: Any) -> Any:
    """Convert an instance of a subclass of a built-in type to that type; else raise TypeError."""
    kinds: tuple[Any, ...] = (int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
    for kind in kinds:
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"a {type(value).__name__} of the submission has no plain value")


def _items(container: Any) -> list:
    return _pairs(container) if isinstance(container, dict) else list(container)


def _decode_items(parts: Json, resolve: Callable[[dict[str, Any]], Any], shared: Shared) -> Any:
    if isinstance(parts, dict):
        ((form, text),) = parts.items()
        return _unpack("d" if form == "d" else "q", text)
    if isinstance(parts, str) or not {dict, list} & set(map(type, parts)):
        return parts
    return [decode(item, resolve, shared) for item in parts]


def _index(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"{number!r:.80} is no index")
    return number
