"""Records as their authors release them: a JSONL file, or a directory that TFDS prepared.

    tfds build gsm8k --file_format=array_record      gives such a directory

A task turns them into its own dataset on disk (`gmma.tasks.storage`), under a name that holds a
fingerprint of the files, so that a changed file is never mistaken for the old one.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds

from gmma.errors import UserError

Record = Mapping[str, Any]
R = TypeVar("R")


def read_records(path: Path, split: str) -> list[Record]:
    """The records of a JSONL file, or those of a split of a prepared TFDS dataset.

    Raises UserError where there is neither, and for a line that is no JSON object.
    """
    if (path / "dataset_info.json").is_file():
        return _read_tfds(path, split)
    _require_file(path)
    return [_parse_line(path, number, line) for number, line in _lines(path)]


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    text = path.read_text(encoding="utf-8")
    return ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())


def _parse_line(path: Path, number: int, line: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {number}: no JSON ({error}); give one object a line"
        ) from error
    if not isinstance(record, dict):
        raise UserError(f"{path}, line {number}: {type(record).__name__}; give one object a line")
    return record


def _read_tfds(path: Path, split: str) -> list[Record]:
    builder = tfds.builder_from_directory(str(path))
    if split not in builder.info.splits:
        known = ", ".join(sorted(builder.info.splits))
        raise UserError(f"the dataset at {path} has no split {split!r}, only {known}")
    return [
        {name: _decoded(value) for name, value in record.items()}
        for record in builder.as_data_source(split)
    ]


def _decoded(value: Any) -> Any:
    """Texts as str, also in lists; TFDS gives bytes."""
    if isinstance(value, list | np.ndarray):
        return [_decoded(entry) for entry in value]
    return value.decode() if isinstance(value, bytes) else value


def fingerprint(*parts: object) -> str:
    """Ten hexadecimal digits of what is given; of a path, of the file's content.

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


@lru_cache(maxsize=64)
def _file_digest(path: Path, modified: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"no records at {path.absolute()}: neither a JSONL file nor a directory that TFDS "
            "prepared; set the task's train_path and test_path"
        )


def hold_out(records: Sequence[R], text: Callable[[R], str], count: int) -> tuple[list[R], list[R]]:
    """What is left, and the records of the `count` texts with the smallest hashes; in file order.

    So the choice depends neither on the order of the file nor on a seed, and records with the same
    text stay together.

    >>> hold_out(["c", "b", "c", "a"], str, 1)
    (['b', 'a'], ['c', 'c'])
    """

    def digest(text: str) -> bytes:
        return hashlib.sha256(text.encode()).digest()

    chosen = set(sorted({text(record) for record in records}, key=digest)[:count])
    kept = [record for record in records if text(record) not in chosen]
    return kept, [record for record in records if text(record) in chosen]
