"""The image tower of Qwen2.5-VL (arXiv 2502.13923) at static shapes.

A row of a batch holds W windows of patches, whatever images they come from. A window is a square of
merged cells (4 × 4 of 2 × 2 patches); one at the edge of an image has empty slots, and so have the
windows that a row does not need. Most layers attend inside windows, some inside whole images; the
merger turns each cell into one image token.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from gmma.models.layers import (
    ACTIVATIONS,
    GatedMLP,
    Linear,
    Remat,
    RMSNorm,
    rotary_angles,
    rotate,
    stack_blocks,
    taken_scope,
)
from gmma.models.vision import image_attention
from gmma.types import Array, pytree


@dataclass(frozen=True, kw_only=True)
class CellTowerConfig:
    """Sizes of a tower for images of any size, cut into cells of patches: one cell a token."""

    layers: int
    width: int
    heads: int
    mlp: int
    patch_pixels: int = 14  # side of a patch
    frames: int = 2  # a still image stands for so many equal frames
    merge: int = 2  # side of a cell in patches
    window_cells: int = 4  # side of a window in cells
    channels: int = 3
    activation: str = "silu"
    rotary_base: float = 10_000.0

    @property
    def cell_pixels(self) -> int:
        """Side of a cell."""
        return self.patch_pixels * self.merge

    @property
    def window_patches(self) -> int:
        """Slots of a window."""
        return (self.window_cells * self.merge) ** 2


@dataclass(frozen=True, kw_only=True)
class QwenVisionConfig(CellTowerConfig):
    """Sizes of Qwen2.5-VL's tower."""

    full_layers: tuple[bool, ...]  # per layer, whether it sees whole images


@pytree
class QwenImages:
    """The images of a batch, cut into windows; made on the host (`images.py`).

    Features are image tokens: `feature` says where the i-th of a row is among the cells of its
    windows. The other fields place image tokens and the text behind them on the three rotary axes
    (frame, row, column), relative to the number of text tokens before.
    """

    patches: Float[Array, "B W s pixels"]  # channel, row, column of one frame
    place: Int[Array, "B W s 2"]  # row and column of the patch in its image
    image: Int[Array, "B W s"]  # 1, 2, … by image; 0: empty slot
    feature: Int[Array, "B F"]
    offset: Int[Array, "B F 3"]  # of a feature on the rotary axes
    through: Int[Array, "B F"]  # rotary positions that all images up to the feature's own take
    shift: Int[Array, "B"]  # rotary positions minus tokens, over all images of the row


class QwenVisionBlock(nn.Module):
    """One layer of the tower; `scan` stacks it."""

    config: QwenVisionConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B n D"],
        image: Int[Array, "B n"],
        angles: Float[Array, "B n half"],
        full: Bool[Array, ""],
    ) -> tuple[Float[Array, "B n D"], None]:
        c = self.config
        size = c.width // c.heads
        normed = RMSNorm(name="attention_norm")(x)
        fused = Linear(3 * c.width, ("embed", "fused_heads"), True, dtype=self.dtype, name="qkv")(
            normed
        )
        query, keys, values = jnp.moveaxis(fused.reshape(*x.shape[:2], 3, c.heads, size), 2, 0)
        query, keys = rotate(query, angles) * size**-0.5, rotate(keys, angles)

        def in_windows(*arrays: Array) -> Array:
            cut = [a.reshape(-1, c.window_patches, *a.shape[2:]) for a in arrays]
            return image_attention(*cut).reshape(query.shape)

        with taken_scope(sum(c.full_layers), c.layers):
            seen = jax.lax.cond(full, image_attention, in_windows, query, keys, values, image)
        out = Linear(c.width, ("vision_heads", "embed"), True, dtype=self.dtype, name="out")
        x += out(seen.reshape(x.shape))
        mlp = GatedMLP(c.mlp, ACTIVATIONS[c.activation], True, dtype=self.dtype, name="mlp")
        return x + mlp(RMSNorm(name="mlp_norm")(x)), None


class QwenTower(nn.Module):
    """Windows of patches to image tokens of the decoder's width, in order of the placeholders."""

    config: QwenVisionConfig
    out_width: int
    dtype: Any
    remat: Remat = "none"

    @nn.compact
    def __call__(self, images: QwenImages) -> Float[Array, "B F D"]:
        c = self.config
        batch, windows, slots, _ = images.patches.shape
        embed = Linear(c.width, ("pixels", "embed"), dtype=self.dtype, name="patch_embedding")
        x = embed(repeat_frames(images.patches, c)).reshape(batch, windows * slots, c.width)
        image = images.image.reshape(batch, -1)
        angles = patch_angles(images.place.reshape(batch, -1, 2), c, self.dtype)
        in_axes = (nn.broadcast, nn.broadcast, 0)
        blocks = stack_blocks(QwenVisionBlock, c.layers, self.remat, in_axes)
        x, _ = blocks(c, self.dtype, name="blocks")(x, image, angles, jnp.asarray(c.full_layers))
        cells = RMSNorm(name="merger_norm")(x).reshape(batch, -1, c.merge**2 * c.width)
        hidden = Linear(cells.shape[-1], ("embed", "mlp"), True, dtype=self.dtype, name="merger_in")
        out = Linear(self.out_width, ("mlp", "embed"), True, dtype=self.dtype, name="merger_out")
        merged = out(nn.gelu(hidden(cells), approximate=False))
        return jnp.take_along_axis(merged, images.feature[..., None], axis=1)


def repeat_frames(
    patches: Float[Array, "B W s pixels"], config: CellTowerConfig
) -> Float[Array, "B W s volume"]:
    """Return the still patch as `frames` equal frames: channel, frame, row, column."""
    still = patches.reshape(*patches.shape[:3], config.channels, 1, -1)
    frames = jnp.repeat(still, config.frames, axis=4)
    return frames.reshape(*patches.shape[:3], -1)


def patch_angles(
    place: Int[Array, "B n 2"], config: CellTowerConfig, dtype: Any
) -> Float[Array, "B n half"]:
    """Return rotary angles: half of the pairs turn with the row, the others with the column."""
    quarter, base = config.width // config.heads // 2, config.rotary_base
    angles = [rotary_angles(place[..., axis], quarter, base, dtype) for axis in (0, 1)]
    return jnp.concatenate(angles, axis=-1)
