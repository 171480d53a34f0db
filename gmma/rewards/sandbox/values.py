"""Python values as JSON, safe to read from a hostile writer: reading builds plain data only.

JSON's own values stand for themselves; everything else is `{"t": tag, "v": payload}`.
"""

import datetime
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

Json = Any
_EXACT_IN_JSON = 1 << 53
MUTABLE = (list, dict, set, bytearray, deque, OrderedDict, Counter, defaultdict)


def _pairs(mapping: dict) -> list:
    return [[key, value] for key, value in mapping.items()]


# exact type → (tag, its parts as a value that can be encoded, the value from decoded parts)
_FORMS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    int: ("int", hex, lambda text: int(text, 16)),
    complex: ("complex", lambda z: [z.real, z.imag], lambda parts: complex(*parts)),
    bytes: ("bytes", lambda b: b.decode("latin-1"), lambda text: text.encode("latin-1")),
    bytearray: ("bytearray", lambda b: b.decode("latin-1"), lambda t: bytearray(t, "latin-1")),
    tuple: ("tuple", list, tuple),
    set: ("set", list, set),
    frozenset: ("frozenset", list, frozenset),
    dict: ("dict", _pairs, dict),
    OrderedDict: ("ordered", _pairs, OrderedDict),
    Counter: ("counter", _pairs, lambda pairs: Counter(dict(pairs))),
    defaultdict: ("dict", _pairs, dict),
    deque: ("deque", list, deque),
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


def encode(value: Any, refer: Callable[[Any], Json]) -> Json:
    """A value as JSON; `refer` stands in for what is not plain data of an exact type above."""
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int and abs(value) < _EXACT_IN_JSON:
        return value
    if kind is list:
        return [encode(item, refer) for item in value]
    if kind not in _FORMS:
        return refer(value)
    tag, parts, _ = _FORMS[kind]
    return {"t": tag, "v": encode(parts(value), refer)}


def decode(wire: Json, resolve: Callable[[str, Any], Any]) -> Any:
    """The inverse of `encode`; `resolve(tag, payload)` reads what `refer` wrote."""
    if isinstance(wire, list):
        return [decode(item, resolve) for item in wire]
    if not isinstance(wire, dict):
        return wire
    if wire["t"] not in _READERS:
        return resolve(wire["t"], wire["v"])
    return _READERS[wire["t"]](decode(wire["v"], resolve))


def plain(value: Any) -> Any:
    """An instance of a subclass of a built-in type as that type. Raises TypeError for others."""
    kinds: tuple[Any, ...] = (int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
    for kind in kinds:
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"a {type(value).__name__} of the submission has no plain value")


def overwrite(target: Any, source: Any) -> None:
    """Make a mutable container equal to another of its kind, in place. Raises TypeError if not."""
    for kind in (list, bytearray, dict, set, deque):
        if isinstance(target, kind) and isinstance(source, kind):
            target.clear()
            getattr(target, "update" if kind in (dict, set) else "extend")(source)
            return
    raise TypeError(f"a {type(target).__name__} cannot become a {type(source).__name__}")
