"""The interface of a network to the rest of gmma: a record of pure functions.

A Linen module describes a family; parameters are a pytree outside it; `policy_of` closes the module
into functions of (params, arrays). Nothing outside `gmma/models/` sees Linen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.core import Var
from jax.tree_util import keystr
from jax.tree_util import tree_leaves_with_path as leaves_with_path
from jaxtyping import Array, Int

from gmma.models.attention import Level, Slots
from gmma.models.cache import NewTokens, TreeCache
from gmma.tree.layout import prompt_only
from gmma.types import (
    Params,
    PromptBatch,
    PyTree,
    SeenImages,
    TreeInputs,
    TreeShape,
    pytree,
    static_field,
)


@dataclass(frozen=True, kw_only=True, eq=False)  # compared by identity: programs are cached by it
class Policy:
    """A vision-language decoder as pure functions of its parameters.

    `unembed` stands apart from `forward` so that log-probs can be taken a few slots at a time and
    no `[B, S, V]` array need ever exist.
    """

    config: Any  # the family's frozen config
    vocab_size: int
    init: Callable[[Array], Params]  # key (consumed) → {"params": …}
    logical_axes: Callable[[], PyTree]  # per parameter, the logical names of its axes
    units: Mapping[str, int]  # of an axis that is cut between units only: heads, not halves of one
    # (params, prompts) → hidden[B D] of each prompt's last token, cache holding the prompt's level
    prefill: Callable[[Params, PromptBatch], tuple[Array, TreeCache]]
    # (params, tokens[B k m], positions[B k m], open bool[B k m], cache) → hidden[B k m D], what
    # to write; of a node that is not open, whose token is none, neither is read. The cache's last
    # level may have fewer places than keys: keys without one are not written yet
    decode: Callable[[Params, Array, Array, Array, TreeCache], tuple[Array, NewTokens]]
    forward: Callable[[Params, TreeInputs], Array]  # → hidden[B S D]
    unembed: Callable[[Params, Array], Array]  # hidden[… D] → logits[… V], float32 or wider
    # params → the same for `unembed` alone: what it reads without a cast is gathered, once for all
    # of its calls
    head: Callable[[Params], Params] = lambda params: params
    # (params, images) → the same, seen, for `prefill` and `forward`; None: always with their pixels
    see: Callable[[Params, PyTree], SeenImages] | None = None
    # abstract params → paths `a/b/c` of those that `see` reads
    seen_by: Callable[[Params], frozenset[str]] = lambda params: frozenset()
    takes_rows: bool = False  # `forward` reads `TreeInputs.nodes`: ragged rows
    takes_scales: bool = False  # kernels may be rounded, with scales beside them (`rounded.py`)


@pytree
class Context:
    """Places of the tokens of one call; every layer reads it beside its activations.

    One of two programs: a packed tree (`shape` is given, `nodes` too where its rows are ragged), or
    one new token per node of the deepest cached level (`cached` gives the slots of the levels, root
    first).
    """

    slots: Slots  # [B S] of a packed tree, [B R] of R new tokens
    rotary_shift: Int[Array, "B"]
    cached: tuple[Slots, ...] | None
    nodes: Int[Array, "B S"] | None = None
    shape: TreeShape | None = static_field()


def no_image_groups(inputs: TreeInputs) -> None:
    """Families whose image tokens attend causally."""
    return


def no_rotary_shift(images: PyTree, batch: int) -> Int[Array, "B"]:
    """Families whose images take as many positions as tokens."""
    return jnp.zeros(batch, jnp.int32)


def policy_of(
    module: Any,  # a Linen module
    config: Any,
    *,
    vocab_size: int,
    sample: TreeInputs,
    units: Mapping[str, int],
    image_groups: Callable[[TreeInputs], Array | None] = no_image_groups,
    rotary_shift: Callable[[PyTree, int], Array] = no_rotary_shift,
    head: Callable[[Params], Params] = lambda params: params,
    without_pixels: Callable[[PyTree], PyTree] | None = None,
    takes_rows: bool = False,
    takes_scales: bool = False,
) -> Policy:
    """Close a family's module into a `Policy`.

    `module(tokens, context, images, cached, states)` returns `hidden[B S D]`, the new keys and
    values `[L B S N H]`, and the states behind the tokens, where `cached` is a tuple of (keys,
    values) `[L B k m N s H]` per level, of whose last the first slots alone have a place in
    `context.cached`, and are read (`layers.level_of_layer`); `states` are those of the deepest one,
    None in families that have none. `module.unembed(hidden)` returns logits. `sample` gives the
    shapes for `init`; its values do not matter. `units` counts the heads of the axes that merge
    heads with their width, by logical name. `module.see(images)` returns the features of images.
    Where `without_pixels` is given, the module takes `SeenImages` too, and what else reads images
    can do so without their pixels. `takes_rows` says that the module reads `context.nodes`, where
    it is given, in place of `context.shape`; `takes_scales` that all its products with weights are
    those of `Linear` and `Decoder`.
    """

    def packed_context(inputs: TreeInputs) -> Context:
        images = own_images(inputs.images)
        groups = image_groups(replace(inputs, images=images))
        slots = Slots(positions=inputs.positions, valid=inputs.valid, image=groups)
        shift = rotary_shift(images, inputs.tokens.shape[0])
        return Context(
            slots=slots, rotary_shift=shift, cached=None, nodes=inputs.nodes, shape=inputs.shape
        )

    def abstract_init(key: Array) -> PyTree:
        def everything(bound: Any, inputs: TreeInputs) -> Array:
            hidden, *_ = bound(inputs.tokens, packed_context(inputs), inputs.images, None, None)
            return bound.unembed(hidden)

        return nn.init(everything, module)(key, sample)

    def init(key: Array) -> Params:
        return nn.meta.unbox(abstract_init(key))

    def logical_axes() -> PyTree:
        return nn.get_partition_spec(jax.eval_shape(abstract_init, jax.random.key(0)))

    def forward(params: Params, inputs: TreeInputs) -> Array:
        context = packed_context(inputs)
        hidden, *_ = module.apply(params, inputs.tokens, context, inputs.images, None, None)
        return hidden

    def prefill(params: Params, prompts: PromptBatch) -> tuple[Array, TreeCache]:
        inputs = prompt_inputs(prompts)
        context = packed_context(inputs)
        hidden, kv, states = module.apply(params, inputs.tokens, context, inputs.images, None, None)
        last = jnp.take_along_axis(hidden, (prompts.lengths - 1)[:, None, None], axis=1)[:, 0]
        keys, values = (x.swapaxes(2, 3)[:, :, None, None] for x in kv)  # [L B 1 1 N P H]
        root = Level(
            slots=jax.tree.map(lambda x: x[:, None, None], context.slots), keys=keys, values=values
        )
        return last, TreeCache(levels=(root,), rotary_shift=context.rotary_shift, states=states)

    def decode(
        params: Params, tokens: Array, positions: Array, open_nodes: Array, cache: TreeCache
    ) -> tuple[Array, NewTokens]:
        nodes = tokens.shape
        rows = (nodes[0], nodes[1] * nodes[2])
        slots = Slots(positions=positions.reshape(rows), valid=open_nodes.reshape(rows))
        places = tuple(level.slots for level in cache.levels)
        context = Context(slots=slots, rotary_shift=cache.rotary_shift, cached=places, shape=None)
        cached = tuple((level.keys, level.values) for level in cache.levels)
        hidden, kv, states = module.apply(
            params, tokens.reshape(rows), context, None, cached, cache.states
        )
        keys, values = (x.reshape(x.shape[0], *nodes, *x.shape[3:]) for x in kv)
        return hidden.reshape(*nodes, -1), NewTokens(keys=keys, values=values, states=states)

    def unembed(params: Params, hidden: Array) -> Array:
        logits: Array = module.apply(params, hidden, method="unembed")
        return logits

    def see(params: Params, images: PyTree) -> SeenImages:
        assert without_pixels is not None
        features = module.apply(params, images, method="see")
        return SeenImages(features=tuple(features), images=without_pixels(images))

    def seen_by(params: Params) -> frozenset[str]:
        look = partial(module.apply, method="see")
        traced = jax.make_jaxpr(look)(params, sample.images).jaxpr
        read = {var for line in traced.eqns for var in line.invars if isinstance(var, Var)}
        paths = (keystr(path, simple=True, separator="/") for path, _ in leaves_with_path(params))
        # Behind the parameters come the images.
        return frozenset(
            path for path, var in zip(paths, traced.invars, strict=False) if var in read
        )

    return Policy(
        config=config,
        vocab_size=vocab_size,
        init=init,
        logical_axes=logical_axes,
        units=units,
        prefill=prefill,
        decode=decode,
        forward=forward,
        unembed=unembed,
        head=head,
        see=None if without_pixels is None or sample.images is None else see,
        seen_by=seen_by,
        takes_rows=takes_rows,
        takes_scales=takes_scales,
    )


def own_images(images: PyTree) -> PyTree:
    """Return a family's own images, also where they have been seen."""
    return images.images if isinstance(images, SeenImages) else images


def stored_as(policy: Policy, dtype_of: Callable[[str], str]) -> Policy:
    """Hold the policy's parameter at a path `a/b/c` as `dtype_of` says."""

    def init(key: Array) -> Params:
        flat = flatten_dict(policy.init(key), sep="/")
        return unflatten_dict({n: x.astype(dtype_of(n)) for n, x in flat.items()}, sep="/")

    return replace(policy, init=init)


def prompt_inputs(prompts: PromptBatch) -> TreeInputs:
    """Turn prompts into trees without thoughts."""
    batch, slots = prompts.tokens.shape
    positions = jnp.broadcast_to(jnp.arange(slots, dtype=jnp.int32), (batch, slots))
    return TreeInputs(
        tokens=prompts.tokens,
        positions=positions,
        valid=positions < prompts.lengths[:, None],
        images=prompts.images,
        shape=prompt_only(slots),
    )
