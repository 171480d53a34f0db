"""Places of a task's records, their units, and how they are split."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gmma.errors import UserError
from gmma.files import SourcePath
from gmma.images.frames import WHOLE_IMAGE_UNITS
from gmma.tasks.pictures import Outside

PixelSize = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True, kw_only=True)
class FilesConfig:
    """Places of a task's records, and how they are split.

    A split with a file of its own takes it whole. Else it takes its share of the training file, by
    a hash of the first image's path, so that no picture is in two splits.
    """

    train: SourcePath = Path("data/records/train.json")  # a list or, named .jsonl, a record a line
    validation: SourcePath | None = None  # None: a share of the training file
    test: SourcePath | None = None  # None: a share of the training file
    # folder of the paths in the records; None: the file's own folder. Where the file lies in a
    # bucket it is copied alone, so give its folder of images
    images: SourcePath | None = None
    outside_images: Outside = "refuse"  # what to do with a relative path that leaves this folder
    # Units of the coordinates in the records: pixels of the upright first image; 0 … 1 along each
    # of its sides (unit); 0 … 1000 along each (thousandths)
    frame: Literal["pixels", "unit", "thousandths"] = "pixels"
    # A record whose answer does not suit the task, is empty or is not on its image: an error, or
    # left out of the dataset, which says how many were
    wrong_truths: Literal["refuse", "leave_out"] = "refuse"
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
        """Return the file that a split's records come from."""
        return getattr(self, split) or self.train

    def frame_size(self, size: PixelSize) -> PixelSize:
        """Return the width and height, in the records' units, of an image of so many pixels."""
        sides = {"pixels": size, "unit": (1, 1), "thousandths": (WHOLE_IMAGE_UNITS,) * 2}
        return sides[self.frame]


def drawn_split(config: FilesConfig, name: str, own: Collection[str]) -> str:
    """Return the split of a record of the training file, by a hash of what it is called.

    `own` are the splits that have records of their own, and take none of these.
    """
    drawn = hashlib.sha256(f"{config.seed}/{name}".encode()).digest()
    place = int.from_bytes(drawn[:8], "big") / 2**64
    for split in ("validation", "test"):
        share = 0.0 if split in own else getattr(config, f"{split}_share")
        if place < share:
            return split
        place -= share
    return "train"


def require_kept(
    config: FilesConfig, split: str, kept: Collection, of: int, kind: str = ""
) -> None:
    """Raise UserError where a split has none of the `of` records of its file; `kind` names them."""
    if not kept:
        raise UserError(
            f"of the {of} records of {config.file_of(split)} none{kind} is in split {split}; set "
            f"task.records.{split} to a file of its own, or change the shares of validation (now "
            f"{config.validation_share}) and test ({config.test_share})"
        )
