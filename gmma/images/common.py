"""Resizing, normalising and buckets: what the families' processors share."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from gmma.errors import UserError
from gmma.types import Example

_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that exchange the sides
# 0 is the program without a tower.
POWERS_OF_TWO = (0, *(2**i for i in range(13)))


@dataclass(frozen=True, kw_only=True)
class PixelConfig:
    """Conversion of bytes to floats: `(byte · scale − mean) / std`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    resample: int  # one of PIL.Image.Resampling


def upright(image: Image.Image) -> Image.Image:
    """Turn and mirror a picture as its EXIF orientation says."""
    return ImageOps.exif_transpose(image)


def rgb_array(image: Image.Image) -> np.ndarray:
    """Convert any picture to `uint8[H, W, 3]`, upright; what is transparent shows white.

    Integers of 16 bits become `round(v / 257)`, so that 65535 is white; floats in 0 … 1 become
    `round(255 · v)`. Raises UserError for other ranges: nothing says what is white there.
    """
    image = eight_bits(upright(image))
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def read_rgb(data: bytes) -> np.ndarray:
    """Read the bytes of a picture's file as `rgb_array` does."""
    return rgb_array(Image.open(io.BytesIO(data)))


def outline_of(data: bytes) -> np.ndarray:
    """Return black pixels uint8[H, W, 3] of a picture's upright size, read from its header.

    They are one byte in memory.
    """
    with Image.open(io.BytesIO(data)) as picture:
        width, height = picture.size
        # A PNG's orientation may stand behind its pixels, which getexif unpacks to get there.
        turns = picture.format != "PNG" or b"eXIf" in data
        if turns and picture.getexif().get(_ORIENTATION, 1) in _TURNED:
            width, height = height, width
    return np.broadcast_to(np.uint8(0), (height, width, 3))


def eight_bits(image: Image.Image) -> Image.Image:
    """Return the picture itself, or grey bytes for one of wider numbers (`rgb_array`'s rule)."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    whitest = 1.0 if image.mode == "F" else 65535.0
    if not 0 <= low <= high <= whitest:
        raise UserError(
            f"its values run from {low:g} to {high:g}, where {whitest:g} would be white and 0 "
            "black; save it with 8 bits a channel"
        )
    return Image.fromarray(np.round(values * (255 / whitest)).astype(np.uint8))


def resized(image: np.ndarray, height: int, width: int, resample: int) -> np.ndarray:
    """Resize an image `uint8[H, W, 3]` by PIL."""
    picture = Image.fromarray(image).resize((width, height), Image.Resampling(resample))
    return np.asarray(picture)


def normalised(image: np.ndarray, config: PixelConfig) -> np.ndarray:
    """Convert bytes `[H, W, 3]` to `float32[3, H, W]`, rounded where transformers rounds."""
    unit = (image.astype(np.float64) * config.scale).astype(np.float32)
    mean, std = (np.asarray(values, np.float32) for values in (config.mean, config.std))
    return np.moveaxis((unit - mean) / std, -1, 0)


def pick_bucket(needed: int, buckets: Sequence[int], record: str, what: str) -> int:
    """Return the smallest bucket that holds `needed`. UserError naming the record if none does."""
    fitting = [size for size in buckets if size >= needed]
    if not fitting:
        raise UserError(
            f"record {record} has {needed} {what}, and the largest bucket holds "
            f"{max(buckets, default=0)}; add a bucket of {needed} or make the images smaller"
        )
    return min(fitting)


def batch_bucket(
    examples: Sequence[Example], needed: Sequence[int], buckets: Sequence[int], what: str
) -> int:
    """Return the bucket of a batch: that of its record with the most."""
    most = int(np.argmax(needed))
    return pick_bucket(needed[most], buckets, examples[most].id, what)
