"""Credit for thoughts and for answers.

With rewards R[b, i, j] of answer j to thought i (`docs/method.md`):

    V(th_i)   = mean_j R_ij                             [R], [P] in words, equation [S]
    A(th_i)   = (V_i − mean_i V) / std_i V              over the K thought values      [S], [T]
    A(ans_ij) = (R_ij − mean_ij R) / std_ij R           over all K·M rewards           [S], [T]

The standard deviation is the population's (our choice; the paper's convention is not known). A
group whose deviation is 0 has advantage 0: the quotient is never padded with an ε, which would
shrink the advantages of groups with small spreads.

Differences are taken from the group's smallest value before any mean, so a large offset common to
all rewards costs no precision.
"""

from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Real

from gmma.masked import Axis, masked_mean
from gmma.types import Advantages, Array

Scale = Literal["group", "batch", "none"]
AnswerBaseline = Literal["tree", "thought"]


class Credit(Protocol):
    """Estimate advantages from the rewards of a batch of trees, in JAX, at static shapes.

    `mask` says which answers count: the others could not be scored, or a smaller M does not have
    them. They must shift nothing; their own advantage is taken for 0. `scale` and `answer_baseline`
    are the fields of the objective; a rule may ignore either. `objective.credit_options` come by
    keyword too.
    """

    def __call__(
        self,
        rewards: Float[Array, "B K M"],
        *,
        mask: Bool[Array, "B K M"],
        scale: Scale,
        answer_baseline: AnswerBaseline,
    ) -> Advantages: ...


def entered(
    rewards: Real[Array, "*s"], mask: Bool[Array, "*s"] | None
) -> tuple[Float[jax.Array, "*s"], Bool[jax.Array, "*s"]]:
    """Convert rewards to the type they are computed in; without a mask every entry counts.

    NumPy's float64 becomes JAX's float32 here, unless JAX is told otherwise, so that no bound of
    rounding is taken for the wider type; counts become floats.
    """
    held = jnp.asarray(rewards)
    held = held if jnp.issubdtype(held.dtype, jnp.floating) else held.astype(float)
    return held, jnp.ones(held.shape, bool) if mask is None else jnp.asarray(mask)


def group_relative(
    rewards: Real[Array, "B G"], *, scale: Scale = "group", mask: Bool[Array, "B G"] | None = None
) -> Float[Array, "B G"]:
    """Return GRPO's advantage, `(R − mean_g R) / std_g R` (DeepSeekMath, arXiv 2402.03300).

    `scale` divides by the deviation of the group, of the whole batch, or not at all (Dr. GRPO).
    Entries outside `mask` do not count and get 0.

    >>> import jax.numpy as jnp
    >>> group_relative(jnp.array([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]])).tolist()
    [[-1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    rewards, mask = entered(rewards, mask)
    return rescale(from_mean(rewards, mask, axis=1), rewards, mask, scale)


def rescale(
    centred: Float[Array, "B G"],
    values: Float[Array, "B G"],
    mask: Bool[Array, "B G"],
    scale: Scale,
) -> Float[Array, "B G"]:
    """Divide centred values by the deviation of their group or of the batch; 0 where that is 0."""
    if scale == "none":
        return centred
    axis = 1 if scale == "group" else (0, 1)
    spread = centred if scale == "group" else from_mean(values, mask, axis=axis)
    variance = masked_mean(jnp.square(spread), mask, axis=axis, keepdims=True)
    return centred / jnp.sqrt(jnp.where(variance == 0, 1, variance))


def from_mean(
    values: Float[Array, "*s"], mask: Bool[Array, "*s"], axis: Axis
) -> Float[Array, "*s"]:
    """Subtract the mean along `axis`; 0 where the mask does not hold.

    The mean that is left after subtracting the mean is rounding; it is subtracted too.
    """
    centred = from_smallest(values, mask, axis)
    for _ in range(2):
        mean = masked_mean(centred, mask, axis=axis, keepdims=True)
        centred = jnp.where(mask, centred - mean, 0)
    return centred


def from_smallest(
    values: Float[Array, "*s"], mask: Bool[Array, "*s"], axis: Axis
) -> Float[Array, "*s"]:
    """Subtract the smallest counted value along `axis`; 0 where the mask does not hold."""
    smallest = jnp.where(mask, values, jnp.inf).min(axis=axis, keepdims=True)
    return jnp.where(mask, values - smallest, 0)


def thought_advantages(
    rewards: Real[Array, "B K M"],
    *,
    scale: Scale = "group",
    mask: Bool[Array, "B K M"] | None = None,
) -> Float[Array, "B K"]:
    """Return A(th_i): the thought values relative to each other ([S], [T]).

    Values that differ by less than the rounding of the rewards are taken as equal; otherwise ⅓ + ⅔
    against 1 + 0 could earn a thought an advantage of ±1.
    """
    rewards, mask = entered(rewards, mask)
    counted = mask.any(axis=2)
    centred = from_mean(value_differences(rewards, mask), counted, axis=1)
    deviation = jnp.sqrt(masked_mean(jnp.square(centred), counted, axis=1, keepdims=True))
    largest = from_smallest(rewards, mask, axis=(1, 2)).max(axis=(1, 2))[:, None]
    centred = jnp.where(deviation <= value_rounding(largest, rewards.dtype), 0, centred)
    as_one = (1, -1, rewards.shape[2])  # tree: the deviation of the batch is over all its thoughts
    values = value_differences(rewards.reshape(as_one), mask.reshape(as_one))
    return rescale(centred, values.reshape(counted.shape), counted, scale)


def value_rounding(spread: Float[Array, "*s"], dtype: Any) -> Float[Array, "*s"]:
    """Bound how far a tree's thought values differ by the rounding of its rewards alone.

    The bound is a few units in the last place of the difference between its largest and its
    smallest reward, of type `dtype`.
    """
    return 4 * jnp.finfo(dtype).eps * spread


def value_differences(
    rewards: Float[Array, "B K M"], mask: Bool[Array, "B K M"]
) -> Float[Array, "B K"]:
    """Return V(th_i) − V(th_p) for one thought p that counts ([R]; equation of V [S]).

    Where answers differ more than thoughts do, the rounding of two means would be most of their
    difference. So each reward is cut into a multiple of 2⁻¹² of the power of two above the largest,
    and a rest: sums of either over the answers, and their products with counts, are exact.
    """
    rewards = jnp.where(mask, rewards, 0)
    count = mask.sum(axis=2, dtype=rewards.dtype)
    pivot = jnp.argmax(count > 0, axis=1, keepdims=True)
    _, exponent = jnp.frexp(jnp.abs(rewards).max(axis=(1, 2), keepdims=True))
    unit = jnp.ldexp(jnp.ones((), rewards.dtype), jnp.maximum(exponent, -100) - 12)
    coarse = jnp.round(rewards / unit) * unit

    def numerators(part: Float[Array, "B K M"]) -> Float[Array, "B K"]:
        total = part.sum(axis=2)
        return total * at_pivot(count) - at_pivot(total) * count

    def at_pivot(values: Float[Array, "B K"]) -> Float[Array, "B 1"]:
        return jnp.take_along_axis(values, pivot, axis=1)

    exact = numerators(coarse) + numerators(rewards - coarse)
    return exact / jnp.maximum(count * at_pivot(count), 1)


def answer_advantages(
    rewards: Real[Array, "B K M"],
    *,
    scale: Scale = "group",
    baseline: AnswerBaseline = "tree",
    mask: Bool[Array, "B K M"] | None = None,
) -> Float[Array, "B K M"]:
    """Return A(ans_ij): rewards relative to the K·M of the tree ([S], [T]), or to their thought's
    M.
    """
    batch, thoughts, answers = rewards.shape
    group = (batch, thoughts * answers) if baseline == "tree" else (batch * thoughts, answers)
    grouped = None if mask is None else mask.reshape(group)
    return group_relative(rewards.reshape(group), scale=scale, mask=grouped).reshape(rewards.shape)


def multi_answer(
    rewards: Real[Array, "B K M"],
    *,
    scale: Scale = "group",
    answer_baseline: AnswerBaseline = "tree",
    mask: Bool[Array, "B K M"] | None = None,
) -> Advantages:
    """Return GRPO-MA's advantages: a thought by its answers' mean, an answer by its own reward.

    `mask` leaves out answers that could not be scored, or that a smaller M does not have.

    Thought values 1 and 0; rewards 1 1 0 0 with mean ½ and deviation ½:

    >>> import jax.numpy as jnp
    >>> credit = multi_answer(jnp.array([[[1.0, 1.0], [0.0, 0.0]]]))
    >>> credit.thought.tolist(), credit.answer.tolist()
    ([[1.0, -1.0]], [[[1.0, 1.0], [-1.0, -1.0]]])
    """
    return Advantages(
        thought=thought_advantages(rewards, scale=scale, mask=mask),
        answer=answer_advantages(rewards, scale=scale, baseline=answer_baseline, mask=mask),
    )
