"""Gemma 3's image processor: one square size for all; pan and scan adds crops of long ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gmma.images.common import POWERS_OF_TWO, PixelConfig, batch_bucket, normalised, resized
from gmma.images.frames import THOUSANDTHS
from gmma.images.processor import ImageProcessor
from gmma.types import Example


@dataclass(frozen=True, kw_only=True)
class PanAndScan:
    """When and how an image that is much longer than wide, or wider than long, is also cut."""

    min_crop_pixels: int = 256
    max_crops: int = 4
    min_ratio: float = 1.2  # of the longer to the shorter side


@dataclass(frozen=True, kw_only=True)
class GemmaImageConfig:
    """What preprocessor_config.json says."""

    pixels: PixelConfig
    side: int  # pixels of the square image
    pan_and_scan: PanAndScan | None = None


def gemma_pixels(image: np.ndarray, config: GemmaImageConfig) -> np.ndarray:
    """`float32[3, side, side]` from `uint8[H, W, 3]`."""
    square = resized(image, config.side, config.side, config.pixels.resample)
    return normalised(square, config.pixels)


def crops(image: np.ndarray, config: PanAndScan) -> list[np.ndarray]:
    """The crops of a long image, left to right or top to bottom; none for others.

    As many as the aspect ratio rounded half up, within 2 … `max_crops`, none below the least size.
    """
    height, width = image.shape[:2]
    long, short = max(height, width), min(height, width)
    if long / short < config.min_ratio:
        return []
    count = min(long // config.min_crop_pixels, math.floor(long / short + 0.5))
    count = min(config.max_crops, max(2, count))
    size = math.ceil(long / count)
    if min(size, short) < config.min_crop_pixels:
        return []
    starts = [size * i for i in range(count)]
    if width >= height:
        return [image[:, start : start + size] for start in starts]
    return [image[start : start + size] for start in starts]


def views(image: np.ndarray, config: GemmaImageConfig) -> list[np.ndarray]:
    """The image, and its crops where pan and scan is on."""
    return [image] if config.pan_and_scan is None else [image, *crops(image, config.pan_and_scan)]


def gemma_arrays(
    examples: Sequence[Example], config: GemmaImageConfig, buckets: Sequence[int] = POWERS_OF_TWO
) -> np.ndarray | None:
    """`float32[B, I, 3, side, side]`; I is a bucket, the rest of a row is zero.

    None in bucket 0: the program without a tower. UserError where a record has more images than
    the largest bucket.
    """
    rows = [[view for image in e.images for view in views(image, config)] for e in examples]
    slots = batch_bucket(examples, [len(row) for row in rows], buckets, "images")
    if slots == 0:
        return None
    out = np.zeros((len(rows), slots, 3, config.side, config.side), np.float32)
    for filled, row in zip(out, rows, strict=True):
        for i, view in enumerate(row):
            filled[i] = gemma_pixels(view, config)
    return out


def gemma_processor(
    config: GemmaImageConfig, tokens_per_image: int, buckets: Sequence[int] = POWERS_OF_TWO
) -> ImageProcessor:
    """The family's processor; `buckets` are the numbers of images a row may be padded to."""
    buckets = tuple(buckets)
    return ImageProcessor(
        view_tokens=lambda image: (tokens_per_image,) * len(views(image, config)),
        to_arrays=lambda examples: gemma_arrays(examples, config, buckets),
        buckets=buckets,
        bucket_unit="images",
        frame=THOUSANDTHS,
    )
