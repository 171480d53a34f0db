"""Keys and pixel settings that image processors of Hugging Face directories share."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gmma.huggingface.keys import Section, read_json_object
from gmma.images.common import PixelConfig

BILINEAR, BICUBIC = 2, 3  # PIL.Image.Resampling
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


OWN, JOINT, JOINT_KEY = "preprocessor_config.json", "processor_config.json", "image_processor"


def read_image_section(directory: Path) -> Section:
    """Read the image processor's keys, from its own file or from processor_config.json.

    Empty where the directory has neither: the family's defaults hold.
    """
    own, joint = directory / OWN, directory / JOINT
    if own.is_file():
        return Section(values=read_json_object(own), where=str(own))
    if joint.is_file():
        values: Mapping[str, Any] = read_json_object(joint).get(JOINT_KEY) or {}
        return Section(values=values, where=f"{joint}: {JOINT_KEY}")
    return Section(values={}, where=str(own))


def write_image_section(directory: Path, values: Mapping[str, Any]) -> None:
    """Write the image processor's keys to the file of a directory that `read_image_section` reads.

    To a file of its own where there is none.
    """
    joint = directory / JOINT
    if joint.is_file() and not (directory / OWN).is_file():
        path, whole = joint, {**read_json_object(joint), JOINT_KEY: dict(values)}
    else:
        path, whole = directory / OWN, dict(values)
    path.write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n")


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
