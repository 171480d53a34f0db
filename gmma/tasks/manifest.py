"""Records of a manifest and its folder of images: the schema of the authors' release as it stands.

A manifest is a JSON list or JSON lines, a record each:

    {"question": "…", "answer": …, "question_type": "trajectory-sharerobot", "image": "a/b.png"}

`image` is a path in the image folder, or a list of them; `id` may stand beside, and so may
`thought`, a reasoning trace for SFT, and `mask` with `mask_value`, a picture whose pixels of that
value are the truth's region (without a value: all that are not 0). What `answer` must be is the
task's matter; coordinates are pixels of the (first) image as stored. Images keep the bytes of their
files. Other layouts are turned into this one by `gmma.tasks.formats`.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gmma.errors import UserError
from gmma.images.common import rgb_array
from gmma.tasks.formats import FORMATS
from gmma.tasks.records import fingerprint
from gmma.tasks.storage import SPLITS, Storage, encode_png

REQUIRED = ("question", "answer", "question_type", "image")
OPTIONAL = ("id", "thought", "mask", "mask_value")


@dataclass(frozen=True, kw_only=True)
class RecordsConfig:
    """Where a task's records lie, and how they are split.

    A split with a file of its own takes it whole. Else it takes its share of the training file, by
    a hash of the first image's path, so that no picture is in two splits.
    """

    # Of the files, or of a directory that TFDS prepared (`gmma.tasks.public`)
    format: Literal[
        "manifest", "coco", "umd", "demand", "ocr_vqa", "tfds_coco", "tfds_ref_coco"
    ] = "manifest"
    train: Path = Path("data/records/train.json")  # a list or, named .jsonl, a record a line
    validation: Path | None = None  # None: a share of the training file
    test: Path | None = None  # None: a share of the training file
    images: Path | None = None  # folder of the paths in the records; None: the file's own folder
    question_type: str | None = None  # keep the records of this type alone; None: all
    unknown_keys: Literal["refuse", "ignore"] = "refuse"  # keys of a record that gmma cannot read
    validation_share: float = 0.1  # of the training file, where there is no validation file
    test_share: float = 0.1  # of the training file, where there is no test file
    seed: int = 0  # of the hash that splits

    def __post_init__(self) -> None:
        shares = (self.validation_share, self.test_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise UserError(
                f"records: validation_share = {shares[0]} and test_share = {shares[1]}; they must "
                "be 0 or more and leave something to train on"
            )

    def file_of(self, split: str) -> Path:
        """The file that a split's records come from."""
        return getattr(self, split) or self.train


@dataclass(frozen=True, kw_only=True)
class ManifestRecord:
    """One record, its form checked; whether the answer suits the task is not."""

    id: str
    question: str
    answer: Any
    question_type: str
    images: tuple[Path, ...]
    thought: str
    mask: Path | None
    mask_value: int | None
    where: str  # names the record in a message


def require_records(path: Path) -> None:
    """UserError where there is no such file."""
    if not path.is_file():
        raise UserError(
            f"no records at {path}; set task.records.train (and format, images) to what you have"
        )


def read_document(path: Path) -> Any:
    """What a JSON or JSON lines file holds. UserError where it is missing or neither."""
    require_records(path)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is no {path.suffix[1:].upper() or 'JSON'} ({error})") from error


def read_manifest(config: RecordsConfig, split: str) -> list[ManifestRecord]:
    """A split's records in the order of its file. UserError naming the record that is wrong."""
    path = config.file_of(split)
    rows = FORMATS[config.format](read_document(path), path)
    folder = path.parent if config.images is None else config.images
    records = [
        check_record(row, f"record {number} of {path}", str(number), folder, config.unknown_keys)
        for number, row in enumerate(rows)
    ]
    kept = [r for r in records if config.question_type in (None, r.question_type)]
    if split == "train" or getattr(config, split) is None:
        kept = [r for r in kept if drawn_split(config, r, folder) == split]
    if not kept:
        raise UserError(
            f"of the {len(records)} records of {path} none of type {config.question_type or 'any'} "
            f"is in split {split}; give the split a file of its own, or a larger share"
        )
    return kept


def drawn_split(config: RecordsConfig, record: ManifestRecord, folder: Path) -> str:
    """The split of a record of the training file, by a hash of its first image's path."""
    name = record.images[0].relative_to(folder).as_posix() if record.images else record.id
    drawn = hashlib.sha256(f"{config.seed}/{name}".encode()).digest()
    place = int.from_bytes(drawn[:8], "big") / 2**64
    for split in ("validation", "test"):
        share = getattr(config, f"{split}_share") if getattr(config, split) is None else 0.0
        if place < share:
            return split
        place -= share
    return "train"


def check_record(
    row: Any, where: str, number: str, folder: Path, unknown_keys: str
) -> ManifestRecord:
    """A record of a manifest as a dataclass. UserError for a form that is not the schema's."""
    if not isinstance(row, Mapping):
        raise UserError(f"{where} is a {type(row).__name__}, not an object")
    if "id" in row:
        where = f"{where} (id {row['id']})"
    missing = [key for key in REQUIRED if key not in row]
    unknown = [key for key in row if key not in (*REQUIRED, *OPTIONAL)]
    if missing:
        raise UserError(f"{where} has no {', '.join(missing)}; a record needs {REQUIRED}")
    if unknown and unknown_keys == "refuse":
        raise UserError(
            f"{where} has unknown keys {', '.join(map(str, unknown))}; a record may also have "
            f"{', '.join(OPTIONAL)}; task.records.unknown_keys = ignore reads it all the same"
        )
    for key in ("question", "question_type"):
        if not isinstance(row[key], str):
            raise UserError(f"{where}: {key} is a {type(row[key]).__name__}, not a string")
    images = row["image"] if isinstance(row["image"], list) else [row["image"]]
    return ManifestRecord(
        id=str(row.get("id", number)),
        question=row["question"],
        answer=row["answer"],
        question_type=row["question_type"],
        images=tuple(_file_in(folder, name, f"{where}: image") for name in images),
        thought=str(row.get("thought", "")),
        mask=_file_in(folder, row["mask"], f"{where}: mask") if "mask" in row else None,
        mask_value=row.get("mask_value"),
        where=where,
    )


def _file_in(folder: Path, name: Any, what: str) -> Path:
    if not isinstance(name, str):
        raise UserError(f"{what} is a {type(name).__name__}, not a path")
    path = folder / name
    if not path.is_file():
        raise UserError(f"{what}: no file {path}; set task.records.images to the folder of images")
    return path


FEATURES = {
    "id": tfds.features.Text(),
    "question": tfds.features.Text(),
    "answer": tfds.features.Text(),  # JSON
    "thought": tfds.features.Text(),  # "" where the record brings none
    "images": tfds.features.Sequence(tfds.features.Text()),  # the bytes of PNG or JPEG files
    "mask": tfds.features.Text(),  # the bytes of a black and white PNG, or none
}


def manifest_storage(
    name: str,
    config: RecordsConfig,
    data_dir: Path,
    check: Callable[[ManifestRecord], bool],
) -> Storage:
    """The records as they will lie on disk.

    `check` says whether the task takes a record, and raises UserError naming it where its answer is
    wrong. Its home is named after the content of the files that hold the records, but not after
    that of the images.
    """
    files = [config.file_of(split) for split in SPLITS]
    for path in files:
        require_records(path)

    def records(split: str) -> Iterator[dict[str, Any]]:
        return (stored(record) for record in read_manifest(config, split) if check(record))

    return Storage(
        name=name,
        directory=Path(data_dir) / f"{name}_{config.format}_{fingerprint(config, *files)}",
        features=FEATURES,
        records=records,
        description=__doc__ or "",
    )


def stored(record: ManifestRecord) -> dict[str, Any]:
    """A record with the bytes of its files. UserError where a picture cannot be read."""
    for path in record.images:
        _open_picture(path, record.where)
    mask = b""
    if record.mask is not None:
        values = np.asarray(_open_picture(record.mask, record.where))
        region = values != 0 if record.mask_value is None else values == record.mask_value
        if region.ndim != 2 or not region.any():
            raise UserError(
                f"{record.where}: mask {record.mask} of shape {values.shape} has no pixel of value "
                f"{record.mask_value} in one channel"
            )
        mask = encode_png(region.astype(np.uint8) * 255).getvalue()
    return stored_form(
        id=record.id,
        question=record.question,
        answer=record.answer,
        images=[path.read_bytes() for path in record.images],
        thought=record.thought,
        mask=mask,
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
    """What `FEATURES` takes."""
    return {
        "id": id,
        "question": question,
        "answer": json.dumps(answer, ensure_ascii=False),
        "thought": thought,
        "images": list(images),
        "mask": mask,
    }


def _open_picture(path: Path, where: str) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.copy()
    except OSError as error:
        raise UserError(f"{where}: {path} is no whole picture ({error})") from error


@dataclass(frozen=True, kw_only=True)
class Record:
    """A stored record, read back."""

    id: str
    question: str
    answer: Any
    thought: str
    images: tuple[np.ndarray, ...]  # each uint8[H, W, 3]
    mask: np.ndarray | None  # bool[H, W]


def read_back(row: Mapping[str, Any]) -> Record:
    """The inverse of `stored_form`, its pictures as arrays."""
    mask = bytes(row["mask"])
    return Record(
        id=row["id"].decode(),
        question=row["question"].decode(),
        answer=json.loads(row["answer"].decode()),
        thought=row["thought"].decode(),
        images=tuple(rgb_array(Image.open(io.BytesIO(data))) for data in row["images"]),
        mask=np.asarray(Image.open(io.BytesIO(mask))) > 0 if mask else None,
    )
