"""`gemma3`: Gemma 3 (arXiv 2503.19786) with or without images; the numbers of transformers 5.

A norm before and after each half of a layer, norms on queries and keys, layers that see a sliding
window and layers that see everything, each kind with its own rotary base. An image is pooled to a
fixed number of soft tokens, which see each other in both directions. Where transformers reads a key
of the config and computes nothing with it (`attn_logit_softcapping`; `final_logit_softcapping` of
the model with images), so do we.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gmma.families.gemma3.tower import SiglipConfig, SiglipTower
from gmma.models.decoder import Decoder, DecoderConfig, decoder_policy
from gmma.models.layers import Linear, RMSNorm, rotary_angles
from gmma.models.policy import Context, Policy
from gmma.models.vision import image_runs, no_pixels
from gmma.types import PyTree, TreeInputs


@dataclass(frozen=True, kw_only=True)
class Gemma3Config(DecoderConfig):
    """Sizes of a Gemma 3 model; `checkpoint.py` reads them from a config.json."""

    activation: str = "gelu_pytorch_tanh"
    rotary_base: float = 1_000_000.0
    rotary_factor: float = 1.0  # positions of global layers are divided by it
    local_rotary_base: float = 10_000.0
    local_rotary_factor: float = 1.0
    tied: bool = True
    scaled_embedding: bool = True
    head_norms: bool = True
    out_norms: bool = True
    norm_offset: float = 1.0
    vision: SiglipConfig | None = None
    image_tokens: int = 256  # soft tokens of one image, a square
    image_token: int = 262_144


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
    """Average over squares of `side // pooled_side` patches; the rest at the edges is dropped."""
    count, _, width = features.shape
    square = side // pooled_side
    used = square * pooled_side
    grid = features.reshape(count, side, side, width)[:, :used, :used]
    grid = grid.reshape(count, pooled_side, square, pooled_side, square, width)
    return grid.mean(axis=(2, 4)).reshape(count, pooled_side**2, width)


class Gemma3Decoder(Decoder):
    """The decoder with SigLIP's tower, and two speeds of rotation."""

    config: Gemma3Config

    def setup(self) -> None:
        super().setup()
        c = self.config
        if c.vision is not None:
            self.vision = SiglipTower(c.vision, jnp.dtype(c.dtype), c.remat)
            self.projector = ImageProjector(c)

    def see(self, images: Float[Array, "B I C H W"]) -> tuple[Float[Array, "B F D"]]:
        """Return the soft tokens of a row's images, one image after the other."""
        batch, count, *rest = images.shape
        features = self.projector(self.vision(images.reshape(batch * count, *rest)))
        return (features.reshape(batch, -1, features.shape[-1]),)

    def angles(
        self, tokens: Int[Array, "B S"], context: Context, images: PyTree
    ) -> Float[Array, "2 B S half"]:
        """Return the angles of local layers, then of global ones."""
        del tokens, images
        c, positions = self.config, context.slots.positions
        local = rotary_angles(positions, c.head_size, c.local_rotary_base) / c.local_rotary_factor
        everywhere = rotary_angles(positions, c.head_size, c.rotary_base) / c.rotary_factor
        return jnp.stack([local, everywhere])


def gemma3_policy(config: Gemma3Config) -> Policy:
    """Return the Gemma 3 family behind the `Policy` record.

    Images are `float[B, I, C, H, W]` or None.
    """

    def image_groups(inputs: TreeInputs) -> Array | None:
        return None if inputs.images is None else image_runs(inputs, config.image_token)

    return decoder_policy(
        Gemma3Decoder(config),
        images=empty_images(config, 1, 1) if config.vision else None,
        image_slots=config.image_tokens if config.vision else 1,
        vision_heads=config.vision.heads if config.vision else None,
        image_groups=image_groups,
        without_pixels=no_pixels,
    )


def empty_images(config: Gemma3Config, batch: int, bucket: int) -> Float[Array, "B I C H W"]:
    """Make black images, so many a row."""
    assert config.vision is not None
    side = config.vision.image_pixels
    return jnp.zeros((batch, bucket, config.vision.channels, side, side), jnp.float32)
