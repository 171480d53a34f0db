"""Frames of coordinates: what a model family speaks in, and how truth gets there and back.

A dataset keeps truth in pixels of the image as stored. Every family is asked in its own frame, and
its prompt says which:

    Qwen2.5-VL   pixels of the image as the network sees it, resized to whole cells
    Qwen3-VL     0 … 1000 along each side, whatever the image
    Gemma        the same
    tiny         pixels of its square image

In all of them x runs right and y down from the top left corner, and the image is `[w, h]` wide and
high. Metrics and drawings convert back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gmma.rewards.boxes import Box, Number

Numbers = Sequence[Number] | np.ndarray
WHOLE_IMAGE_UNITS = 1000
_FAR = 1e6


@dataclass(frozen=True, kw_only=True)
class AxisMap:
    """`x → scale · x + shift` on either axis: a change of frame, a flip, a crop, or several."""

    scale: tuple[float, float] = (1.0, 1.0)  # negative: mirrored
    shift: tuple[float, float] = (0.0, 0.0)

    def point(self, x: Number, y: Number) -> tuple[float, float]:
        """Map one point."""
        (a, b), (c, d) = self.scale, self.shift
        return a * x + c, b * y + d

    def points(self, points: Sequence[Sequence[Number]]) -> list[list[float]]:
        """Map points `[[x, y], …]`."""
        return [list(self.point(x, y)) for x, y in points]

    def box(self, box: Numbers) -> Box:
        """Map a box `[x1, y1, x2, y2]`, ordered again where the map mirrors."""
        (x1, y1), (x2, y2) = self.point(*box[:2]), self.point(*box[2:])
        return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)

    def inverse(self) -> "AxisMap":
        """Return the inverse map."""
        (a, b), (c, d) = self.scale, self.shift
        return AxisMap(scale=(1 / a, 1 / b), shift=(-c / a, -d / b))


def between(source: Numbers, target: Numbers) -> AxisMap:
    """Return the map from one frame to another, each given by its image's width and height."""
    (w, h), (to_w, to_h) = source, target
    return AxisMap(scale=(to_w / w, to_h / h))


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame of coordinates that a model family speaks in."""

    # width and height of an image in pixels → its width and height in this frame
    size: Callable[[int, int], tuple[int, int]] = field(
        default=lambda width, height: (width, height)
    )
    unit: Literal["pixels", "thousandths"] = (
        "pixels"  # "pixels" names the image's size in the prompt, "thousandths" the range
    )

    def words(self, width: int, height: int) -> str:
        """Word the frame for the prompt of an image of this size in pixels.

        >>> THOUSANDTHS.words(640, 480)
        'Coordinates run from 0 to 1000 across the image, x to the right and y down.'
        >>> STORED_PIXELS.words(640, 480)
        'Coordinates are pixels of the 640 x 480 image, x to the right and y down.'
        """
        if self.unit == "thousandths":
            span = f"run from 0 to {WHOLE_IMAGE_UNITS} across the image"
        else:
            across, down = self.size(width, height)
            span = f"are pixels of the {across} x {down} image"
        return f"Coordinates {span}, x to the right and y down."


STORED_PIXELS = Frame()
THOUSANDTHS = Frame(
    size=lambda width, height: (WHOLE_IMAGE_UNITS, WHOLE_IMAGE_UNITS), unit="thousandths"
)


def square_frame(side: int) -> Frame:
    """Return the pixels of a square image, whatever the shape of the stored one."""
    return Frame(size=lambda width, height: (side, side))


def near_box(box: Numbers) -> Box:
    """Clip a box's far coordinates, so that areas do not overflow; on an image it is the same."""
    x1, y1, x2, y2 = (min(max(float(side), -_FAR), _FAR) for side in box)
    return x1, y1, x2, y2


def whole_number(value: Number, largest: Number) -> int:
    """Round a coordinate for spelling, and keep it on the image."""
    return int(np.clip(round(float(value)), 0, largest))


def spell_point(point: Numbers, size: Numbers) -> list[int]:
    """Spell `[x, y]` in whole numbers within an image of this size."""
    return [whole_number(value, most) for value, most in zip(point, size, strict=True)]


def spell_box(box: Numbers, size: Numbers) -> list[int]:
    """Spell `[x1, y1, x2, y2]` in whole numbers within an image of this size."""
    return [*spell_point(box[:2], size), *spell_point(box[2:], size)]
