"""Credit for thoughts and for answers: GRPO-MA's rule, and those of other tree methods.

With rewards R[b, i, j] of answer j to thought i (`docs/method.md`):

    V(th_i)   = mean_j R_ij                             [R], [P] in words, equation [S]
    A(th_i)   = (V_i − mean_i V) / std_i V              over the K thought values      [S], [T]
    A(ans_ij) = (R_ij − mean_ij R) / std_ij R           over all K·M rewards           [S], [T]

The standard deviation is the population's (our choice; the paper's convention is not known). A
group whose deviation is 0 has advantage 0: the quotient is never padded with an ε, which would
shrink the advantages of groups with small spreads.

Differences are taken from the group's smallest value before any mean, so a large offset common to
all rewards costs no precision.

The other rules (`CREDITS` in `gmma/config.py`) divide thoughts and answers by one deviation, so no
small deviation of thought values is ever a divisor. In their docstrings M_i is the number of
counted answers of thought i, N their number in the tree, R̄ the mean of those N, std R their
population deviation. Bounds are for `scale="group"`; without a mask M_i = M and N = K·M.
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
    centred, counted = centred_values(rewards, mask), mask.any(axis=2)
    as_one = (1, -1, rewards.shape[2])  # tree: the deviation of the batch is over all its thoughts
    values = value_differences(rewards.reshape(as_one), mask.reshape(as_one))
    return rescale(centred, values.reshape(counted.shape), counted, scale)


def centred_values(
    rewards: Float[Array, "B K M"], mask: Bool[Array, "B K M"]
) -> Float[Array, "B K"]:
    """Return V(th_i) − mean_i V; all 0 where they differ by no more than rounding does."""
    counted = mask.any(axis=2)
    centred = from_mean(value_differences(rewards, mask), counted, axis=1)
    deviation = jnp.sqrt(masked_mean(jnp.square(centred), counted, axis=1, keepdims=True))
    largest = from_smallest(rewards, mask, axis=(1, 2)).max(axis=(1, 2))[:, None]
    return jnp.where(deviation <= value_rounding(largest, rewards.dtype), 0, centred)


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


# The rules of other methods


def leaf(
    rewards: Real[Array, "B K M"],
    *,
    scale: Scale = "group",
    answer_baseline: AnswerBaseline = "tree",
    mask: Bool[Array, "B K M"] | None = None,
) -> Advantages:
    """Return what a trainer of flat rows gives, to which a tree's answers are so many responses.

        A(ans_ij) = (R_ij − R̄) / std R                          GRPO over the K·M responses
        A(th_i)   = mean_j A(ans_ij) = (V_i − R̄) / std R

    A thought's tokens stand in M of the rows and get each row's advantage: their mean is what the
    thought gets ([I], from DeepSeekMath, arXiv 2402.03300). So it differs from GRPO-MA in the
    thought's divisor. |A(ans_ij)| ≤ √(N − 1), |A(th_i)| ≤ √(N/M_i − 1).

    >>> import jax.numpy as jnp
    >>> leaf(jnp.array([[[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]])).thought.tolist()
    [[1.0, 0.0, -1.0]]
    """
    del answer_baseline  # "tree": the config refuses another
    rewards, mask = entered(rewards, mask)
    return over_deviation(
        values_from_root(rewards, mask), from_mean(rewards, mask, (1, 2)), rewards, mask, scale
    )


def temporal_difference(
    rewards: Real[Array, "B K M"],
    *,
    scale: Scale = "group",
    answer_baseline: AnswerBaseline = "thought",
    mask: Bool[Array, "B K M"] | None = None,
) -> Advantages:
    """Return each node's value less its parent's, values being means of the rewards below.

        A(th_i)   = (V_i − R̄) / std R
        A(ans_ij) = (R_ij − V_i) / std R

    SPO (arXiv 2505.23564) and VinePPO (arXiv 2410.01679), with segments that are a thought and an
    answer ([S]; both without the divisor, which is `scale="none"`). Along a path the two add up to
    (R_ij − R̄) / std R. With one answer a thought the answers get 0. |A(th_i)| ≤ √(N/M_i − 1),
    |A(ans_ij)| ≤ √(N (1 − 1/M_i)).

    >>> import jax.numpy as jnp
    >>> found = temporal_difference(jnp.array([[[1.0, 0.0], [0.0, 0.0]]]), scale="none")
    >>> found.thought.tolist(), found.answer.tolist()
    ([[0.25, -0.25]], [[[0.5, -0.5], [0.0, 0.0]]])
    """
    del answer_baseline  # always the thought
    rewards, mask = entered(rewards, mask)
    return over_deviation(
        values_from_root(rewards, mask), from_mean(rewards, mask, 2), rewards, mask, scale
    )


def leave_one_out(
    rewards: Real[Array, "B K M"],
    *,
    scale: Scale = "group",
    answer_baseline: AnswerBaseline = "tree",
    mask: Bool[Array, "B K M"] | None = None,
) -> Advantages:
    """Return values less the mean of the others' (RLOO, arXiv 2402.14740), on both levels.

        A(th_i)   = (V_i − mean_{l≠i} V_l) / std R                = K/(K−1) (V_i − mean V) / std R
        A(ans_ij) = (R_ij − mean of the other answers) / std R    = n/(n−1) (R_ij − mean R) / std R

    The others are those of the tree, or with `answer_baseline="thought"` of the thought: then it is
    BPO (arXiv 2607.14171 [S]). Both are without the divisor, which is `scale="none"`: then no value
    is beyond the difference of two rewards. With one, |A(ans_ij)| ≤ N/√(N − 1) over the tree and
    √(N M_i/(M_i − 1)) within a thought, and without a mask |A(th_i)| ≤ K/√(K − 1). A node that is
    compared to no other gets 0.

    >>> import jax.numpy as jnp
    >>> leave_one_out(jnp.array([[[0.0], [0.0], [3.0]]]), scale="none").thought.tolist()
    [[-1.5, -1.5, 3.0]]
    """
    rewards, mask = entered(rewards, mask)
    axis = (1, 2) if answer_baseline == "tree" else 2
    return over_deviation(
        centred_values(rewards, mask) * against_others(mask.any(axis=2), 1),
        from_mean(rewards, mask, axis) * against_others(mask, axis),
        rewards,
        mask,
        scale,
    )


def tree_rl(
    rewards: Real[Array, "B K M"],
    *,
    scale: Scale = "group",
    answer_baseline: AnswerBaseline = "tree",
    mask: Bool[Array, "B K M"] | None = None,
) -> Advantages:
    """Return global plus local advantage over the root of the number of leaves (TreeRL).

        A(node)   = [(V(node) − V(root)) + (V(node) − V(parent))] / √leaves(node)
        A(th_i)   = 2 (V_i − R̄) / (√M_i std R)
        A(ans_ij) = [(R_ij − R̄) + (R_ij − V_i)] / std R

    arXiv 2506.11902 ([S]: read in code by others; the authors' code subtracts the mean of the other
    leaves first, and has variants). Without the divisor, which is `scale="none"`.
    |A(th_i)| ≤ 2 √((N/M_i − 1) / M_i), |A(ans_ij)| ≤ √(N (4 − 3/M_i) − 1).

    >>> import jax.numpy as jnp
    >>> found = tree_rl(jnp.array([[[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]]), scale="none")
    >>> found.thought.tolist(), found.answer[0, :, 0].tolist()
    ([[0.5, -0.5]], [0.5, -0.5])
    """
    del answer_baseline  # "tree": the config refuses another
    rewards, mask = entered(rewards, mask)
    leaves = jnp.maximum(mask.sum(axis=2, dtype=rewards.dtype), 1)
    return over_deviation(
        2 * values_from_root(rewards, mask) / jnp.sqrt(leaves),
        from_mean(rewards, mask, (1, 2)) + from_mean(rewards, mask, 2),
        rewards,
        mask,
        scale,
    )


def tree_po(
    rewards: Real[Array, "B K M"],
    *,
    scale: Scale = "group",
    answer_baseline: AnswerBaseline = "tree",
    mask: Bool[Array, "B K M"] | None = None,
) -> Advantages:
    """Return the mean of an answer's advantages in all groups that it is in (TreePO).

        a_ij      = ½ [(R_ij − R̄) + (R_ij − V_i)]
        A(ans_ij) = a_ij / std a
        A(th_i)   = mean_j A(ans_ij) = ½ (V_i − R̄) / std a

    arXiv 2508.17445 ([S]: its equation in a summary, and the authors' code, which leaves out a
    group of one and trains a thought's tokens once for each of its answers). They divide by the
    deviation over the tokens of the batch; ours, with `scale="batch"`, is over its answers.
    |A(ans_ij)| ≤ √(N − 1), |A(th_i)| ≤ √(N/M_i − 1).

    >>> import jax.numpy as jnp
    >>> tree_po(jnp.array([[[2.0, 2.0], [0.0, 0.0]]])).answer.tolist()
    [[[1.0, 1.0], [-1.0, -1.0]]]
    """
    del answer_baseline  # "tree": the config refuses another
    rewards, mask = entered(rewards, mask)
    answer = (from_mean(rewards, mask, (1, 2)) + from_mean(rewards, mask, 2)) / 2
    return over_deviation(values_from_root(rewards, mask) / 2, answer, answer, mask, scale)


def values_from_root(
    rewards: Float[Array, "B K M"], mask: Bool[Array, "B K M"]
) -> Float[Array, "B K"]:
    """Return V(th_i) − R̄, where a thought weighs as many answers as it has that count."""
    centred = centred_values(rewards, mask)
    count = mask.sum(axis=2, dtype=rewards.dtype)
    total = jnp.maximum(count.sum(axis=1, keepdims=True), 1)
    mean = (count * centred).sum(axis=1, keepdims=True) / total
    return jnp.where(count > 0, centred - mean, 0)


def against_others(counted: Bool[Array, "*s"], axis: Axis) -> Float[Array, "..."]:
    """Return n/(n−1) for the n that count along `axis`, dimensions kept; 1 where n is 1 or 0.

    A value less the mean of the others is so many times the value less the mean of all.
    """
    n = counted.sum(axis=axis, keepdims=True, dtype=float)
    return jnp.where(n > 1, n / jnp.maximum(n - 1, 1), 1)


def over_deviation(
    thought: Float[Array, "B K"],
    answer: Float[Array, "B K M"],
    values: Float[Array, "B K M"],
    mask: Bool[Array, "B K M"],
    scale: Scale,
) -> Advantages:
    """Divide both by one deviation, of the tree's values or the batch's; not where that is 0.

    It is 0 only where all values are the same: no rounding is left in what is divided then.
    """
    if scale != "none":
        axis = (1, 2) if scale == "group" else (0, 1, 2)
        spread = from_mean(values, mask, axis)
        variance = masked_mean(jnp.square(spread), mask, axis=axis, keepdims=True)
        deviation = jnp.sqrt(jnp.where(variance == 0, 1, variance))
        thought, answer = thought / deviation[:, :, 0], answer / deviation
    return Advantages(thought=thought, answer=answer)
