"""SigLIP's image tower (Zhai et al., arXiv 2303.15343), as Gemma 3 uses it.

Patches, a learned place for each, pre-norm layers with attention in both directions, a last norm.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gmma.models.layers import ACTIVATIONS, LayerNorm, Linear, Remat, named, stack_blocks
from gmma.models.vision import image_attention


@dataclass(frozen=True, kw_only=True)
class SiglipConfig:
    """Sizes of the tower."""

    layers: int
    width: int
    heads: int
    mlp: int
    image_pixels: int  # side of the square image
    patch_pixels: int  # side of a patch
    channels: int = 3
    epsilon: float = 1e-6
    activation: str = "gelu_pytorch_tanh"
    pooling_head: bool = False  # its parameters are carried through; Gemma never reads its output

    @property
    def side(self) -> int:
        """Patches along one side of an image."""
        return self.image_pixels // self.patch_pixels


class SiglipBlock(nn.Module):
    """One layer of the tower; `scan` stacks it."""

    config: SiglipConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "N s D"]) -> tuple[Float[Array, "N s D"], None]:
        c = self.config
        size = c.width // c.heads

        def linear(name: str, features: int, axes: tuple[str, str]) -> Linear:
            return Linear(features, axes, use_bias=True, dtype=self.dtype, name=name)

        def heads(name: str) -> Array:
            out = linear(name, c.width, ("embed", "vision_heads"))(normed)
            return out.reshape(*out.shape[:2], c.heads, size)

        normed = LayerNorm(c.epsilon, name="attention_norm")(x)
        query = heads("query") * size**-0.5
        seen = image_attention(query, heads("key"), heads("value")).reshape(x.shape)
        x += linear("out", c.width, ("vision_heads", "embed"))(seen)
        normed = LayerNorm(c.epsilon, name="mlp_norm")(x)
        hidden = ACTIVATIONS[c.activation](linear("mlp_in", c.mlp, ("embed", "mlp"))(normed))
        x += linear("mlp_out", c.width, ("mlp", "embed"))(hidden)
        return x, None


class SiglipTower(nn.Module):
    """`float[N, C, H, W]` pixels to one feature per patch, row by row."""

    config: SiglipConfig
    dtype: Any
    remat: Remat = "none"

    @nn.compact
    def __call__(self, pixels: Float[Array, "N C H W"]) -> Float[Array, "N s D"]:
        c = self.config
        embed = Linear(
            c.width, ("pixels", "embed"), use_bias=True, dtype=self.dtype, name="patch_embedding"
        )
        place = self.param(
            "place",
            named(nn.initializers.normal(c.width**-0.5), "patch", "embed"),
            (c.side**2, c.width),
            jnp.float32,
        )
        x = embed(channel_patches(pixels, c.patch_pixels)) + place.astype(self.dtype)[None]
        blocks = stack_blocks(SiglipBlock, c.layers, self.remat)
        x, _ = blocks(c, self.dtype, name="blocks")(x)
        if c.pooling_head:
            PoolingHead(c, name="head")()
        return LayerNorm(c.epsilon, name="norm")(x)


class PoolingHead(nn.Module):
    """Parameters that transformers keeps with the tower and that Gemma 3 computes nothing from."""

    config: SiglipConfig

    @nn.compact
    def __call__(self) -> None:
        d, hidden = self.config.width, self.config.mlp
        shapes = {
            "probe": (1, 1, d),
            "in_kernel": (3 * d, d),
            "in_bias": (3 * d,),
            "out_kernel": (d, d),
            "out_bias": (d,),
            "norm_scale": (d,),
            "norm_bias": (d,),
            "mlp_in_kernel": (hidden, d),
            "mlp_in_bias": (hidden,),
            "mlp_out_kernel": (d, hidden),
            "mlp_out_bias": (d,),
        }
        for name, shape in shapes.items():
            axes = (None,) * len(shape)
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, axes)
            self.param(name, zeros, shape, jnp.float32)


def channel_patches(pixels: Float[Array, "N C H W"], size: int) -> Float[Array, "N patch pixels"]:
    """Cut square patches row by row, each flattened channel first, as a convolution's kernel is."""
    count, channels, height, width = pixels.shape
    rows, columns = height // size, width // size
    grid = pixels.reshape(count, channels, rows, size, columns, size)
    grid = grid.transpose(0, 2, 4, 1, 3, 5)
    return grid.reshape(count, rows * columns, channels * size * size)
