"""Small Linen modules that every family shares."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from gmma.models.attention import (
    Level,
    Slots,
    decode_attention,
    packed_attention,
    ragged_attention,
)
from gmma.models.placement import by_rows, gathered
from gmma.models.policy import Context
from gmma.models.rounded import SCALES
from gmma.models.splash import on_tpu, ragged_splash, splash_attention
from gmma.options.networks import Attention as Attention
from gmma.options.networks import Remat as Remat

Initializer = Callable[..., Array]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {  # by transformers' names
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_pytorch_tanh": nn.gelu,
    "silu": nn.silu,
    "relu": nn.relu,
}
# Of what a decoder's block takes behind x: context, angles, local, cached, deep, layer
BLOCK_AXES = (nn.broadcast, nn.broadcast, 0, nn.broadcast, nn.broadcast, 0)
UNTIED_AXES = ("embed", "vocab")  # of a head's kernel that is not the embedding
CachedKV = tuple[tuple[Array, Array], ...]  # per level, keys and values of all layers
OF_ATTENTION = ("query", "key", "value", "qkv", "rate", "decay", "out_gate", "out")  # `Linear`s


def save_all_but_weights(primitive: Any, *given: Any, **_: Any) -> bool:
    """Keep every result but a weight that was cast or laid out: within a block it has two axes."""
    of_weights = primitive.name in ("convert_element_type", "sharding_constraint")
    return not (of_weights and given[0].ndim <= 2)


REMAT_POLICIES: dict[Remat, Callable[..., Any]] = {
    "none": save_all_but_weights,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "dots_except_up": jax.checkpoint_policies.save_only_these_names(*OF_ATTENTION, "gate", "down"),
    "dots_except_mlp": jax.checkpoint_policies.save_only_these_names(*OF_ATTENTION),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def stack_blocks(
    block: type[nn.Module], layers: int, remat: Remat, in_axes: Any = 0, *, unroll: int = 1
) -> Any:
    """Stack `layers` blocks under scan, their parameters along a leading axis.

    `unroll` of them make one turn of the loop.

    `remat` says what of a layer outlives its forward pass. `none`: whatever its gradient needs, but
    for weights as they were cast or gathered, which would be a second copy of the stack;
    `dots`: the products with weights, so that attention and what is elementwise are computed again;
    `dots_except_up` and `dots_except_mlp`: these but for one of the MLP's two wide ones, or for all
    of the MLP's (as MaxText's `save_dot_except_mlp`); `full`: the layer's input alone. In an image
    tower, the third and fourth keep what carries the names of a decoder's products.
    """
    # Scan keeps the two computations apart: no barrier against merging them is needed.
    block = nn.remat(block, policy=REMAT_POLICIES[remat], prevent_cse=False)
    return nn.scan(
        block,
        variable_axes={"params": 0, "lora": 0, SCALES: 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        length=layers,
        unroll=unroll,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )


def taken_scope(times: int, of: int) -> AbstractContextManager[Any]:
    """Say of a conditional within that its condition holds so often, for `gmma plan` to count."""
    return jax.named_scope(f"taken_{times}_of_{of}")


def named(init: Initializer, *axes: str) -> Initializer:
    """Return an initialiser whose parameter carries the logical names of its axes."""
    boxed: Any = nn.with_logical_partitioning(init, axes)
    return boxed


def along_last(vector: Float[Array, "D"], like: Array) -> Array:
    """Return a vector with as many axes as `like`, to be broadcast along its last one."""
    return vector.astype(like.dtype).reshape((1,) * (like.ndim - 1) + vector.shape)


class Linear(nn.Module):
    """`x·W (+ b)`, with the low-rank term `(x·a)·b` where the collection `lora` holds one.

    W is q ⊙ s where the collection `scales` holds an s for it (`rounded.py`). `axes` are the
    logical names of W's axes, input first.
    """

    features: int
    axes: tuple[str, str]
    use_bias: bool = False
    dtype: Any = jnp.float32
    out_dtype: Any = None  # of the product, where it is to be wider than its factors
    kernel_init: Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*rows I"]) -> Float[Array, "*rows O"]:
        init = named(self.kernel_init, *self.axes)
        kernel = self.param("kernel", init, (x.shape[-1], self.features), jnp.float32)
        x = x.astype(self.dtype)
        kernel = gathered(kernel.astype(self.dtype), self.axes)
        if self.has_variable(SCALES, "kernel"):
            scale: Array = self.get_variable(SCALES, "kernel")
            wide = np.promote_types(self.dtype, np.float32)
            y = jnp.matmul(x, kernel, preferred_element_type=wide)
            y = (y * along_last(scale, y)).astype(self.out_dtype or self.dtype)
        else:
            y = jnp.matmul(x, kernel, preferred_element_type=self.out_dtype)
        if self.use_bias:
            bias_init = named(nn.initializers.zeros, self.axes[1])
            y += along_last(self.param("bias", bias_init, (self.features,), jnp.float32), y)
        if self.has_variable("lora", "a"):
            down: Array = self.get_variable("lora", "a")
            up: Array = self.get_variable("lora", "b")
            down = gathered(down.astype(self.dtype), (self.axes[0], None))
            y += ((x @ down) @ up.astype(self.dtype)).astype(y.dtype)
        return checkpoint_name(by_rows(y, self.axes[1]), self.name or "")


def wide_head(vocab_size: int, dtype: Any) -> Linear:
    """Make the untied head: logits in float32 or wider, never rounded to the activations' type."""
    wide = np.promote_types(dtype, np.float32)
    return Linear(vocab_size, UNTIED_AXES, dtype=dtype, out_dtype=wide)


class RMSNorm(nn.Module):
    """`x / √(mean x² + ε) · (offset + w)`, computed in float32 or wider (Zhang & Sennrich 2019).

    `offset` is 0 with w initialised at one, or Gemma's 1 with w initialised at zero.
    """

    epsilon: float = 1e-6
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        init = named(nn.initializers.constant(1.0 - self.offset), "norm")
        weight = self.param("scale", init, (x.shape[-1],), jnp.float32)
        wide = x.astype(np.promote_types(x.dtype, np.float32))
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(mean_square + self.epsilon)
        return (normed * (self.offset + along_last(weight, wide))).astype(x.dtype)


class LayerNorm(nn.Module):
    """`(x − mean) / √(var + ε) · w + b`, computed in float32 or wider (Ba et al. 2016)."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        def vector(name: str, initializer: Initializer) -> Array:
            init = named(initializer, "norm")
            return along_last(self.param(name, init, (x.shape[-1],), jnp.float32), wide)

        wide = x.astype(np.promote_types(x.dtype, np.float32))
        centred = wide - wide.mean(axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.epsilon)
        scale, bias = vector("scale", nn.initializers.ones), vector("bias", nn.initializers.zeros)
        return (normed * scale + bias).astype(x.dtype)


def rotary_angles(
    positions: Int[Array, "B S"], size: int, base: float, dtype: Any = np.float32
) -> Float[Array, "B S half"]:
    """Compute θ_i = position · base^(−2i/size), i < size/2 (Su et al. 2021), in radians.

    In float32, or wider where the activations' `dtype` is.
    """
    wide = np.promote_types(dtype, np.float32)
    frequency = base ** (-jnp.arange(0, size, 2, dtype=wide) / size)
    angles = positions[..., None].astype(wide)
    return angles * along_last(frequency, angles)


def rotate(x: Float[Array, "B S N H"], angles: Float[Array, "B S half"]) -> Float[Array, "B S N H"]:
    """Rotate the pairs (x_i, x_{i + H/2}) by their angle, in float32 or wider."""
    wide = np.promote_types(x.dtype, np.float32)
    cos, sin = (f(angles)[:, :, None].astype(wide) for f in (jnp.cos, jnp.sin))
    first, second = jnp.split(x.astype(wide), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)


def rotate_part(
    x: Float[Array, "B S N H"], angles: Float[Array, "B S half"]
) -> Float[Array, "B S N H"]:
    """Rotate as much of a head's beginning as there are angles for; the rest stays."""
    size = 2 * angles.shape[-1]
    if size == x.shape[-1]:
        return rotate(x, angles)
    return jnp.concatenate([rotate(x[..., :size], angles), x[..., size:]], axis=-1)


def packed_attention_of(
    attention: Attention, nodes: Int[Array, "B S"] | None
) -> Callable[..., Array]:
    """Return the routine that a config's `attention` names; with `nodes`, that of ragged rows."""
    if attention == "auto":
        attention = "splash" if on_tpu() else "dense"
    if attention == "dense":
        return packed_attention if nodes is None else partial(ragged_attention, nodes=nodes)
    interpret = attention == "splash_interpreted"
    if nodes is not None:
        return partial(ragged_splash, nodes=nodes, interpret=interpret)
    return partial(splash_attention, interpret=interpret)


def tree_attention(
    query: Float[Array, "B S Q H"],
    keys: Float[Array, "B S N H"],
    values: Float[Array, "B S N H"],
    context: Context,
    cached: CachedKV | None,
    layer: Int[Array, ""],
    *,
    attention: Attention,
    window: Int[Array, ""] | None = None,
    softcap: float | None = None,
) -> Float[Array, "B S Q H"]:
    """Attend within a packed tree, or from new tokens to a cache, as the context says.

    Queries come scaled. Head q reads key head q // (Q/N). `layer` counts those with keys.
    """
    batch, slots, heads, size = query.shape
    grouped = query.reshape(batch, slots, keys.shape[2], -1, size)
    if context.cached is None or cached is None:
        assert context.shape is not None
        attend = packed_attention_of(attention, context.nodes)
        out = attend(
            grouped,
            keys,
            values,
            context.slots,
            shape=context.shape,
            window=window,
            softcap=softcap,
        )
    else:
        levels = [
            level_of_layer(place, *of_level, layer)
            for place, of_level in zip(context.cached, cached, strict=True)
        ]
        out = decode_attention(
            grouped, keys, values, context.slots, levels, window=window, softcap=softcap
        )
    return out.reshape(batch, slots, heads, size)


def level_of_layer(
    places: Slots,
    keys: Float[Array, "L B k m N s H"],
    values: Float[Array, "L B k m N s H"],
    layer: Int[Array, ""],
) -> Level:
    """Return one layer's keys and values of the slots that have a place, the first of a level.

    One slice finds both: a TPU's compiler fetches a layer ahead of time, and what was cut in two
    would be fetched whole.
    """
    start: tuple[Any, ...] = (layer, *(0,) * (keys.ndim - 1))
    count = places.valid.shape[-1]
    sizes = (1, *keys.shape[1:-2], count, keys.shape[-1])
    own_keys, own_values = (jax.lax.dynamic_slice(x, start, sizes)[0] for x in (keys, values))
    return Level(slots=places, keys=own_keys, values=own_values)


class GatedMLP(nn.Module):
    """`(act(x·W_gate) ⊙ x·W_up)·W_down` (Shazeer 2020)."""

    hidden: int
    activation: Callable[[Array], Array] = nn.silu
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        def linear(name: str, features: int, axes: tuple[str, str]) -> Linear:
            return Linear(features, axes, self.use_bias, dtype=self.dtype, name=name)

        gate = linear("gate", self.hidden, ("embed", "mlp"))(x)
        up = linear("up", self.hidden, ("embed", "mlp"))(x)
        down = linear("down", x.shape[-1], ("mlp", "embed"))
        return down(self.activation(gate) * up)


def add_mlp(c: Any, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
    """Add the gated MLP of a decoder block to x, inside that block; `c` is a `DecoderConfig`."""
    normed = RMSNorm(c.epsilon, c.norm_offset, name="mlp_norm")(x)
    mlp = GatedMLP(c.mlp, ACTIVATIONS[c.activation], dtype=jnp.dtype(c.dtype), name="mlp")
    out = mlp(normed)
    return x + (RMSNorm(c.epsilon, c.norm_offset, name="mlp_out_norm")(out) if c.out_norms else out)
