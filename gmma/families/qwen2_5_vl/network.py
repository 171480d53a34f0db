"""`qwen2_5_vl`: Qwen2.5-VL (arXiv 2502.13923), with the numbers of transformers 5.

A pre-norm decoder with biased queries, keys and values, whose rotary angles turn with three
positions: frame, row and column. Text has all three equal. An image takes as many positions as its
longer side has cells, fewer than it has tokens, so what follows it is shifted (`rotary_shift`).
"""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from gmma.families.qwen2_5_vl.tower import QwenImages, QwenTower, QwenVisionConfig
from gmma.models.layers import (
    ACTIVATIONS,
    Attention,
    CachedKV,
    GatedMLP,
    Linear,
    Remat,
    RMSNorm,
    named,
    rotary_angles,
    rotate,
    stack_blocks,
    tree_attention,
    wide_head,
)
from gmma.models.placement import by_rows, gathered
from gmma.models.policy import Context, Policy, policy_of
from gmma.models.vision import place_images
from gmma.tree.layout import prompt_only
from gmma.types import Array, TreeInputs

NO_WINDOW = 2**30  # wider than any path


@dataclass(frozen=True, kw_only=True)
class QwenConfig:
    """Sizes of a Qwen2.5-VL model; `porting/qwen2_5_vl.py` reads them from a config.json."""

    family: Literal["qwen2_5_vl"] = "qwen2_5_vl"
    vocab_size: int  # V
    layers: int  # L
    width: int  # D
    heads: int
    kv_heads: int
    mlp: int
    rotary_sections: tuple[int, ...]  # pairs that turn with frame, row, column, frame, …
    rotary_base: float = 1_000_000.0
    local_layers: tuple[bool, ...]  # per layer, whether it sees a window only
    window: int = NO_WINDOW  # tokens along the path that a local layer sees
    epsilon: float = 1e-6
    activation: str = "silu"
    tied: bool = False  # the head is the embedding
    vision: QwenVisionConfig
    image_token: int = 151_655  # id of the placeholder
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"  # of activations
    remat: Remat = "none"  # what is computed again in the backward pass (`stack_blocks`)
    attention: Attention = "auto"  # of packed trees: by levels, or by a TPU kernel (`layers.py`)

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.width // self.heads


class QwenBlock(nn.Module):
    """One decoder layer; `scan` stacks it."""

    config: QwenConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S D"],
        context: Context,
        angles: Float[Array, "B S half"],
        local: Bool[Array, ""],
        cached: CachedKV | None,
    ) -> tuple[Array, tuple[Array, Array]]:
        c = self.config
        dtype = jnp.dtype(c.dtype)

        def heads(name: str, count: int) -> Array:
            axes = ("embed", "heads" if name == "query" else "kv_heads")
            out = Linear(count * c.head_size, axes, use_bias=True, dtype=dtype, name=name)(normed)
            return out.reshape(*out.shape[:2], count, c.head_size)

        window = None
        if any(c.local_layers):
            window = jnp.where(local, c.window, NO_WINDOW).astype(jnp.int32)
        normed = RMSNorm(c.epsilon, name="attention_norm")(x)
        query = rotate(heads("query", c.heads), angles) * c.head_size**-0.5
        keys, values = rotate(heads("key", c.kv_heads), angles), heads("value", c.kv_heads)
        seen = tree_attention(
            query, keys, values, context, cached, attention=c.attention, window=window
        )
        out = Linear(c.width, ("heads", "embed"), dtype=dtype, name="out")
        x += out(seen.reshape(*seen.shape[:2], -1))
        mlp = GatedMLP(c.mlp, ACTIVATIONS[c.activation], dtype=dtype, name="mlp")
        return x + mlp(RMSNorm(c.epsilon, name="mlp_norm")(x)), (keys, values)


class QwenModel(nn.Module):
    """Embedding, image tower, the stack, and the head."""

    config: QwenConfig

    def setup(self) -> None:
        c = self.config
        self.embedding = self.param(
            "embedding",
            named(nn.initializers.normal(0.02), "vocab", "embed"),
            (c.vocab_size, c.width),
            jnp.float32,
        )
        self.vision = QwenTower(c.vision, c.width, jnp.dtype(c.dtype), c.remat)
        in_axes = (nn.broadcast, nn.broadcast, 0, 0)
        self.blocks = stack_blocks(QwenBlock, c.layers, c.remat, in_axes)(c)
        self.final_norm = RMSNorm(c.epsilon)
        if not c.tied:
            self.head = wide_head(c.vocab_size, jnp.dtype(c.dtype))

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        context: Context,
        images: QwenImages | None,
        cached: Any,
    ) -> tuple[Float[Array, "B S D"], tuple[Array, Array]]:
        c = self.config
        x = by_rows(jnp.take(self.embedding, tokens, axis=0).astype(c.dtype))
        path = context.slots.positions + context.rotary_shift[:, None]
        positions = jnp.broadcast_to(path, (3, *path.shape))
        if images is not None and context.shape is not None:
            slots = context.shape.prompt
            x = place_images(x, tokens, self.vision(images), c.image_token, slots)
            in_prompt = prompt_positions(tokens[:, :slots], images, c.image_token)
            positions = jnp.concatenate([in_prompt, positions[..., slots:]], axis=-1)
        angles = section_angles(positions, c)
        x, kv = self.blocks(x, context, angles, jnp.asarray(c.local_layers), cached)
        return self.final_norm(x), kv

    def unembed(self, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """Logits in float32 or wider."""
        wide = np.promote_types(hidden.dtype, np.float32)
        if self.config.tied:
            kernel = gathered(self.embedding.astype(hidden.dtype), ("vocab", "embed"))
            return jnp.einsum("...d,vd->...v", hidden, kernel, preferred_element_type=wide)
        return self.head(hidden)


def prompt_positions(
    tokens: Int[Array, "B P"], images: QwenImages, image_token: int
) -> Int[Array, "3 B P"]:
    """Frame, row and column of every prompt slot (M-RoPE, arXiv 2409.12191 §2.1).

    A text token stands behind all that came before: the text tokens, and the positions that the
    images took. An image token adds its row and column to where its image begins.
    """
    is_image = tokens == image_token
    count = jnp.cumsum(is_image, axis=1, dtype=jnp.int32)
    before = count - is_image.astype(jnp.int32)  # image tokens before the slot
    text = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None] - before
    last = images.feature.shape[1] - 1
    index = jnp.clip(before, 0, last)
    offset = jnp.take_along_axis(images.offset, index[..., None], axis=1)
    taken = jnp.take_along_axis(images.through, jnp.clip(before - 1, 0, last), axis=1)
    taken = jnp.where(before > 0, taken, 0)
    own = jnp.where(is_image[..., None], offset, taken[..., None])
    return jnp.moveaxis(text[..., None] + own, -1, 0)


def section_angles(positions: Int[Array, "3 B S"], config: QwenConfig) -> Float[Array, "B S half"]:
    """Rotary angles whose pairs turn with frame, row and column, section by section."""
    angles = jnp.stack(
        [rotary_angles(axis, config.head_size, config.rotary_base) for axis in positions]
    )
    axes = np.arange(len(config.rotary_sections)) % 3
    of_pair = np.repeat(axes, config.rotary_sections)
    return angles[of_pair, :, :, np.arange(len(of_pair))].transpose(1, 2, 0)


def rotary_shift(images: QwenImages | None, batch: int) -> Int[Array, "B"]:
    """What the images of a row take off the rotary positions behind them."""
    return jnp.zeros(batch, jnp.int32) if images is None else jnp.asarray(images.shift)


def empty_images(config: QwenVisionConfig, batch: int, windows: int) -> QwenImages:
    """Images of rows that have none, at the shapes of a bucket."""
    slots = config.window_patches
    features = windows * config.window_cells**2
    pixels = config.channels * config.patch_pixels**2
    return QwenImages(
        patches=np.zeros((batch, windows, slots, pixels), np.float32),
        place=np.zeros((batch, windows, slots, 2), np.int32),
        image=np.zeros((batch, windows, slots), np.int32),
        feature=np.zeros((batch, features), np.int32),
        offset=np.zeros((batch, features, 3), np.int32),
        through=np.zeros((batch, features), np.int32),
        shift=np.zeros(batch, np.int32),
    )


def qwen_policy(config: QwenConfig) -> Policy:
    """The Qwen2.5-VL family behind the `Policy` record; images are `QwenImages` or None."""
    slots = config.vision.window_cells**2
    sample = TreeInputs(
        tokens=jnp.full((1, slots), config.image_token, jnp.int32),
        positions=jnp.arange(slots, dtype=jnp.int32)[None],
        valid=jnp.ones((1, slots), bool),
        images=jax.tree.map(jnp.asarray, empty_images(config.vision, 1, 1)),
        shape=prompt_only(slots),
    )
    return policy_of(
        QwenModel(config),
        config,
        vocab_size=config.vocab_size,
        sample=sample,
        units={
            "heads": config.heads,
            "kv_heads": config.kv_heads,
            "vision_heads": config.vision.heads,
        },
        rotary_shift=rotary_shift,
    )
