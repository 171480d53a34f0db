"""`qwen2_5_vl`: Qwen2.5-VL (arXiv 2502.13923), with the numbers of transformers 5.

A pre-norm decoder with biased queries, keys and values, whose rotary angles turn with three
positions: frame, row and column. Text has all three equal. An image takes as many positions as its
longer side has cells, fewer than it has tokens, so what follows it is shifted (`rotary_shift`).
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gmma.families.qwen2_5_vl.tower import (
    CellTowerConfig,
    QwenImages,
    QwenTower,
    QwenVisionConfig,
)
from gmma.models.decoder import Decoder, DecoderConfig, decoder_policy
from gmma.models.layers import rotary_angles
from gmma.models.policy import Context, Policy
from gmma.tree.rows import in_prompt
from gmma.types import Array


@dataclass(frozen=True, kw_only=True)
class QwenVLConfig(DecoderConfig):
    """Sizes of any Qwen-VL model: three positions a token, images of any size."""

    rotary_sections: tuple[int, ...]  # pairs that turn with frame, row, column, frame, …
    vision: CellTowerConfig
    image_token: int = 151_655

    @property
    def pair_axes(self) -> np.ndarray:
        """Axis that each rotary pair turns with, 0 … 2: section by section."""
        return np.repeat(np.arange(len(self.rotary_sections)) % 3, self.rotary_sections)


@dataclass(frozen=True, kw_only=True)
class QwenConfig(QwenVLConfig):
    """Sizes of a Qwen2.5-VL model; `checkpoint.py` reads them from a config.json."""

    rotary_base: float = 1_000_000.0
    qkv_bias: bool = True
    vision: QwenVisionConfig


class QwenVLDecoder(Decoder):
    """The decoder with three positions a token; a family adds its tower."""

    config: QwenVLConfig

    def angles(
        self, tokens: Int[Array, "B S"], context: Context, images: QwenImages | None
    ) -> Float[Array, "B S half"]:
        """Return the angles of frame, row and column; equal for text."""
        path = context.slots.positions + context.rotary_shift[:, None]
        positions = jnp.broadcast_to(path, (3, *path.shape))
        if images is not None and context.shape is not None:
            slots = context.shape.prompt
            own = prompt_positions(tokens[:, :slots], images, self.config.image_token)
            prompt = in_prompt(context.nodes, context.shape, tokens.shape[1])[None, :, :slots]
            own = jnp.where(prompt, own, positions[..., :slots])
            positions = jnp.concatenate([own, positions[..., slots:]], axis=-1)
        return section_angles(positions, self.config)


class QwenDecoder(QwenVLDecoder):
    """The decoder with Qwen2.5-VL's tower."""

    config: QwenConfig

    def setup(self) -> None:
        super().setup()
        c = self.config
        self.vision = QwenTower(c.vision, c.width, jnp.dtype(c.dtype), c.remat)

    def see(self, images: QwenImages) -> tuple[Float[Array, "B F D"]]:
        """Return the tokens of a row's images, one image after the other."""
        return (self.vision(images),)


def prompt_positions(
    tokens: Int[Array, "B P"], images: QwenImages, image_token: int
) -> Int[Array, "3 B P"]:
    """Return frame, row and column of every prompt slot (M-RoPE, arXiv 2409.12191 §2.1).

    A text token stands behind all that came before: the text tokens, and the positions that images
    took. An image token adds its row and column to where its image begins.
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


def section_angles(
    positions: Int[Array, "3 B S"], config: QwenVLConfig
) -> Float[Array, "B S half"]:
    """Return rotary angles whose pairs turn with frame, row or column (`pair_axes`)."""
    axes = config.pair_axes
    turn = partial(rotary_angles, size=2 * len(axes), base=config.rotary_base, dtype=config.dtype)
    angles = jnp.stack([turn(axis) for axis in positions])
    return angles[axes, :, :, np.arange(len(axes))].transpose(1, 2, 0)


def rotary_shift(images: QwenImages | None, batch: int) -> Int[Array, "B"]:
    """Return how much the images of a row shorten the rotary positions behind them."""
    return jnp.zeros(batch, jnp.int32) if images is None else jnp.asarray(images.shift)


def without_patches(images: QwenImages) -> QwenImages:
    """Empty images that have been seen: where they stand remains."""
    return replace(images, patches=images.patches[..., :0])


def empty_images(config: CellTowerConfig, batch: int, windows: int) -> QwenImages:
    """Return the images of rows that have none, at the shapes of a bucket."""
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
    """Return the Qwen2.5-VL family behind the `Policy` record; images are `QwenImages` or None."""
    return decoder_policy(
        QwenDecoder(config),
        images=jax.tree.map(jnp.asarray, empty_images(config.vision, 1, 1)),
        image_slots=config.vision.window_cells**2,
        vision_heads=config.vision.heads,
        rotary_shift=rotary_shift,
        without_pixels=without_patches,
    )
