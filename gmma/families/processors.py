"""preprocessor_config.json of both families to our image processors."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gmma.errors import UserError
from gmma.families.gemma3.images import GemmaImageConfig, PanAndScan, gemma_processor
from gmma.families.gemma3.network import Gemma3Config
from gmma.families.qwen2_5_vl.images import QwenImageConfig, qwen_processor
from gmma.families.qwen2_5_vl.network import QwenConfig
from gmma.huggingface.keys import Section, read_json
from gmma.images.common import POWERS_OF_TWO, PixelConfig
from gmma.images.processor import ImageProcessor
from gmma.models.vision import ATTENTION_CHUNK_SLOTS

BILINEAR, BICUBIC = 2, 3  # PIL.Image.Resampling
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def read_image_section(directory: Path) -> Section:
    """The image processor's keys, from a file of its own or from within processor_config.json.

    Empty where the directory has neither: the family's defaults hold.
    """
    own = directory / "preprocessor_config.json"
    if own.is_file():
        return Section(values=read_json(own), where=str(own))
    joint = directory / "processor_config.json"
    if joint.is_file():
        values: Mapping[str, Any] = read_json(joint).get("image_processor") or {}
        return Section(values=values, where=f"{joint}: image_processor")
    return Section(values={}, where=str(own))


def read_pixels(section: Section, mean: Any, std: Any, resample: int) -> PixelConfig:
    """How bytes become floats."""
    for key in ("do_resize", "do_rescale", "do_normalize"):
        section.require(key, (True,))
    return PixelConfig(
        mean=tuple(section.get("image_mean", mean)),
        std=tuple(section.get("image_std", std)),
        scale=section.get("rescale_factor", 1 / 255),
        resample=section.get("resample", resample),
    )


def gemma_image_processor(
    directory: Path, config: Gemma3Config, buckets: Sequence[int] | None
) -> ImageProcessor | None:
    """Gemma's processor at the tower's size; None for a model without a tower."""
    if config.vision is None:
        return None
    section = read_image_section(directory)
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
    """Images that a prompt of so many slots has room for."""
    return 0 if config.vision is None else prompt_slots // config.image_tokens


def qwen_full_bucket(config: QwenConfig, prompt_slots: int) -> int:
    """Windows of any one image of up to so many tokens, at most four times as long as wide.

    r × c cells lie in at most (r/w + 1)(c/w + 1) windows of w × w cells; rounded up, so that the
    tower can attend in chunks.
    """
    side = config.vision.window_cells
    around = 2.5 * prompt_slots**0.5  # r + c, where c = 4r
    windows = math.floor(prompt_slots / side**2 + around / side) + 1
    chunk = max(1, ATTENTION_CHUNK_SLOTS // config.vision.window_patches)
    return -(-windows // chunk) * chunk


def qwen_image_processor(
    directory: Path, config: QwenConfig, buckets: Sequence[int] | None
) -> ImageProcessor:
    """Qwen's processor."""
    section = read_image_section(directory)
    vision = config.vision
    section.require("patch_size", (vision.patch_pixels,))
    section.require("merge_size", (vision.merge,))
    section.require("temporal_patch_size", (vision.frames,))
    size = section.get("size", {})
    least = section.get("min_pixels", size.get("shortest_edge", 56 * 56))
    most = section.get("max_pixels", size.get("longest_edge", 28 * 28 * 1280))
    images = QwenImageConfig(
        pixels=read_pixels(section, CLIP_MEAN, CLIP_STD, BICUBIC),
        vision=vision,
        min_pixels=least,
        max_pixels=most,
    )
    return qwen_processor(images, buckets or POWERS_OF_TWO)
