"""Ragged rows: the tokens of a tree by the true lengths of its nodes, without a gap between them.

    packed   p p p . . . a a . . b b b . x . . . y y . . …     S slots, each node its own
    row      p p p a a b b b x y y …                           R slots, R < S

A network may compute in rows of R slots what the packed layout says in S: the order of tokens is
the same, and what a token attends to follows from the node it belongs to (`on_path`), not from its
slot. Log-probs go back to packed slots, so credit, weights and metrics know nothing of rows.

R is one of a few, chosen on the host from the lengths that it holds (`row_slots`), so there is
one compilation for each.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from gmma.tree.layout import node_of_slot
from gmma.types import PackedTree, TreeInputs, TreeShape

NO_NODE = -1  # of a slot behind the row's last token
LANES = 128  # slots are a multiple of it where rows are long: a kernel's smallest block on a TPU
FEW = 8  # and of this elsewhere
MOST_FILLED = 15 / 16  # of the packed slots: a row that saves less is not worth its costlier mask


def row_slots(longest: int, packed: int, lengths: int) -> int | None:
    """Return R of a batch whose longest tree has so many tokens; None: the packed slots are best.

    R is the least that holds the tree of the `lengths` equal parts of the packed slots, rounded up
    to whole lanes.

    >>> [row_slots(longest, packed=768, lengths=4) for longest in (100, 193, 576, 577)]
    [192, 384, 576, None]
    """
    step = LANES if packed >= 8 * LANES else FEW
    for part in range(1, lengths):
        slots = -(-packed * part // lengths)
        slots = -(-slots // step) * step
        if longest <= slots <= packed * MOST_FILLED:
            return slots
    return None


def tree_tokens(
    prompt: Int[np.ndarray, "B"],
    thoughts: Int[np.ndarray, "B K"],
    answers: Int[np.ndarray, "B K M"],
) -> Int[np.ndarray, "B"]:
    """Count the tokens of each tree from the lengths of its nodes."""
    return prompt + thoughts.sum(axis=1) + answers.sum(axis=(1, 2))


def packed_slots(valid: Bool[Array, "B S"], slots: int) -> Int[Array, "B R"]:
    """Return the packed slot that stands at each slot of the row, and S behind the last token.

    No tree may have more tokens than a row has slots: those behind would be lost.
    """
    batch, packed = valid.shape
    own = jnp.broadcast_to(jnp.arange(packed, dtype=jnp.int32), valid.shape)
    place = jnp.where(valid, row_places(valid), slots)  # out of the row: dropped
    rows = jnp.arange(batch)[:, None]
    return jnp.full((batch, slots), packed, jnp.int32).at[rows, place].set(own, mode="drop")


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
    batch = values.shape[0]
    rows = jnp.arange(batch)[:, None]
    return jnp.zeros((batch, packed), values.dtype).at[rows, slot].set(values, mode="drop")


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
