"""From pixels to image tokens, and image tokens into their places in the prompt."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def patches(
    images: Float[Array, "B I H W C"], size: int
) -> Float[Array, "B I patch pixels"]:
    """Cut images into square patches of `size` pixels, row by row, each flattened."""
    batch, count, height, width, channels = images.shape
    rows, columns = height // size, width // size
    grid = images.reshape(batch, count, rows, size, columns, size, channels)
    grid = grid.transpose(0, 1, 2, 4, 3, 5, 6)
    return grid.reshape(batch, count, rows * columns, size * size * channels)


def place_images(
    embeddings: Float[Array, "B S D"],
    tokens: Int[Array, "B S"],
    features: Float[Array, "B F D"],
    image_token: int,
    prompt_slots: int,
) -> Float[Array, "B S D"]:
    """Put the i-th feature of a row where the i-th image token of its prompt stands.

    Only the first `prompt_slots` slots count: an image token that a policy happens to sample into a
    thought is an ordinary token.
    """
    in_prompt = jnp.arange(tokens.shape[1]) < prompt_slots
    is_image = (tokens == image_token) & in_prompt
    order = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, features.shape[1] - 1)
    placed = jnp.take_along_axis(features, order[..., None], axis=1)
    return jnp.where(is_image[..., None], placed.astype(embeddings.dtype), embeddings)
