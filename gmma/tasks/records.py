"""Records as their authors release them: a JSONL file, or a directory that TFDS prepared.

    tfds build gsm8k --file_format=array_record      gives such a directory

A task turns them into its own dataset on disk (`gmma.tasks.storage`), under a name that holds a
fingerprint of the files, so that a changed file is never mistaken for the old one.
"""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds

from gmma.errors import UserError
from gmma.rewards.terms import RESERVED
from gmma.text.prompt import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN

RawRecord = Mapping[str, Any]
R = TypeVar("R")
TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
_SHOWN = 60  # characters of a value in a message
DEEPEST = 100  # lists and objects within each other; what walks a record recurses so far
_LARGEST_FLOAT_WHOLE = 1e16  # from here on the digits of a float are not all meant

# First bytes of files that are not text, and what to do about them
_OTHER_FILES = {
    b"PAR1": "a Parquet file; pandas.read_parquet(FILE).to_json(OUT, orient='records', lines=True)",
    b"\x1f\x8b": "compressed by gzip; unpack it with gunzip",
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it with unzstd",
    b"BZh": "compressed by bzip2; unpack it with bunzip2",
    b"\xfd7zXZ": "compressed by xz; unpack it with unxz",
    b"ARROW1": "an Arrow file; datasets.Dataset.from_file(FILE).to_json(OUT)",
    b"\xff\xff\xff\xff": "an Arrow stream; give its folder, or save it anew: "
    "datasets.Dataset.from_file(FILE).to_json(OUT)",
    b"\xff\xfe": "text in UTF-16; iconv -f UTF-16 -t UTF-8 FILE > OUT",
    b"\xfe\xff": "text in UTF-16; iconv -f UTF-16 -t UTF-8 FILE > OUT",
}


class PlacedRecord(dict[str, Any]):
    """A record that knows how messages call it."""

    where = "a record"


def read_record_file(path: Path, split: str) -> list[RawRecord]:
    """Return the records of a JSONL file, or those of a split of a prepared TFDS dataset.

    Raises UserError where there is neither, and for a line that is no JSON object.
    """
    if (path / "dataset_info.json").is_file():
        rows: Iterator[tuple[str, Any]] = (
            (f"record {number} of {split} in {path}", row)
            for number, row in enumerate(_read_tfds(path, split))
        )
    else:
        _require_file(path)
        rows = (
            (f"record {number} of {path}, line {line}", row)
            for number, (line, row) in enumerate(read_lines(path))
        )
    records: list[RawRecord] = []
    for where, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{where}: {type(row).__name__}; give one object a line")
        refuse_unstorable(row, where)
        record = PlacedRecord(row)
        record.where = where
        records.append(record)
    return records


def place_of(record: RawRecord) -> str:
    """Return the name of a record in messages."""
    return record.where if isinstance(record, PlacedRecord) else PlacedRecord.where


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number, from 1, and value of each line that is not blank. UserError for one that is no JSON.

    Only a line feed ends a line: other characters that end one may stand inside a text.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                yield number, parse_json(line, f"{path}, line {number}")
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{path}, line {number}: no JSON ({error}); give one object a line"
                ) from error


def parse_json(text: str, where: str) -> Any:
    """Return what a text of JSON holds. ValueError or RecursionError where it is none.

    Raises UserError where an object has a key twice with two values: JSON's readers keep one of
    them, and not all the same.
    """

    def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            for key, value in pairs:
                if json.dumps(value) != json.dumps(found[key]):
                    raise UserError(
                        f"{where}: an object has the key {spell_value(key)} twice, with "
                        f"{spell_value(value)} and {spell_value(found[key])}; keep one of them"
                    )
        return found

    return json.loads(text, object_pairs_hook=as_object)


def read_text(path: Path) -> str:
    """Return a file's text in UTF-8, with or without its mark.

    Raises UserError for what is no such text, and says what it is where that is known.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    for start, what in _OTHER_FILES.items():
        if data.startswith(start):
            raise UserError(f"{path} is {what}: gmma reads JSON and JSON lines in UTF-8")
    if b"\0" in data[:_SHOWN]:
        raise UserError(
            f"{path} is no text in UTF-8: byte {data.index(0)} is 0. If it is UTF-16, convert it: "
            "iconv -f UTF-16LE -t UTF-8 FILE > OUT"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is no text in UTF-8: byte {error.start} is {data[error.start]:#04x}; convert "
            "it: iconv -f ENCODING -t UTF-8 FILE > OUT"
        ) from error


def spell_value(value: Any) -> str:
    """Return a value as JSON has it, shortened, for a message.

    >>> spell_value(None), spell_value(float("nan")), spell_value("x" * 99)[-5:]
    ('null', 'NaN', 'xxxx…')
    """
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def require_text(value: Any, what: str) -> str:
    """Return a value that must be a text with something in it. UserError, which calls it `what`."""
    if not isinstance(value, str):
        raise UserError(f"{what} is a {type(value).__name__}, not a string: {spell_value(value)}")
    if not value.strip():
        raise UserError(f"{what} is blank; write it, or leave the record away")
    return value


def read_trace(record: RawRecord, key: str, where: str) -> str:
    """Return a reasoning trace of a record; "" where it has no such key, or a blank text there.

    Raises UserError where it is no text, or holds a tag: the tags are gmma's to write.
    """
    if key not in record:
        return ""
    value, what = record[key], f"{where}: {key}"
    if not isinstance(value, str):
        raise UserError(
            f"{what} is a {type(value).__name__}, not a string: {spell_value(value)}; leave the "
            "key out of a record without a trace"
        )
    return refuse_tags(value, what) if value.strip() else ""


def refuse_tags(text: str, what: str) -> str:
    """Return a text that will stand between tags. UserError if it holds one itself."""
    for tag in TAGS:
        if tag in text:
            raise UserError(
                f"{what} holds the tag {tag}, which gmma writes itself; give what stands between "
                f"the tags alone: {spell_value(text)}"
            )
    return text


def read_number(value: Any, what: str) -> float | int:
    """Return a number that is finite, and no truth value. UserError, which calls it `what`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise UserError(f"{what} is {spell_value(value)}, not a finite number")
    return value


def _is_finite(value: float | int) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float holds
        return False


def spell_number(value: float | int) -> str:
    """Return a finite number as a person writes it: a whole one without a point.

    >>> spell_number(2.0), spell_number(0.5), spell_number(10**20), spell_number(1e300)
    ('2', '0.5', '100000000000000000000', '1e+300')
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_FLOAT_WHOLE:
        return str(int(value))
    return str(value)


def refuse_unstorable(value: Any, where: str) -> None:
    """Raise UserError for a record that nothing can walk through or encode."""
    refuse_depth(value, where)
    refuse_half_characters(value, where)


def refuse_depth(value: Any, where: str) -> None:
    """Raise UserError if more than `DEEPEST` lists and objects lie within each other."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner = [list(v.values()) if isinstance(v, Mapping) else v for v in level if _holds(v)]
        level = [entry for entries in inner for entry in entries]
        if not level:
            return
    raise UserError(
        f"{where}: more than {DEEPEST} lists or objects lie within each other; give what a record "
        "says in fewer"
    )


def _holds(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def refuse_half_characters(value: Any, where: str) -> None:
    """Raise UserError if a text holds half of a UTF-16 pair (U+D800 … U+DFFF): no character.

    JSON can spell one; nothing can store or encode it.
    """
    for name, text in _texts(value):
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            shown = ascii(text[:_SHOWN])
            raise UserError(
                f"{where}: {name or 'its text'} holds half of a UTF-16 pair: {shown}; write the "
                "whole character, or U+FFFD in its place"
            )


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a JSON value, keys included, with the record's key that it is under."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield name or "a key", str(key)
            yield from _texts(entry, name or str(key))
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry, name)


def other_columns(record: RawRecord, read: Iterable[str]) -> dict[str, Any]:
    """Return the keys of a record that its task does not read, as columns for rewards.

    What JSON cannot hold, as bytes, is left out. Names are those of `named_columns`.
    """
    taken = set(read)
    kept = {key: value for key, value in record.items() if key not in taken and _is_json(value)}
    return named_columns(kept, RESERVED, place_of(record))


def named_columns(values: Mapping[str, Any], own: Collection[str], where: str) -> dict[str, Any]:
    """Return a record's keys as columns: one with the name of gmma's own is called `record_NAME`.

    UserError where the record has that name, too: one of the two would be lost.

    >>> named_columns({"task": 1, "level": 2}, {"task"}, "record 0")
    {'record_task': 1, 'level': 2}
    """
    names = {key: f"record_{key}" if key in own else key for key in values}
    for key, name in names.items():
        if key != name and name in values:
            raise UserError(
                f"{where} has the keys {key} and {name}; gmma calls the first {name} for rewards, "
                f"for {key} is a column of its own: rename one of them"
            )
    return {name: values[key] for key, name in names.items()}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def spell_columns(
    own: Sequence[Mapping[str, Any]], every: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Spell each record's other columns as JSON, with null for those that only others have.

    >>> spell_columns([{"a": 1}], [{"a": 1}, {"b": 2}])
    ['{"a": 1, "b": null}']
    """
    names = dict.fromkeys(name for columns in every for name in columns)
    return [json.dumps({**names, **columns}, ensure_ascii=False) for columns in own]


def _read_tfds(path: Path, split: str) -> Iterator[RawRecord]:
    builder = tfds.builder_from_directory(str(path))
    if split not in builder.info.splits:
        known = ", ".join(sorted(builder.info.splits))
        raise UserError(f"the dataset at {path} has no split {split!r}, only {known}")
    for number, record in enumerate(builder.as_data_source(split)):
        try:
            yield {name: _decoded(value) for name, value in record.items()}
        except UnicodeDecodeError as error:
            raise UserError(f"record {number} of {split} in {path}: {error}") from error


def _decoded(value: Any) -> Any:
    """Convert texts to str and numbers to Python's, also in lists; TFDS gives bytes and NumPy's."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return [_decoded(entry) for entry in value]
    return value.decode() if isinstance(value, bytes) else value


def fingerprint(*parts: object) -> str:
    """Hash the arguments to ten hexadecimal digits; of a path, the file's content.

    >>> fingerprint(1, "a") == fingerprint(1, "a") != fingerprint(1, "b")
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        text = _content_digest(part) if isinstance(part, Path) else repr(part)
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:10]


def _content_digest(path: Path) -> str:
    info = path / "dataset_info.json"
    file = info if info.is_file() else path
    _require_file(file)
    state = file.stat()
    return _file_digest(file, state.st_mtime_ns, state.st_size)


@cache  # a folder may have any number of files, and is asked for at each look at the records
def _file_digest(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"no records at {path.absolute()}: neither a JSONL file nor a directory that TFDS "
            "prepared; set the task's train_path and test_path"
        )


def hold_out(records: Sequence[R], text: Callable[[R], str], count: int) -> tuple[list[R], list[R]]:
    """Split off the records of the `count` texts with the smallest hashes, in file order.

    The choice depends neither on the order of the file nor on a seed, and records with the same
    text stay together.

    >>> hold_out(["c", "b", "c", "a"], str, 1)
    (['b', 'a'], ['c', 'c'])
    """

    def digest(text: str) -> bytes:
        return hashlib.sha256(text.encode()).digest()

    chosen = set(sorted({text(record) for record in records}, key=digest)[:count])
    kept = [record for record in records if text(record) not in chosen]
    return kept, [record for record in records if text(record) in chosen]
