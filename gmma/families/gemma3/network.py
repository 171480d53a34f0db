"""`gemma3`: Gemma 3 (arXiv 2503.19786) with or without images; the numbers of transformers 5.

A norm before and after each half of a layer, norms on queries and keys, layers that see a sliding
window and layers that see everything, each kind with its own rotary base. An image is pooled to a
fixed number of soft tokens, which see each other in both directions. Where transformers reads a key
of the config and computes nothing with it (`attn_logit_softcapping`; `final_logit_softcapping` of
the model with images), so do we.
"""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gmma.families.gemma3.tower import SiglipConfig, SiglipTower
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
from gmma.types import TreeInputs

NO_WINDOW = 2**30  # wider than any path


@dataclass(frozen=True, kw_only=True)
class Gemma3Config:
    """Sizes of a Gemma 3 model; `porting/gemma3.py` reads them from a config.json."""

    family: Literal["gemma3"] = "gemma3"
    vocab_size: int  # V
    layers: int  # L
    width: int  # D
    heads: int
    kv_heads: int
    head_size: int
    mlp: int
    local_layers: tuple[bool, ...]  # per layer, whether it sees a window only
    window: int  # tokens along the path that a local layer sees, its own included
    query_scale: float  # of the attention scores
    rotary_base: float = 1_000_000.0
    rotary_factor: float = 1.0  # positions of global layers are divided by it
    local_rotary_base: float = 10_000.0
    local_rotary_factor: float = 1.0
    epsilon: float = 1e-6
    activation: str = "gelu_pytorch_tanh"
    final_softcap: float | None = None  # c·tanh(logits / c)
    tied: bool = True  # the head is the embedding
    attention_bias: bool = False
    vision: SiglipConfig | None = None
    image_tokens: int = 256  # soft tokens of one image, a square
    image_token: int = 262_144  # id of the placeholder
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"  # of activations
    remat: Remat = "none"  # what is computed again in the backward pass (`stack_blocks`)
    attention: Attention = "auto"  # of packed trees: by levels, or by a TPU kernel (`layers.py`)


class Gemma3Block(nn.Module):
    """One decoder layer; `scan` stacks it."""

    config: Gemma3Config

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S D"],
        context: Context,
        angles: Float[Array, "2 B S half"],
        local: Bool[Array, ""],
        cached: CachedKV | None,
    ) -> tuple[Array, tuple[Array, Array]]:
        c = self.config
        dtype = jnp.dtype(c.dtype)

        def norm(name: str) -> RMSNorm:
            return RMSNorm(c.epsilon, offset=1.0, name=name)

        def linear(name: str, features: int, axes: tuple[str, str]) -> Linear:
            return Linear(features, axes, c.attention_bias, dtype=dtype, name=name)

        def heads(name: str, count: int) -> Array:
            axes = ("embed", "heads" if name == "query" else "kv_heads")
            out = linear(name, count * c.head_size, axes)(normed)
            return out.reshape(*out.shape[:2], count, c.head_size)

        angle = jnp.where(local, angles[0], angles[1])
        window = jnp.where(local, c.window, NO_WINDOW).astype(jnp.int32)
        normed = norm("attention_norm")(x)
        query = rotate(norm("query_norm")(heads("query", c.heads)), angle) * c.query_scale
        keys = rotate(norm("key_norm")(heads("key", c.kv_heads)), angle)
        values = heads("value", c.kv_heads)
        seen = tree_attention(
            query, keys, values, context, cached, attention=c.attention, window=window
        )
        out = linear("out", c.width, ("heads", "embed"))(seen.reshape(*seen.shape[:2], -1))
        x += norm("attention_out_norm")(out)
        mlp = GatedMLP(c.mlp, ACTIVATIONS[c.activation], dtype=dtype, name="mlp")
        x += norm("mlp_out_norm")(mlp(norm("mlp_norm")(x)))
        return x, (keys, values)


class ImageProjector(nn.Module):
    """Patch features, mean over squares of patches, norm, into the decoder's width."""

    config: Gemma3Config

    @nn.compact
    def __call__(self, features: Float[Array, "N patch E"]) -> Float[Array, "N F D"]:
        c = self.config
        assert c.vision is not None
        pooled = pool_squares(features, c.vision.side, int(c.image_tokens**0.5))
        normed = RMSNorm(c.vision.epsilon, offset=1.0, name="norm")(pooled)
        return Linear(c.width, ("mlp", "embed"), dtype=jnp.dtype(c.dtype), name="out")(normed)


def pool_squares(
    features: Float[Array, "N patch E"], side: int, pooled_side: int
) -> Float[Array, "N F E"]:
    """Means over squares of `side // pooled_side` patches; what is left at the edges is dropped."""
    count, _, width = features.shape
    square = side // pooled_side
    used = square * pooled_side
    grid = features.reshape(count, side, side, width)[:, :used, :used]
    grid = grid.reshape(count, pooled_side, square, pooled_side, square, width)
    return grid.mean(axis=(2, 4)).reshape(count, pooled_side**2, width)


class Gemma3Model(nn.Module):
    """Embedding, image tower, the stack, and the head."""

    config: Gemma3Config

    def setup(self) -> None:
        c = self.config
        self.embedding = self.param(
            "embedding",
            named(nn.initializers.normal(0.02), "vocab", "embed"),
            (c.vocab_size, c.width),
            jnp.float32,
        )
        if c.vision is not None:
            self.vision = SiglipTower(c.vision, jnp.dtype(c.dtype), c.remat)
            self.projector = ImageProjector(c)
        in_axes = (nn.broadcast, nn.broadcast, 0, 0)
        self.blocks = stack_blocks(Gemma3Block, c.layers, c.remat, in_axes)(c)
        self.final_norm = RMSNorm(c.epsilon, offset=1.0)
        if not c.tied:
            self.head = wide_head(c.vocab_size, jnp.dtype(c.dtype))

    def see(self, images: Float[Array, "B I C H W"]) -> Float[Array, "B F D"]:
        """Soft tokens of a row's images, one image after the other."""
        batch, count, *rest = images.shape
        features = self.projector(self.vision(images.reshape(batch * count, *rest)))
        return features.reshape(batch, -1, features.shape[-1])

    def embed(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """Embeddings times √D, the factor rounded to the activations' type."""
        c = self.config
        known = jnp.where(tokens < c.vocab_size, tokens, 0)
        x = by_rows(jnp.take(self.embedding, known, axis=0).astype(c.dtype))
        return x * jnp.asarray(c.width**0.5, c.dtype)

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        context: Context,
        images: Float[Array, "B I C H W"] | None,
        cached: Any,
    ) -> tuple[Float[Array, "B S D"], tuple[Array, Array]]:
        c = self.config
        x = self.embed(tokens)
        if images is not None and context.shape is not None:
            x = place_images(x, tokens, self.see(images), c.image_token, context.shape.prompt)
        positions, size = context.slots.positions, c.head_size
        angles = jnp.stack(
            [
                rotary_angles(positions, size, c.local_rotary_base) / c.local_rotary_factor,
                rotary_angles(positions, size, c.rotary_base) / c.rotary_factor,
            ]
        )
        x, kv = self.blocks(x, context, angles, jnp.asarray(c.local_layers), cached)
        return self.final_norm(x), kv

    def unembed(self, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """Logits in float32 or wider."""
        c = self.config
        wide = np.promote_types(hidden.dtype, np.float32)
        if c.tied:
            kernel = gathered(self.embedding.astype(hidden.dtype), ("vocab", "embed"))
            logits = jnp.einsum("...d,vd->...v", hidden, kernel, preferred_element_type=wide)
        else:
            logits = self.head(hidden)
        if c.final_softcap is not None:
            logits = c.final_softcap * jnp.tanh(logits / c.final_softcap)
        return logits


def image_runs(inputs: TreeInputs, image_token: int) -> Int[Array, "B S"]:
    """The number of each image, 1, 2, …, at its tokens and 0 elsewhere.

    An image is a run of placeholders in the prompt; one that a policy samples is an ordinary token.
    """
    in_prompt = jnp.arange(inputs.tokens.shape[1])[None] < inputs.shape.prompt
    is_image = (inputs.tokens == image_token) & in_prompt
    begins = is_image & ~jnp.pad(is_image, ((0, 0), (1, 0)))[:, :-1]
    return jnp.where(is_image, jnp.cumsum(begins, axis=1, dtype=jnp.int32), 0)


def gemma3_policy(config: Gemma3Config) -> Policy:
    """The Gemma 3 family behind the `Policy` record; images are `float[B, I, C, H, W]` or None."""

    def image_groups(inputs: TreeInputs) -> Array | None:
        return None if inputs.images is None else image_runs(inputs, config.image_token)

    slots = config.image_tokens if config.vision else 1
    images = None
    if config.vision:
        side = config.vision.image_pixels
        images = jnp.zeros((1, 1, config.vision.channels, side, side), jnp.float32)
    sample = TreeInputs(
        tokens=jnp.full((1, slots), config.image_token, jnp.int32),
        positions=jnp.arange(slots, dtype=jnp.int32)[None],
        valid=jnp.ones((1, slots), bool),
        images=images,
        shape=prompt_only(slots),
    )
    units = {"heads": config.heads, "kv_heads": config.kv_heads}
    if config.vision:
        units["vision_heads"] = config.vision.heads
    return policy_of(
        Gemma3Model(config),
        config,
        vocab_size=config.vocab_size,
        sample=sample,
        units=units,
        image_groups=image_groups,
    )
