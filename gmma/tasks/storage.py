"""Datasets on disk: TFDS in `array_record` files, read at random, without TensorFlow.

A task says what a record holds and how records come; this file writes them once, whole or not at
all, and reads them back.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gmma.errors import UserError
from gmma.files import lock_of, locked, move_directory
from gmma.options.checks import SPLITS as SPLITS
from gmma.tasks.task import C, HashContent

_CONTENT_FILE = "content.json"


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A dataset as it will lie on disk."""

    name: str
    directory: Path  # a function of all that the records depend on, so that none is stale
    features: Mapping[str, Any]  # TFDS features; images take what `encode_png` gives
    records: Callable[[str], Iterator[dict[str, Any]]]  # split → its records in order
    version: str = "1.0.0"  # to raise when the same config would give other records
    # Files that records depend on beside what the directory is named after: pictures, too many to
    # be read at each start. What they were is kept, and a change builds the dataset anew.
    files: Callable[[], Iterable[Path]] | None = None
    description: str = ""


class _Builder(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]  # known to TFDS's __init_subclass__
):
    """TFDS wants a class; the storage says all."""

    name = "records"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.name = storage.name
        self.VERSION = tfds.core.Version(storage.version)
        super().__init__(data_dir=storage.directory)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.storage.description,
            features=tfds.features.FeaturesDict(dict(self.storage.features)),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        yield from enumerate(self.storage.records(split))


def dataset_directory(storage: Storage) -> Path:
    """Return the directory of the prepared dataset."""
    return Path(_Builder(storage).data_dir)


def is_prepared(storage: Storage) -> bool:
    """Return whether the whole dataset is on disk."""
    return (dataset_directory(storage) / "dataset_info.json").exists()


def prepare(storage: Storage) -> Path:
    """Write the records unless they are there; return the dataset's directory.

    TFDS writes to a temporary directory and renames it, so an interrupted build leaves nothing that
    could be taken for whole. A dataset whose files have changed makes way for a new one, if that
    can be built. Raises UserError where the result is not whole.
    """
    if is_prepared(storage) and _files_changed(storage):
        with locked(lock_of(storage.directory), wait=True):
            if is_prepared(storage) and _files_changed(storage):  # and nobody was faster
                _replace(storage)
    elif not is_prepared(storage):
        _build(storage)
    where = dataset_directory(storage)
    if not is_prepared(storage):
        raise UserError(f"{where} is not a whole dataset; delete it and build again")
    read_content(storage)
    return where


def _build(storage: Storage) -> None:
    _keep_files(storage)  # as they are before they are read
    tfds.disable_progress_bar()
    with (
        tempfile.TemporaryDirectory() as downloads,  # TFDS wants a place even for no download
        contextlib.redirect_stdout(io.StringIO()),  # and announces it
    ):
        try:
            _Builder(storage).download_and_prepare(
                file_format="array_record", download_dir=downloads
            )
        except OSError:
            if not is_prepared(storage):  # else another process was faster
                raise


def _replace(storage: Storage) -> None:
    """Build a dataset anew; where that fails the old one stays, and is not taken for the new."""
    where = dataset_directory(storage)
    print(f"files of {where} have changed; it is built anew", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=storage.directory) as away:
        old = Path(away) / where.name
        move_directory(where, old)
        try:
            _build(storage)
        except BaseException:
            _kept_files(storage).unlink(missing_ok=True)
            if not where.exists():
                move_directory(old, where)
            raise


def _kept_files(storage: Storage) -> Path:
    """Return the path of the list of source files; it stands beside the dataset."""
    return storage.directory / f"files_{storage.version}.json"


def _keep_files(storage: Storage) -> None:
    if storage.files is not None:
        rows = [[str(path), *_state(path)] for path in dict.fromkeys(storage.files())]
        storage.directory.mkdir(parents=True, exist_ok=True)
        _write_beside(_kept_files(storage), json.dumps(rows))


def _files_changed(storage: Storage) -> bool:
    """Return whether a file has changed; not if it is gone: the dataset holds what it was."""
    if storage.files is None:
        return False
    try:
        rows = json.loads(_kept_files(storage).read_text())
        return any(
            [size, time] != (_state(Path(path)) or [size, time]) for path, size, time in rows
        )
    except (OSError, ValueError):  # nobody knows
        return True


def _state(path: Path) -> list[int]:
    """Return size in bytes and time of the last change in nanoseconds; [] for a missing file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return []
    return [found.st_size, found.st_mtime_ns]


def is_no_advice(record: logging.LogRecord) -> bool:
    """Return whether a line of TFDS's log is not that it would rather have OpenCV than Pillow."""
    return "OpenCV is not installed" not in record.getMessage()


def read_split(storage: Storage, split: str, decoders: Mapping[str, Any] | None = None) -> Any:
    """Open random access to the stored records of a split.

    Raises UserError on an unknown split, or before `prepare`.
    """
    logging.getLogger("absl").addFilter(is_no_advice)
    if split not in SPLITS:
        name = storage.name
        raise UserError(f"{name} has no split {split!r}; choose one of {', '.join(SPLITS)}")
    if not is_prepared(storage):
        raise UserError(
            f"no dataset at {dataset_directory(storage)}; build it first (gmma data EXPERIMENT)"
        )
    return _Builder(storage).as_data_source(split, decoders=decoders)


@dataclass(frozen=True, kw_only=True)
class Content:
    """Summary of a prepared dataset."""

    digest: str  # SHA-256 of all that a reader gets: equal for equal records in equal order
    traced: Mapping[str, tuple[int, ...]]  # split → rows whose text `thought` is not empty


def read_content(storage: Storage) -> Content:
    """Read the content of a prepared dataset; found out once, then kept beside the records.

    Raises UserError before `prepare`.
    """
    path = dataset_directory(storage) / _CONTENT_FILE
    try:
        kept = json.loads(path.read_text())
        return Content(
            digest=kept["digest"],
            traced={split: tuple(kept["traced"][split]) for split in SPLITS},
        )
    except (OSError, ValueError, KeyError):  # of an older gmma, or a build that was killed here
        content = _find_content(storage)
    with contextlib.suppress(OSError):  # a dataset that may only be read is looked through again
        _write_beside(path, json.dumps({"digest": content.digest, "traced": content.traced}))
    return content


def content_by(storage: Callable[[C, Path], Storage]) -> HashContent[C]:
    """Return the `content` of a task whose records lie in one storage."""

    def content(config: C, data_dir: Path) -> str:
        return read_content(storage(config, data_dir)).digest

    return content


def _find_content(storage: Storage) -> Content:
    digest = hashlib.sha256()
    traced: dict[str, list[int]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        rows = read_split(storage, split)
        digest.update(f"{split} {len(rows)}\0".encode())
        for number in range(len(rows)):
            record = rows[number]
            for name in sorted(record):
                if name == "others" and record[name] == b"{}":  # as before there were any
                    continue
                digest.update(name.encode() + b"\0")
                _feed(digest.update, record[name])
            if record.get("thought"):
                traced[split].append(number)
    return Content(
        digest=digest.hexdigest(), traced={split: tuple(found) for split, found in traced.items()}
    )


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    """Give a hash a value, with its kind and size, so that no two values are the same bytes."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        update(f"{value.dtype} {value.shape}\0".encode() + value.tobytes())
    elif isinstance(value, Iterable) and not isinstance(value, bytes | str):
        entries = list(value)
        update(f"list {len(entries)}\0".encode())
        for entry in entries:
            _feed(update, entry)
    else:
        data = value if isinstance(value, bytes) else str(value).encode()
        update(f"{len(data)}\0".encode() + data)


def _write_beside(path: Path, text: str) -> None:
    """Write a file whole or not at all, whoever else writes it at the same time."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)  # as any other file there
    os.replace(file.name, path)


def encode_png(picture: np.ndarray) -> io.BytesIO:
    """Return the PNG file of uint8[H, W, 3]; TFDS without TensorFlow takes bytes, not arrays."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    buffer.seek(0)
    return buffer
