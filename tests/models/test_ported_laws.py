"""Laws L1–L4 for Gemma 3 and Qwen2.5-VL; the rows of a batch have several images, none, one."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmma.images.common import PixelConfig
from gmma.images.gemma3 import GemmaImageConfig, gemma_processor
from gmma.images.qwen2_5_vl import QwenImageConfig, qwen_processor
from gmma.models.gemma3 import Gemma3Config, gemma3_policy
from gmma.models.qwen2_5_vl import QwenConfig, qwen_policy
from gmma.models.qwen_vision import QwenVisionConfig
from gmma.models.siglip import SiglipConfig
from gmma.types import Example, PromptBatch
from tests.models import laws

WORDS, IMAGE = 60, 62
PIXELS = PixelConfig(mean=(0.5,) * 3, std=(0.5,) * 3, resample=2)
GEMMA = Gemma3Config(
    vocab_size=64,
    layers=3,
    width=24,
    heads=4,
    kv_heads=2,
    head_size=8,
    mlp=32,
    local_layers=(True, False, True),
    window=4,
    query_scale=8**-0.5,
    rotary_factor=2.0,
    vision=SiglipConfig(layers=2, width=16, heads=2, mlp=24, image_pixels=16, patch_pixels=4),
    image_tokens=4,
    image_token=IMAGE,
)
QWEN = QwenConfig(
    vocab_size=64,
    layers=3,
    width=32,
    heads=4,
    kv_heads=2,
    mlp=40,
    rotary_sections=(1, 1, 2),
    rotary_base=100.0,
    local_layers=(False, False, False),
    vision=QwenVisionConfig(
        layers=3, width=16, heads=2, mlp=24, full_layers=(False, True, False),
        patch_pixels=4, window_cells=2,
    ),
    image_token=IMAGE,
)  # fmt: skip
TREES = [(3, 2, 6, 3), (1, 3, 4, 2), (2, 1, 3, 5)]  # K, M, T, A


def family(config: Any) -> tuple[Any, Any]:
    """The policy and the image processor of a config."""
    if isinstance(config, Gemma3Config):
        images = GemmaImageConfig(pixels=PIXELS, side=16)
        return gemma3_policy(config), gemma_processor(images, 4, (4,))
    small = QwenImageConfig(pixels=PIXELS, vision=config.vision, min_pixels=64, max_pixels=1024)
    return qwen_policy(config), qwen_processor(small, (8,))


def prompts_with_images(processor: Any, seed: int) -> PromptBatch:
    """Three rows: two images, none, one."""
    rng = np.random.default_rng(seed)
    sizes = [[(24, 16), (9, 30)], [], [(20, 20)]]
    examples, rows = [], []
    for r, row in enumerate(sizes):
        images = tuple(rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in row)
        examples.append(Example(question="", images=images, columns={}, id=str(r)))
        tokens = list(rng.integers(3, WORDS, 2))
        for image in images:
            tokens += [IMAGE] * processor.count_tokens(image) + list(rng.integers(3, WORDS, 2))
        rows.append(tokens + list(rng.integers(3, WORDS, r)))
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((len(rows), lengths.max() + 1), np.int32)
    for filled, row in zip(tokens, rows, strict=True):
        filled[: len(row)] = row
    arrays = processor.to_arrays(examples)
    return PromptBatch(tokens=tokens, lengths=lengths, images=jax.tree.map(jnp.asarray, arrays))


def case_of(config: Any, tree: tuple[int, int, int, int], dtype: Any = jnp.float32) -> laws.Case:
    policy, processor = family(config)
    params = laws.randomised(policy.init(jax.random.key(0)), 1, dtype)
    prompts = prompts_with_images(processor, sum(tree))
    return laws.make_case(policy, params, prompts, tree=tree, seed=sum(tree), words=WORDS)


@pytest.mark.parametrize("config", [GEMMA, QWEN], ids=["gemma3", "qwen2_5_vl"])
@pytest.mark.parametrize("tree", TREES)
def test_packed_equals_flat(config: Any, tree: tuple[int, int, int, int]) -> None:
    laws.check_packed_equals_flat(case_of(config, tree), 1e-5)


@pytest.mark.parametrize("config", [GEMMA, QWEN], ids=["gemma3", "qwen2_5_vl"])
def test_packed_equals_flat_in_float64(config: Any) -> None:
    with jax.enable_x64(True):
        wide = replace(config, dtype="float64")
        laws.check_packed_equals_flat(case_of(wide, TREES[0], jnp.float64), 1e-10)


@pytest.mark.parametrize("config", [GEMMA, QWEN], ids=["gemma3", "qwen2_5_vl"])
@pytest.mark.parametrize("tree", TREES[:2])
def test_decode_equals_packed(config: Any, tree: tuple[int, int, int, int]) -> None:
    laws.check_decode_equals_packed(case_of(config, tree))


@pytest.mark.parametrize("config", [GEMMA, QWEN], ids=["gemma3", "qwen2_5_vl"])
def test_isolation(config: Any) -> None:
    laws.check_isolation(case_of(config, TREES[0]))


@pytest.mark.parametrize("config", [GEMMA, QWEN], ids=["gemma3", "qwen2_5_vl"])
def test_padding(config: Any) -> None:
    case = case_of(config, TREES[0])
    images = case.prompts.images
    if isinstance(config, Gemma3Config):
        used = jnp.asarray([2, 0, 1])
        unused = jnp.arange(images.shape[1])[None] >= used[:, None]
        garbled = jnp.where(unused[:, :, None, None, None], 7.0, images)
    else:
        empty = (images.image == 0)[..., None]
        garbled = replace(images, patches=jnp.where(empty, 7.0, images.patches))
    laws.check_padding(case, garbled)
