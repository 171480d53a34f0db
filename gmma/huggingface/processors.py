"""Keys and pixel settings that image processors of Hugging Face directories share."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from gmma.errors import UserError
from gmma.huggingface.keys import Section, read_json_object
from gmma.images.common import PixelConfig

FILTERS = tuple(Image.Resampling)
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
        whole = Section(values=read_json_object(joint), where=str(joint))
        values: Mapping[str, Any] = whole.section(JOINT_KEY)
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
    """Read how bytes become floats. UserError for values that no picture can be computed with."""
    for key in ("do_resize", "do_rescale", "do_normalize"):
        section.require(key, (True,))
    filter_of = section.get("resample", resample)
    if type(filter_of) is not int or filter_of not in [f.value for f in FILTERS]:
        rule = "numbers of PIL's filters, " + ", ".join(f"{f.value} {f.name}" for f in FILTERS)
        raise section.refuse("resample", rule)
    return PixelConfig(
        mean=channels(section, "image_mean", mean, above=-math.inf),
        std=channels(section, "image_std", std, above=0),
        scale=section.number("rescale_factor", 1 / 255),
        resample=filter_of,
    )


def channels(section: Section, key: str, default: Any, *, above: float) -> tuple[float, ...]:
    """Read a number for each of red, green and blue. UserError for any other value."""
    found = section.get(key, default)
    listed = isinstance(found, list | tuple) and all(type(n) in (int, float) for n in found)
    if not listed or len(found) != 3 or not all(above < n < math.inf for n in found):
        bound = "" if above == -math.inf else f", each above {above:g}"
        raise UserError(f"{section.where}: {key} = {found!r}; it must be three numbers{bound}")
    return tuple(found)
