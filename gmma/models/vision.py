"""Turn pixels into image tokens, and put image tokens into their places in the prompt."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gmma.models.attention import HIDDEN_SCORE
from gmma.tree.rows import in_prompt
from gmma.types import TreeInputs

ATTENTION_CHUNK_SLOTS = 512  # queries whose scores exist at a time


def image_attention(
    query: Float[Array, "B s N H"],
    keys: Float[Array, "B s N H"],
    values: Float[Array, "B s N H"],
    segments: Int[Array, "B s"] | None = None,
) -> Float[Array, "B s N H"]:
    """Compute attention in both directions within each segment; without segments, each row.

    Queries come scaled; scores are float32 or wider, and recomputed in the backward pass where the
    row is so long that they exist a chunk of queries at a time.
    """

    def of_chunk(chunk: tuple[Array, Array | None]) -> Array:
        rows, own = chunk
        wide = np.promote_types(rows.dtype, np.float32)
        score = jnp.einsum("bqnh,bknh->bnqk", rows, keys, preferred_element_type=wide)
        if own is not None and segments is not None:
            same = own[:, None, :, None] == segments[:, None, None, :]
            score = jnp.where(same, score, HIDDEN_SCORE)
        weight = jax.nn.softmax(score).astype(values.dtype)
        return jnp.einsum("bnqk,bknh->bqnh", weight, values)

    slots, size = query.shape[1], ATTENTION_CHUNK_SLOTS
    if slots <= size or slots % size:
        return of_chunk((query, segments))

    def cut(x: Array) -> Array:
        return x.reshape(x.shape[0], -1, size, *x.shape[2:]).swapaxes(0, 1)

    out = jax.lax.map(jax.checkpoint(of_chunk), jax.tree.map(cut, (query, segments)))
    return out.swapaxes(0, 1).reshape(query.shape)


def no_pixels(images: Float[Array, "B I *pixels"]) -> Float[Array, "B 0 *pixels"]:
    """Empty images that are pixels alone, and have been seen."""
    return images[:, :0]


def patches(images: Float[Array, "B I H W C"], size: int) -> Float[Array, "B I patch pixels"]:
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
    prompt: Bool[Array, "#B S"],
) -> Float[Array, "B S D"]:
    """Put the i-th feature of a row where the i-th image token of its prompt stands.

    Only the slots of the `prompt` count: an image token that a policy happens to sample into a
    thought is an ordinary token.
    """
    is_image = (tokens == image_token) & prompt
    order = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, features.shape[1] - 1)
    placed = jnp.take_along_axis(features, order[..., None], axis=1)
    return jnp.where(is_image[..., None], placed.astype(embeddings.dtype), embeddings)


def image_runs(inputs: TreeInputs, image_token: int) -> Int[Array, "B S"]:
    """Return the number of each image, 1, 2, …, at its tokens and 0 elsewhere.

    An image is a run of placeholders in the prompt; one that a policy samples is an ordinary token.
    """
    prompt = in_prompt(inputs.nodes, inputs.shape, inputs.tokens.shape[1])
    is_image = (inputs.tokens == image_token) & prompt
    begins = is_image & ~jnp.pad(is_image, ((0, 0), (1, 0)))[:, :-1]
    return jnp.where(is_image, jnp.cumsum(begins, axis=1, dtype=jnp.int32), 0)
