"""Qwen2.5-VL's image processor: any size, rounded to whole cells, cut into patches and windows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gmma.errors import UserError
from gmma.families.family import refuse_resolution
from gmma.families.qwen2_5_vl.network import QwenConfig, empty_images
from gmma.families.qwen2_5_vl.tower import CellTowerConfig, QwenImages
from gmma.huggingface.keys import Section
from gmma.huggingface.processors import BICUBIC, CLIP_MEAN, CLIP_STD, read_pixels
from gmma.images.common import POWERS_OF_TWO, PixelConfig, batch_bucket, normalised, resized
from gmma.images.frames import Frame
from gmma.images.processor import ImageProcessor
from gmma.models.vision import ATTENTION_CHUNK_SLOTS
from gmma.options.networks import Resolution
from gmma.types import Example

MAX_ASPECT_RATIO = 200
MOST_PIXELS = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class QwenImageConfig:
    """The values of preprocessor_config.json, and the sizes of the tower."""

    pixels: PixelConfig
    vision: CellTowerConfig
    min_pixels: int = 56 * 56  # of the resized image
    max_pixels: int = 28 * 28 * 1280


def smart_size(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Round the image's size to multiples of `factor` within the pixel budget, about in its ratio.

    >>> smart_size(561, 278, 28, 56 * 56, 28 * 28 * 1280)
    (560, 280)
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise UserError(
            f"an image of {width} × {height} pixels is more than {MAX_ASPECT_RATIO} times as long "
            "as it is wide; crop it"
        )
    rounded = tuple(round(side / factor) * factor for side in (height, width))
    if rounded[0] * rounded[1] > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rounded = tuple(
            max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)
        )
    elif rounded[0] * rounded[1] < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rounded = tuple(math.ceil(side * grow / factor) * factor for side in (height, width))
    return rounded[0], rounded[1]


def image_size(image: np.ndarray, config: QwenImageConfig) -> tuple[int, int]:
    """Return the height and width in pixels at which the network sees an image."""
    height, width = image.shape[:2]
    factor = config.vision.cell_pixels
    return smart_size(height, width, factor, config.min_pixels, config.max_pixels)


def cells_of(image: np.ndarray, config: QwenImageConfig) -> tuple[int, int]:
    """Return the rows and columns of image tokens."""
    height, width = image_size(image, config)
    return height // config.vision.cell_pixels, width // config.vision.cell_pixels


def cell_patches(image: np.ndarray, config: QwenImageConfig) -> np.ndarray:
    """Cut the patches of each cell: `float32[rows, columns, merge², pixels]`, of one frame."""
    vision = config.vision
    m, p = vision.merge, vision.patch_pixels
    rows, columns = cells_of(image, config)
    fitted = resized(image, rows * m * p, columns * m * p, config.pixels.resample)
    pixels = normalised(fitted, config.pixels)
    grid = pixels.reshape(-1, rows, m, p, columns, m, p).transpose(1, 4, 2, 5, 0, 3, 6)
    return grid.reshape(rows, columns, m * m, -1)


def window_count(image: np.ndarray, config: QwenImageConfig) -> int:
    """Count the windows that cover an image."""
    rows, columns = cells_of(image, config)
    side = config.vision.window_cells
    return -(-rows // side) * -(-columns // side)


def window_name(config: QwenImageConfig) -> str:
    """Return what buckets count."""
    return "cells" if config.vision.window_cells == 1 else "windows"


@dataclass
class Cursor:
    """Fill level of a row of the batch."""

    windows: int = 0
    features: int = 0
    images: int = 0
    extent: int = 0  # rotary positions that its images take


def put_image(into: QwenImages, row: int, at: Cursor, cells: np.ndarray, merge: int) -> None:
    """Fill in one image of one row and move the cursor behind it."""
    rows, columns, per_cell, pixels = cells.shape
    side = math.isqrt(into.image.shape[2] // per_cell)
    i, j = (axis.ravel() for axis in np.indices((rows, columns)))
    window = at.windows + i // side * -(-columns // side) + j // side
    cell = i % side * side + j % side
    slots = cell[:, None] * per_cell + np.arange(per_cell)
    inner = np.indices((merge, merge)).reshape(2, per_cell)
    place = np.stack([i[:, None] * merge + inner[0], j[:, None] * merge + inner[1]], axis=-1)
    own = slice(at.features, at.features + rows * columns)
    at.images += 1
    into.patches[row][window[:, None], slots] = cells.reshape(-1, per_cell, pixels)
    into.place[row][window[:, None], slots] = place
    into.image[row][window[:, None], slots] = at.images
    into.feature[row, own] = window * side**2 + cell
    into.offset[row, own] = at.extent + np.stack([0 * i, i, j], axis=-1)
    at.extent += max(rows, columns)
    into.through[row, own] = at.extent
    into.shift[row] += max(rows, columns) - rows * columns
    at.windows += -(-rows // side) * -(-columns // side)
    at.features += rows * columns


def bucket_of(examples: Sequence[Example], config: QwenImageConfig, buckets: Sequence[int]) -> int:
    """Return the windows that a batch is padded to. UserError where a record needs more."""
    needed = [sum(window_count(image, config) for image in e.images) for e in examples]
    return batch_bucket(examples, needed, buckets, f"image {window_name(config)}")


def qwen_arrays(
    examples: Sequence[Example], config: QwenImageConfig, buckets: Sequence[int] = POWERS_OF_TWO
) -> QwenImages | None:
    """Lay out the images of a batch; the number of windows is a bucket.

    None in bucket 0: the program without a tower. UserError where a record needs more windows than
    the largest bucket.
    """
    windows = bucket_of(examples, config, buckets)
    if windows == 0:
        return None
    out = empty_images(config.vision, len(examples), windows)
    for row, example in enumerate(examples):
        cursor = Cursor()
        for image in example.images:
            put_image(out, row, cursor, cell_patches(image, config), config.vision.merge)
    return out


def qwen_frame(config: QwenImageConfig) -> Frame:
    """Return the frame of coordinates in pixels of the image as the network sees it."""
    factor = config.vision.cell_pixels

    def size(width: int, height: int) -> tuple[int, int]:
        down, across = smart_size(height, width, factor, config.min_pixels, config.max_pixels)
        return across, down

    return Frame(size=size)


def qwen_processor(
    config: QwenImageConfig, buckets: Sequence[int] = POWERS_OF_TWO
) -> ImageProcessor:
    """Return the family's processor.

    `buckets` are the numbers of windows a row may be padded to.
    """
    buckets = tuple(buckets)

    def view_tokens(image: np.ndarray) -> tuple[int, ...]:
        rows, columns = cells_of(image, config)
        return (rows * columns,)

    def check(example: Example) -> None:
        bucket_of([example], config, buckets)

    return ImageProcessor(
        view_tokens=view_tokens,
        to_arrays=lambda examples: qwen_arrays(examples, config, buckets),
        buckets=buckets,
        bucket_unit=window_name(config),
        frame=qwen_frame(config),
        most_tokens=config.max_pixels // config.vision.cell_pixels**2,
        fewer_tokens=partial(smaller_pixels, config),
        check=check,
    )


def smaller_pixels(config: QwenImageConfig, tokens: int, ratio: float) -> str:
    """Return what to set so that an image `ratio` times as long as wide has at most so many tokens.

    One that is fewer tokens long than that is a strip one token wide, however small: its length is
    √(pixels · ratio).
    """
    pixels = int(tokens * config.vision.cell_pixels**2 * min(1.0, tokens / ratio))
    both = "model.min_pixels and " if pixels < config.min_pixels else ""
    return f"{both}model.max_pixels to at most {pixels}" if pixels > 0 else ""


def qwen_full_bucket(config: QwenConfig, prompt_slots: int) -> int:
    """Bound the windows of any one image of so many tokens, at most four times as long as wide.

    r × c cells lie in at most (r/w + 1)(c/w + 1) windows of w × w cells; rounded up, so that the
    tower can attend in chunks.
    """
    side = config.vision.window_cells
    around = 2.5 * prompt_slots**0.5  # r + c, where c = 4r
    windows = math.floor(prompt_slots / side**2 + around / side) + 1
    chunk = max(1, ATTENTION_CHUNK_SLOTS // config.vision.window_patches)
    return -(-windows // chunk) * chunk


def qwen_image_processor(
    section: Section, config: QwenConfig, buckets: Sequence[int] | None
) -> ImageProcessor:
    """Return Qwen2.5-VL's processor."""
    clip = PixelConfig(mean=CLIP_MEAN, std=CLIP_STD, resample=BICUBIC)
    images = read_image_config(section, QwenImageConfig(pixels=clip, vision=config.vision))
    return qwen_processor(images, buckets or POWERS_OF_TWO)


def with_pixels(values: Mapping[str, Any], wanted: Resolution) -> Mapping[str, Any]:
    """Lay a user's limits over the values of a processor's file, under old names and new ones."""
    refuse_resolution(wanted, ("pan_and_scan",))
    limits = {"min_pixels": wanted.min_pixels, "max_pixels": wanted.max_pixels}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    edges = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
    size = {**(values.get("size") or {}), **{edges[name]: n for name, n in given.items()}}
    return {**values, **given, "size": size} if given else values


def read_image_config(section: Section, defaults: QwenImageConfig) -> QwenImageConfig:
    """Read a processor's settings; `defaults` are the family's, with the sizes of its tower.

    UserError for limits between which no image could be.
    """
    vision, pixels = defaults.vision, defaults.pixels
    section.require("patch_size", (vision.patch_pixels,))
    section.require("merge_size", (vision.merge,))
    section.require("temporal_patch_size", (vision.frames,))
    size = Section(values=section.section("size"), where=f"{section.where}: size")
    named = {key for key in ("min_pixels", "max_pixels") if section.get(key, None) is not None}
    if unread := sorted(set(size.values) - {"shortest_edge", "longest_edge", *named}):
        raise section.refuse(
            "size", f"shortest_edge and longest_edge (pixels of an image) there, not {unread}"
        )

    def limit(key: str, edge: str, default: int) -> int:
        return section.size(key, size.size(edge, default, MOST_PIXELS), MOST_PIXELS)

    least = limit("min_pixels", "shortest_edge", defaults.min_pixels)
    most = limit("max_pixels", "longest_edge", defaults.max_pixels)
    cell = vision.cell_pixels**2
    if not max(least, cell) <= most:
        raise UserError(
            f"{section.where}: images of {least} pixels at least and {most} at most; the most must "
            f"be no less than the least, and than a cell's {cell}: set model.min_pixels and "
            "model.max_pixels"
        )
    return QwenImageConfig(
        pixels=read_pixels(section, pixels.mean, pixels.std, pixels.resample),
        vision=vision,
        min_pixels=least,
        max_pixels=most,
    )
