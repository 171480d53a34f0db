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

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gmma.masked import masked_mean
from gmma.types import Advantages

Scale = Literal["group", "batch", "none"]
AnswerBaseline = Literal["tree", "thought"]


def group_relative(
    rewards: Float[Array, "B G"],
    *,
    scale: Scale = "group",
    mask: Bool[Array, "B G"] | None = None,
    resolution: Float[Array, "B 1"] | None = None,
) -> Float[Array, "B G"]:
    """GRPO's advantage, `(R − mean_g R) / std_g R` (DeepSeekMath, arXiv 2402.03300).

    `scale` divides by the deviation of the group, of the whole batch, or not at all (Dr. GRPO).
    Entries outside `mask` do not count and get 0. A deviation not above `resolution` is rounding,
    and counts as 0.

    >>> import jax.numpy as jnp
    >>> group_relative(jnp.array([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]])).tolist()
    [[-1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    mask = jnp.ones(rewards.shape, bool) if mask is None else mask
    resolution = jnp.zeros_like(rewards[:, :1]) if resolution is None else resolution
    shifted = from_smallest(rewards, mask, axis=1)
    centred = jnp.where(mask, shifted - masked_mean(shifted, mask, axis=1, keepdims=True), 0)
    variance = masked_mean(jnp.square(centred), mask, axis=1, keepdims=True)
    constant = jnp.sqrt(variance) <= resolution
    centred = jnp.where(constant, 0, centred)
    if scale == "none":
        return centred
    if scale == "batch":
        shifted = from_smallest(rewards, mask, axis=(0, 1))
        spread = shifted - masked_mean(shifted, mask, keepdims=True)
        variance = masked_mean(jnp.square(spread), mask, keepdims=True)
        constant = variance == 0
    return centred / jnp.sqrt(jnp.where(constant, 1, variance))


def from_smallest(
    values: Float[Array, "*s"], mask: Bool[Array, "*s"], axis: int | tuple[int, ...]
) -> Float[Array, "*s"]:
    """Differences from the smallest counted value along `axis`; 0 where the mask does not hold."""
    smallest = jnp.where(mask, values, jnp.inf).min(axis=axis, keepdims=True)
    return jnp.where(mask, values - smallest, 0)


def thought_values(
    rewards: Float[Array, "B K M"], mask: Bool[Array, "B K M"] | None = None
) -> Float[Array, "B K"]:
    """V(th_i) = mean_j R_ij over the answers that count ([R]; equation [S]); 0 where none does."""
    mask = jnp.ones(rewards.shape, bool) if mask is None else mask
    return masked_mean(rewards, mask, axis=2)


def thought_advantages(
    rewards: Float[Array, "B K M"],
    *,
    scale: Scale = "group",
    mask: Bool[Array, "B K M"] | None = None,
) -> Float[Array, "B K"]:
    """A(th_i): the thought values relative to each other ([S], [T]).

    Two values closer than the rounding of a mean of M rewards are taken as equal; otherwise the
    order of summation alone could earn a thought an advantage of ±1.
    """
    mask = jnp.ones(rewards.shape, bool) if mask is None else mask
    shifted = from_smallest(rewards, mask, axis=(1, 2))
    rounding = 4 * jnp.finfo(rewards.dtype).eps * shifted.max(axis=(1, 2))[:, None]
    values = thought_values(shifted, mask)
    return group_relative(values, scale=scale, mask=mask.any(axis=2), resolution=rounding)


def answer_advantages(
    rewards: Float[Array, "B K M"],
    *,
    scale: Scale = "group",
    baseline: AnswerBaseline = "tree",
    mask: Bool[Array, "B K M"] | None = None,
) -> Float[Array, "B K M"]:
    """A(ans_ij): rewards relative to the K·M of the tree ([S], [T]), or the M of their thought."""
    batch, thoughts, answers = rewards.shape
    group = (batch, thoughts * answers) if baseline == "tree" else (batch * thoughts, answers)
    grouped = None if mask is None else mask.reshape(group)
    return group_relative(rewards.reshape(group), scale=scale, mask=grouped).reshape(rewards.shape)


def multi_answer(
    rewards: Float[Array, "B K M"],
    *,
    scale: Scale = "group",
    answer_baseline: AnswerBaseline = "tree",
    mask: Bool[Array, "B K M"] | None = None,
) -> Advantages:
    """GRPO-MA's two advantages: the thought by the mean of its answers, each answer by its own.

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
