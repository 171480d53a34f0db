"""The decoder that every family shares; a family says only what differs.

`DecoderConfig` holds the sizes and the switches, `Decoder` the network: embedding, image features
at their slots, a stack of pre-norm blocks, the last norm, and the head. A family subclasses both
where it must: `see` turns images into features, `angles` gives the rotary angles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Int

from gmma.errors import UserError
from gmma.models.cache import NodeStates
from gmma.models.hybrid import HEADS, DeltaConfig, stack_periods, through_periods
from gmma.models.layers import (
    BLOCK_AXES,
    UNTIED_AXES,
    Attention,
    CachedKV,
    Linear,
    Remat,
    RMSNorm,
    add_mlp,
    along_last,
    named,
    rotary_angles,
    rotate_part,
    stack_blocks,
    tree_attention,
    wide_head,
)
from gmma.models.placement import by_rows, gathered
from gmma.models.policy import (
    Context,
    Policy,
    no_image_groups,
    no_rotary_shift,
    own_images,
    policy_of,
)
from gmma.models.rounded import EMBEDDING, HEAD, SCALES
from gmma.models.vision import place_images
from gmma.options.networks import DType as DType
from gmma.tree.layout import prompt_only
from gmma.tree.rows import in_prompt
from gmma.types import Params, PyTree, SeenImages, TreeInputs

NO_WINDOW = 2**30  # wider than any path
TIED_AXES = ("vocab", "embed")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of a decoder, and what its family switches on."""

    vocab_size: int  # V
    layers: int  # L
    width: int  # D
    heads: int  # of queries
    kv_heads: int  # of keys and values, each shared by heads / kv_heads query heads
    head_size: int
    mlp: int  # hidden width of the gated MLP
    activation: str = "silu"
    rotary_base: float = 10_000.0
    query_scale: float | None = None  # of attention scores; None: 1 / √head_size
    tied: bool = False  # the head is the embedding
    qkv_bias: bool = False
    out_bias: bool = False  # of the product behind attention
    head_norms: bool = False  # RMSNorm of each query and key before they are rotated
    out_gate: bool = False  # what a head has seen is multiplied by a sigmoid, beside its query
    rotary_size: int | None = None  # of a head, how much is rotated, from its beginning; None: all
    out_norms: bool = False  # a norm behind attention and MLP too, before they are added
    norm_offset: float = 0.0  # norms multiply by offset + w
    epsilon: float = 1e-6  # of norms
    scaled_embedding: bool = False  # embeddings are multiplied by √D
    embedding_std: float = 0.02  # at the start
    local_layers: tuple[bool, ...] = ()  # per layer, whether it sees a window only; (): none does
    window: int = NO_WINDOW  # tokens along the path that a local layer sees, its own included
    final_softcap: float | None = None  # c·tanh(logits / c)
    delta: DeltaConfig | None = None  # layers that keep a state in place of keys (`hybrid.py`)
    vision: Any = None  # the config of an image tower, in families that have one
    image_token: int | None = None  # id of the placeholder
    dtype: DType = "float32"  # of activations
    remat: Remat = "none"  # what is computed again in the backward pass (`stack_blocks`)
    attention: Attention = "auto"  # of packed trees: by levels, or by a TPU kernel (`layers.py`)


class DecoderBlock(nn.Module):
    """One decoder layer; `scan` stacks it."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S D"],
        context: Context,
        angles: Float[Array, "*kinds B S half"],
        local: Bool[Array, ""] | None,
        cached: CachedKV | None,
        deep: Float[Array, "n B P D"] | None,
        layer: Int[Array, ""],
    ) -> tuple[Array, tuple[Array, Array]]:
        c = self.config
        dtype = jnp.dtype(c.dtype)

        def norm(name: str, x: Array, used: bool = True) -> Array:
            return RMSNorm(c.epsilon, c.norm_offset, name=name)(x) if used else x

        def heads(name: str, count: int) -> Array:
            axes = ("embed", "heads" if name == "query" else "kv_heads")
            size = c.head_size * (2 if name == "query" and c.out_gate else 1)
            out = Linear(count * size, axes, c.qkv_bias, dtype=dtype, name=name)(normed)
            return out.reshape(*out.shape[:2], count, size)

        window = None
        if local is not None:
            if any(c.local_layers):
                window = jnp.where(local, c.window, NO_WINDOW).astype(jnp.int32)
            if angles.ndim == 4:  # local and global layers turn at different speeds
                angles = jnp.where(local, angles[0], angles[1])
        normed = norm("attention_norm", x)
        scale = c.head_size**-0.5 if c.query_scale is None else c.query_scale
        query, gate = heads("query", c.heads), None
        if c.out_gate:
            query, gate = jnp.split(query, 2, axis=-1)
        query = norm("query_norm", query, c.head_norms)
        query = rotate_part(query, angles) * scale
        keys = rotate_part(norm("key_norm", heads("key", c.kv_heads), c.head_norms), angles)
        values = heads("value", c.kv_heads)
        seen = tree_attention(
            query, keys, values, context, cached, layer, attention=c.attention, window=window
        )
        if gate is not None:
            seen *= nn.sigmoid(gate)
        out = Linear(c.width, ("heads", "embed"), c.out_bias, dtype=dtype, name="out")
        x += norm("attention_out_norm", out(seen.reshape(*seen.shape[:2], -1)), c.out_norms)
        x = add_mlp(c, x)
        if deep is not None:
            own = jnp.where(layer < len(deep), deep[jnp.minimum(layer, len(deep) - 1)], 0)
            x = x.at[:, : own.shape[1]].add(own)
        return x, (keys, values)


class Decoder(nn.Module):
    """Embedding, the stack, and the head. As it stands: text alone, one rotary base."""

    config: DecoderConfig

    def setup(self) -> None:
        c = self.config
        if c.delta is not None and any(c.local_layers):
            raise UserError(
                "a decoder with layers that keep a state (delta) has none with a window; leave "
                "local_layers empty"
            )
        self.embedding = self.param(
            "embedding",
            named(nn.initializers.normal(c.embedding_std), *TIED_AXES),
            (c.vocab_size, c.width),
            jnp.float32,
        )
        if c.delta is None:
            self.blocks = stack_blocks(DecoderBlock, c.layers, c.remat, BLOCK_AXES)(c)
        else:
            self.blocks = stack_periods(c, DecoderBlock)
        self.final_norm = RMSNorm(c.epsilon, c.norm_offset)
        if not c.tied:
            self.head = wide_head(c.vocab_size, jnp.dtype(c.dtype))

    def see(self, images: PyTree) -> Sequence[Float[Array, "B F D"]]:
        """Compute features of a row's images, one after the other; for families with a tower.

        The first take the place of the placeholders' embeddings. Others, where a family has them,
        are added at the same slots to what layers 0, 1, … put out (DeepStack, arXiv 2406.04334).
        """
        raise UserError(f"{type(self).__name__} has no image tower: its prompts hold text alone")

    def angles(
        self, tokens: Int[Array, "B S"], context: Context, images: PyTree
    ) -> Float[Array, "*kinds B S half"]:
        """Compute rotary angles of slots; [2 B S half] has those of local and of global layers."""
        del tokens, images
        c = self.config
        size = c.head_size if c.rotary_size is None else c.rotary_size
        return rotary_angles(context.slots.positions, size, c.rotary_base, c.dtype)

    def embed(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """Embed tokens; times √D, the factor rounded to the activations' type, where so asked."""
        c = self.config
        if c.image_token is not None and c.image_token >= c.vocab_size:
            tokens = jnp.where(tokens < c.vocab_size, tokens, 0)  # a placeholder has no row
        x = jnp.take(self.embedding, tokens, axis=0)
        if self.has_variable(SCALES, EMBEDDING):
            scale: Array = self.get_variable(SCALES, EMBEDDING)
            x = x.astype(jnp.float32) * jnp.take(scale, tokens, axis=0)[..., None]
        x = by_rows(x.astype(c.dtype))
        return x * jnp.asarray(c.width**0.5, c.dtype) if c.scaled_embedding else x

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        context: Context,
        images: PyTree,
        cached: CachedKV | None,
        states: NodeStates | None,
    ) -> tuple[Float[Array, "B S D"], tuple[Array, Array], NodeStates | None]:
        c = self.config
        x, deep = self.embed(tokens), None
        if images is not None and context.shape is not None:
            assert c.image_token is not None
            slots = context.shape.prompt
            prompt = in_prompt(context.nodes, context.shape, tokens.shape[1])
            seen = images.features if isinstance(images, SeenImages) else self.see(images)
            features, *deeper = seen
            x = place_images(x, tokens, features, c.image_token, prompt)
            if deeper and c.delta is not None:
                raise UserError(
                    "a decoder with layers that keep a state (delta) adds no further rows of image "
                    "features (DeepStack); let the tower give one"
                )
            if deeper:
                nothing = jnp.zeros_like(x[:, :slots])
                placed = [
                    place_images(nothing, tokens[:, :slots], own, c.image_token, prompt[:, :slots])
                    for own in deeper
                ]
                deep = jnp.stack(placed)
        local = jnp.asarray(c.local_layers) if c.local_layers else None
        angles = self.angles(tokens, context, own_images(images))
        if c.delta is None:
            layers = jnp.arange(c.layers)
            x, kv = self.blocks(x, context, angles, local, cached, deep, layers)
        else:
            x, kv, states = through_periods(
                self.blocks, c.delta, x, context, angles, cached, states
            )
        return self.final_norm(x), kv, states

    def unembed(self, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """Compute logits in float32 or wider."""
        c = self.config
        if c.tied:
            wide = np.promote_types(hidden.dtype, np.float32)
            kernel = gathered(self.embedding.astype(hidden.dtype), TIED_AXES)
            logits = jnp.einsum("...d,vd->...v", hidden, kernel, preferred_element_type=wide)
            if self.has_variable(SCALES, EMBEDDING):
                scale: Array = self.get_variable(SCALES, EMBEDDING)
                logits *= along_last(scale, logits)
        else:
            logits = self.head(hidden)
        if c.final_softcap is not None:
            logits = c.final_softcap * jnp.tanh(logits / c.final_softcap)
        return logits


def decoder_policy(
    module: Decoder,
    *,
    images: PyTree = None,
    image_slots: int = 1,
    vision_heads: int | None = None,
    image_groups: Callable[[TreeInputs], Array | None] = no_image_groups,
    rotary_shift: Callable[[PyTree, int], Array] = no_rotary_shift,
    without_pixels: Callable[[PyTree], PyTree] | None = None,
    config: Any = None,
) -> Policy:
    """Close a family's decoder into a `Policy`.

    `images` are those of one row, `image_slots` their tokens: shapes for `init`, whose values do
    not matter. `without_pixels` empties images that `see` has seen. `vision_heads` counts the heads
    of a tower whose products are cut between them. `config` is what the policy shows as its config,
    the decoder's own by default.
    """
    c = module.config
    sample = TreeInputs(
        tokens=jnp.full((1, image_slots), c.image_token or 0, jnp.int32),
        positions=jnp.arange(image_slots, dtype=jnp.int32)[None],
        valid=jnp.ones((1, image_slots), bool),
        images=images,
        shape=prompt_only(image_slots),
    )

    def head(params: Params) -> Params:
        flat = flatten_dict(params, sep="/")
        path, axes = (EMBEDDING, TIED_AXES) if c.tied else (HEAD, UNTIED_AXES)
        path = f"params/{path}"
        kernel = flat.get(path)
        # One that is cast stays: the gradients of its products then add up in its own, wider type,
        # and no whole copy in that type lies beside them.
        if kernel is None or kernel.dtype != jnp.dtype(c.dtype):
            return params
        return unflatten_dict({**flat, path: gathered(kernel, axes)}, sep="/")

    units = {"heads": c.heads, "kv_heads": c.kv_heads}
    if c.delta is not None:
        units[HEADS] = c.delta.heads
    return policy_of(
        module,
        c if config is None else config,
        vocab_size=c.vocab_size,
        sample=sample,
        units=units if vision_heads is None else {**units, "vision_heads": vision_heads},
        image_groups=image_groups,
        rotary_shift=rotary_shift,
        head=head,
        without_pixels=without_pixels,
        takes_scales=True,
        takes_rows=c.delta is None,  # a state goes from level to level, not along a row
    )
