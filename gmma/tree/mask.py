"""Attention mask of a packed tree.

One prompt token p, thoughts a and b, answers a1 a2 b1 b2, one slot each. A row is a query; a token
sees itself and what precedes it on its own path from the root, never a sibling:

         p  a  b  a1 a2 b1 b2
    p    1  .  .  .  .  .  .
    a    1  1  .  .  .  .  .
    b    1  .  1  .  .  .  .
    a1   1  1  .  1  .  .  .
    a2   1  1  .  .  1  .  .
    b1   1  .  1  .  .  1  .
    b2   1  .  1  .  .  .  1
"""

import numpy as np
from jaxtyping import Bool

from gmma.tree.layout import node_of_slot, parent_of_node
from gmma.types import TreeShape


def attention_mask(shape: TreeShape) -> Bool[np.ndarray, "S S"]:
    """Return the static mask of a tree whose slots are all full; `mask[query, key]`.

    The node structure is static, so this is a compile-time constant. Padding is masked by data.

    >>> attention_mask(TreeShape(1, 1, 1, thoughts=1, answers=2)).astype(int).tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    """
    parent = parent_of_node(shape)
    ancestor = np.eye(len(parent), dtype=bool)  # ancestor[n, a]: a is n or lies above it
    for node in range(1, len(parent)):  # parents come before their children
        ancestor[node] |= ancestor[parent[node]]
    owner = node_of_slot(shape)
    causal = np.tri(shape.packed, dtype=bool)  # a path's slots keep their order when packed
    return ancestor[np.ix_(owner, owner)] & causal
