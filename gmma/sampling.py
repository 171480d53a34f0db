"""Sample a token from logits and record its log-prob.

One row at a time; callers lift with `vmap`. The log-prob recorded is that of the whole distribution
at the sampling temperature, before top-k and top-p: it is what the trainer computes again (law L2).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gmma.options.sampling import GREEDY as GREEDY
from gmma.options.sampling import SamplingConfig as SamplingConfig


def scale_logits(logits: Float[Array, "*rows V"], temperature: float) -> Float[Array, "*rows V"]:
    """Compute logits at the sampling temperature; greedy sampling scores at temperature 1."""
    return logits if temperature in (0.0, 1.0) else logits / temperature


def keep_top_k(logits: Float[Array, "V"], k: int) -> Float[Array, "V"]:
    """Rule out all but the k largest logits; ties with the k-th stay in."""
    kth = jax.lax.top_k(logits, min(k, logits.shape[0]))[0][-1]
    return jnp.where(logits < kth, -jnp.inf, logits)


def keep_top_p(logits: Float[Array, "V"], p: float) -> Float[Array, "V"]:
    """Rule out the tail beyond the fewest largest logits whose probability reaches p.

    A token stays in if the probability of those above it is below p, so the likeliest always does;
    ties with the last that stays in stay in, too. The last is found by bisection over what a float
    can be, a pass over the logits for each of its bits: a sort of a large vocabulary takes longer.
    """
    probability, rank = jax.nn.softmax(logits), ranks(logits)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        out, kept = bounds  # ranks: the first is known to be ruled out, the second to stay in
        middle = (out & kept) + ((out ^ kept) >> 1)  # their mean, which does not overflow
        stays = jnp.where(rank > middle, probability, 0).sum() < p
        return jnp.where(stays, out, middle), jnp.where(stays, middle, kept)

    bits = jnp.iinfo(rank.dtype).bits
    _, last = jax.lax.fori_loop(0, bits, halve, (rank.min() - 1, rank.max()))
    return jnp.where(rank < last, -jnp.inf, logits)


def ranks(values: Float[Array, "*s"]) -> Int[Array, "*s"]:
    """Return integers in the order of floats, as wide as they are; of a NaN any.

    >>> import jax.numpy as jnp
    >>> jnp.argsort(ranks(jnp.array([0.5, -jnp.inf, 2.0, -3.0]))).tolist()
    [1, 3, 0, 2]
    """
    width = jnp.finfo(values.dtype).bits
    one_zero = jnp.where(values == 0, 0, values)  # −0 is equal to 0
    bits = jax.lax.bitcast_convert_type(one_zero, jnp.dtype(f"int{width}"))
    return bits ^ ((bits >> (width - 1)) & jnp.iinfo(bits.dtype).max)


def sample_token(
    key: PRNGKeyArray, logits: Float[Array, "V"], config: SamplingConfig
) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Draw one token; the key is consumed. Returns it and its log-prob in nats."""
    scaled = scale_logits(logits, config.temperature)
    if config.temperature == 0.0:
        token = jnp.argmax(scaled)
    else:
        kept = keep_top_k(scaled, config.top_k) if config.top_k else scaled
        kept = keep_top_p(kept, config.top_p) if config.top_p < 1.0 else kept
        token = jax.random.categorical(key, kept)
    return token.astype(jnp.int32), jax.nn.log_softmax(scaled)[token]
