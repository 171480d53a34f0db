"""A decoder's stack in which some layers keep a state a node in place of keys (Gated DeltaNet).

Over a packed tree such a layer goes level by level: through the prompt; from the state that the
prompt leaves at its true end through the K thoughts, side by side; and from what each thought
leaves through its M answers. No sibling is ever among what a token is computed from, so isolation
(law L3) needs no mask, and every token is computed once. Decoding goes on from the states in the
cache, a token at a time. `delta.py` has the rule; `docs/states.md` draws how states branch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gmma.models.attention import split_nodes
from gmma.models.cache import NodeStates, branch
from gmma.models.delta import (
    causal_convolution,
    delta_chunks,
    delta_step,
    tail_at,
    unit_length,
)
from gmma.models.layers import (
    BLOCK_AXES,
    CachedKV,
    Linear,
    RMSNorm,
    add_mlp,
    along_last,
    named,
    stack_blocks,
)
from gmma.models.placement import ROWS, gathered, place
from gmma.models.policy import Context
from gmma.models.rounded import SCALES
from gmma.types import TreeShape, pytree

HEADS = "delta_heads"  # logical name of an axis that is cut between key heads


@dataclass(frozen=True, kw_only=True)
class DeltaConfig:
    """Layers that keep a state in place of keys, and the sizes of their heads."""

    layers: tuple[bool, ...]  # per layer of the decoder, whether it is one of them
    heads: int  # N, of queries and keys
    group: int  # G, heads of values to each
    key_size: int  # H
    value_size: int  # V
    taps: int = 4  # of the convolution before the heads

    @property
    def channels(self) -> int:
        """Channels of a head that the convolution runs over: query, key and values."""
        return 2 * self.key_size + self.group * self.value_size

    @property
    def state_numbers(self) -> tuple[int, int]:
        """Numbers of a node's state in all layers: in float32, and in the activations' type."""
        layers = sum(self.layers) * self.heads
        memory = self.group * self.key_size * self.value_size
        return layers * memory, layers * (self.taps - 1) * self.channels


def no_states(batch: int, config: DeltaConfig, dtype: Any) -> NodeStates:
    """Return what stands before a prompt, the one root of each tree: zeros."""
    c, roots = config, (batch, 1, 1)
    memory = (*roots, c.heads, c.group, c.key_size, c.value_size)
    tail = jnp.zeros((*roots, c.taps - 1, c.heads, c.channels), dtype)
    return NodeStates(memory=jnp.zeros(memory, np.promote_types(dtype, np.float32)), tail=tail)


@pytree
class Inputs:
    """Inputs of the rule, of a layer's tokens; a tree's level has [B k m s] in place of [B S]."""

    mixed: Float[Array, "*slots N X"]  # query, key, values of each head, before the convolution
    decay: Float[Array, "*slots N G"]  # logarithm, at most 0
    rate: Float[Array, "*slots N G"]  # 0 … 1


def convolve(
    inputs: Inputs, tail: Float[Array, "B k m t N X"], taps: Float[Array, "w N X"], c: DeltaConfig
) -> tuple[Array, Array, Array]:
    """Return query, keys and values of a level's slots, whose paths end with `tail` above it."""
    seen = nn.silu(causal_convolution(inputs.mixed, tail, taps)).astype(inputs.mixed.dtype)
    query, keys, values = jnp.split(seen, (c.key_size, 2 * c.key_size), axis=-1)
    values = values.reshape(*values.shape[:-1], c.group, c.value_size)
    return unit_length(query) * c.key_size**-0.5, unit_length(keys), values


def over_levels(
    inputs: Inputs,
    valid: Bool[Array, "B S"],
    taps: Float[Array, "w N X"],
    shape: TreeShape,
    c: DeltaConfig,
) -> tuple[Float[Array, "B S N G V"], NodeStates]:
    """Compute what the tokens of a packed tree read; and the states that its last level leaves.

    The valid slots of a node stand before all others.
    """
    levels = zip(*(split_nodes(x, shape) for x in jax.tree.leaves(inputs)), strict=True)
    states, reads = no_states(valid.shape[0], c, inputs.mixed.dtype), []
    places = (ROWS, None, None, HEADS, None, None, None)
    for parts, used in zip(levels, split_nodes(valid, shape), strict=True):
        if not used.size:  # of a prompt alone
            continue
        level = jax.tree.unflatten(jax.tree.structure(inputs), parts)
        states = branch(states, (used.shape[1], used.shape[2]))
        query, keys, values = convolve(level, states.tail, taps, c)
        kept = used[..., None, None]
        read, memory = delta_chunks(
            query,
            keys,
            values,
            jnp.where(kept, level.decay, 0),
            jnp.where(kept, level.rate, 0),
            place(states.memory, places),
        )
        ends = used.sum(axis=-1, dtype=jnp.int32)
        states = NodeStates(memory=memory, tail=tail_at(level.mixed, states.tail, ends))
        reads.append(read.reshape(len(used), -1, *read.shape[4:]))
    return jnp.concatenate(reads, axis=1), states


def one_more(
    inputs: Inputs,
    valid: Bool[Array, "B R"],
    taps: Float[Array, "w N X"],
    states: NodeStates,
    c: DeltaConfig,
) -> tuple[Float[Array, "B R N G V"], NodeStates]:
    """Compute what one new token a node reads, and the states behind it.

    A node whose token is not valid keeps its state.
    """
    nodes = states.memory.shape[:3]
    level = jax.tree.map(lambda x: x.reshape(*nodes, 1, *x.shape[2:]), inputs)
    query, keys, values = (x[:, :, :, 0] for x in convolve(level, states.tail, taps, c))
    kept = valid.reshape(*nodes)[..., None, None]
    read, memory = delta_step(
        query,
        keys,
        values,
        jnp.where(kept, level.decay[:, :, :, 0], 0),
        jnp.where(kept, level.rate[:, :, :, 0], 0),
        states.memory,
    )
    ends = valid.reshape(nodes).astype(jnp.int32)
    tail = tail_at(level.mixed, states.tail, ends)
    return read.reshape(*valid.shape, *read.shape[3:]), NodeStates(memory=memory, tail=tail)


class DeltaBlock(nn.Module):
    """One decoder layer with a state in place of keys; `scan` stacks it.

    In decoding all layers' states are carried along, and written in place.
    """

    config: Any  # a DecoderConfig

    @nn.compact
    def __call__(
        self,
        carry: tuple[Float[Array, "B S D"], NodeStates | None],
        context: Context,
        layer: Int[Array, ""],
    ) -> tuple[tuple[Float[Array, "B S D"], NodeStates | None], NodeStates | None]:
        (x, held), c, d = carry, self.config, self.config.delta
        dtype, wide = jnp.dtype(c.dtype), np.promote_types(c.dtype, np.float32)
        normed = RMSNorm(c.epsilon, c.norm_offset, name="attention_norm")(x)

        def heads(name: str, width: int) -> Array:
            out = Linear(d.heads * width, ("embed", HEADS), dtype=dtype, name=name)(normed)
            return out.reshape(*x.shape[:2], d.heads, width)

        def vector(name: str, init: Any) -> Array:
            own = self.param(name, named(init, "norm"), (d.heads * d.group,), jnp.float32)
            return along_last(own, x.astype(wide)).reshape(1, 1, d.heads, d.group)

        mixed = heads("qkv", d.channels)
        speed = jnp.exp(vector("decay_log", first_decays))
        step = heads("decay", d.group).astype(wide) + vector("decay_bias", nn.initializers.ones)
        inputs = Inputs(
            mixed=mixed,
            decay=-speed * nn.softplus(step),
            rate=nn.sigmoid(heads("rate", d.group).astype(wide)),
        )
        axes, size = ("taps", HEADS), (d.taps, d.heads * d.channels)
        taps = self.param("taps", named(nn.initializers.lecun_normal(), *axes), size, jnp.float32)
        # Rounded as every weight is: the sampler holds it in the activations' type (law L2).
        taps = gathered(taps.astype(dtype), axes).reshape(d.taps, d.heads, d.channels)
        valid = context.slots.valid
        if held is None:
            assert context.shape is not None
            read, states = over_levels(inputs, valid, taps, context.shape, d)
            left = states if is_prompt(context.shape) else None
        else:
            at = partial(jax.lax.dynamic_index_in_dim, index=layer, keepdims=False)
            put = partial(jax.lax.dynamic_update_index_in_dim, index=layer, axis=0)
            read, states = one_more(inputs, valid, taps, jax.tree.map(at, held), d)
            held, left = jax.tree.map(put, held, states), None
        read = RMSNorm(c.epsilon, name="out_norm")(read).reshape(*x.shape[:2], d.heads, -1)
        gate = heads("out_gate", d.group * d.value_size).astype(wide)
        gated = (read * nn.silu(gate)).astype(dtype).reshape(*x.shape[:2], -1)
        x += Linear(c.width, (HEADS, "embed"), dtype=dtype, name="out")(gated)
        return (add_mlp(c, x), held), left


def is_prompt(shape: TreeShape) -> bool:
    """Return whether a packed tree is a prompt alone, whose states a rollout goes on from."""
    return shape.thought == 0 and shape.answer == 0


def first_decays(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return log A for A uniform in 0.01 … 16, as transformers starts it."""
    return jnp.log(jax.random.uniform(key, shape, dtype, 0.01, 16.0))


@dataclass(frozen=True)
class Run:
    """Layers of one kind that follow each other within a period of the stack."""

    name: str  # of the module
    delta: bool
    first: int  # layer of the period
    count: int


def runs_of(layers: Sequence[bool]) -> tuple[tuple[Run, ...], int]:
    """Return the runs of the shortest pattern that a stack repeats, and how often it does.

    >>> runs, repeats = runs_of((True, True, False, True, True, False))
    >>> [(run.name, run.first, run.count) for run in runs], repeats
    ([('delta', 0, 2), ('full', 2, 1)], 2)
    """
    total = len(layers)
    sizes = [n for n in range(1, total + 1) if total % n == 0]
    period = next(n for n in sizes if tuple(layers[:n]) * (total // n) == tuple(layers))
    runs: list[Run] = []
    for delta, group in groupby(range(period), key=lambda i: layers[i]):
        own, kind = tuple(group), "delta" if delta else "full"
        earlier = sum(run.delta == delta for run in runs)
        runs.append(Run(f"{kind}_{earlier}" if earlier else kind, delta, own[0], len(own)))
    return tuple(runs), total // period


class Period(nn.Module):
    """The layers of one repetition of the pattern; `scan` stacks it."""

    config: Any  # a DecoderConfig
    attention: type[nn.Module]  # the block of layers that have keys
    runs: tuple[Run, ...]

    @nn.compact
    def __call__(
        self,
        carry: tuple[Float[Array, "B S D"], NodeStates | None],
        number: Int[Array, ""],
        context: Context,
        angles: Float[Array, "B S half"],
        cached: CachedKV | None,
    ) -> tuple[tuple[Array, NodeStates | None], tuple[Any, Any]]:
        c, keys, left = self.config, [], []
        states_before = number * sum(run.count for run in self.runs if run.delta)
        keys_before = number * sum(run.count for run in self.runs if not run.delta)
        decoding = carry[1] is not None

        def unrolled(run: Run) -> int:
            # A loop within a loop has its weights copied for it, once a turn of the outer one: in
            # decoding, where weights are most of what is read, that would double and treble them.
            return run.count if decoding else 1

        for run in self.runs:
            if run.delta:
                blocks = stack_blocks(
                    DeltaBlock, run.count, c.remat, (nn.broadcast, 0), unroll=unrolled(run)
                )
                layers = states_before + jnp.arange(run.count)
                carry, states = blocks(c, name=run.name)(carry, context, layers)
                left.append(states)
                states_before += run.count
                continue
            blocks = stack_blocks(
                self.attention, run.count, c.remat, BLOCK_AXES, unroll=unrolled(run)
            )
            layers = keys_before + jnp.arange(run.count)
            x, kv = blocks(c, name=run.name)(carry[0], context, angles, None, cached, None, layers)
            carry, keys_before = (x, carry[1]), keys_before + run.count
            keys.append(kv)

        def joined(parts: list[Any]) -> Any:
            return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)

        return carry, (joined(keys), joined(left))


def stack_periods(config: Any, attention: type[nn.Module]) -> nn.Module:
    """Stack the layers of a hybrid decoder; `attention` is the block of those that have keys."""
    runs, repeats = runs_of(config.delta.layers)
    periods: Any = nn.scan(
        Period,
        variable_axes={"params": 0, "lora": 0, SCALES: 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
        length=repeats,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return periods(config, attention, runs)


def through_periods(
    periods: Any,
    config: DeltaConfig,
    x: Float[Array, "B S D"],
    context: Context,
    angles: Float[Array, "B S half"],
    cached: CachedKV | None,
    states: NodeStates | None,
) -> tuple[Array, tuple[Array, Array], NodeStates | None]:
    """Run all layers. Keys and values count the layers that have them, states the others."""
    _, repeats = runs_of(config.layers)
    carry, found = periods((x, states), jnp.arange(repeats), context, angles, cached)
    kv, left = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), found)
    return carry[0], kv, left if states is None else carry[1]
