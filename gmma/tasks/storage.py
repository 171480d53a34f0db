"""Datasets on disk: TFDS in `array_record` files, read at random, without TensorFlow.

A task says what a record holds and how records come; this file writes them once, whole or not at
all, and reads them back.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gmma.errors import UserError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A dataset as it will lie on disk."""

    name: str
    directory: Path  # a function of all that the records depend on, so that none is stale
    features: Mapping[str, Any]  # TFDS features; images take what `encode_png` gives
    records: Callable[[str], Iterator[dict[str, Any]]]  # split → its records in order
    version: str = "1.0.0"  # to raise when the same config would give other records
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
    """Where the prepared dataset lies."""
    return Path(_Builder(storage).data_dir)


def is_prepared(storage: Storage) -> bool:
    """Whether the whole dataset is on disk."""
    return (dataset_directory(storage) / "dataset_info.json").exists()


def prepare(storage: Storage) -> Path:
    """Write the records where they are not there yet; the dataset's directory.

    TFDS writes to a temporary directory and renames it, so an interrupted build leaves nothing that
    could be taken for whole. Raises UserError where the result is not whole.
    """
    builder = _Builder(storage)
    if not is_prepared(storage):
        tfds.disable_progress_bar()
        with (
            tempfile.TemporaryDirectory() as downloads,  # TFDS wants a place even for no download
            contextlib.redirect_stdout(io.StringIO()),  # and announces it
        ):
            try:
                builder.download_and_prepare(file_format="array_record", download_dir=downloads)
            except OSError:
                if not is_prepared(storage):  # else another process was faster
                    raise
    if not is_prepared(storage):
        raise UserError(f"{builder.data_dir} is not a whole dataset; delete it and build again")
    return Path(builder.data_dir)


def read_split(storage: Storage, split: str, decoders: Mapping[str, Any] | None = None) -> Any:
    """Random access to the stored records of a split.

    Raises UserError on an unknown split, or before `prepare`.
    """
    if split not in SPLITS:
        name = storage.name
        raise UserError(f"{name} has no split {split!r}; choose one of {', '.join(SPLITS)}")
    if not is_prepared(storage):
        raise UserError(
            f"no dataset at {dataset_directory(storage)}; build it first (gmma data EXPERIMENT)"
        )
    return _Builder(storage).as_data_source(split, decoders=decoders)


def encode_png(picture: np.ndarray) -> io.BytesIO:
    """The PNG file of uint8[H, W, 3]; TFDS without TensorFlow takes bytes, not arrays."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    buffer.seek(0)
    return buffer
