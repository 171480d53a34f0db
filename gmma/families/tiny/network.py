"""`tiny`: a vision-language decoder that trains on a laptop.

Patches go through a two-layer stem and take a learned place; then a plain decoder: RMSNorm, rotary
positions, grouped-query attention, gated MLP. Embeddings start at the scale of the image features:
at 0.02 beside features of order one, positions drowned (`experiments/LOG.md`).
"""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gmma.errors import UserError
from gmma.models.layers import (
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
from gmma.models.placement import by_rows
from gmma.models.policy import Context, Policy, policy_of
from gmma.models.vision import patches, place_images
from gmma.tree.layout import prompt_only
from gmma.types import TreeInputs


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Sizes of the tiny family."""

    family: Literal["tiny"] = "tiny"  # which network this is
    layers: int = 4  # L
    width: int = 128  # D
    heads: int = 4  # query heads
    kv_heads: int = 2  # key and value heads, shared by heads/kv_heads query heads each
    head_size: int = 32  # width of a head, of queries, keys and values alike
    mlp: int = 384  # hidden width of the gated MLP
    rotary_base: float = 10_000.0  # the slowest rotation takes about so many positions a turn
    images: int = 1  # of a prompt at most; prompts with fewer may share its batch; 0: text alone
    image_pixels: int = 48  # side of the square image
    patch_pixels: int = 12  # side of a patch; an image is (image_pixels / patch_pixels)² tokens
    embedding_scale: float = 0.5  # standard deviation of token and place embeddings at the start
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"  # of activations
    remat: Remat = "none"  # what is computed again in the backward pass (`stack_blocks`)
    attention: Attention = "auto"  # of packed trees: by levels, or by a TPU kernel (`layers.py`)
    # Steps of teaching the patch stem on labelled patches of the task before anything else, as a
    # ported backbone comes with a trained vision tower; 0: none
    stem_steps: int = 300

    def __post_init__(self) -> None:
        if self.stem_steps < 0:
            raise UserError(f"stem_steps = {self.stem_steps}; it must be 0 (none) or more")
        if self.images < 0:
            raise UserError(f"images = {self.images}; it must be 0 (text alone) or more")
        sizes = ("layers", "width", "heads", "kv_heads", "head_size", "mlp")
        for name in (*sizes, "image_pixels", "patch_pixels"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)}; it must be 1 or more")
        for name in ("rotary_base", "embedding_scale"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} = {getattr(self, name)}; it must be above 0")
        if self.head_size % 2:
            raise UserError(
                f"head_size = {self.head_size}; it must be even: rotary positions turn pairs"
            )
        if self.heads % self.kv_heads:
            raise UserError(
                f"heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}; "
                "each key head serves a whole number of query heads"
            )
        if self.image_pixels % self.patch_pixels:
            raise UserError(
                f"image_pixels = {self.image_pixels} is not a multiple of "
                f"patch_pixels = {self.patch_pixels}"
            )

    @property
    def image_tokens(self) -> int:
        """Tokens of one image."""
        return (self.image_pixels // self.patch_pixels) ** 2


class Stem(nn.Module):
    """Two layers from a patch's pixels (0 … 1, flattened) to its features."""

    config: TinyConfig

    @nn.compact
    def __call__(self, pixels: Float[Array, "*rows pixels"]) -> Float[Array, "*rows D"]:
        dtype = jnp.dtype(self.config.dtype)
        width = self.config.width
        inner = Linear(2 * width, ("pixels", "mlp"), use_bias=True, dtype=dtype, name="inner")
        outer = Linear(width, ("mlp", "embed"), use_bias=True, dtype=dtype, name="outer")
        return RMSNorm(name="norm")(outer(nn.gelu(inner(2.0 * pixels))))


class TinyBlock(nn.Module):
    """One decoder layer; `scan` stacks it."""

    config: TinyConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B S D"], context: Context, angles: Array, cached: CachedKV | None
    ) -> tuple[Array, tuple[Array, Array]]:
        c = self.config
        dtype = jnp.dtype(c.dtype)

        def heads(name: str, count: int) -> Array:
            axes = ("embed", "heads" if name == "query" else "kv_heads")
            out = Linear(count * c.head_size, axes, dtype=dtype, name=name)(normed)
            return out.reshape(*out.shape[:2], count, c.head_size)

        normed = RMSNorm(name="attention_norm")(x)
        query = rotate(heads("query", c.heads), angles) * c.head_size**-0.5
        keys, values = rotate(heads("key", c.kv_heads), angles), heads("value", c.kv_heads)
        seen = tree_attention(query, keys, values, context, cached, attention=c.attention)
        out = Linear(c.width, ("heads", "embed"), dtype=dtype, name="out")
        x += out(seen.reshape(*seen.shape[:2], -1))
        x += GatedMLP(c.mlp, dtype=dtype, name="mlp")(RMSNorm(name="mlp_norm")(x))
        return x, (keys, values)


class TinyModel(nn.Module):
    """Token and image embeddings, the stack, and the head."""

    config: TinyConfig
    vocab_size: int
    image_token: int

    def setup(self) -> None:
        c = self.config
        embed = nn.initializers.normal(c.embedding_scale)
        self.embedding = self.param(
            "embedding",
            named(embed, "vocab", "embed"),
            (self.vocab_size, c.width),
            jnp.float32,
        )
        if c.images:
            self.place = self.param(
                "place",
                named(embed, "patch", "embed"),
                (c.image_tokens, c.width),
                jnp.float32,
            )
            self.stem = Stem(c)
        in_axes = (nn.broadcast, nn.broadcast, 0)
        self.blocks = stack_blocks(TinyBlock, c.layers, c.remat, in_axes)(c)
        self.final_norm = RMSNorm()
        self.head = wide_head(self.vocab_size, jnp.dtype(c.dtype))

    def see(self, images: Float[Array, "B I H W C"]) -> Float[Array, "B F D"]:
        """Image features, I·image_tokens a row."""
        features = self.stem(patches(images, self.config.patch_pixels))
        features += jnp.broadcast_to(self.place.astype(features.dtype), features.shape)
        return features.reshape(features.shape[0], -1, features.shape[-1])

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        context: Context,
        images: Float[Array, "B I H W C"] | None,
        cached: Any,
    ) -> tuple[Float[Array, "B S D"], tuple[Array, Array]]:
        c = self.config
        x = by_rows(jnp.take(self.embedding, tokens, axis=0).astype(c.dtype))
        if images is not None and context.shape is not None:
            x = place_images(x, tokens, self.see(images), self.image_token, context.shape.prompt)
        angles = rotary_angles(context.slots.positions, c.head_size, c.rotary_base)
        x, kv = self.blocks(x, context, angles, cached)
        return self.final_norm(x), kv

    def unembed(self, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """Logits, in float32 or wider."""
        return self.head(hidden)


def tiny_policy(config: TinyConfig, *, vocab_size: int, image_token: int) -> Policy:
    """The tiny family behind the `Policy` record."""
    module = TinyModel(config, vocab_size, image_token)
    slots, size = config.image_tokens, (config.image_pixels, config.image_pixels, 3)
    sample = TreeInputs(
        tokens=jnp.full((1, slots), image_token, jnp.int32),
        positions=jnp.arange(slots, dtype=jnp.int32)[None],
        valid=jnp.ones((1, slots), bool),
        images=jnp.zeros((1, config.images, *size), jnp.float32) if config.images else None,
        shape=prompt_only(slots),
    )
    units = {"heads": config.heads, "kv_heads": config.kv_heads}
    return policy_of(module, config, vocab_size=vocab_size, sample=sample, units=units)
