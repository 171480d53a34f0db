"""The interface of a model family to the rest of gmma: a record of functions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from gmma.errors import UserError
from gmma.huggingface.keys import Section
from gmma.huggingface.table import Table
from gmma.huggingface.tokenizers import ReadTokenizer
from gmma.images.processor import ImageProcessor
from gmma.models.decoder import DecoderConfig, DType
from gmma.models.policy import Policy
from gmma.options.networks import Resolution
from gmma.types import PyTree

C = TypeVar("C", bound=DecoderConfig)
C_out = TypeVar("C_out", bound=DecoderConfig, covariant=True)
C_in = TypeVar("C_in", bound=DecoderConfig, contravariant=True)


class ReadConfig(Protocol[C_out]):
    """Read a config.json; UserError for all that the family does not compute."""

    def __call__(self, values: Mapping[str, Any], where: str, dtype: DType) -> C_out: ...


class Resize(Protocol):
    """Lay a user's resolution over the values of a processor's file.

    UserError for what the family does not have.
    """

    def __call__(self, values: Mapping[str, Any], wanted: Resolution) -> Mapping[str, Any]: ...


class MakeProcessor(Protocol[C_in]):
    """Make the image processor of a file's values; None for a model without images."""

    def __call__(
        self, section: Section, config: C_in, buckets: Sequence[int] | None
    ) -> ImageProcessor | None: ...


class FullBucket(Protocol[C_in]):
    """Return the size of bucket that a prompt full of images needs; 0: none."""

    def __call__(self, config: C_in, prompt_slots: int) -> int: ...


class EmptyImages(Protocol[C_in]):
    """Make the images of rows that have none, at the shapes of a bucket."""

    def __call__(self, config: C_in, batch: int, bucket: int) -> PyTree: ...


def one_resolution(values: Mapping[str, Any], wanted: Resolution) -> Mapping[str, Any]:
    """Return the values as they are: a family whose images, if any, have one size."""
    refuse_resolution(wanted, ("min_pixels", "max_pixels", "pan_and_scan"))
    return values


def refuse_resolution(wanted: Resolution, fields: Sequence[str]) -> None:
    """Raise UserError where a user asks for what the family does not have."""
    given = [name for name in fields if getattr(wanted, name) is not None]
    if given:
        raise UserError(
            f"{' and '.join(f'model.{name} = {getattr(wanted, name)}' for name in given)}: this "
            "model does not have it (min_pixels and max_pixels are Qwen-VL's, pan_and_scan is that "
            "of Gemma with images); leave it away"
        )


def no_processor(
    section: Section, config: DecoderConfig, buckets: Sequence[int] | None
) -> ImageProcessor | None:
    """Return nothing: a family of text."""


def no_room(config: DecoderConfig, prompt_slots: int) -> int:
    """Return 0: a family of text, whose prompts hold no image."""
    return 0


def nothing_to_see(config: DecoderConfig, batch: int, bucket: int) -> PyTree:
    """Return nothing: a family of text."""


@dataclass(frozen=True, kw_only=True)
class Family(Generic[C]):
    """One family of Hugging Face directories; `C` is its config, a `DecoderConfig` or a subclass.

    Your own comes in as `model.architecture = module:NAME` (`docs/extending.md`).
    """

    name: str
    read_config: ReadConfig[C]
    table: Callable[[C], Table]  # the tensors of a checkpoint
    policy: Callable[[C], Policy]  # the network
    tokenizer: ReadTokenizer  # of a directory, and its prompt
    processor: MakeProcessor[C] = no_processor
    resize: Resize = one_resolution
    full_bucket: FullBucket[C] = no_room
    empty_images: EmptyImages[C] = nothing_to_see
