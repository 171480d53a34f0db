"""Predict what a step of each K and M gains, from a pool of rewards; theory: `docs/variance.md`.

credit_trees     credit that trees of K and M get, held against what their nodes are worth
step_gains       gain of the objective by a step, up to a factor that all K and M share
signal_to_noise  of the gradient of thoughts, and of answers, up to a factor each
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gmma.types import Advantages, pytree

Shape = tuple[int, int]  # (K, M)
# (rewards, which of them count) → advantages: the run's rule of credit
Rule = Callable[[Float[Array, "B K M"], Bool[Array, "B K M"]], Advantages]


@pytree
class TreeCredit:
    """Moments of the credit of trees of one K and M: of each prompt the mean over its trees.

    A is the credit, μ_i the expected reward after thought i, m that of the prompt.
    """

    thought_signal: Float[Array, "*R B"]  # mean_i A_i (μ_i − m)
    answer_signal: Float[Array, "*R B"]  # mean_ij A_ij (R_ij − μ_i)
    thought_power: Float[Array, "*R B"]  # mean_i A_i²
    answer_power: Float[Array, "*R B"]  # mean_ij A_ij²
    dead: Float[Array, "*R B"]  # share of trees whose credit is all 0


@dataclass(frozen=True, kw_only=True)
class SegmentScores:
    """Scores of thoughts or of answers: s is the gradient of a sequence's term in J at A = 1.

    The objective's averages over tokens and its weight are in it, the number of nodes is not.
    """

    power: Float[np.ndarray, "*R d"]  # E|s|², as each draw has it
    weight: float  # of the segment's term in J
    divisor: float  # of a sequence's sum over its tokens: how many they are, or slots


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Measured gradients of a run's own trees."""

    thought: SegmentScores
    answer: SegmentScores
    whole: Float[np.ndarray, "*R d"]  # B E|g|² with the run's own credit, as each draw has it


@partial(jax.jit, static_argnames=("thoughts", "answers", "rule", "min_scored"))
def credit_trees(
    rewards: Float[Array, "B k n"],
    counted: Bool[Array, "B k n"],
    *,
    thoughts: int,
    answers: int,
    rule: Rule,
    min_scored: int = 2,
) -> TreeCredit:
    """Cut trees of K × M out of a pool, disjoint ones, and hold their credit against its worth.

    M must be below n, and K at most k. Unbiased for any law of the rewards, where answers count
    whatever they earn: a tree's answers are independent draws, and μ_i is estimated by the answers
    to its thought that are not in the tree. m is the pool's own mean, which matters only to a rule
    whose credit of thoughts does not add up to 0 in a tree; none of gmma's is one. `min_scored` as
    the run's: a tree in which fewer answers count is dropped whole.
    """
    batch, of_thoughts, of_answers = rewards.shape
    rows, columns = of_thoughts // thoughts, of_answers // answers
    values = jnp.where(counted, rewards, 0)

    def cut(pool: Array) -> Array:
        used = pool[:, : rows * thoughts, : columns * answers]
        nodes = used.reshape(batch, rows, thoughts, columns, answers)
        return jnp.moveaxis(nodes, (1, 3), (0, 1)).reshape(-1, batch, thoughts, answers)

    def left_out(pool: Array) -> Array:
        sums = pool.sum(axis=2)[:, : rows * thoughts].reshape(batch, rows, thoughts)
        return jnp.repeat(jnp.moveaxis(sums, 1, 0), columns, axis=0) - cut(pool).sum(axis=3)

    count = counted.astype(values.dtype)
    prompt = (values.sum(axis=(1, 2)) / jnp.maximum(count.sum(axis=(1, 2)), 1))[:, None]
    others = left_out(count)
    worth = jnp.where(others > 0, left_out(values) / jnp.maximum(others, 1), prompt[None])

    def of_trees(given: tuple[Array, Array, Array]) -> TreeCredit:
        own, held, worth = given
        enough = held.sum(axis=(1, 2)) >= min(min_scored, thoughts * answers)
        held &= enough[:, None, None]
        found = rule(own, held)
        moved = jnp.square(found.thought).sum(axis=1) + jnp.square(found.answer).sum(axis=(1, 2))
        return TreeCredit(
            thought_signal=(found.thought * (worth - prompt)).mean(axis=1),
            answer_signal=(found.answer * (own - worth[:, :, None])).mean(axis=(1, 2)),
            thought_power=jnp.square(found.thought).mean(axis=1),
            answer_power=jnp.square(found.answer).mean(axis=(1, 2)),
            dead=(moved == 0).astype(values.dtype),
        )

    found = jax.lax.map(of_trees, (cut(values), cut(counted), worth))
    return jax.tree.map(lambda moments: moments.mean(axis=0), found)


def step_gains(
    found: Mapping[Shape, TreeCredit],
    own: Shape,
    scores: Scores,
    live: Callable[[Shape], float] = lambda _: 1.0,
) -> dict[Shape, Float[np.ndarray, "*R"]]:
    """Return the gain of J by a step of each K × M, up to one factor for all of them ([I]).

        ⟨∇J, E g⟩ / √(B E|g|²)  ∝  F / √N
        F = n_th s_th a_th / w_th + n_an s_an a_an / w_an
        N = s_th p_th / K + s_an p_an / (KM) + c F²

    a signals and p powers of the credit (means over prompts), s = `power`, w = `weight`,
    n = `divisor`. The last term is what gradients of different prompts have in common or differ by:
    it does not fall with K, and c is such that N of the run's `own` trees is `whole`. An optimiser
    that divides by the gradient's size, as Adam and clipping do, moves by a length that K and M do
    not change. `live` multiplies moments where dynamic sampling leaves dead trees out. Axes before
    the last, of resampled moments and draws, are kept.
    """
    forward, noise = {}, {}
    for shape, credit in found.items():
        forward[shape], noise[shape] = forward_and_noise(credit, shape, scores)
    common = np.maximum(scores.whole.mean(axis=-1) - noise[own], 0)
    common = np.where(
        forward[own] > 0, common / np.where(forward[own] > 0, forward[own], 1) ** 2, 0
    )
    gains = {}
    for shape, along in forward.items():
        moved, size = live(shape) * along, live(shape) * noise[shape]
        size = size + common * moved**2
        gains[shape] = np.asarray(moved / np.sqrt(np.where(size > 0, size, 1)))
    return gains


def forward_and_noise(
    credit: TreeCredit, shape: Shape, scores: Scores
) -> tuple[Float[np.ndarray, "*R"], Float[np.ndarray, "*R"]]:
    """Return F of `step_gains`, and N without its last term."""
    thoughts, answers = shape
    forward, noise = np.zeros(()), np.zeros(())
    for name, own, count in (
        ("thought", scores.thought, thoughts),
        ("answer", scores.answer, thoughts * answers),
    ):
        if own.weight:
            power = own.power.mean(axis=-1)
            forward = forward + own.divisor * power * mean_of(credit, f"{name}_signal") / own.weight
            noise = noise + power * mean_of(credit, f"{name}_power") / count
    return np.asarray(forward), np.asarray(noise)


def signal_to_noise(credit: TreeCredit, shape: Shape) -> dict[str, Float[np.ndarray, "*R"]]:
    """Return |E g|²/E|g − E g|² of the thoughts' part of a prompt's gradient and of the answers'.

        a²K/p of thoughts, a²KM/p of answers      each up to a factor that K and M do not change

    Noise is that of scores, taken for the whole of |g|² ([I]). 0 where no credit is given.
    """
    thoughts, answers = shape
    found = {}
    for name, count in (("thought", thoughts), ("answer", thoughts * answers)):
        signal, power = (mean_of(credit, f"{name}_{what}") for what in ("signal", "power"))
        ratio = np.square(signal) * count / np.where(power > 0, power, 1)
        found[name] = np.asarray(ratio)
    return found


def mean_of(credit: TreeCredit, name: str) -> Float[np.ndarray, "*R"]:
    """Return the mean over prompts of one of the moments."""
    return np.asarray(np.asarray(getattr(credit, name), np.float64).mean(axis=-1))


def resample(
    found: Mapping[Shape, TreeCredit], scores: Scores, count: int
) -> tuple[dict[Shape, TreeCredit], Scores]:
    """Draw prompts and measured gradients with replacement, `count` times, alike for all shapes."""
    rng = np.random.default_rng(0)
    prompts = len(next(iter(found.values())).dead)
    rows = rng.integers(prompts, size=(count, prompts))

    def drawn(values: Float[np.ndarray, "d"]) -> Float[np.ndarray, "R d"]:
        return np.asarray(values[rng.integers(len(values), size=(count, len(values)))])

    credits = {
        shape: jax.tree.map(lambda moments: np.asarray(moments, np.float64)[rows], credit)
        for shape, credit in found.items()
    }
    return credits, Scores(
        thought=replace(scores.thought, power=drawn(scores.thought.power)),
        answer=replace(scores.answer, power=drawn(scores.answer.power)),
        whole=drawn(scores.whole),
    )
