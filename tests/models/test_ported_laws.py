"""Laws L1–L4 for Gemma 3 and Qwen2.5-VL, two images before the text of every prompt."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmma.images.common import PixelConfig
from gmma.images.qwen2_5_vl import QwenImageConfig, qwen_processor
from gmma.models.gemma3 import Gemma3Config, gemma3_policy
from gmma.models.qwen2_5_vl import QwenConfig, qwen_policy
from gmma.models.qwen_vision import QwenVisionConfig
from gmma.models.siglip import SiglipConfig
from gmma.sampling import SamplingConfig
from gmma.tree import TreeShape
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
SHAPES = (
    TreeShape(13, 4, 3, thoughts=2, answers=2),
    TreeShape(11, 3, 2, thoughts=1, answers=3),
    TreeShape(12, 2, 4, thoughts=3, answers=1),
)
over_families = pytest.mark.parametrize("family", ["gemma3", "qwen2_5_vl"])
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.label)
often = laws.examples(5)


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
def subject_of(family: str, dtype: Any = "float32") -> laws.Subject:
    """A ported family with random parameters."""
    if family == "gemma3":
        policy = gemma3_policy(replace(GEMMA, dtype=dtype))
        prefix = (IMAGE,) * 4 + (SEPARATOR,) + (IMAGE,) * 4

        def draw(rng: np.random.Generator, batch: int) -> np.ndarray:
            return rng.normal(size=(batch, 2, 3, 8, 8)).astype(dtype)

    else:
        policy = qwen_policy(replace(QWEN, dtype=dtype))
        prefix = (IMAGE,) * 6 + (SEPARATOR,) + (IMAGE,) * 2
        draw = draw_qwen_images(dtype)
    params = randomised(laws.compiled(policy.init)(jax.random.key(0)), dtype)
    return laws.Subject(policy, params, prefix, draw, np.dtype(dtype).type)


@over_families
@often
@given(st.data())
def test_packed_equals_flat_in_float64(family: str, data: st.DataObject) -> None:
    with jax.enable_x64(True):
        subject = subject_of(family, "float64")
        tree = data.draw(laws.trees(subject, SHAPES[0]))
        laws.check_packed_equals_flat(subject, tree, data.draw(laws.generators()), 1e-10)


@over_families
@over_shapes
@often
@given(st.data())
def test_decode_equals_packed(family: str, shape: TreeShape, data: st.DataObject) -> None:
    subject = subject_of(family)
    growth = laws.Growth(shape, SamplingConfig(temperature=1.3))
    prompts = data.draw(laws.prompt_batches(subject, shape.prompt))
    rollout = laws.grow(subject, growth, prompts, data.draw(st.integers(0, 2**31)))
    laws.check_decode_equals_packed(subject, growth, prompts, rollout)


@over_families
@often
@given(st.data())
def test_a_subtree_reaches_nothing_else(family: str, data: st.DataObject) -> None:
    subject, shape = subject_of(family), SHAPES[0]
    tree, other = (data.draw(laws.trees(subject, shape)) for _ in range(2))
    laws.check_isolation(subject, tree, other, data.draw(st.integers(0, 1)), None)
    laws.check_isolation(subject, tree, other, 1, data.draw(st.integers(0, 1)))


@over_families
@often
@given(st.data())
def test_unused_slots_change_nothing(family: str, data: st.DataObject) -> None:
    subject = subject_of(family)
    tree = data.draw(laws.trees(subject, SHAPES[0]))
    laws.check_padding(subject, tree, data.draw(laws.generators()))


def test_empty_window_slots_change_nothing() -> None:
    """L4 among pixels: what stands in a patch slot that no image fills."""
    subject = subject_of("qwen2_5_vl")
    rng = np.random.default_rng(0)
    prompts = laws.random_prompts(subject, rng, np.array([12, 10], np.int32), 13)
    empty = (prompts.images.image == 0)[..., None]
    assert empty.any()
    noise = np.where(empty, np.float32(9), prompts.images.patches)
    garbled = replace(prompts, images=replace(prompts.images, patches=noise))
    prefill = laws.compiled(subject.policy.prefill)
    before, after = (prefill(subject.params, p) for p in (prompts, garbled))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_sampled_placeholder_is_an_ordinary_token() -> None:
    """Gemma's image tokens of a thought neither see ahead nor take a feature."""
    subject = subject_of("gemma3")
    rng = np.random.default_rng(0)
    prompts = laws.random_prompts(subject, rng, np.array([12], np.int32), 12)
    hidden, cache = laws.compiled(subject.policy.prefill)(subject.params, prompts)
    assert jnp.isfinite(hidden).all()
    groups = np.asarray(cache.levels[0].slots.image)[0, 0, 0]
    assert groups.tolist() == [1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 0, 0]
