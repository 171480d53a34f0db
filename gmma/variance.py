"""Variance of the thought advantage by simulation, to hold against the formula of `theory.py`.

A tree has K thoughts whose answers earn rewards of mean μ_i and variance σ_i², independently. Its
thought values are V_i = mean of M such rewards, and A_i = (V_i − V̄) / std V. Over many trees the
variance of A_i is what the formula gives to first order.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gmma.advantage import group_relative

Law = Literal["bernoulli", "gaussian"]


def draw_values(
    key: PRNGKeyArray,
    means: Float[Array, "K"],
    variances: Float[Array, "K"],
    answers: Int[Array, ""],
    *,
    trees: int,
    law: Law,
) -> Float[Array, "trees K"]:
    """V_i of so many trees; the key is consumed.

    The mean of M rewards is drawn at once: exactly normal with variance σ²/M, or a binomial count
    over M for rewards of 0 and 1, whose variance is μ(1 − μ) whatever `variances` says.
    """
    shape = (trees, means.shape[0])
    count = answers.astype(means.dtype)
    if law == "bernoulli":
        return jax.random.binomial(key, count, means[None], shape=shape, dtype=means.dtype) / count
    noise = jax.random.normal(key, shape, means.dtype)
    return means[None] + noise * jnp.sqrt(variances / count)[None]


@partial(jax.jit, static_argnames=("trees", "law", "chunks"))
def simulated_variance(
    key: PRNGKeyArray,
    means: Float[Array, "K"],
    variances: Float[Array, "K"],
    answers: Int[Array, ""],
    *,
    trees: int = 1_000_000,
    law: Law = "gaussian",
    chunks: int = 16,
) -> Float[Array, "K"]:
    """Var A(th_i) over simulated trees; the key is consumed.

    M is data, so a whole curve over M is one compilation. Trees are drawn in `chunks` parts, which
    bounds the memory; sums of A and A² are taken about each thought's advantage at the means.
    """
    centre = group_relative(means[None])[0]

    def moments(key: PRNGKeyArray) -> tuple[Array, Array]:
        values = draw_values(key, means, variances, answers, trees=trees // chunks, law=law)
        away = group_relative(values) - centre[None]
        return away.mean(axis=0), jnp.square(away).mean(axis=0)

    first, second = jax.lax.map(moments, jax.random.split(key, chunks))
    return second.mean(axis=0) - jnp.square(first.mean(axis=0))
