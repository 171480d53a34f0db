"""Gemma 3 and Qwen2.5-VL at their smallest, two images before the text of every prompt."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import laws
import numpy as np

from gmma.images.common import PixelConfig
from gmma.images.qwen2_5_vl import QwenImageConfig, qwen_processor
from gmma.models.gemma3 import Gemma3Config, gemma3_policy
from gmma.models.qwen2_5_vl import QwenConfig, qwen_policy
from gmma.models.qwen_vision import QwenVisionConfig
from gmma.models.siglip import SiglipConfig
from gmma.types import Example, Params

VOCAB, IMAGE, SEPARATOR = len(laws.PIECES), laws.IMAGE, laws.PAD
GEMMA = Gemma3Config(
    vocab_size=VOCAB,
    layers=3,
    width=16,
    heads=4,
    kv_heads=2,
    head_size=6,
    mlp=24,
    local_layers=(True, False, True),
    window=4,
    query_scale=6**-0.5,
    rotary_factor=2.0,
    vision=SiglipConfig(layers=1, width=12, heads=2, mlp=16, image_pixels=8, patch_pixels=2),
    image_tokens=4,
    image_token=IMAGE,
)
QWEN = QwenConfig(
    vocab_size=VOCAB,
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    mlp=24,
    rotary_sections=(1, 1, 2),
    rotary_base=100.0,
    local_layers=(False, False),
    vision=QwenVisionConfig(
        layers=2,
        width=16,
        heads=2,
        mlp=16,
        full_layers=(False, True),
        patch_pixels=2,
        window_cells=2,
    ),
    image_token=IMAGE,
)
QWEN_SIZES = ([(8, 12), (12, 8), (4, 24)], [(4, 8), (8, 4)])  # of six cells, then of two


def randomised(params: Params, dtype: str) -> Params:
    """Parameters of order one everywhere, so that no term of a forward pass is idle."""
    rng = np.random.default_rng(0)

    def noisy(leaf: jax.Array) -> np.ndarray:
        fan_in = leaf.shape[-2] if leaf.ndim > 1 else 25
        return (np.asarray(leaf) + rng.normal(size=leaf.shape) * fan_in**-0.5).astype(dtype)

    return jax.tree.map(noisy, params)


def draw_qwen_images(dtype: str) -> Callable[[np.random.Generator, int], Any]:
    """A batch whose rows have the same numbers of image tokens and different sizes."""
    pixels = PixelConfig(mean=(0.5,) * 3, std=(0.5,) * 3, resample=2)
    config = QwenImageConfig(pixels=pixels, vision=QWEN.vision, min_pixels=16)
    processor = qwen_processor(config, (4,))

    def draw(rng: np.random.Generator, batch: int) -> Any:
        examples = []
        for row in range(batch):
            sizes = [kinds[rng.integers(len(kinds))] for kinds in QWEN_SIZES]
            images = tuple(rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes)
            examples.append(Example(question="", images=images, columns={}, id=str(row)))
        found = processor.to_arrays(examples)
        return replace(found, patches=found.patches.astype(dtype))

    return draw


@functools.cache
def subject_of(family: str, dtype: Any = "float32", **changes: Any) -> laws.Subject:
    """A ported family with random parameters; `changes` to its config."""
    if family == "gemma3":
        policy = gemma3_policy(replace(GEMMA, dtype=dtype, **changes))
        prefix = (IMAGE,) * 4 + (SEPARATOR,) + (IMAGE,) * 4

        def draw(rng: np.random.Generator, batch: int) -> np.ndarray:
            return rng.normal(size=(batch, 2, 3, 8, 8)).astype(dtype)

    else:
        policy = qwen_policy(replace(QWEN, dtype=dtype, **changes))
        prefix = (IMAGE,) * 6 + (SEPARATOR,) + (IMAGE,) * 2
        draw = draw_qwen_images(dtype)
    params = randomised(laws.compiled(policy.init)(jax.random.key(0)), dtype)
    return laws.Subject(policy, params, prefix, draw, np.dtype(dtype).type)
