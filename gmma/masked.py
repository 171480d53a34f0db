"""Sums and means over the entries that count."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

Axis = int | tuple[int, ...] | None


def masked_sum(
    values: Float[Array, "*s"], mask: Bool[Array, "*s"], axis: Axis = None, keepdims: bool = False
) -> Float[Array, "..."]:
    """Sum the entries where the mask holds; what stands elsewhere, NaN included, is not read."""
    return jnp.where(mask, values, 0).sum(axis=axis, keepdims=keepdims)


def masked_count(
    mask: Bool[Array, "*s"], dtype: jnp.dtype, axis: Axis = None, keepdims: bool = False
) -> Shaped[Array, "..."]:
    """Count the entries that the mask keeps, as `dtype`."""
    return mask.sum(axis=axis, keepdims=keepdims, dtype=dtype)


def masked_mean(
    values: Float[Array, "*s"], mask: Bool[Array, "*s"], axis: Axis = None, keepdims: bool = False
) -> Float[Array, "..."]:
    """Average the entries where the mask holds; 0 where none does."""
    total = masked_sum(values, mask, axis, keepdims)
    return total / jnp.maximum(masked_count(mask, values.dtype, axis, keepdims), 1)
