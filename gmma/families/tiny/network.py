"""`tiny`: a vision-language decoder that trains on a laptop.

Patches go through a two-layer stem and take a learned place; then a plain decoder: RMSNorm, rotary
positions, grouped-query attention, gated MLP. Embeddings start at the scale of the image features:
at 0.02 beside features of order one, positions drowned (`experiments/LOG.md`).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gmma.families.tiny.config import TinyConfig as TinyConfig
from gmma.models.decoder import Decoder, DecoderConfig, decoder_policy
from gmma.models.layers import Linear, RMSNorm, named
from gmma.models.policy import Policy
from gmma.models.vision import no_pixels, patches


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


class TinyDecoder(Decoder):
    """The decoder with a patch stem and a learned place for each patch."""

    model: TinyConfig

    def setup(self) -> None:
        super().setup()
        if self.model.images:
            self.place = self.param(
                "place",
                named(nn.initializers.normal(self.model.embedding_scale), "patch", "embed"),
                (self.model.image_tokens, self.model.width),
                jnp.float32,
            )
            self.stem = Stem(self.model)

    def see(self, images: Float[Array, "B I H W C"]) -> tuple[Float[Array, "B F D"]]:
        """Image features, I·image_tokens a row."""
        features = self.stem(patches(images, self.model.patch_pixels))
        features += jnp.broadcast_to(self.place.astype(features.dtype), features.shape)
        return (features.reshape(features.shape[0], -1, features.shape[-1]),)


def tiny_policy(config: TinyConfig, *, vocab_size: int, image_token: int) -> Policy:
    """Return the tiny family behind the `Policy` record."""
    decoder = DecoderConfig(
        vocab_size=vocab_size,
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_size=config.head_size,
        mlp=config.mlp,
        rotary_base=config.rotary_base,
        embedding_std=config.embedding_scale,
        image_token=image_token,
        dtype=config.dtype,
        remat=config.remat,
        attention=config.attention,
    )
    return decoder_policy(
        TinyDecoder(decoder, config),
        images=empty_images(config, 1) if config.images else None,
        image_slots=config.image_tokens,
        without_pixels=no_pixels,
        config=config,
    )


def empty_images(config: TinyConfig, batch: int) -> Float[Array, "B I H W C"]:
    """Make black images of so many rows."""
    return jnp.zeros((batch, config.images, config.image_pixels, config.image_pixels, 3))
