"""Ragged rows: the tokens of a tree by the true lengths of its nodes, without a gap between them.

    packed   p p p . . . a a . . b b b . x . . . y y . . …     S slots, each node its own
    row      p p p a a b b b x y y …                           R slots, R < S

A network may compute in rows of R slots what the packed layout says in S: the order of tokens is
the same, and what a token attends to follows from the node it belongs to (`on_path`), not from its
slot. Log-probs go back to packed slots, so credit, weights and metrics know nothing of rows.

R is one of a few (`row_choices`). The longest of the trees that are computed at a time says which,
on the devices: each is a branch of the same program (`in_shortest_rows`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from gmma.tree.layout import node_of_slot
from gmma.types import PackedTree, TreeInputs, TreeShape

T = TypeVar("T")  # arrays
NO_NODE = -1  # of a slot behind the row's last token
LANES = 128  # slots are a multiple of it where rows are long: a kernel's smallest block on a TPU
FEW = 8  # and of this elsewhere
MOST_FILLED = 15 / 16  # of the packed slots: a row that saves less is not worth its costlier mask


def row_choices(packed: int, lengths: int) -> tuple[int, ...]:
    """Return the lengths that a ragged row may have, rising; beyond the last the layout is static.

    They are the `lengths` equal parts of the packed slots, rounded up to whole lanes. One that
    saves too little is left out, and so is one that equals another.

    >>> row_choices(packed=768, lengths=4)
    (192, 384, 576)
    """
    step = LANES if packed >= 8 * LANES else FEW
    lengths = min(lengths, packed)  # more parts than slots give the same
    rounded = {-(-packed * part // (lengths * step)) * step for part in range(1, lengths)}
    return tuple(sorted(slots for slots in rounded if slots <= packed * MOST_FILLED))


def row_slots(longest: int, choices: Sequence[int]) -> int | None:
    """Return R of a batch whose longest tree has so many tokens: the least choice that holds it.

    None where none does: the batch keeps its packed slots.

    >>> [row_slots(longest, (192, 384, 576)) for longest in (100, 193, 576, 577)]
    [192, 384, 576, None]
    """
    return next((slots for slots in choices if longest <= slots), None)


def in_shortest_rows(
    compute: Callable[[PackedTree], T], packed: PackedTree, lengths: int | None
) -> T:
    """Compute in the least of so many lengths of rows that holds each tree of a packed batch.

    What is computed has the same shapes in all of them. The longest tree counts, on whatever device
    it is. Without `lengths` rows are as `packed` has them.
    """
    if lengths is None:
        return compute(packed)
    choices = row_choices(packed.inputs.shape.packed, lengths)
    at = jnp.searchsorted(jnp.asarray(choices, jnp.int32), longest_tree(packed.inputs.valid))
    programs = [
        lambda held, slots=slots: compute(replace(held, row_slots=slots))
        for slots in (*choices, None)
    ]
    return jax.lax.switch(at, programs, packed)


def longest_tree(valid: Bool[Array, "B S"]) -> Int[Array, ""]:
    """Count the tokens of the longest tree of a batch."""
    return valid.sum(axis=1, dtype=jnp.int32).max()


def packed_slots(valid: Bool[Array, "B S"], slots: int) -> Int[Array, "B R"]:
    """Return the packed slot that stands at each slot of the row, and S behind the last token.

    No tree may have more tokens than a row has slots: those behind would be lost.
    """
    batch, packed = valid.shape
    own = jnp.broadcast_to(jnp.arange(packed, dtype=jnp.int32), valid.shape)
    place = jnp.where(valid, row_places(valid), slots)  # out of the row: dropped
    return put_at(jnp.full((batch, slots), packed, jnp.int32), place, own)


def row_places(valid: Bool[Array, "B S"]) -> Int[Array, "B S"]:
    """Return the row's slot of each packed token; of an empty slot that of the token before it."""
    return jnp.maximum(jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1, 0)


def row_inputs(inputs: TreeInputs, slots: int) -> TreeInputs:
    """Lay out packed inputs in rows of so many slots."""
    origin = packed_slots(inputs.valid, slots)
    held = origin < inputs.shape.packed

    def taken(packed: Int[Array, "B S"]) -> Int[Array, "B R"]:
        found = jnp.take_along_axis(packed, jnp.minimum(origin, packed.shape[1] - 1), axis=1)
        return jnp.where(held, found, 0)

    nodes = jnp.asarray(np.append(node_of_slot(inputs.shape), NO_NODE), jnp.int32)
    return TreeInputs(
        tokens=taken(inputs.tokens),
        positions=taken(inputs.positions),
        valid=held,
        images=inputs.images,
        nodes=nodes[origin],
        shape=inputs.shape,
    )


def generated_slots(
    packed: PackedTree, slots: int
) -> tuple[Int[Array, "B G"], Int[Array, "B G"], Int[Array, "B G"]]:
    """Return of each token behind the prompt its packed slot, its predecessor's slot of the row,
    and the token; the packed slot is S where there is none.

    G is R, or as many as the packed layout has behind the prompt where that is less.
    """
    inputs, shape = packed.inputs, packed.inputs.shape
    count = min(slots, shape.packed - shape.prompt)
    origin = packed_slots(inputs.valid, slots)
    begin = inputs.valid[:, : shape.prompt].sum(axis=1, dtype=jnp.int32)
    place = begin[:, None] + jnp.arange(count, dtype=jnp.int32)[None]
    slot = jnp.take_along_axis(origin, jnp.minimum(place, slots - 1), axis=1)
    slot = jnp.where(place < slots, slot, shape.packed)
    some = jnp.minimum(slot, shape.packed - 1)
    before = jnp.take_along_axis(packed.predecessor, some, axis=1)
    before = jnp.take_along_axis(row_places(inputs.valid), before, axis=1)
    return slot, before, jnp.take_along_axis(inputs.tokens, some, axis=1)


def to_packed(
    values: Shaped[Array, "B G"], slot: Int[Array, "B G"], packed: int
) -> Shaped[Array, "B S"]:
    """Put values at their packed slots, of so many; 0 where nothing stands."""
    return put_at(jnp.zeros((values.shape[0], packed), values.dtype), slot, values)


def put_at(
    rows: Shaped[Array, "B R"], place: Int[Array, "B G"], values: Shaped[Array, "B G"]
) -> Shaped[Array, "B R"]:
    """Put values at places of their own row, and drop those that lie outside.

    Row by row, which says to the partitioner that no device needs another's.
    """
    return jax.vmap(lambda row, at, own: row.at[at].set(own, mode="drop"))(rows, place, values)


def in_prompt(nodes: Int[Array, "B S"] | None, shape: TreeShape, slots: int) -> Bool[Array, "#B S"]:
    """Return which of a row's slots are the prompt's, `[1 S]` where that is static."""
    if nodes is None:
        return jnp.arange(slots)[None] < shape.prompt
    return nodes == 0


def on_path(
    query: Int[Array, "B q"], key: Int[Array, "B s"], shape: TreeShape
) -> Bool[Array, "B q s"]:
    """Return whether the key's node is the query's or lies above it."""
    answer = query - 1 - shape.thoughts  # below 0 for a prompt and a thought
    thought = jnp.where(answer < 0, query, 1 + answer // shape.answers)
    nodes = key[:, None, :]
    return (nodes == 0) | (nodes == thought[..., None]) | (nodes == query[..., None])
