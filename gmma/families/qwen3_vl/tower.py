"""The image tower of Qwen3-VL (arXiv 2511.21631) at static shapes.

A row of a batch holds W cells of patches, whatever images they come from; every layer sees whole
images. A patch's place is learned on a square table, which is stretched over the image. A merger
turns each cell into one image token. Mergers of their own do so with what some layers put out:
these features go deeper into the decoder (DeepStack, arXiv 2406.04334).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gmma.families.qwen2_5_vl.tower import CellTowerConfig, QwenImages, patch_angles, repeat_frames
from gmma.models.layers import ACTIVATIONS, LayerNorm, Linear, Remat, named, rotate, stack_blocks
from gmma.models.vision import image_attention
from gmma.types import Array


@dataclass(frozen=True, kw_only=True)
class Qwen3VisionConfig(CellTowerConfig):
    """Sizes of the tower; a window is one cell, so no image leaves slots empty at its edges."""

    window_cells: int = 1
    table_side: int = 48  # of the square of learned places
    deep_layers: tuple[int, ...]  # whose outputs go deeper into the decoder, rising


class Qwen3VisionBlock(nn.Module):
    """One layer of the tower; `scan` stacks it. It writes its output to place `keep` of `kept`."""

    config: Qwen3VisionConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        carry: tuple[Float[Array, "B n D"], Float[Array, "k B n D"]],
        image: Int[Array, "B n"],
        angles: Float[Array, "B n half"],
        keep: Int[Array, ""],
    ) -> tuple[tuple[Float[Array, "B n D"], Float[Array, "k B n D"]], None]:
        c, (x, kept) = self.config, carry
        linear, size = partial(Linear, use_bias=True, dtype=self.dtype), c.width // c.heads
        normed = LayerNorm(name="attention_norm")(x)
        fused = linear(3 * c.width, ("embed", "fused_heads"), name="qkv")(normed)
        query, keys, values = jnp.moveaxis(fused.reshape(*x.shape[:2], 3, c.heads, size), 2, 0)
        query, keys = rotate(query, angles) * size**-0.5, rotate(keys, angles)
        seen = image_attention(query, keys, values, image).reshape(x.shape)
        x += linear(c.width, ("vision_heads", "embed"), name="out")(seen)
        normed = LayerNorm(name="mlp_norm")(x)
        hidden = ACTIVATIONS[c.activation](linear(c.mlp, ("embed", "mlp"), name="mlp_in")(normed))
        x += linear(c.width, ("mlp", "embed"), name="mlp_out")(hidden)
        return (x, jax.lax.dynamic_update_index_in_dim(kept, x, keep, 0)), None


class Merger(nn.Module):
    """Patches of cells to image tokens; `scan` stacks those of DeepStack, over what they read."""

    config: Qwen3VisionConfig
    out_width: int
    dtype: Any
    norm_cells: bool  # normed as a cell, not patch by patch

    @nn.compact
    def __call__(
        self, carry: None, x: Float[Array, "B n D"]
    ) -> tuple[None, Float[Array, "B F out"]]:
        cells = (x.shape[0], -1, self.config.merge**2 * x.shape[-1])
        x = LayerNorm(name="norm")(x.reshape(cells) if self.norm_cells else x).reshape(cells)
        linear = partial(Linear, use_bias=True, dtype=self.dtype)
        hidden = nn.gelu(linear(x.shape[-1], ("embed", "mlp"), name="in")(x), approximate=False)
        return carry, linear(self.out_width, ("mlp", "embed"), name="out")(hidden)


class Qwen3Tower(nn.Module):
    """Cells of patches to image tokens of the decoder's width, in order of the placeholders.

    First the tokens themselves, then those of each of `deep_layers`.
    """

    config: Qwen3VisionConfig
    out_width: int
    dtype: Any
    remat: Remat = "none"

    @nn.compact
    def __call__(self, images: QwenImages) -> tuple[Float[Array, "B F D"], ...]:
        c = self.config
        batch, cells, slots, _ = images.patches.shape

        def in_row(x: Array) -> Array:
            return x.reshape(batch, cells * slots, *x.shape[3:])

        embed = Linear(c.width, ("pixels", "embed"), True, dtype=self.dtype, name="patch_embedding")
        table = self.param(
            "place",
            named(nn.initializers.normal(c.width**-0.5), "patch", "embed"),
            (c.table_side**2, c.width),
            jnp.float32,
        )
        place, image = in_row(images.place), in_row(images.image)
        places = stretched_places(table, place, grid_sizes(place, image, cells))
        x = in_row(embed(repeat_frames(images.patches, c))) + places.astype(self.dtype)
        deep = len(c.deep_layers)
        kept = jnp.zeros((deep + 1, *x.shape), x.dtype)  # the last place: what nobody reads
        keep = np.full(c.layers, deep, np.int32)
        keep[list(c.deep_layers)] = np.arange(deep)
        in_axes = (nn.broadcast, nn.broadcast, 0)
        blocks = stack_blocks(Qwen3VisionBlock, c.layers, self.remat, in_axes)
        (x, kept), _ = blocks(c, self.dtype, name="blocks")(
            (x, kept), image, patch_angles(place, c, self.dtype), jnp.asarray(keep)
        )
        _, tokens = Merger(c, self.out_width, self.dtype, False, name="merger")(None, x)
        if not deep:
            return (tokens,)
        mergers = stack_blocks(Merger, deep, self.remat)
        _, deeper = mergers(c, self.out_width, self.dtype, True, name="deep_mergers")(
            None, kept[:-1]
        )
        return (tokens, *deeper)


def grid_sizes(
    place: Int[Array, "B n 2"], image: Int[Array, "B n"], images: int
) -> Int[Array, "B n 2"]:
    """Return the rows and columns of patches in each patch's image; at most so many images a row.

    They are behind the last place of the image. Empty slots count as one image.
    """

    def of_row(place: Array, image: Array) -> Array:
        return jax.ops.segment_max(place, image, num_segments=images + 1)[image] + 1

    return jax.vmap(of_row)(place, image)


def stretched_places(
    table: Float[Array, "places D"], place: Int[Array, "B n 2"], grid: Int[Array, "B n 2"]
) -> Float[Array, "B n D"]:
    """Read a square table at patches of an image that it is stretched over, corner on corner.

    Bilinear, in float32 or wider: patch i of n lies at i · (side − 1) / (n − 1) along an axis.
    """
    wide = np.promote_types(table.dtype, np.float32)
    side = int(table.shape[0] ** 0.5)
    spot = place.astype(wide) * (side - 1) / jnp.maximum(grid - 1, 1).astype(wide)
    low = jnp.clip(jnp.floor(spot), 0, side - 1)
    near, beyond = low.astype(jnp.int32), spot - low
    ends = ((near, 1 - beyond), (jnp.minimum(near + 1, side - 1), beyond))
    rows, columns = ([(at[..., axis], share[..., axis]) for at, share in ends] for axis in (0, 1))
    corners = [
        jnp.take(table, row * side + column, axis=0).astype(wide) * (down * across)[..., None]
        for row, down in rows
        for column, across in columns
    ]
    return jnp.stack(corners).sum(axis=0)
