"""What the rest of gmma knows of a model family: a record of functions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gmma.huggingface.table import Table
from gmma.huggingface.tokenizers import TokenizerFiles
from gmma.images.processor import ImageProcessor
from gmma.models.decoder import DecoderConfig, DType
from gmma.models.policy import Policy
from gmma.types import PyTree


@runtime_checkable
class ReadConfig(Protocol):
    """Reads a config.json; UserError for all that the family does not compute."""

    def __call__(self, values: Mapping[str, Any], where: str, dtype: DType) -> DecoderConfig: ...


@runtime_checkable
class MakeProcessor(Protocol):
    """Makes a directory's image processor; None for a model without images."""

    def __call__(
        self, directory: Path, config: Any, buckets: Sequence[int] | None
    ) -> ImageProcessor | None: ...


def no_processor(directory: Path, config: Any, buckets: Sequence[int] | None) -> None:
    """Families of text."""


def no_room(config: Any, prompt_slots: int) -> int:
    """Families of text: a prompt holds no image."""
    return 0


def nothing_to_see(config: Any, batch: int, bucket: int) -> None:
    """Families of text."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of Hugging Face directories.

    `config` below is what `read_config` returns: a `DecoderConfig`, or a family's subclass of it.
    """

    name: str
    read_config: ReadConfig
    table: Callable[[Any], Table]  # config → the tensors of a checkpoint
    policy: Callable[[Any], Policy]  # config → the network
    tokenizer: Callable[[Path], TokenizerFiles]  # of a directory
    processor: MakeProcessor = no_processor
    # (config, prompt slots) → the size of bucket that a prompt full of images needs; 0: none
    full_bucket: Callable[[Any, int], int] = no_room
    # (config, rows, bucket) → images of rows that have none, at the shapes of a bucket
    empty_images: Callable[[Any, int, int], PyTree] = nothing_to_see
