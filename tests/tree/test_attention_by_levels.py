"""Attention level by level equals one dense softmax with the static mask."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import laws
import numpy as np
import pytest
from hypothesis import given

from gmma.models.attention import Slots, packed_attention
from gmma.tree import TreeShape, attention_mask

SHAPES = (
    TreeShape(6, 3, 2, thoughts=2, answers=3),
    TreeShape(5, 4, 3, thoughts=1, answers=1),
    TreeShape(4, 2, 0, thoughts=3, answers=1),
)
KEY_HEADS, GROUP, SIZE = 2, 2, 4


def path_positions(shape: TreeShape) -> np.ndarray:
    """Positions along the path when all slots are full: how many slots a slot sees, less one."""
    return attention_mask(shape).sum(axis=1, dtype=np.int32) - 1


@functools.cache
def by_levels(shape: TreeShape, window: int | None, softcap: float | None) -> Callable[..., Any]:
    def run(query: Any, keys: Any, values: Any, valid: Any, image: Any) -> Any:
        width = None if window is None else jnp.asarray(window, jnp.int32)
        positions = jnp.broadcast_to(jnp.asarray(path_positions(shape)), valid.shape)
        slots = Slots(positions=positions, valid=valid, image=image)
        return packed_attention(query, keys, values, slots, shape, window=width, softcap=softcap)

    return laws.compiled(run)


def dense(
    query: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    seen: np.ndarray,
    softcap: float | None,
) -> np.ndarray:
    """softmax(q·k) over the keys that `seen` [B S S] allows, in float64."""
    score = np.einsum("bqngh,bknh->bngqk", query.astype(float), keys.astype(float))
    score = score if softcap is None else softcap * np.tanh(score / softcap)
    score = np.where(seen[:, None, None], score, -np.inf)
    weight = np.exp(score - score.max(axis=-1, keepdims=True))
    weight /= weight.sum(axis=-1, keepdims=True)
    return np.einsum("bngqk,bknh->bqngh", weight, values.astype(float))


def check(
    rng: np.random.Generator,
    shape: TreeShape,
    seen: np.ndarray,
    *,
    valid: np.ndarray | None = None,
    image: np.ndarray | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> None:
    """Compare on random queries, keys and values, where a query itself is valid."""
    batch, slots = 2, shape.packed
    query = rng.normal(size=(batch, slots, KEY_HEADS, GROUP, SIZE)).astype(np.float32)
    keys, values = rng.normal(size=(2, batch, slots, KEY_HEADS, SIZE)).astype(np.float32)
    valid = np.ones((batch, slots), bool) if valid is None else valid
    found = np.asarray(by_levels(shape, window, softcap)(query, keys, values, valid, image))
    expected = dense(query, keys, values, np.broadcast_to(seen, (batch, slots, slots)), softcap)
    np.testing.assert_allclose(found[valid], expected[valid], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.label)
@laws.examples(5)
@given(laws.generators())
def test_equals_a_dense_softmax_with_the_mask(shape: TreeShape, rng: np.random.Generator) -> None:
    check(rng, shape, attention_mask(shape))


@laws.examples(10)
@given(laws.generators())
def test_padding_is_not_seen(rng: np.random.Generator) -> None:
    """Random slots are padding, but never the first of the prompt, which everybody sees."""
    shape = SHAPES[0]
    valid = rng.random((2, shape.packed)) < 0.6
    valid[:, 0] = True
    check(rng, shape, attention_mask(shape) & valid[:, None], valid=valid)


@pytest.mark.parametrize("window", [1, 3])
@laws.examples(5)
@given(laws.generators())
def test_a_window_runs_along_the_path(window: int, rng: np.random.Generator) -> None:
    """The window is measured in path positions: an answer's reaches back into its own thought."""
    shape = SHAPES[0]
    positions = path_positions(shape)
    near = positions[:, None] - positions[None] < window
    check(rng, shape, attention_mask(shape) & near, window=window)


@laws.examples(5)
@given(laws.generators())
def test_the_tokens_of_an_image_see_each_other(rng: np.random.Generator) -> None:
    """Prompt slots 0 and 1 are one image, 3 and 4 another; in both directions, inside each."""
    shape = SHAPES[0]
    image = np.zeros((2, shape.packed), np.int32)
    image[:, [0, 1]], image[:, [3, 4]] = 1, 2
    seen = attention_mask(shape).copy()
    seen[0, 1] = seen[3, 4] = True
    check(rng, shape, seen, image=image)


@laws.examples(5)
@given(laws.generators())
def test_soft_capped_scores(rng: np.random.Generator) -> None:
    check(rng, SHAPES[0], attention_mask(SHAPES[0]), softcap=1.5)
