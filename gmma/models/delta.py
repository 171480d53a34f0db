"""The gated delta rule (Yang et al., arXiv 2412.06464): a state of fixed size in place of keys.

A head holds a memory S, a linear map from keys to values. A token with query q, key k, value v,
decay g ≤ 0 and rate β fades the memory, and moves what it holds at k towards v:

    S ← e^g·S        S ← S + k ⊗ β·(v − Sᵀk)        o = Sᵀq

A token with g = 0 and β = 0 writes nothing: so padding leaves a node's memory as it is at the
node's true end. `delta_step` is the rule for one token. `delta_chunks` computes the same for C
tokens at a time, as matrix products. With G_i the sum of the decays up to token i of a chunk:

    X        = (1 + L)⁻¹·(β·v − β·e^G·(k·S))      L_ij = β_i·(k_i·k_j)·e^(G_i − G_j),  j < i
    o_i      = e^(G_i)·(q_i·S) + Σ_j≤i (q_i·k_j)·e^(G_i − G_j)·X_j
    S ← e^(G_C)·S + Σ_j e^(G_C − G_j)·k_j ⊗ X_j

Only X and S wait for the chunk before: the scan over chunks does two products, all else is done
for all chunks at once. Computed in float32 or wider, whatever the type of the inputs.

Axes: N heads of queries and keys, each with G heads of values; sizes H of a key, V of a value.
"""

from functools import partial, reduce
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

CHUNK = 64  # tokens; fewer where a node has fewer slots
# Products in float32 itself, not in bfloat16 as a TPU's matrix unit would by default: errors of a
# memory stay in it for thousands of tokens, and a rollout's step has none (law L2).
_product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def delta_step(
    query: Float[Array, "*rows N H"],
    keys: Float[Array, "*rows N H"],
    values: Float[Array, "*rows N G V"],
    decay: Float[Array, "*rows N G"],
    rate: Float[Array, "*rows N G"],
    memory: Float[Array, "*rows N G H V"],
) -> tuple[Float[Array, "*rows N G V"], Float[Array, "*rows N G H V"]]:
    """Apply the rule to one token per row; returns what its query reads, and the new memory.

    The memory's bytes are what a step costs. So it is read once for both vectors that are asked of
    it, and once to be written: with f = e^g and d = β·(v − f·Sᵀk),

        o = f·Sᵀq + (k·q)·d        S ← f·S + k ⊗ d

    Sums and no products of matrices: a row's vector would leave a matrix unit idle.
    """
    wide = memory.dtype
    query, keys = (x.astype(wide)[..., None, :] for x in (query, keys))
    kept = jnp.exp(decay.astype(wide))[..., None]
    held, asked = (jnp.sum(memory * x[..., None], axis=-2) for x in (keys, query))
    change = rate.astype(wide)[..., None] * (values.astype(wide) - kept * held)
    read = kept * asked + jnp.sum(keys * query, axis=-1, keepdims=True) * change
    return read, kept[..., None] * memory + keys[..., None] * change[..., None, :]


def delta_chunks(
    query: Float[Array, "*rows s N H"],
    keys: Float[Array, "*rows s N H"],
    values: Float[Array, "*rows s N G V"],
    decay: Float[Array, "*rows s N G"],
    rate: Float[Array, "*rows s N G"],
    memory: Float[Array, "*rows N G H V"],
    *,
    chunk: int = CHUNK,
) -> tuple[Float[Array, "*rows s N G V"], Float[Array, "*rows N G H V"]]:
    """Apply the rule to s tokens per row, `chunk` at a time; the last memory beside their reads."""
    rows, slots, wide = keys.shape[:-3], keys.shape[-3], memory.dtype
    # One axis of rows: on CPUs XLA's transposes of arrays with more than 8 axes end the process.
    memory = memory.reshape(prod(rows), *memory.shape[len(rows) :])
    query, keys, values, decay, rate = (
        in_chunks(x.astype(wide).reshape(prod(rows), *x.shape[len(rows) :]), min(chunk, slots))
        for x in (query, keys, values, decay, rate)
    )
    decay, rate = (jnp.moveaxis(x, -3, -1) for x in (decay, rate))  # [… c N G i]
    through, between = jnp.cumsum(decay, axis=-1), pairwise_decay(decay)
    fading = jnp.exp(between)
    alike = _product("...inh,...jnh->...nij", keys, keys)[..., None, :, :]
    inverse = unit_lower_inverse(jnp.tril(alike * fading * rate[..., None], -1))
    weighted = inverse * rate[..., None, :]
    free = _product("...ngij,...jngv->...ngiv", weighted, values)
    taught = _product("...ngij,...jnh->...ngih", weighted * jnp.exp(through)[..., None, :], keys)
    whole, closing = through[..., -1:], jnp.exp(between[..., -1, :])

    def next_chunk(memory: Array, part: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        keys, free, taught, closing, whole = part
        written = free - _product("...ngih,...nghv->...ngiv", taught, memory)
        added = _product("...inh,...ngiv->...nghv", keys, written * closing[..., None])
        return memory * jnp.exp(whole)[..., None] + added, (memory, written)

    parts = tuple(x.swapaxes(0, 1) for x in (keys, free, taught, closing, whole))
    memory, found = jax.lax.scan(next_chunk, memory, parts)
    before, written = (x.swapaxes(0, 1) for x in found)
    read = _product("...inh,...nghv->...ngiv", query, before) * jnp.exp(through)[..., None]
    asked = _product("...inh,...jnh->...nij", query, keys)[..., None, :, :] * fading
    read += _product("...ngij,...ngjv->...ngiv", asked, written)
    read = jnp.moveaxis(read, -2, -4)  # slots before heads again
    joined = read.reshape(len(read), -1, *read.shape[3:])[:, :slots]
    return joined.reshape(*rows, *joined.shape[1:]), memory.reshape(*rows, *memory.shape[1:])


def in_chunks(x: Shaped[Array, "R s *rest"], size: int) -> Shaped[Array, "R c i *rest"]:
    """Cut an axis of slots into chunks, the last one filled up with zeros."""
    missing = -x.shape[1] % size
    x = jnp.pad(x, [(0, missing if i == 1 else 0) for i in range(x.ndim)])
    return x.reshape(len(x), -1, size, *x.shape[2:])


def pairwise_decay(decay: Float[Array, "*heads i"]) -> Float[Array, "*heads i j"]:
    """Return the decays between two tokens, g_(j+1) + … + g_i for j ≤ i, and −∞ for later j.

    Summed apart for each j: as a difference of two sums from the chunk's start it would have the
    error of these, which after a few strong decays is larger than what is left.
    """
    size, heads = decay.shape[-1], decay.ndim - 1
    behind = np.tri(size, k=-1, dtype=bool).reshape((1,) * heads + (size, size))
    past = np.tri(size, dtype=bool).reshape(behind.shape)
    between = jnp.cumsum(jnp.where(behind, decay[..., :, None], 0), axis=-2)
    return jnp.where(past, between, -jnp.inf)


@jax.custom_vjp
def unit_lower_inverse(lower: Float[Array, "*heads i j"]) -> Float[Array, "*heads i j"]:
    """Return (1 + L)⁻¹ for L strictly lower triangular, by products of whole matrices.

    The inverses T of the diagonal blocks of a size are merged two by two: with M the entries of L
    between the two, those of twice the size are T − T·M·T. That is block substitution, and as
    stable; the shorter product Π (1 + (−L)^(2^n)) is not: its powers grow before they cancel.
    """
    size, heads = lower.shape[-1], lower.ndim - 2
    place = np.arange(size)

    def between(half: int) -> Array:
        block, side = place // (2 * half), place // half % 2
        kept = (block[:, None] == block) & (side[:, None] > side)
        return jnp.where(kept.reshape((1,) * heads + (size, size)), lower, 0)

    identity = jnp.eye(size, dtype=lower.dtype).reshape((1,) * heads + (size, size))
    inverse, half = identity - between(1), 2
    while half < size:
        inverse -= _product(
            "...ij,...jk->...ik", inverse, _product("...ij,...jk->...ik", between(half), inverse)
        )
        half *= 2
    return inverse


def _inverse_forward(lower: Array) -> tuple[Array, Array]:
    inverse = unit_lower_inverse(lower)
    return inverse, inverse


def _inverse_backward(inverse: Array, cotangent: Array) -> tuple[Array]:
    """dL = −Tᵀ·dT·Tᵀ, below the diagonal."""
    right = _product("...ij,...kj->...ik", cotangent, inverse)
    return (-jnp.tril(_product("...ji,...jk->...ik", inverse, right), -1),)


unit_lower_inverse.defvjp(_inverse_forward, _inverse_backward)


def causal_convolution(
    inputs: Float[Array, "*rows s N X"],
    tail: Float[Array, "*rows t N X"],
    taps: Float[Array, "w N X"],
) -> Float[Array, "*rows s N X"]:
    """Weigh each slot's input and the t = w − 1 before it, channel by channel; float32 or wider.

    `tail` holds the inputs before the first slot.
    """
    slots = inputs.shape[-3]
    wide = np.promote_types(inputs.dtype, np.float32)
    path = jnp.concatenate([tail, inputs], axis=-3).astype(wide)
    own = (1,) * (path.ndim - 2) + taps.shape[1:]
    weighed = [
        jax.lax.slice_in_dim(path, i, i + slots, axis=path.ndim - 3) * tap.reshape(own)
        for i, tap in enumerate(taps.astype(wide))
    ]
    return reduce(jnp.add, weighed)


def tail_at(
    inputs: Float[Array, "*rows s N X"],
    tail: Float[Array, "*rows t N X"],
    lengths: Int[Array, "*rows"],
) -> Float[Array, "*rows t N X"]:
    """Return the last t inputs before each row's true end; those of `tail` where it is short."""
    path = jnp.concatenate([tail, inputs], axis=-3)
    place = lengths[..., None] + along_rows(np.arange(tail.shape[-3]), lengths)
    return jnp.take_along_axis(path, place[..., None, None], axis=-3)


def along_rows(places: np.ndarray, lengths: Int[Array, "*rows"]) -> Int[Array, "*ones t"]:
    """Return places as one more axis behind those of rows."""
    return jnp.asarray(places, lengths.dtype).reshape((1,) * lengths.ndim + places.shape)


def unit_length(x: Float[Array, "*rows H"]) -> Float[Array, "*rows H"]:
    """Return x / √(Σ x² + 1e-6), float32 or wider."""
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    return wide * jax.lax.rsqrt(jnp.sum(jnp.square(wide), axis=-1, keepdims=True) + 1e-6)
