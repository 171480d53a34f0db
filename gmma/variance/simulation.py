"""Variance of the thought advantage by simulation and by re-sampling, beside `theory.py`'s formula.

A tree has K thoughts whose answers earn rewards of mean μ_i and variance σ_i², independently. Its
thought values are V_i = mean of M such rewards, and A_i = (V_i − V̄) / std V. Over many trees the
variance of A_i is what the formula gives to first order.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gmma.advantage import group_relative, thought_advantages
from gmma.options.arguments import Law


def draw_values(
    key: PRNGKeyArray,
    means: Float[Array, "K"],
    variances: Float[Array, "K"],
    answers: Int[Array, ""],
    *,
    trees: int,
    law: Law,
) -> Float[Array, "trees K"]:
    """Draw V_i of so many trees; the key is consumed.

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
    """Estimate Var A(th_i) over simulated trees; the key is consumed.

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


class Resampled(NamedTuple):
    """Effect of re-sampling the answers of fixed thoughts, per prompt and per M."""

    variance: Float[Array, "B m"]  # of A(th_i), the mean over thoughts
    dead_trees: Float[Array, "B m"]  # share of draws in which all K·M rewards are equal
    dead_thoughts: Float[Array, "B m"]  # … in which all K values are


@partial(jax.jit, static_argnames=("answers", "replicates"))
def resampled(
    key: PRNGKeyArray,
    pool: Float[Array, "B K n"],
    *,
    answers: tuple[int, ...],
    replicates: int = 1000,
) -> Resampled:
    """Draw M of n pooled rewards of each thought, again and again; the key is consumed.

    Draws are with replacement: the pool stands for the law of a thought's rewards, so that nothing
    bounds M. The draws of a smaller M are the first ones of a larger, for all M at once.
    """
    most = max(answers)
    taken = jnp.asarray(answers) - 1

    def of_prompt(given: tuple[PRNGKeyArray, Float[Array, "K n"]]) -> Resampled:
        own_key, rewards = given
        rewards = rewards - rewards.min()  # an offset would cost precision
        thoughts, size = rewards.shape
        draws = jax.random.randint(own_key, (replicates, thoughts, most), 0, size)
        drawn = jnp.take_along_axis(rewards[None], draws, axis=2)
        counts = jnp.arange(1, most + 1, dtype=rewards.dtype)
        values = (jnp.cumsum(drawn, axis=2) / along(counts, drawn))[..., taken]  # [R K m]
        high = jax.lax.cummax(drawn, axis=2).max(axis=1)[..., taken]
        low = jax.lax.cummin(drawn, axis=2).min(axis=1)[..., taken]
        values = without_rounding(values, jnp.ptp(rewards))
        advantages = jax.vmap(group_relative, in_axes=2, out_axes=2)(values)
        return Resampled(
            variance=advantages.var(axis=0).mean(axis=0),
            dead_trees=(high == low).mean(axis=0, dtype=rewards.dtype),
            dead_thoughts=(advantages == 0).all(axis=1).mean(axis=0, dtype=rewards.dtype),
        )

    return jax.lax.map(of_prompt, (jax.random.split(key, pool.shape[0]), pool))


def without_rounding(
    values: Float[Array, "R K m"], range_of_rewards: Float[Array, ""]
) -> Float[Array, "R K m"]:
    """Make thought values of a tree equal where rounding alone tells them apart.

    Means of the same rewards in another order differ in their last bits, which would be a tree
    that is alive.
    """
    rounding = 16 * jnp.finfo(values.dtype).eps * range_of_rewards
    smallest = values.min(axis=1, keepdims=True)
    equal = values.max(axis=1, keepdims=True) - smallest <= rounding
    return jnp.where(equal, smallest, values)


@partial(jax.jit, static_argnames="answers")
def variance_between_parts(pool: Float[Array, "B K n"], *, answers: int) -> Float[Array, "B"]:
    """Estimate Var A(th_i) over the n // M disjoint parts of M answers, averaged over thoughts.

    Parts share no answer: they are independent trees on the same thoughts, and this is unbiased
    (divisor n/M − 1) whatever the law of the rewards. Needs n ≥ 2M.
    """
    prompts, thoughts, size = pool.shape
    parts = size // answers
    if parts < 2:
        raise ValueError(f"{size} answers make {parts} parts of {answers}; at least 2 needed")
    split = pool[..., : parts * answers].reshape(prompts, thoughts, parts, answers)
    trees = jnp.moveaxis(split, 2, 1).reshape(prompts * parts, thoughts, answers)
    advantages = thought_advantages(trees).reshape(prompts, parts, thoughts)
    return advantages.var(axis=1, ddof=1).mean(axis=1)


def along(vector: Float[Array, "M"], like: Float[Array, "R K M"]) -> Float[Array, "1 1 M"]:
    """Shape a vector to meet the last axis of `like`."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
