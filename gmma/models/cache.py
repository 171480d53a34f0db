"""The cache of a rollout: one level for the prompt, one for the thoughts, one for the answers.

Branching copies no keys: the K thoughts of a prompt read its one level, the M answers of a thought
read the thought's. Layers that keep a state in place of keys have one a node of the deepest level;
it changes with every token, so that branching copies it: K times from the prompt, and M times from
each thought (`docs/states.md` counts the bytes).
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gmma.models.attention import Level, Slots
from gmma.types import pytree


@pytree
class NodeStates:
    """State that a node's tokens leave to those behind it; a leading layer axis in a cache.

    N heads of keys, G heads of values to each, of sizes H and V; `hybrid.py` has the layers.
    """

    memory: Float[Array, "*L B k m N G H V"]  # float32 or wider
    tail: Float[Array, "*L B k m t N X"]  # the last inputs of the convolution


@pytree
class TreeCache:
    """Levels from the root down, each with a leading layer axis; the last one is being written.

    `rotary_shift` is added to the path positions of tokens after the prompt before they are turned
    into rotary angles (Qwen's images take fewer positions than tokens); zero for most families.
    `states` are those of the deepest level's nodes, in families that have such layers.
    """

    levels: tuple[Level, ...]
    rotary_shift: Int[Array, "B"]
    states: NodeStates | None = None


@pytree
class NewTokens:
    """Keys and values that one new token per node adds to a cache, and the states behind it."""

    keys: Float[Array, "L B k m N H"]
    values: Float[Array, "L B k m N H"]
    states: NodeStates | None = None


def branch(states: NodeStates, nodes: tuple[int, int], axis: int = 1) -> NodeStates:
    """Give each of `nodes` = (k, m) a copy of its parent's state; `axis` is that of k."""

    def copied(x: Array) -> Array:
        return jnp.broadcast_to(x, (*x.shape[:axis], *nodes, *x.shape[axis + 2 :]))

    return NodeStates(memory=copied(states.memory), tail=copied(states.tail))


def open_level(cache: TreeCache, nodes: tuple[int, int], slots: int) -> TreeCache:
    """Return a new deepest level of `nodes` = (k, m) empty nodes with `slots` slots each.

    Each has a copy of its parent's state.
    """
    root = cache.levels[0]
    layers, batch, _, _, heads, _, size = root.keys.shape
    place = (batch, *nodes, slots)
    empty = jnp.zeros((layers, batch, *nodes, heads, slots, size), root.keys.dtype)
    level = Level(
        slots=Slots(positions=jnp.zeros(place, jnp.int32), valid=jnp.zeros(place, bool)),
        keys=empty,
        values=empty,
    )
    states = None if cache.states is None else branch(cache.states, nodes, axis=2)
    levels = (*cache.levels, level)
    return TreeCache(levels=levels, rotary_shift=cache.rotary_shift, states=states)


def write_slot(
    cache: TreeCache, slot: Int[Array, ""], positions: Int[Array, "B k m"], new: NewTokens
) -> TreeCache:
    """Put one token per node at `slot` of the deepest level."""
    *above, level = cache.levels

    def put(array: Array, column: Array, axis: int) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(array, column, slot, axis)

    written = Level(
        slots=Slots(
            positions=put(level.slots.positions, positions[..., None], 3),
            valid=put(level.slots.valid, jnp.ones((*positions.shape, 1), bool), 3),
        ),
        keys=put(level.keys, new.keys[..., None, :], 5),
        values=put(level.values, new.values[..., None, :], 5),
    )
    return replace(cache, levels=(*above, written), states=new.states)


def cut_places(cache: TreeCache, slots: int) -> TreeCache:
    """Return the cache with the places of its deepest level's first slots alone, to be read.

    Attention reads as many keys of a level as it has places: cut here, keys would be copied.
    """
    *above, level = cache.levels
    places = jax.tree.map(lambda x: x[..., :slots], level.slots)
    cut = Level(slots=places, keys=level.keys, values=level.values)
    return replace(cache, levels=(*above, cut))


def seal_level(cache: TreeCache, lengths: Int[Array, "B k m"]) -> TreeCache:
    """Hide the slots that rows wrote after their node had ended; states were not written then."""
    *above, level = cache.levels
    slot = jax.lax.broadcasted_iota(lengths.dtype, level.slots.valid.shape, 3)
    held = slot < lengths[..., None]
    sealed = Level(
        slots=Slots(positions=level.slots.positions, valid=level.slots.valid & held),
        keys=level.keys,
        values=level.values,
    )
    return replace(cache, levels=(*above, sealed))
