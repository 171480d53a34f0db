"""Qwen3-VL's image processor: that of Qwen2.5-VL, in single cells instead of windows of them."""

from collections.abc import Sequence
from dataclasses import replace

from gmma.families.qwen2_5_vl.images import (
    QwenImageConfig,
    qwen_processor,
    read_image_config,
)
from gmma.families.qwen3_vl.network import Qwen3VLConfig
from gmma.huggingface.keys import Section
from gmma.huggingface.processors import BICUBIC, HALF
from gmma.images.common import POWERS_OF_TWO, PixelConfig
from gmma.images.frames import THOUSANDTHS
from gmma.images.processor import ImageProcessor
from gmma.models.vision import ATTENTION_CHUNK_SLOTS

MIN_PIXELS, MAX_PIXELS = 256 * 256, 4096 * 4096  # of the resized image, as published


def qwen3_vl_processor(
    config: QwenImageConfig, buckets: Sequence[int] = POWERS_OF_TWO
) -> ImageProcessor:
    """Return the family's processor; `buckets` are the numbers of cells a row may be padded to."""
    return replace(qwen_processor(config, buckets), frame=THOUSANDTHS)


def qwen3_vl_image_processor(
    section: Section, config: Qwen3VLConfig, buckets: Sequence[int] | None
) -> ImageProcessor:
    """Return the processor of a file's values."""
    defaults = QwenImageConfig(
        pixels=PixelConfig(mean=HALF, std=HALF, resample=BICUBIC),
        vision=config.vision,
        min_pixels=MIN_PIXELS,
        max_pixels=MAX_PIXELS,
    )
    return qwen3_vl_processor(read_image_config(section, defaults), buckets or POWERS_OF_TWO)


def qwen3_vl_full_bucket(config: Qwen3VLConfig, prompt_slots: int) -> int:
    """Return the cells that fill a prompt, rounded up so that the tower can attend in chunks."""
    chunk = max(1, ATTENTION_CHUNK_SLOTS // config.vision.window_patches)
    return -(-prompt_slots // chunk) * chunk
