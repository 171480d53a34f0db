"""COCO and RefCOCO as TFDS prepares them, read at random where they lie, nothing copied.

    tfds build coco/2017 --file_format=array_record              needs TensorFlow, once, elsewhere
    tfds build ref_coco/refcoco_unc --file_format=array_record

`records.train` is then the prepared directory, the one with `dataset_info.json`. COCO's test images
have no boxes, so its split `test` is the validation set. In RefCOCO each referring expression is a
record of its own: one object to find, labelled `object`.
"""

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gmma.errors import UserError
from gmma.images.common import rgb_array
from gmma.tasks.formats import coco_question
from gmma.tasks.manifest import RecordsConfig, StoredRecord
from gmma.tasks.tables import AsStored

REFERRED = "object"  # the label of what an expression refers to


def is_public(config: RecordsConfig) -> bool:
    """Return whether the records are a dataset that TFDS prepared."""
    return config.format in ("tfds_coco", "tfds_ref_coco")


@dataclass(frozen=True)
class PublicRecords:
    """Random access to the records of one split."""

    rows: Sequence[Any]  # TFDS's
    places: Sequence[tuple[int, ...]]  # row, and within it what the record asks for
    labels: Sequence[str]  # names of COCO's categories; () for RefCOCO

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int, /) -> StoredRecord:
        row, *asked = self.places[index]
        found = self.rows[row]
        return coco_record(found, self.labels) if self.labels else refer_record(found, *asked)


def open_public(config: RecordsConfig, split: str) -> PublicRecords:
    """Open a split of a prepared dataset. UserError if it is not prepared or has no such split."""
    builder = open_builder(config.train)
    own = "validation" if config.format == "tfds_coco" and split == "test" else split
    if own not in builder.info.splits:
        raise UserError(
            f"the dataset at {config.train} has no split {own!r}, only "
            f"{', '.join(sorted(builder.info.splits))}"
        )
    rows = _open_rows(builder, own)
    if config.format == "tfds_coco":
        labels = builder.info.features["objects"]["label"].names
        return PublicRecords(rows, _rows_with_boxes(config.train, own), labels)
    return PublicRecords(rows, _expressions(config.train, own), ())


def open_builder(directory: Path) -> Any:
    """Open TFDS's reader of a prepared directory, without TensorFlow or the builder."""
    if not (directory / "dataset_info.json").is_file():
        raise UserError(
            f"{directory} is no prepared TFDS dataset (no dataset_info.json): run tfds build NAME "
            "--file_format=array_record where TensorFlow is installed, and set task.records.train "
            "to DATA_DIR/NAME/CONFIG/VERSION"
        )
    return tfds.builder_from_directory(str(directory))


def _open_rows(builder: Any, split: str) -> Sequence[Any]:
    """Open random access with the bytes of pictures as they are: most are never looked at."""
    decoders: dict[str, Any] = {"image": AsStored()}
    if "mask" in builder.info.features["objects"].feature:
        decoders["objects"] = {"mask": AsStored()}
    return builder.as_data_source(split, decoders=decoders)


@functools.cache
def _rows_with_boxes(directory: Path, split: str) -> tuple[tuple[int, ...], ...]:
    """Return the rows of COCO with an object that has an area and is no crowd."""
    rows = _open_rows(open_builder(directory), split)
    objects = (rows[row]["objects"] for row in range(len(rows)))
    return tuple(
        (row,)
        for row, found in enumerate(objects)
        if np.any(has_area(found["bbox"]) & ~np.asarray(found["is_crowd"], bool))
    )


def has_area(boxes: Sequence | np.ndarray) -> np.ndarray:
    """Return which of TFDS's boxes, float[N, 4], have an area; a few of COCO's are lines."""
    top, left, bottom, right = np.asarray(boxes, np.float64).reshape(-1, 4).T
    return (bottom > top) & (right > left)


@functools.cache
def _expressions(directory: Path, split: str) -> tuple[tuple[int, ...], ...]:
    """Row, object and expression of every expression of RefCOCO."""
    rows = _open_rows(open_builder(directory), split)
    return tuple(
        (row, thing, number)
        for row in range(len(rows))
        for thing, said in enumerate(rows[row]["objects"]["refexp"]["raw"])
        for number in range(len(said))
    )


def coco_record(row: Mapping[str, Any], labels: Sequence[str]) -> StoredRecord:
    """Return an image of COCO, asked for the categories that it shows in boxes with an area."""
    image = rgb_array(Image.open(io.BytesIO(row["image"])))
    height, width = image.shape[:2]
    objects = row["objects"]
    answer = [
        {"label": labels[label], "box": to_box(box, width, height)}
        | ({"crowd": True} if crowd else {})
        for label, box, crowd, whole in zip(
            objects["label"],
            objects["bbox"],
            objects["is_crowd"],
            has_area(objects["bbox"]),
            strict=True,
        )
        if whole
    ]
    question = coco_question(answer, labels)
    return _record(image, str(row["image/id"]), question, answer)


def refer_record(row: Mapping[str, Any], thing: int, number: int) -> StoredRecord:
    """Return one expression of RefCOCO and the box of what it refers to."""
    image = rgb_array(Image.open(io.BytesIO(row["image"])))
    height, width = image.shape[:2]
    objects = row["objects"]
    said = objects["refexp"]["raw"][thing][number].decode()
    answer = [{"label": REFERRED, "box": to_box(objects["bbox"][thing], width, height)}]
    question = f"Find this {REFERRED} in the image: {said}."
    return _record(image, f"{row['image/id']}/{thing}/{number}", question, answer)


def _record(image: np.ndarray, name: str, question: str, answer: Any) -> StoredRecord:
    return StoredRecord(
        id=name, question=question, answer=answer, thought="", images=(image,), mask=None
    )


def to_box(box: Sequence[float] | np.ndarray, width: int, height: int) -> list[float]:
    """Convert TFDS's `ymin, xmin, ymax, xmax`, shares of the image, to a box in pixels."""
    top, left, bottom, right = (float(side) for side in box)
    return [left * width, top * height, right * width, bottom * height]
