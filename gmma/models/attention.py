"""Attention over the levels of a tree, every shared key and value read once.

A level is one depth of the tree: the prompt, the thoughts, the answers. Its keys are laid out
`[B k m N s H]`, where (k, m) says how many nodes stand there: (1, 1) for the prompt, (K, 1) for the
thoughts, (K, M) for the answers. Queries `[B K M q …]` reach a level by *folding*: the K/k·M/m
branches that share a node become more queries of that node, a reshape and no copy. Each level
yields an unnormalised softmax, and the levels are merged by their maxima, as in blockwise
attention (Rabe and Staats, arXiv 2112.05682). The siblings of a token are never among the keys it
is folded onto, so isolation (law L3) needs no mask; causality within a node is a comparison of
path positions.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gmma.tree.layout import join_levels, split_levels
from gmma.tree.rows import on_path
from gmma.types import TreeShape, pytree

HIDDEN_SCORE = -1e30  # finite, so that a query with nothing to see yields numbers that nobody reads


@pytree
class Slots:
    """Places of tokens: `positions` along their path, `valid` false for padding.

    `image` numbers the image a token belongs to, 0 for text; where given, the tokens of one image
    see each other in both directions.
    """

    positions: Int[Array, "*nodes s"]
    valid: Bool[Array, "*nodes s"]
    image: Int[Array, "*nodes s"] | None = None


@pytree
class Level:
    """Keys and values of one depth of the tree; a leading layer axis when it is part of a cache."""

    slots: Slots  # [B k m s]
    keys: Float[Array, "*L B k m N s H"]
    values: Float[Array, "*L B k m N s H"]


class Partial(NamedTuple):
    """An unnormalised softmax: Σ exp(score − peak)·value, Σ exp(score − peak), peak."""

    weighted: Float[Array, "*rows H"]
    total: Float[Array, "*rows"]
    peak: Float[Array, "*rows"]


def visible(
    query: Slots, key: Slots, window: Int[Array, ""] | None = None
) -> Bool[Array, "*nodes q s"]:
    """Return which keys of its node a query reads: valid, not later, inside the window if any.

    The tokens of one image also see what is later in it. The window is measured along the path and
    looks back only, `position_q − position_k < window`, in an image too (as in transformers 5).
    """
    distance = query.positions[..., :, None] - key.positions[..., None, :]
    seen = distance >= 0
    if query.image is not None and key.image is not None:
        same = query.image[..., :, None] == key.image[..., None, :]
        seen |= same & (query.image[..., :, None] > 0)
    if window is not None:
        seen &= distance < window
    return seen & key.valid[..., None, :]


def attend_level(
    query: Float[Array, "B k m q N G H"],
    keys: Float[Array, "B k m N s H"],
    values: Float[Array, "B k m N s H"],
    seen: Bool[Array, "B k m q s"],
    softcap: float | None = None,
) -> Partial:
    """Compute attention of folded queries to one level; scores and sums in float32 or wider."""
    wide = np.promote_types(query.dtype, np.float32)
    score = jnp.einsum("bkmqngh,bkmnsh->bkmngqs", query, keys, preferred_element_type=wide)
    if softcap is not None:
        score = softcap * jnp.tanh(score / softcap)
    score = jnp.where(seen[:, :, :, None, None], score, HIDDEN_SCORE)
    peak = jax.lax.stop_gradient(score.max(axis=-1, initial=HIDDEN_SCORE))
    weight = jnp.exp(score - peak[..., None])
    # In the order of the product's own axes: asked for another, XLA finds no fast routine on CPU.
    weighted = jnp.einsum(
        "bkmngqs,bkmnsh->bkmngqh", weight.astype(values.dtype), values, preferred_element_type=wide
    )
    to_query = (0, 1, 2, 5, 3, 4)  # b k m n g q → b k m q n g
    return Partial(
        weighted.transpose(*to_query, 6),
        weight.sum(-1).transpose(to_query),
        peak.transpose(to_query),
    )


def merge_partials(parts: Sequence[Partial]) -> Float[Array, "*rows H"]:
    """Merge partial softmaxes into the softmax over the union of the levels' keys."""
    peak = jnp.stack([part.peak for part in parts]).max(axis=0)
    scales = [jnp.exp(part.peak - peak) for part in parts]
    pairs = list(zip(scales, parts, strict=True))
    total = jnp.stack([scale * part.total for scale, part in pairs]).sum(axis=0)
    weighted = jnp.stack([scale[..., None] * part.weighted for scale, part in pairs]).sum(axis=0)
    return weighted / jnp.maximum(total, jnp.finfo(total.dtype).tiny)[..., None]


def attend(
    query: Float[Array, "B K M q N G H"],
    slots: Slots,
    levels: Sequence[Level],
    *,
    window: Int[Array, ""] | None = None,
    softcap: float | None = None,
) -> Float[Array, "B K M q N G H"]:
    """Compute attention of the tokens of one level to it and to the levels above it."""
    batch, thoughts, answers, length = query.shape[:4]
    parts = []
    for level in levels:
        _, k, m, s = level.slots.positions.shape
        if s == 0:
            continue
        fold = (batch, k, m, thoughts // k * (answers // m) * length)
        folded = jax.tree.map(lambda x, fold=fold: x.reshape(*fold, *x.shape[4:]), (query, slots))
        keys = Slots(
            positions=level.slots.positions, valid=level.slots.valid, image=level.slots.image
        )
        seen = visible(folded[1], keys, window)
        part = attend_level(folded[0], level.keys, level.values, seen, softcap)
        rows = (batch, thoughts, answers, length)
        parts.append(Partial(*(x.reshape(*rows, *x.shape[4:]) for x in part)))
    return merge_partials(parts).astype(query.dtype)


def packed_attention(
    query: Float[Array, "B S N G H"],
    keys: Float[Array, "B S N H"],
    values: Float[Array, "B S N H"],
    slots: Slots,
    shape: TreeShape,
    *,
    window: Int[Array, ""] | None = None,
    softcap: float | None = None,
) -> Float[Array, "B S N G H"]:
    """Compute attention within a packed tree, level by level, as `attention_mask` defines it.

    Work and memory are P² + K·T·(P + T) + K·M·A·(P + T + A) scores instead of S².
    """
    queries = split_nodes(query, shape)
    places = jax.tree.map(lambda x: split_nodes(x, shape), slots)
    levels, outputs = [], []
    for depth, (k, v) in enumerate(
        zip(split_nodes(keys, shape), split_nodes(values, shape), strict=True)
    ):
        place = Slots(
            positions=places.positions[depth],
            valid=places.valid[depth],
            image=None if slots.image is None else places.image[depth],
        )
        levels.append(Level(slots=place, keys=heads_first(k), values=heads_first(v)))
        if queries[depth].shape[3] == 0:
            outputs.append(queries[depth])
        else:
            out = attend(queries[depth], place, levels, window=window, softcap=softcap)
            outputs.append(out)
    prompt, thought, answer = outputs
    return join_levels(prompt[:, 0, 0], thought[:, :, 0], answer)


def ragged_attention(
    query: Float[Array, "B S N G H"],
    keys: Float[Array, "B S N H"],
    values: Float[Array, "B S N H"],
    slots: Slots,
    nodes: Int[Array, "B S"],
    shape: TreeShape,
    *,
    window: Int[Array, ""] | None = None,
    softcap: float | None = None,
) -> Float[Array, "B S N G H"]:
    """Compute attention within ragged rows: the relation of `packed_attention`, by nodes as data.

    Queries go a chunk at a time, to the keys that may stand before their last or in their image:
    a little more than half of S² scores.
    """
    level = Level(
        slots=jax.tree.map(lambda x: x[:, None, None], slots),
        keys=heads_first(keys[:, None, None]),
        values=heads_first(values[:, None, None]),
    )
    images_end = 0 if slots.image is None else min(shape.prompt, nodes.shape[1])

    def attend_chunk(start: int, end: int) -> Float[Array, "B q N G H"]:
        last = max(end, images_end)
        own, place = (
            jax.tree.map(lambda x, cut=cut: x[..., cut], level.slots)
            for cut in (slice(start, end), slice(last))
        )
        path = on_path(nodes[:, start:end], nodes[:, :last], shape)
        seen = visible(own, place, window) & path[:, None, None]
        own_keys, own_values = (x[..., :last, :] for x in (level.keys, level.values))
        part = attend_level(query[:, None, None, start:end], own_keys, own_values, seen, softcap)
        return merge_partials([part])[:, 0, 0]

    outputs = [attend_chunk(*chunk) for chunk in query_chunks(nodes.shape[1])]
    return jnp.concatenate(outputs, axis=1).astype(query.dtype)


def query_chunks(slots: int) -> Sequence[tuple[int, int]]:
    """Cut a row into chunks of queries of about 128, eight at most: (first slot, behind the last).

    >>> query_chunks(300)
    [(0, 100), (100, 200), (200, 300)]
    """
    count = min(8, -(-slots // 128))
    ends = [slots * part // count for part in range(count + 1)]
    return list(pairwise(ends))


def decode_attention(
    query: Float[Array, "B R N G H"],
    keys: Float[Array, "B R N H"],
    values: Float[Array, "B R N H"],
    slots: Slots,
    cached: Sequence[Level],
    *,
    window: Int[Array, ""] | None = None,
    softcap: float | None = None,
) -> Float[Array, "B R N G H"]:
    """Compute attention of one new token per row (R = k·m of the deepest level).

    It attends to the cache and to itself.

    The new keys are not yet in the cache: they form a level of their own, one slot long, so that a
    layer only reads its cache and the caller writes all layers at once.
    """
    batch, rows, *_ = query.shape
    nodes = cached[-1].slots.positions.shape[:3]
    place = jax.tree.map(lambda x: x.reshape(*nodes, 1), slots)
    own = Level(
        slots=place,
        keys=heads_first(keys.reshape(*nodes, 1, *keys.shape[2:])),
        values=heads_first(values.reshape(*nodes, 1, *values.shape[2:])),
    )
    query = query.reshape(*nodes, 1, *query.shape[2:])
    out = attend(query, place, [*cached, own], window=window, softcap=softcap)
    return out.reshape(batch, rows, *out.shape[4:])


def split_nodes(packed: Array, shape: TreeShape) -> tuple[Array, Array, Array]:
    """Split levels (`split_levels`) with their node axes (k, m) made explicit."""
    prompt, thought, answer = split_levels(packed, shape)
    return prompt[:, None, None], thought[:, :, None], answer


def heads_first(x: Float[Array, "B k m s N H"]) -> Float[Array, "B k m N s H"]:
    """Move slots beside the head size, as a batched product over heads wants them."""
    return x.swapaxes(3, 4)
