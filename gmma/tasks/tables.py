"""Rows of any file that holds records: JSON, JSON lines, Parquet, a folder of `datasets` or TFDS.

    mine.json            a list of objects
    mine.jsonl           an object a line
    mine.parquet         a file, or a folder of them named after their splits (train-00000.parquet,
                         my_test.parquet, validation/0.parquet)
    FOLDER               as `save_to_disk` of `datasets` left it, one split or several
    FOLDER               as TFDS prepared it (tfds build NAME --file_format=array_record)

Parquet and folders of `datasets` need pyarrow: pip install 'gmma[parquet]'. A row is a dictionary
of plain values; a picture inside it is bytes, or `{"bytes", "path"}` as `datasets` writes it. What
TFDS knows of a value is in it: a class is its name, a box is `[x1, y1, x2, y2]` in 0 … 1.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from gmma.errors import UserError
from gmma.tasks.records import parse_json, read_lines, read_text

Row = tuple[str, Any]  # what messages call it, and its value
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
KNOWN_SPLITS = frozenset(name for names in SPLIT_NAMES.values() for name in names)
_SPLIT_WORD = re.compile(rf"(?<![^\W\d_])({'|'.join(sorted(KNOWN_SPLITS))})(?![^\W\d_])")
KINDS = "a JSON list, JSON lines, Parquet, or a folder that datasets or TFDS saved"
_INFO, _STATE, _SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"
_FEATURES = "features.json"  # TFDS's
_BATCH_ROWS = 64


def require_table(path: Path) -> None:
    """Raise UserError where there is nothing that holds records."""
    if not path.exists():
        raise UserError(f"no records at {path.absolute()}; set task.records.train to {KINDS}")
    if not (path.is_file() or path.is_dir()):  # a pipe can be read once, and records are read twice
        raise UserError(
            f"{path} is neither a file nor a folder, but a pipe or a device; write the records to "
            "a file"
        )
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"the folder {path} cannot be read (no permission); permit it")
    if path.is_dir() and not (_kind_of_folder(path)):
        near = [file for end in ("*.jsonl", "*.json") for file in sorted(path.rglob(end))]
        raise UserError(
            f"the folder {path} holds no records: neither {_INFO} (datasets, TFDS) nor a Parquet "
            f"file; set task.records.train to {KINDS}" + (f", perhaps {near[0]}" if near else "")
        )


def _kind_of_folder(path: Path) -> str:
    if (path / _SPLITS).is_file():
        return "splits"
    if (path / _STATE).is_file():
        return "saved"
    if (path / _INFO).is_file() and (path / _FEATURES).is_file():  # datasets has the first alone
        return "tfds"
    return "parquet" if next(path.rglob("*.parquet"), None) else ""


def own_split(path: Path, split: str) -> str | None:
    """Return the name of a split within a folder that has splits; None where there is no such."""
    named = _named_splits(path)
    return next((name for name in SPLIT_NAMES.get(split, (split,)) if name in named), None)


def _named_splits(path: Path) -> tuple[str, ...]:
    kind = _kind_of_folder(path) if path.is_dir() else ""
    if kind == "splits":
        return tuple(_listed_in(path / _SPLITS, "splits"))
    if kind == "tfds":
        return tuple(tfds.builder_from_directory(str(path)).info.splits)
    if kind == "parquet":
        named = dict.fromkeys(_split_of(file, path) for file in sorted(path.rglob("*.parquet")))
        return tuple(named) if KNOWN_SPLITS & named.keys() else ()  # else they are parts of one
    return ()


def _listed_in(path: Path, key: str) -> list[Any]:
    """Read a list from a JSON file that datasets wrote. UserError where it has none."""
    try:
        found = json.loads(read_text(path))[key]
    except (ValueError, RecursionError, KeyError, TypeError):
        found = None
    if not isinstance(found, list):
        raise UserError(f"{path} lists no {key}; save the dataset again")
    return found


def _split_of(file: Path, folder: Path) -> str:
    """Return the split of a Parquet file in a folder: a word of its name, or of its own folders'.

    Where none is known there, the innermost folder's name, or the beginning of the file's.
    """
    inner = file.relative_to(folder).parts[:-1]
    for name in (file.stem, *reversed(inner)):
        if found := _SPLIT_WORD.search(name.lower()):
            return found[1]
    return inner[-1] if inner and inner[-1] != "data" else file.stem.partition("-")[0]


def _require_one_config(folder: Path, files: list[Path], split: str) -> None:
    """Raise UserError where a split's files lie in folders that are datasets of their own."""
    apart = {
        "/".join(
            part
            for part in file.relative_to(folder).parts[:-1]
            if part != "data" and not _SPLIT_WORD.search(part.lower())
        )
        for file in files
    }
    if len(apart) > 1:
        named = ", ".join(sorted(part or "." for part in apart))
        raise UserError(
            f"the folder {folder} has files of split {split} in several folders, {named}, which "
            "may be other datasets; give one of these folders, or put all files into one"
        )


def source_files(path: Path) -> list[Path]:
    """Return the files whose content is that of the records; UserError where there are none."""
    require_table(path)
    if path.is_file():
        return [path]
    named = (_INFO, _FEATURES, _STATE, _SPLITS)
    files = [path / name for name in named if (path / name).is_file()]
    ends = ("*.parquet", "*.arrow", "*.array_record*", "*.labels.txt")
    return files + sorted(file for end in ends for file in path.rglob(end))


def read_rows(path: Path, split: str) -> list[Row]:
    """Read the rows of a file, or of a folder: those of its split where it has that.

    Raises UserError for what is no such file, naming it and the row.
    """
    require_table(path)
    if path.is_dir():
        rows = _read_folder(path, split)
    elif path.suffix.lower() == ".parquet":
        rows = _read_parquet([path])
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = [(f"line {line}", row) for line, row in _read_json_lines(path)]
    else:
        rows = [("", row) for row in _read_list(path)]
    found = [
        (f"record {number} of {path}" + (f", {where}" if where else ""), row)
        for number, (where, row) in enumerate(rows)
    ]
    if not found:
        raise UserError(f"{path} holds no records")
    return found


def _read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        for line, row in read_lines(path):
            if isinstance(row, list):
                raise UserError(f"{path}, line {line}: a list, not an object")
            yield line, row
    except UserError as error:
        listed = read_text(path).lstrip().startswith("[")
        hint = "; a file that is one JSON list must be named .json" if listed else ""
        raise UserError(f"{error}{hint}") from error


def _read_list(path: Path) -> list[Any]:
    try:
        found = parse_json(read_text(path), str(path))
    except (ValueError, RecursionError) as error:
        hint = "; a file of JSON lines must be named .jsonl" if "Extra data" in str(error) else ""
        raise UserError(f"{path} is no JSON ({error}){hint}; gmma reads {KINDS}") from error
    if isinstance(found, list):
        return found
    held = found if isinstance(found, Mapping) else {}
    lists = [str(key) for key, value in held.items() if isinstance(value, list)]
    raise UserError(
        f"{path} holds a {type(found).__name__}, not a list of records"
        + (
            f"; save what is under {lists[0]!r} as a file of its own"
            if lists
            else "; write a list [ … ] around it, or name a file of an object a line .jsonl"
        )
    )


def _read_folder(path: Path, split: str) -> list[Row]:
    kind, name = _kind_of_folder(path), own_split(path, split)
    named = _named_splits(path)
    name = named[0] if name is None and len(named) == 1 else name
    if named and name is None:
        raise UserError(
            f"the folder {path} has the splits {', '.join(named)}, and not {split}; give the "
            "folder or file of one split"
        )
    if kind == "splits":
        return _read_saved(path / str(name))
    if kind == "saved":
        return _read_saved(path)
    if kind == "tfds":
        return [("", row) for row in _read_tfds(path, str(name))]
    files = sorted(path.rglob("*.parquet"))
    if named:
        files = [file for file in files if _split_of(file, path) == name]
        _require_one_config(path, files, str(name))
    return _read_parquet(files)


def _read_parquet(files: list[Path]) -> list[Row]:
    arrow = _import_arrow(files[0], "a Parquet file")
    rows: list[Row] = []
    for file in files:
        try:
            with arrow.parquet.ParquetFile(file, pre_buffer=False) as content:
                _require_single_names(content.schema_arrow.names, file)
                batches = content.iter_batches(_BATCH_ROWS)  # whole, it would stand beside its rows
                plain = [row for batch in batches for row in batch.to_pylist()]
        except (arrow.ArrowException, OSError) as error:
            raise UserError(f"{file} is no whole Parquet file ({error}); fetch it again") from error
        rows += [(f"row {row} of {file.name}", value) for row, value in enumerate(plain)]
    return rows


def _read_saved(folder: Path) -> list[Row]:
    """Read what `Dataset.save_to_disk` wrote: Arrow streams, listed in state.json."""
    arrow = _import_arrow(folder, "a folder that datasets saved")
    rows: list[Row] = []
    try:
        listed = _listed_in(folder / _STATE, "_data_files")
        for file in (folder / str(entry["filename"]) for entry in listed):
            with arrow.memory_map(str(file)) as content, arrow.ipc.open_stream(content) as stream:
                _require_single_names(stream.schema.names, file)
                rows += [("", row) for batch in stream for row in batch.to_pylist()]
    except (arrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is no whole folder of datasets ({type(error).__name__}: {error}); save it "
            "again by save_to_disk"
        ) from error
    return rows


def _require_single_names(names: Sequence[str], file: Path) -> None:
    """Raise UserError where two columns have one name: a row would keep one of them."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{file} has several columns named {twice[0]!r}; leave one, or rename them")


def _import_arrow(path: Path, what: str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"{path} is {what}, and reading it needs pyarrow: pip install 'gmma[parquet]'"
        ) from error
    return pyarrow


class AsStored(tfds.decode.SkipDecoding):
    """Leaves bytes as they are, in sequences too, which TFDS's own decoder does not know."""

    def decode_batch_example_np(self, stored: Any) -> Any:
        return stored


def _read_tfds(path: Path, split: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a prepared dataset, pictures as the bytes of their files."""
    builder = tfds.builder_from_directory(str(path))
    features = builder.info.features
    try:
        records = builder.as_data_source(split, decoders=_undecoded(features))
    except NotImplementedError as error:
        raise UserError(
            f"the dataset at {path} cannot be read at random; prepare it again by tfds build NAME "
            "--file_format=array_record"
        ) from error
    for record in records:
        yield _as_plain(features, record)


def _undecoded(feature: Any) -> Any:
    """Return TFDS's decoders that leave every picture below a feature as it is stored."""
    if isinstance(feature, tfds.features.Image):
        return AsStored()
    if isinstance(feature, tfds.features.FeaturesDict):
        found = {name: _undecoded(inner) for name, inner in feature.items()}
        return {name: decoder for name, decoder in found.items() if decoder is not None} or None
    if isinstance(feature, tfds.features.Sequence):
        return _undecoded(feature.feature)
    return None


def _as_plain(feature: Any, value: Any) -> Any:
    """Convert a value to Python's by its feature: classes to names, boxes to x first."""
    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: _as_plain(feature[name], entry) for name, entry in value.items()}
    if isinstance(feature, tfds.features.Sequence):
        inner = feature.feature
        if isinstance(inner, tfds.features.FeaturesDict):  # TFDS turns it inside out
            value = [
                dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)
            ]
        return [_as_plain(inner, entry) for entry in value]
    if isinstance(feature, tfds.features.ClassLabel):
        return None if value < 0 else feature.int2str(int(value))
    if isinstance(feature, tfds.features.BBoxFeature) and "YXYX" in str(feature.bbox_format):
        top, left, bottom, right = map(float, value)
        return [left, top, right, bottom]
    if isinstance(feature, tfds.features.Image):
        return bytes(value)
    return _decoded(value)


def _decoded(value: Any) -> Any:
    """Convert texts to str and numbers to Python's; bytes that are no text stay bytes."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _decoded(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_decoded(entry) for entry in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value
