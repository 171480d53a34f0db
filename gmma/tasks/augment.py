"""Changes of a training image with its truth in step; all off unless a rate is set. Ours.

A flip mirrors left and right, and exchanges these words in question, trace and truth. A crop keeps
all of the truth inside. Colours change nothing else.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from gmma.errors import UserError
from gmma.images.frames import AxisMap
from gmma.rewards.boxes import Box
from gmma.types import Example

Columns = Mapping[str, Any]
_SIDES = re.compile(r"\b(left|right)(?=(?:most|wards?|-?hand(?:ed)?)?\b)|[左右]", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left", "左": "右", "右": "左"}


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Rates and sizes of the changes to training images."""

    flip_rate: float = 0.0  # share of examples that are mirrored, left for right
    crop_rate: float = 0.0  # share of examples that are cropped
    crop_least: float = 0.7  # a crop keeps at least this share of each side, and all of the truth
    colour_rate: float = 0.0  # share of examples whose colours change
    colour_span: float = 0.3  # brightness, contrast and saturation change by a factor 1 ± this

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise UserError(f"augment.{name} = {value}; it must lie within 0 … 1")


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The kind of a task's truth in space."""

    move: Callable[[Columns, AxisMap], dict[str, Any]]  # the columns that change, changed
    bounds: Callable[[Columns], Box | None]  # the box round all truth; None: all of the image
    mirrors: bool = True  # whether a mirrored image is still a fair question


def augment_example(
    config: AugmentConfig, geometry: Geometry, example: Example, rng: np.random.Generator
) -> Example:
    """Return a training example changed as the rates say; only one with a single image is moved."""
    flips, crops, colours = rng.random(3) < (config.flip_rate, config.crop_rate, config.colour_rate)
    if len(example.images) == 1:
        if flips and geometry.mirrors:
            example = flip_example(geometry, example)
        if crops:
            example = crop_example(geometry, example, draw_crop(config, geometry, example, rng))
    if colours:
        factors = rng.uniform(1 - config.colour_span, 1 + config.colour_span, 3)
        images = tuple(colour_image(image, factors) for image in example.images)
        example = replace(example, images=images)
    return example


def flip_example(geometry: Geometry, example: Example) -> Example:
    """Return the example in a mirror."""
    (image,) = example.images
    mirror = AxisMap(scale=(-1.0, 1.0), shift=(float(image.shape[1]), 0.0))
    columns = dict(example.columns) | geometry.move(example.columns, mirror)
    return replace(
        example,
        question=swap_sides(example.question),
        images=(np.ascontiguousarray(image[:, ::-1]),),
        columns={
            name: np.ascontiguousarray(value[:, ::-1]) if is_raster(value) else swap_in(value)
            for name, value in columns.items()
        },
    )


def is_raster(value: Any) -> bool:
    """Return whether a column lies over the image, pixel by pixel."""
    return isinstance(value, np.ndarray) and value.ndim == 2


def swap_sides(text: str) -> str:
    """Swap left and right, whole words and their compounds.

    >>> swap_sides("The Left cup, on the right-hand side; leftover, rightmost")
    'The Right cup, on the left-hand side; leftover, leftmost'
    """

    def other(found: re.Match) -> str:
        word = _OTHER[found[0].lower()]
        return word.capitalize() if found[0][0].isupper() else word

    return _SIDES.sub(other, text)


def swap_in(value: Any) -> Any:
    """Apply `swap_sides` to every string in a column."""
    if isinstance(value, str):
        return swap_sides(value)
    if isinstance(value, list):
        return [swap_in(part) for part in value]
    if isinstance(value, Mapping):
        return {name: swap_in(part) for name, part in value.items()}
    return value


def draw_crop(
    config: AugmentConfig, geometry: Geometry, example: Example, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return a window `x1, y1, x2, y2` in pixels that keeps the truth and enough of each side."""
    height, width = example.images[0].shape[:2]
    bounds = geometry.bounds(example.columns) or (0.0, 0.0, float(width), float(height))
    x1, x2 = _draw_span(bounds[0], bounds[2], width, config.crop_least, rng)
    y1, y2 = _draw_span(bounds[1], bounds[3], height, config.crop_least, rng)
    return x1, y1, x2, y2


def _draw_span(
    low: float, high: float, side: int, least: float, rng: np.random.Generator
) -> tuple[int, int]:
    kept = int(rng.integers(int(np.ceil(least * side)), side + 1))
    first, last = max(0, int(np.floor(low))), min(side, int(np.ceil(high)))
    kept = max(kept, last - first, 1)
    start = int(rng.integers(max(0, last - kept), min(first, side - kept) + 1))
    return start, start + kept


def crop_example(
    geometry: Geometry, example: Example, window: tuple[int, int, int, int]
) -> Example:
    """Return the part of the image in a window of pixels."""
    x1, y1, x2, y2 = window
    (image,) = example.images
    columns = dict(example.columns)
    columns |= geometry.move(example.columns, AxisMap(shift=(-float(x1), -float(y1))))
    columns |= {"pixels": [x2 - x1, y2 - y1], "image_size": [x2 - x1, y2 - y1]}
    columns = {
        name: np.ascontiguousarray(value[y1:y2, x1:x2]) if is_raster(value) else value
        for name, value in columns.items()
    }
    return replace(example, images=(np.ascontiguousarray(image[y1:y2, x1:x2]),), columns=columns)


def colour_image(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Multiply brightness, contrast and saturation of uint8[H, W, 3]."""
    picture = Image.fromarray(image)
    changes = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for change, factor in zip(changes, factors, strict=True):
        picture = change(picture).enhance(float(factor))
    return np.asarray(picture)
