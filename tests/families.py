"""The ported families as subjects of the laws: random sizes, two images before every text."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import laws
import numpy as np

from gmma.families.gemma3.network import Gemma3Config, gemma3_policy
from gmma.families.gemma3.tower import SiglipConfig
from gmma.families.llama import LLAMA
from gmma.families.llama.network import LlamaConfig, RotaryScaling
from gmma.families.qwen2_5_vl.images import QwenImageConfig, qwen_processor
from gmma.families.qwen2_5_vl.network import QwenConfig, QwenVLConfig, qwen_policy
from gmma.families.qwen2_5_vl.tower import QwenVisionConfig
from gmma.families.qwen3_vl import QWEN3_VL
from gmma.families.qwen3_vl.images import qwen3_vl_processor
from gmma.families.qwen3_vl.network import Qwen3VLConfig
from gmma.families.qwen3_vl.tower import Qwen3VisionConfig
from gmma.images.common import PixelConfig
from gmma.models.hybrid import DeltaConfig
from gmma.types import Example, Params

FAMILIES = ("gemma3", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "llama", "qwen2", "qwen3")
VOCAB, IMAGE, SEPARATOR = len(laws.PIECES), laws.IMAGE, laws.PAD
GEMMA_SIDE, QWEN_PATCH, QWEN_WINDOW = 8, 2, 2  # pixels, pixels, cells
QWEN_SIZES = ([(8, 12), (12, 8), (4, 24)], [(4, 8), (8, 4)])  # of six cells, then of two


def flags(rng: np.random.Generator, count: int) -> tuple[bool, ...]:
    """Random truths, one per layer."""
    return tuple(bool(flag) for flag in rng.integers(0, 2, count))


def gemma_config(seed: int, dtype: Any) -> Gemma3Config:
    """Random sizes, heads and windows; an image of 4 × 4 patches."""
    rng = np.random.default_rng(seed)
    layers, kv_heads, head_size = (int(rng.integers(*ends)) for ends in ((2, 5), (1, 4), (2, 6)))
    return Gemma3Config(
        vocab_size=VOCAB,
        layers=layers,
        width=4 * int(rng.integers(4, 7)),
        heads=kv_heads * int(rng.integers(1, 4)),
        kv_heads=kv_heads,
        head_size=2 * head_size,
        mlp=int(rng.integers(16, 32)),
        local_layers=flags(rng, layers),
        window=int(rng.integers(2, 9)),
        query_scale=(2 * head_size) ** -0.5,
        rotary_factor=float(rng.integers(1, 9)),
        final_softcap=5.0 if seed % 2 else None,
        tied=bool(seed % 3),
        qkv_bias=seed % 3 == 1,
        out_bias=seed % 3 == 1,
        vision=SiglipConfig(
            layers=int(rng.integers(1, 3)),
            width=12,
            heads=int(rng.integers(1, 4)),
            mlp=16,
            image_pixels=GEMMA_SIDE,
            patch_pixels=2,
        ),
        image_tokens=(4, 1)[seed % 2],
        image_token=IMAGE,
        dtype=dtype,
    )


def qwen_config(seed: int, dtype: Any) -> QwenConfig:
    """Random sizes, heads, windows and rotary sections; windows of 2 × 2 cells."""
    rng = np.random.default_rng(seed)
    layers, kv_heads, tower = (int(rng.integers(*ends)) for ends in ((2, 4), (1, 4), (1, 4)))
    sections = tuple(int(n) for n in rng.integers(1, 3, 3))
    heads = kv_heads * int(rng.integers(1, 3))
    return QwenConfig(
        vocab_size=VOCAB,
        layers=layers,
        width=heads * 2 * sum(sections),
        head_size=2 * sum(sections),
        heads=heads,
        kv_heads=kv_heads,
        mlp=int(rng.integers(16, 32)),
        rotary_sections=sections,
        rotary_base=100.0,
        local_layers=flags(rng, layers) if seed % 2 else (False,) * layers,
        window=int(rng.integers(2, 9)),
        tied=bool(seed % 2),
        vision=QwenVisionConfig(
            layers=tower,
            width=16,
            heads=int(rng.choice([1, 2])),
            mlp=16,
            full_layers=flags(rng, tower),
            patch_pixels=QWEN_PATCH,
            window_cells=QWEN_WINDOW,
        ),
        image_token=IMAGE,
        dtype=dtype,
    )


def qwen3_vl_config(seed: int, dtype: Any) -> Qwen3VLConfig:
    """Random sizes, heads, rotary sections and layers of DeepStack."""
    rng = np.random.default_rng(seed)
    layers, kv_heads, tower = (int(rng.integers(*ends)) for ends in ((2, 4), (1, 4), (2, 5)))
    sections = tuple(int(n) for n in rng.integers(1, 3, 3))
    deep = rng.permutation(tower)[: rng.integers(1, 3)]
    return Qwen3VLConfig(
        vocab_size=VOCAB,
        layers=layers,
        width=4 * int(rng.integers(4, 7)),
        head_size=2 * sum(sections),
        heads=kv_heads * int(rng.integers(1, 3)),
        kv_heads=kv_heads,
        mlp=int(rng.integers(16, 32)),
        rotary_sections=sections,
        rotary_base=100.0,
        tied=bool(seed % 2),
        vision=Qwen3VisionConfig(
            layers=tower,
            width=16,
            heads=int(rng.choice([1, 2])),
            mlp=16,
            deep_layers=tuple(sorted(map(int, deep))),
            patch_pixels=QWEN_PATCH,
            table_side=int(rng.integers(2, 6)),
        ),
        image_token=IMAGE,
        dtype=dtype,
    )


PATTERNS = (  # of layers with a state in place of keys; a pattern may come twice
    (True, False, True) * 2,
    (True, True, False),
    (True, False, True, True, False),
    (False, True, True),
)


def qwen3_5_config(seed: int, dtype: Any) -> Qwen3VLConfig:
    """Random sizes and patterns of layers; half of a head is rotated.

    In float32 with a larger ε than is published: behind the first token of a row a memory is one
    key by one value, and what a query reads of it, nearly zero where the two are at right angles,
    is divided by its own size. Rounding then shows in gradients, of plain sequences as of trees:
    up to 1e-4 of their norm at 1e-6, 1e-6 at 1.
    """
    rng = np.random.default_rng(seed)
    layers, kv_heads = PATTERNS[seed % len(PATTERNS)], int(rng.integers(1, 3))
    plain = qwen3_vl_config(seed, dtype)
    rotated = 2 * sum(plain.rotary_sections)
    delta = DeltaConfig(
        layers=layers,
        heads=(2, 4, 1)[seed % 3],
        group=int(rng.integers(1, 3)),
        key_size=int(rng.integers(2, 6)),
        value_size=int(rng.integers(2, 6)),
        taps=4 if seed < 4 else int(rng.integers(1, 5)),
    )
    return replace(
        plain,
        layers=len(layers),
        heads=2 * kv_heads,
        kv_heads=kv_heads,
        head_size=2 * rotated,
        rotary_size=rotated,
        norm_offset=1.0,
        epsilon=1.0 if dtype == "float32" else plain.epsilon,
        out_gate=True,
        delta=delta,
        vision=replace(plain.vision, deep_layers=()),
    )


def llama_config(seed: int, dtype: Any) -> LlamaConfig:
    """Random sizes and heads; every other one with Llama 3's scaling."""
    rng = np.random.default_rng(seed)
    layers, kv_heads, head_size = (int(rng.integers(*ends)) for ends in ((2, 5), (1, 4), (2, 6)))
    scaling = RotaryScaling(factor=4.0, low_factor=1.0, high_factor=4.0, context=12)
    return LlamaConfig(
        vocab_size=VOCAB,
        layers=layers,
        width=4 * int(rng.integers(4, 7)),
        heads=kv_heads * int(rng.integers(1, 4)),
        kv_heads=kv_heads,
        head_size=2 * head_size,
        mlp=int(rng.integers(16, 32)),
        rotary_base=100.0,
        rotary_scaling=None if seed % 2 else scaling,
        tied=not seed % 2,
        dtype=dtype,
    )


def qwen2_config(seed: int, dtype: Any) -> LlamaConfig:
    """Random sizes and heads; some layers see a window."""
    llama = llama_config(seed, dtype)
    rng = np.random.default_rng(seed)
    local, window = flags(rng, llama.layers), int(rng.integers(2, 9))
    plain = replace(llama, rotary_scaling=None, local_layers=local, window=window)
    return replace(plain, qkv_bias=True)


def qwen3_config(seed: int, dtype: Any) -> LlamaConfig:
    """Random sizes and heads, with norms of queries and keys; every third one with biases."""
    biased = seed % 3 == 1
    plain = replace(llama_config(seed, dtype), rotary_scaling=None, head_norms=True)
    return replace(plain, qkv_bias=biased, out_bias=biased)


CELLS = {"qwen3_vl": qwen3_vl_config, "qwen3_5": qwen3_5_config}
TEXTS = {"llama": llama_config, "qwen2": qwen2_config, "qwen3": qwen3_config}


def randomised(params: Params, dtype: str) -> Params:
    """Norms and biases moved too, so that no term of a forward pass is idle."""
    rng = np.random.default_rng(0)

    def noisy(leaf: jax.Array) -> np.ndarray:
        fan_in = leaf.shape[-2] if leaf.ndim > 1 else 25
        noise = 0.5 * rng.normal(size=leaf.shape) * fan_in**-0.5
        return (np.asarray(leaf) + noise).astype(dtype)

    return jax.tree.map(noisy, params)


def draw_qwen_images(config: QwenVLConfig) -> Callable[[np.random.Generator, int], Any]:
    """A batch whose rows have the same numbers of image tokens and different sizes."""
    pixels = PixelConfig(mean=(0.5,) * 3, std=(0.5,) * 3, resample=2)
    images = QwenImageConfig(pixels=pixels, vision=config.vision, min_pixels=16)
    in_cells = isinstance(config, Qwen3VLConfig)
    processor = qwen3_vl_processor(images, (8,)) if in_cells else qwen_processor(images, (4,))

    def draw(rng: np.random.Generator, batch: int) -> Any:
        examples = []
        for row in range(batch):
            sizes = [kinds[rng.integers(len(kinds))] for kinds in QWEN_SIZES]
            own = tuple(rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes)
            examples.append(Example(question="", images=own, columns={}, id=str(row)))
        found = processor.to_arrays(examples)
        return replace(found, patches=found.patches.astype(config.dtype))

    return draw


def draw_gemma_images(config: Gemma3Config) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Two images a row."""

    def draw(rng: np.random.Generator, batch: int) -> np.ndarray:
        size = (batch, 2, 3, GEMMA_SIDE, GEMMA_SIDE)
        return rng.normal(size=size).astype(config.dtype)

    return draw


@functools.cache
def subject_of(family: str, seed: int = 0, dtype: str = "float32", **changes: Any) -> laws.Subject:
    """A ported family of random sizes with random parameters; `changes` to its config."""
    draw: Callable[[np.random.Generator, int], Any]
    if family in TEXTS:
        policy = LLAMA.policy(replace(TEXTS[family](seed, dtype), **changes))
        params = randomised(laws.compiled(policy.init)(jax.random.key(0)), dtype)
        return laws.Subject(policy, params, dtype=np.dtype(dtype).type)
    if family == "gemma3":
        gemma = replace(gemma_config(seed, dtype), **changes)
        counts, policy, draw = (
            (gemma.image_tokens,) * 2,
            gemma3_policy(gemma),
            draw_gemma_images(gemma),
        )
    elif family in CELLS:
        qwen3 = replace(CELLS[family](seed, dtype), **changes)
        counts, policy, draw = (6, 2), QWEN3_VL.policy(qwen3), draw_qwen_images(qwen3)
    else:
        qwen = replace(qwen_config(seed, dtype), **changes)
        counts, policy, draw = (6, 2), qwen_policy(qwen), draw_qwen_images(qwen)
    first, second = ((IMAGE,) * count for count in counts)
    params = randomised(laws.compiled(policy.init)(jax.random.key(0)), dtype)
    return laws.Subject(policy, params, (*first, SEPARATOR, *second), draw, np.dtype(dtype).type)
