"""The interface of a model family's image processing, before its network sees the images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from gmma.errors import UserError
from gmma.images.common import resized
from gmma.images.frames import STORED_PIXELS, Frame, square_frame
from gmma.types import Example, PyTree


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """One model family's image processing, before its network sees the images."""

    # uint8[H, W, 3] → placeholder tokens in the prompt, of each view that the network gets of it
    view_tokens: Callable[[np.ndarray], tuple[int, ...]]
    to_arrays: Callable[[Sequence[Example]], PyTree]  # host arrays, batch axis first
    buckets: tuple[int, ...] = ()  # sizes that the images of a row are padded to; (): one shape
    bucket_unit: str = ""  # what they count
    frame: Frame = STORED_PIXELS  # of the coordinates that the family is asked for
    # Of an image more than one token high and wide; a strip may have more. None: any
    most_tokens: int | None = None
    # (tokens, how many times as long as wide): what to set so that such an image has at most so
    # many tokens; "": nothing can be set
    fewer_tokens: Callable[[int, float], str] = lambda tokens, ratio: ""
    # Raises UserError for a record whose images the network cannot take; looks at their sizes alone
    check: Callable[[Example], None] = lambda example: None


def unit_images(
    examples: Sequence[Example], images: int = 1, side: int | None = None
) -> np.ndarray | None:
    """Stack images of one size as float32[B, I, H, W, 3] in 0 … 1; None for I = 0.

    A row with fewer than I images is filled up with black ones; no token of its prompt stands for
    them, so nothing sees them. Raises UserError for a row with more, or for two sizes.
    """
    sizes = {(side, side, 3)} if side is not None else set()
    for example in examples:
        check_count(example, images)
        sizes |= {image.shape for image in example.images}
        if len(sizes) > 1:
            raise UserError(
                f"record {example.id} has images of shapes {[i.shape for i in example.images]}, "
                f"but there are {sorted(sizes)}; this model wants one size in every record"
            )
    if images == 0:
        return None
    (size,) = sizes or {(1, 1, 3)}
    filled = np.zeros((len(examples), images, *size), np.float32)
    for row, example in zip(filled, examples, strict=True):
        for place, image in zip(row, example.images, strict=False):
            place[:] = image
    return filled / np.float32(255)


def check_count(example: Example, images: int) -> None:
    """Raise UserError for an example with more images than so many."""
    if len(example.images) > images:
        raise UserError(
            f"record {example.id} has {len(example.images)} images and the model takes "
            f"{images}; set model.images to {len(example.images)}"
        )


def fixed_size_processor(
    tokens_per_image: int, side: int | None = None, images: int = 1
) -> ImageProcessor:
    """Make the `tiny` family's processor: images of one size and number of tokens.

    With a `side` in pixels images are resized to that square, and coordinates are its pixels. A
    prompt has at most so many `images`, and none where that is 0.
    """
    if side is None:
        return ImageProcessor(view_tokens=lambda image: (tokens_per_image,), to_arrays=unit_images)

    def to_arrays(examples: Sequence[Example]) -> np.ndarray | None:
        return unit_images([fit_square(example, side) for example in examples], images, side)

    return ImageProcessor(
        view_tokens=lambda image: (tokens_per_image,),
        to_arrays=to_arrays,
        frame=square_frame(side),
        check=lambda example: check_count(example, images),
    )


def fit_square(example: Example, side: int) -> Example:
    """Resize an example's images to a square, unless they are that already."""
    shape = (side, side, 3)
    images = tuple(
        image if image.shape == shape else resized(image, side, side, Image.Resampling.BOX)
        for image in example.images
    )
    return replace(example, images=images)


def no_image_processor() -> ImageProcessor:
    """Make the processor of a model without a tower: an image is an error."""

    def refuse(image: object) -> tuple[int, ...]:
        raise UserError("the record has an image, but the model has no image tower")

    return ImageProcessor(view_tokens=refuse, to_arrays=lambda examples: None)
