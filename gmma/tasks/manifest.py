"""Records of a manifest and its folder of images: the schema of the authors' release as it stands.

A manifest is a JSON list or JSON lines, a record each:

    {"question": "…", "answer": …, "question_type": "trajectory-sharerobot", "image": "a/b.png"}

`image` is a path in the image folder, or a list of them; `id` may stand beside, and so may
`thought`, a reasoning trace for SFT, `width` and `height` of the first image, which are then
checked, and `mask` with `mask_value`, a picture whose pixels of that value are the truth's region
(without a value: all that are not 0, which must be of one value). What `answer` must be is the
task's matter; its coordinates are on the first image, turned upright as its EXIF orientation says,
in the units that the field `frame` names, and are stored in pixels. Images keep the bytes of their
files. Other layouts are turned into this one by `gmma.tasks.formats`.
"""

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gmma.errors import UserError
from gmma.images.common import read_rgb
from gmma.tasks.formats import FORMATS, files_beside
from gmma.tasks.pictures import (
    check_picture,
    find_picture,
    find_pictures,
    name_in,
    open_picture,
)
from gmma.tasks.records import (
    fingerprint,
    other_columns,
    parse_json,
    read_lines,
    read_text,
    read_trace,
    refuse_unstorable,
    require_text,
    spell_columns,
    spell_value,
)
from gmma.tasks.splits import FilesConfig, PixelSize, drawn_split, require_kept
from gmma.tasks.storage import SPLITS, Storage, encode_png

REQUIRED = ("question", "answer", "question_type", "image")
OPTIONAL = ("id", "thought", "width", "height", "mask", "mask_value")


@dataclass(frozen=True, kw_only=True)
class RecordsConfig(FilesConfig):
    """Places of a task's records, how they are laid out, and how they are split."""

    # Layout of the files, or of a directory that TFDS prepared (`gmma.tasks.public`)
    format: Literal[
        "manifest", "coco", "umd", "demand", "ocr_vqa", "tfds_coco", "tfds_ref_coco"
    ] = "manifest"
    question_type: str | None = None  # keep the records of this type alone; None: all
    # Keys of a record that gmma cannot read: an error, left out, or columns for rewards
    unknown_keys: Literal["refuse", "ignore", "keep"] = "refuse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format.startswith("tfds_") and self.frame != "pixels":
            raise UserError(
                f"records: frame = {self.frame} says nothing of format = {self.format}, whose "
                "units are TFDS's; leave frame at pixels"
            )


@dataclass(frozen=True, kw_only=True)
class ManifestRecord:
    """One record, its form checked; whether the answer suits the task is not."""

    id: str
    question: str
    answer: Any
    question_type: str
    images: tuple[Path, ...]
    thought: str
    size: PixelSize | None  # what the record says that its first image is
    mask: Path | None
    mask_value: int | None
    where: str  # names the record in a message
    others: Mapping[str, Any]  # keys that are none of these, where they are kept


def require_records(path: Path) -> None:
    """Raise UserError where there is no such file."""
    if not path.is_file():
        raise UserError(
            f"no records at {path}; set task.records.train (and format, images) to what you have"
        )


def read_document(path: Path) -> Any:
    """Read a JSON or JSON lines file. UserError where it is missing or neither."""
    require_records(path)
    try:
        if path.suffix == ".jsonl":
            return [row for _, row in read_lines(path)]
        return parse_json(read_text(path), str(path))
    except (UserError, ValueError, RecursionError) as error:
        hint = "; a file of JSON lines must be named .jsonl" if "Extra data" in str(error) else ""
        kind = path.suffix[1:].upper() or "JSON"
        raise UserError(f"{path} is no {kind} ({error}){hint}") from error


def read_manifest(config: RecordsConfig, split: str) -> list[ManifestRecord]:
    """Read a split's records in the order of its file. UserError naming a wrong record."""
    path = config.file_of(split)
    rows = FORMATS[config.format](read_document(path), path)
    folder = path.parent if config.images is None else config.images
    records = [
        check_record(row, f"record {number} of {path}", str(number), folder, config)
        for number, row in enumerate(rows)
    ]
    kept = [r for r in records if config.question_type in (None, r.question_type)]
    own = [name for name in SPLITS if getattr(config, name) is not None]
    if split == "train" or split not in own:
        kept = [r for r in kept if drawn_split(config, _place_name(r, folder), own) == split]
    kind = f" of type {config.question_type}" if config.question_type else ""
    require_kept(config, split, kept, len(records), kind)
    return kept


def _place_name(record: ManifestRecord, folder: Path) -> str:
    """Return what tells a record's picture from others: its path within the folder."""
    return name_in(folder, record.images[0]) if record.images else record.id


def check_record(
    row: Any, where: str, number: str, folder: Path, config: RecordsConfig
) -> ManifestRecord:
    """Check a manifest's record and return it as a dataclass. UserError for any other form."""
    if not isinstance(row, Mapping):
        raise UserError(f"{where} is a {type(row).__name__}, not an object")
    if "id" in row:
        where = f"{where} (id {spell_value(row['id']).strip(chr(34))})"
    refuse_unstorable(row, where)
    missing = [key for key in REQUIRED if key not in row]
    unknown = [key for key in row if key not in (*REQUIRED, *OPTIONAL)]
    if missing:
        raise UserError(
            f"{where} has no {', '.join(missing)}; a record needs {', '.join(REQUIRED)}"
        )
    if unknown and config.unknown_keys == "refuse":
        raise UserError(
            f"{where} has unknown keys {', '.join(map(str, unknown))}; a record may also have "
            f"{', '.join(OPTIONAL)}; task.records.unknown_keys = ignore reads it all the same, and "
            "keep gives them to rewards as columns"
        )
    outside = config.outside_images
    return ManifestRecord(
        id=str(_whole_number_or_text(row, "id", where, number)),
        question=require_text(row["question"], f"{where}: question"),
        answer=row["answer"],
        question_type=require_text(row["question_type"], f"{where}: question_type"),
        images=find_pictures(folder, row["image"], f"{where}: image", outside),
        thought=read_trace(row, "thought", where),
        size=_said_size(row, where),
        mask=(
            find_picture(folder, row["mask"], f"{where}: mask", outside) if "mask" in row else None
        ),
        mask_value=_whole_number(row, "mask_value", where) if "mask_value" in row else None,
        where=where,
        others=(
            other_columns(row, (*REQUIRED, *OPTIONAL)) if config.unknown_keys == "keep" else {}
        ),
    )


def _whole_number(row: Mapping[str, Any], key: str, where: str) -> int:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{where}: {key} is {spell_value(value)}, not a whole number")
    return value


def _whole_number_or_text(
    row: Mapping[str, Any], key: str, where: str, otherwise: str
) -> int | str:
    value = row.get(key, otherwise)
    if isinstance(value, str):
        return value
    return _whole_number(row, key, where)


def _said_size(row: Mapping[str, Any], where: str) -> PixelSize | None:
    said = [key for key in ("width", "height") if key in row]
    if len(said) == 1:
        raise UserError(f"{where} has {said[0]} alone; give width and height, or neither")
    if not said:
        return None
    return _whole_number(row, "width", where), _whole_number(row, "height", where)


FEATURES = {
    "id": tfds.features.Text(),
    "question": tfds.features.Text(),
    "answer": tfds.features.Text(),  # JSON
    "thought": tfds.features.Text(),  # "" where the record brings none
    "images": tfds.features.Sequence(tfds.features.Text()),  # the bytes of PNG or JPEG files
    "mask": tfds.features.Text(),  # the bytes of a black and white PNG, or none
}
KEPT = {"others": tfds.features.Text()}  # JSON; where unknown keys are kept


class TruthError(UserError):
    """An answer that is none for its task, or is not on its image."""


Accept = Callable[[ManifestRecord, PixelSize, "np.ndarray | None"], Any]


def manifest_storage(
    name: str,
    config: RecordsConfig,
    data_dir: Path,
    accept: Accept,
    takes: Callable[[ManifestRecord], bool],
) -> Storage:
    """Describe the records as they will lie on disk.

    `accept` gets a record, its first image's size and its mask, and gives the answer in pixels; it
    raises UserError where the answer is wrong. `takes` says whether the task wants the record. The
    home is named after the content of the files that hold the records; those of pictures and masks
    are the storage's `files`.
    """
    files = [config.file_of(split) for split in SPLITS]
    for path in files:
        require_records(path)
    beside = [file for path in files for file in files_beside(config.format, path)]

    def records(split: str) -> Iterator[dict[str, Any]]:
        left_out: list[str] = []
        given = read_manifest(config, split)
        others = spell_others(config, given)
        for record, own in zip(given, others, strict=True):
            try:
                row = stored(record, accept) | own
            except TruthError as error:
                if config.wrong_truths == "refuse":
                    raise
                left_out.append(str(error))
                continue
            if takes(record):
                yield row
        if left_out:
            print(
                f"{split}: {len(left_out)} of {len(given)} records left out; the first: "
                f"{left_out[0]}",
                file=sys.stderr,
            )

    return Storage(
        name=name,
        directory=Path(data_dir) / f"{name}_{config.format}_{fingerprint(config, *files, *beside)}",
        features=FEATURES | (KEPT if config.unknown_keys == "keep" else {}),
        records=records,
        version="1.3.0",  # what is refused has changed
        files=lambda: picture_files(config),
        description=__doc__ or "",
    )


def spell_others(config: RecordsConfig, records: Sequence[ManifestRecord]) -> list[dict[str, str]]:
    """Return what is stored of each record's unknown keys, those of all splits in each."""
    if config.unknown_keys != "keep":
        return [{}] * len(records)
    every = (record.others for split in SPLITS for record in read_manifest(config, split))
    own = [record.others for record in records]
    return [{"others": columns} for columns in spell_columns(own, every)]


def picture_files(config: RecordsConfig) -> Iterator[Path]:
    """Yield the files of every image and mask."""
    for split in SPLITS:
        for record in read_manifest(config, split):
            yield from record.images
            if record.mask is not None:
                yield record.mask


def stored(record: ManifestRecord, accept: Accept) -> dict[str, Any]:
    """Return a record with the bytes of its files. UserError naming it where one is wrong."""
    if not record.images:
        raise UserError(f"{record.where} has no image, and its task needs one")
    sizes = [check_picture(path, record.where) for path in record.images]
    _check_size(record, sizes[0])
    mask = _read_mask(record, sizes[0])
    try:
        answer = accept(record, sizes[0], mask)
    except UserError as error:
        raise TruthError(f"{record.where}: {error}") from None
    return stored_form(
        id=record.id,
        question=record.question,
        answer=answer,
        images=[path.read_bytes() for path in record.images],
        thought=record.thought,
        mask=b"" if mask is None else encode_png(mask.astype(np.uint8) * 255).getvalue(),
    )


def _check_size(record: ManifestRecord, size: PixelSize) -> None:
    if record.size not in (None, size):
        assert record.size is not None
        said, found = (f"{width} x {height}" for width, height in (record.size, size))
        turned = record.size == size[::-1]
        raise UserError(
            f"{record.where} says that its image is {said}, but {record.images[0]} is {found}; "
            + ("it is turned upright by its EXIF orientation, and " if turned else "")
            + "coordinates must be on the picture as it is: mend them, or give the right file"
        )


def _read_mask(record: ManifestRecord, size: PixelSize) -> np.ndarray | None:
    """Return the region of a record's mask, bool[H, W] over its first image."""
    if record.mask is None:
        return None
    values = np.asarray(open_picture(record.mask, record.where))
    _require_sharp(record, values)
    region = values != 0 if record.mask_value is None else values == record.mask_value
    if region.ndim != 2 or not region.any():
        raise UserError(
            f"{record.where}: mask {record.mask} of shape {values.shape} has no pixel of value "
            f"{record.mask_value} in one channel"
        )
    if region.shape[::-1] != size:
        said, found = (f"{width} x {height}" for width, height in (region.shape[::-1], size))
        raise UserError(
            f"{record.where}: mask {record.mask} is {said}, but the image {record.images[0]} is "
            f"{found}; a mask lies over its image pixel by pixel"
        )
    return region


def _require_sharp(record: ManifestRecord, values: np.ndarray) -> None:
    """Raise UserError for a mask whose region is ambiguous."""
    assert record.mask is not None
    with Image.open(record.mask) as picture:
        if picture.format in ("JPEG", "MPO"):
            raise UserError(
                f"{record.where}: mask {record.mask} is a JPEG, which changes values at the edges "
                "of a region; save it as PNG, in two values"
            )
    if record.mask_value is not None or values.ndim != 2:
        return
    found = np.unique(values)
    if len(found) > 2 or (len(found) == 2 and found[0] != 0):
        raise UserError(
            f"{record.where}: mask {record.mask} has {len(found)} values, {found[0]} to "
            f"{found[-1]}; say in mask_value which one is the region, or save it in 0 and one other"
        )


def stored_form(
    *,
    id: str,
    question: str,
    answer: Any,
    images: Iterable[bytes],
    thought: str = "",
    mask: bytes = b"",
) -> dict[str, Any]:
    """Return the record in the form that `FEATURES` takes."""
    return {
        "id": id,
        "question": question,
        "answer": json.dumps(answer, ensure_ascii=False),
        "thought": thought,
        "images": list(images),
        "mask": mask,
    }


@dataclass(frozen=True, kw_only=True)
class StoredRecord:
    """A stored record, read back."""

    id: str
    question: str
    answer: Any
    thought: str
    images: tuple[np.ndarray, ...]  # each uint8[H, W, 3]
    mask: np.ndarray | None  # bool[H, W]
    others: Mapping[str, Any] = field(default_factory=dict)  # keys that gmma cannot read


def read_back(
    row: Mapping[str, Any], picture: Callable[[bytes], np.ndarray] = read_rgb
) -> StoredRecord:
    """Read what `stored_form` stored, pictures as arrays."""
    mask = bytes(row["mask"])
    return StoredRecord(
        id=row["id"].decode(),
        question=row["question"].decode(),
        answer=json.loads(row["answer"].decode()),
        thought=row["thought"].decode(),
        images=tuple(map(picture, row["images"])),
        mask=np.asarray(Image.open(io.BytesIO(mask))) > 0 if mask else None,
        others=json.loads(row["others"].decode()) if "others" in row else {},
    )
