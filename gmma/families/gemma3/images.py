"""Gemma 3's image processor: one square size for all; pan and scan adds crops of long ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmma.errors import UserError
from gmma.families.family import refuse_resolution
from gmma.families.gemma3.network import Gemma3Config
from gmma.huggingface.keys import Section
from gmma.huggingface.processors import BILINEAR, HALF, read_pixels
from gmma.images.common import (
    POWERS_OF_TWO,
    PixelConfig,
    batch_bucket,
    normalised,
    pick_bucket,
    resized,
)
from gmma.images.frames import THOUSANDTHS
from gmma.images.processor import ImageProcessor
from gmma.options.networks import Resolution
from gmma.types import Example


@dataclass(frozen=True, kw_only=True)
class PanAndScan:
    """Settings for cutting crops of an image that is much longer than wide, or wider than long."""

    min_crop_pixels: int = 256
    max_crops: int = 4
    min_ratio: float = 1.2  # of the longer to the shorter side


@dataclass(frozen=True, kw_only=True)
class GemmaImageConfig:
    """The values of preprocessor_config.json."""

    pixels: PixelConfig
    side: int  # pixels of the square image
    pan_and_scan: PanAndScan | None = None


def gemma_pixels(image: np.ndarray, config: GemmaImageConfig) -> np.ndarray:
    """Convert `uint8[H, W, 3]` to `float32[3, side, side]`."""
    square = resized(image, config.side, config.side, config.pixels.resample)
    return normalised(square, config.pixels)


def crops(image: np.ndarray, config: PanAndScan) -> list[np.ndarray]:
    """Cut the crops of a long image, left to right or top to bottom; none for others.

    There are as many as the aspect ratio rounded half up, within 2 … `max_crops`. None is below the
    least size.

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
    """Return the image, and its crops where pan and scan is on."""
    return [image] if config.pan_and_scan is None else [image, *crops(image, config.pan_and_scan)]


def gemma_arrays(
    examples: Sequence[Example], config: GemmaImageConfig, buckets: Sequence[int] = POWERS_OF_TWO
) -> np.ndarray | None:
    """Lay out images as `float32[B, I, 3, side, side]`; I is a bucket, the rest of a row zero.

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
    """Return the family's processor; `buckets` are the numbers of images a row may be padded to."""
    buckets, pan = tuple(buckets), config.pan_and_scan

    def check(example: Example) -> None:
        shown = sum(len(views(image, config)) for image in example.images)
        pick_bucket(shown, buckets, example.id, "images")

    return ImageProcessor(
        view_tokens=lambda image: (tokens_per_image,) * len(views(image, config)),
        to_arrays=lambda examples: gemma_arrays(examples, config, buckets),
        buckets=buckets,
        bucket_unit="images",
        fewer_tokens=lambda tokens, ratio: "" if pan is None else "model.pan_and_scan to False",
        frame=THOUSANDTHS,
        check=check,
    )


def with_pan_and_scan(values: Mapping[str, Any], wanted: Resolution) -> Mapping[str, Any]:
    """Lay a user's word on pan and scan over the values of a processor's file."""
    refuse_resolution(wanted, ("min_pixels", "max_pixels"))
    asked = wanted.pan_and_scan
    return values if asked is None else {**values, "do_pan_and_scan": asked}


def gemma_image_processor(
    section: Section, config: Gemma3Config, buckets: Sequence[int] | None
) -> ImageProcessor | None:
    """Return Gemma's processor at the tower's size; None for a model without a tower."""
    if config.vision is None:
        return None
    side = config.vision.image_pixels
    size = section.get("size", {"height": side, "width": side})
    if size != {"height": side, "width": side}:
        raise UserError(
            f"{section.where}: size = {size}, but the tower of config.json sees {side} × {side} "
            "pixels; make them agree"
        )
    pan = None
    if section.get("do_pan_and_scan", False):
        pan = PanAndScan(
            min_crop_pixels=section.get("pan_and_scan_min_crop_size", 256),
            max_crops=section.get("pan_and_scan_max_num_crops", 4),
            min_ratio=section.get("pan_and_scan_min_ratio_to_activate", 1.2),
        )
    pixels = read_pixels(section, HALF, HALF, BILINEAR)
    images = GemmaImageConfig(pixels=pixels, side=side, pan_and_scan=pan)
    return gemma_processor(images, config.image_tokens, buckets or POWERS_OF_TWO)


def gemma_full_bucket(config: Gemma3Config, prompt_slots: int) -> int:
    """Count the images that a prompt of so many slots has room for."""
    return 0 if config.vision is None else prompt_slots // config.image_tokens
