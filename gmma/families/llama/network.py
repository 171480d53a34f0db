"""`llama`: Llama 2 and 3, SmolLM2, Mistral and decoders of their shape, as in transformers.

The shared decoder as it stands, text alone. Llama 3.1 and newer stretch the slow rotary
frequencies.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gmma.models.decoder import Decoder, DecoderConfig
from gmma.models.layers import along_last
from gmma.models.policy import Context
from gmma.types import PyTree


@dataclass(frozen=True)
class RotaryScaling:
    """Scaling of rotary frequencies: of all alike, or, with a `context`, of the slow ones alone.

    Wavelengths below context / high_factor stay, those above context / low_factor become `factor`
    times as long, and between them the change is gradual (transformers,
    `_compute_llama3_parameters`).
    """

    factor: float
    low_factor: float = 1.0
    high_factor: float = 1.0
    context: float | None = None  # tokens that the model was first trained on

    def apply(self, frequency: Float[np.ndarray, "half"]) -> Float[np.ndarray, "half"]:
        """Return the slow frequencies, in radians a position."""
        slow = frequency / self.factor
        if self.context is None:
            return slow
        turns = self.context * frequency / (2 * math.pi)
        kept = np.clip((turns - self.low_factor) / (self.high_factor - self.low_factor), 0, 1)
        return (1 - kept) * slow + kept * frequency


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(DecoderConfig):
    """Sizes of a Llama; `checkpoint.py` reads them from a config.json."""

    rotary_scaling: RotaryScaling | None = None


class LlamaDecoder(Decoder):
    """The decoder with scaled rotary frequencies."""

    config: LlamaConfig

    def angles(
        self, tokens: Int[Array, "B S"], context: Context, images: PyTree
    ) -> Float[Array, "B S half"]:
        """Return the rotary angles of every slot."""
        c = self.config
        if c.rotary_scaling is None:
            return super().angles(tokens, context, images)
        frequency = c.rotary_base ** (-np.arange(0, c.head_size, 2) / c.head_size)
        positions = context.slots.positions[..., None].astype(jnp.float32)
        scaled = jnp.asarray(c.rotary_scaling.apply(frequency), jnp.float32)
        return positions * along_last(scaled, positions)
