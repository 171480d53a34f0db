"""`qwen3_vl`: Qwen3-VL (arXiv 2511.21631), with the numbers of transformers 5.

Qwen3's decoder: norms on queries and keys, no biases. Its rotary pairs turn with frame, row and
column in turn, where Qwen2.5-VL has them section by section. Features from within the tower are
added behind the first layers (DeepStack).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gmma.families.qwen2_5_vl.network import (
    QwenVLConfig,
    QwenVLDecoder,
    empty_images,
    rotary_shift,
    without_patches,
)
from gmma.families.qwen2_5_vl.tower import QwenImages
from gmma.families.qwen3_vl.tower import Qwen3Tower, Qwen3VisionConfig
from gmma.models.decoder import decoder_policy
from gmma.models.policy import Policy
from gmma.types import Array


@dataclass(frozen=True, kw_only=True)
class Qwen3VLConfig(QwenVLConfig):
    """Sizes of a Qwen3-VL model; `checkpoint.py` reads them from a config.json."""

    head_norms: bool = True
    vision: Qwen3VisionConfig

    @property
    def pair_axes(self) -> np.ndarray:
        """Axis that each rotary pair turns with: 0 1 2 0 1 2 …, then 0 where a section ends."""
        axes = np.zeros(sum(self.rotary_sections), np.int64)
        for axis in (1, 2):
            axes[axis : 3 * self.rotary_sections[axis] : 3] = axis
        return axes


class Qwen3VLDecoder(QwenVLDecoder):
    """The decoder with Qwen3-VL's tower."""

    config: Qwen3VLConfig

    def setup(self) -> None:
        super().setup()
        c = self.config
        self.vision = Qwen3Tower(c.vision, c.width, jnp.dtype(c.dtype), c.remat)

    def see(self, images: QwenImages) -> tuple[Float[Array, "B F D"], ...]:
        """Return the tokens of a row's images, and what is added behind the first layers."""
        return self.vision(images)


def qwen3_vl_policy(config: Qwen3VLConfig) -> Policy:
    """Return the Qwen3-VL family behind the `Policy` record; images are `QwenImages` or None."""
    return decoder_policy(
        Qwen3VLDecoder(config),
        images=jax.tree.map(jnp.asarray, empty_images(config.vision, 1, 1)),
        vision_heads=config.vision.heads,
        rotary_shift=rotary_shift,
        without_pixels=without_patches,
    )
