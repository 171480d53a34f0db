"""The cache of a rollout: one level for the prompt, one for the thoughts, one for the answers.

Branching copies nothing: the K thoughts of a prompt read its one level, the M answers of a thought
read the thought's.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gmma.models.attention import Level, Slots
from gmma.types import pytree


@pytree
class TreeCache:
    """Levels from the root down, each with a leading layer axis; the last one is being written.

    `rotary_shift` is added to the path positions of tokens after the prompt before they are turned
    into rotary angles (Qwen's images take fewer positions than tokens); zero for most families.
    """

    levels: tuple[Level, ...]
    rotary_shift: Int[Array, "B"]


def open_level(cache: TreeCache, nodes: tuple[int, int], slots: int) -> TreeCache:
    """Return a new deepest level of `nodes` = (k, m) empty nodes with `slots` slots each."""
    root = cache.levels[0]
    layers, batch, _, _, heads, _, size = root.keys.shape
    place = (batch, *nodes, slots)
    empty = jnp.zeros((layers, batch, *nodes, heads, slots, size), root.keys.dtype)
    level = Level(
        slots=Slots(positions=jnp.zeros(place, jnp.int32), valid=jnp.zeros(place, bool)),
        keys=empty,
        values=empty,
    )
    return TreeCache(levels=(*cache.levels, level), rotary_shift=cache.rotary_shift)


def write_slot(
    cache: TreeCache,
    slot: Int[Array, ""],
    positions: Int[Array, "B k m"],
    keys: Float[Array, "L B k m N H"],
    values: Float[Array, "L B k m N H"],
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
        keys=put(level.keys, keys[..., None, :], 5),
        values=put(level.values, values[..., None, :], 5),
    )
    return TreeCache(levels=(*above, written), rotary_shift=cache.rotary_shift)


def seal_level(cache: TreeCache, lengths: Int[Array, "B k m"]) -> TreeCache:
    """Hide the slots that rows wrote after their node had ended."""
    *above, level = cache.levels
    slot = jax.lax.broadcasted_iota(lengths.dtype, level.slots.valid.shape, 3)
    held = slot < lengths[..., None]
    sealed = Level(
        slots=Slots(positions=level.slots.positions, valid=level.slots.valid & held),
        keys=level.keys,
        values=level.values,
    )
    return TreeCache(levels=(*above, sealed), rotary_shift=cache.rotary_shift)
