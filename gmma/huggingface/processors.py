"""Keys and pixel settings that image processors of Hugging Face directories share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gmma.huggingface.keys import Section, read_json_object
from gmma.images.common import PixelConfig

BILINEAR, BICUBIC = 2, 3  # PIL.Image.Resampling
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def read_image_section(directory: Path) -> Section:
    """Read the image processor's keys, from its own file or from processor_config.json.

    Empty where the directory has neither: the family's defaults hold.
    """
    own = directory / "preprocessor_config.json"
    if own.is_file():
        return Section(values=read_json_object(own), where=str(own))
    joint = directory / "processor_config.json"
    if joint.is_file():
        values: Mapping[str, Any] = read_json_object(joint).get("image_processor") or {}
        return Section(values=values, where=f"{joint}: image_processor")
    return Section(values={}, where=str(own))


def read_pixels(section: Section, mean: Any, std: Any, resample: int) -> PixelConfig:
    """Read how bytes become floats."""
    for key in ("do_resize", "do_rescale", "do_normalize"):
        section.require(key, (True,))
    return PixelConfig(
        mean=tuple(section.get("image_mean", mean)),
        std=tuple(section.get("image_std", std)),
        scale=section.get("rescale_factor", 1 / 255),
        resample=section.get("resample", resample),
    )
