"""The objective against textbooks: loops over sequences in NumPy, gradients by differences."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from hypothesis import given

from gmma.config import ObjectiveConfig
from gmma.masked import masked_sum
from gmma.objective import (
    LossTerms,
    imitation_loss,
    loss_terms,
    segment_metrics,
    segment_peaks,
    token_logprobs,
    token_weights,
)
from gmma.surrogate import KL_ESTIMATORS, clipped_surrogate, k1_kl, k3_kl
from gmma.tree import TreeShape
from gmma.tree.pack import pack_tree

TREE = TreeShape(6, 4, 3, thoughts=2, answers=2)
SINGLE = TreeShape(6, 3, 4, thoughts=4, answers=1)  # K = 4 responses, M = 1


# The objective as a function of log-probs: no network, any options


class Seen(NamedTuple):
    """What the objective is given and gives, at the packed slots `[B S]`."""

    loss: Any
    gradient: Any  # by the log-probs
    terms: LossTerms
    metrics: Any
    peaks: Any
    packed: Any


@functools.cache
def objective(config: ObjectiveConfig, masked: bool = False) -> Callable[..., Seen]:
    """(tree, log-probs, old, reference) → `Seen`; `masked` takes the loss off truncated text."""

    def see(tree: laws.Tree, logprobs: Any, old: Any, reference: Any) -> Seen:
        packed = pack_tree(*tree, mask_truncated=masked)
        packed = replace(packed, old_logprobs=old, reference_logprobs=reference)
        weights = token_weights(packed.trained, packed.inputs.shape, config)

        def loss(logprobs: Any) -> Any:
            terms = loss_terms(logprobs, jnp.zeros_like(logprobs), packed, config)
            gain = weights * (terms.surrogate - config.beta * terms.kl)
            return -masked_sum(gain, packed.trained), terms

        (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(logprobs)
        measured = segment_metrics(terms, packed), segment_peaks(terms, packed)
        return Seen(value, gradient, terms, *measured, packed)

    return laws.compiled(see)


def near(rng: np.random.Generator, like: np.ndarray, by: float = 0.3) -> np.ndarray:
    """Log-probs of a nearby policy."""
    return (like + rng.normal(scale=by, size=like.shape)).astype(np.float32)


def random_logprobs(rng: np.random.Generator, shape: TreeShape) -> np.ndarray:
    return -rng.uniform(0.1, 3, size=(laws.BATCH, shape.packed)).astype(np.float32)


# The textbook


class Sequence(NamedTuple):
    """One thought, answer or response: its trained slots in its row, and its credit."""

    row: int
    slots: np.ndarray
    advantages: np.ndarray


def segment_slots(tree: laws.Tree, trained: np.ndarray) -> Iterator[tuple[int, Any, Any]]:
    """(row, trained slots of the thought, of the answer) along each of the K·M paths."""
    rows = laws.flat_rows(tree)
    for (b, _, _), slots, segment in zip(rows.path, rows.slot, rows.segment, strict=True):
        chosen = [slots[segment == kind] for kind in (1, 2)]
        yield int(b), *(some[trained[b, some]] for some in chosen)


def sequences(tree: laws.Tree, trained: np.ndarray) -> tuple[list[Sequence], list[Sequence]]:
    """All thoughts, each once, and all answers."""
    m = tree.rollout.finished.shape[2]
    paths = list(segment_slots(tree, trained))[: tree.rollout.finished.size]
    credit = [x.reshape(-1) for x in (tree.advantages.thought, tree.advantages.answer)]
    thoughts = [
        Sequence(b, slots, np.full(len(slots), credit[0][n]))
        for n, (b, slots, _) in enumerate(paths[::m])
    ]
    answers = [
        Sequence(b, slots, np.full(len(slots), credit[1][n]))
        for n, (b, _, slots) in enumerate(paths)
    ]
    return thoughts, answers


def joined(thoughts: list[Sequence], answers: list[Sequence]) -> list[Sequence]:
    """With M = 1, the responses of GRPO."""
    return [
        Sequence(t.row, *(np.concatenate(pair) for pair in zip(t[1:], a[1:], strict=True)))
        for t, a in zip(thoughts, answers, strict=True)
    ]


def sequence_gains(
    sequence: Sequence, new: np.ndarray, old: np.ndarray, ref: np.ndarray, config: ObjectiveConfig
) -> np.ndarray:
    """min(r·A, clip(r)·A) − β·KL of each trained token of one sequence."""
    new, old, ref = (x[sequence.row, sequence.slots] for x in (new, old, ref))
    ratio = np.exp(new - old)
    if config.importance_sampling_level == "sequence" and len(ratio):
        ratio = np.full(len(new), np.exp(np.mean(new - old)))
    free = ratio if config.delta is None else np.minimum(ratio, config.delta)
    clipped = np.clip(ratio, 1 - config.epsilon, 1 + config.upper_epsilon)
    divergence = {
        "k1": new - ref,
        "k2": (new - ref) ** 2 / 2,
        "k3": np.exp(ref - new) - (ref - new) - 1,
    }
    gain = np.minimum(free * sequence.advantages, clipped * sequence.advantages)
    return gain - config.beta * divergence[config.kl_estimator]


def textbook(gains: list[np.ndarray], loss_type: str, slots: int) -> float:
    """The four ways of the field to average the tokens of N sequences."""
    lengths = [max(len(gain), 1) for gain in gains]
    sums = [gain.sum() for gain in gains]
    if loss_type == "grpo":  # mean over tokens, then over sequences
        return float(np.mean([s / n for s, n in zip(sums, lengths, strict=True)]))
    if loss_type == "dr_grpo":  # a constant in place of the length
        return sum(sums) / (len(gains) * slots)
    return sum(sums) / max(sum(map(len, gains)), 1)  # dapo, bnpo: over all tokens


def expected_loss(
    tree: laws.Tree,
    trained: np.ndarray,
    config: ObjectiveConfig,
    new: np.ndarray,
    old: np.ndarray,
    ref: np.ndarray,
) -> float:
    """−J of the whole batch; J of thoughts plus J of answers, or of whole responses."""
    shape = laws.shape_of(tree)
    thoughts, answers = sequences(tree, trained)
    if config.algorithm == "grpo":
        parts = [(joined(thoughts, answers), shape.thought + shape.answer, 1.0)]
    else:
        parts = [
            (thoughts, shape.thought, config.thought_weight),
            (answers, shape.answer, config.answer_weight),
        ]
    total = 0.0
    for some, slots, weight in parts:
        gains = [sequence_gains(one, new, old, ref, config) for one in some]
        total -= weight * textbook(gains, config.loss_type, slots)
    return total


def by_differences(function: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
    """The gradient by central differences in float64."""
    gradient, step = np.zeros(at.shape), 1e-6
    for n in range(at.size):
        moved = np.zeros(at.size)
        moved[n] = step
        up, down = (function(at + sign * moved.reshape(at.shape)) for sign in (1, -1))
        gradient.flat[n] = (up - down) / (2 * step)
    return gradient


OPTIONS = {
    "grpo": ObjectiveConfig(),
    "dr_grpo, weights": ObjectiveConfig(
        loss_type="dr_grpo", thought_weight=0.5, answer_weight=2.0, epsilon_high=0.5
    ),
    "dapo, k1": ObjectiveConfig(loss_type="dapo", beta=0.2, kl_estimator="k1"),
    "bnpo, k2, dual clip": ObjectiveConfig(
        loss_type="bnpo", beta=0.2, kl_estimator="k2", delta=1.1
    ),
    "gspo, k3": ObjectiveConfig(importance_sampling_level="sequence", epsilon=0.05, beta=0.2),
}
SINGLE_OPTIONS = {
    name: replace(OPTIONS[name], algorithm="grpo", thought_weight=1.0, answer_weight=1.0)
    for name in OPTIONS
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("algorithm", ["grpo_ma", "grpo"])
def test_equals_the_textbook(name: str, algorithm: str) -> None:
    """Value and gradient by the log-probs, over the option table; `grpo` on K = 4, M = 1 (L5)."""
    shape = TREE if algorithm == "grpo_ma" else SINGLE
    config = (OPTIONS if algorithm == "grpo_ma" else SINGLE_OPTIONS)[name]
    masked = name == "dapo, k1"

    @laws.examples(5)
    @given(laws.trees(laws.tiny_subject(), shape), laws.generators())
    def check(tree: laws.Tree, rng: np.random.Generator) -> None:
        if algorithm == "grpo":  # one advantage for the response
            credit = replace(tree.advantages, answer=tree.advantages.thought[..., None])
            tree = tree._replace(advantages=credit)
        new = random_logprobs(rng, shape)
        old, ref = near(rng, new), near(rng, new)
        seen = jax.tree.map(np.asarray, objective(config, masked)(tree, new, old, ref))
        exact = [x.astype(float) for x in (new, old, ref)]

        def loss(logprobs: np.ndarray) -> float:
            return expected_loss(tree, seen.packed.trained, config, logprobs, *exact[1:])

        laws.assert_close(seen.loss, loss(exact[0]), 1e-5)
        slopes = by_differences(loss, exact[0])
        np.testing.assert_allclose(
            seen.gradient, slopes, rtol=1e-4, atol=1e-5 * np.abs(slopes).max()
        )

    check()


# Whole sequences through the network


@laws.examples(8)
@given(laws.trees(laws.tiny_subject(), SINGLE), laws.generators())
def test_grpo_is_textbook_grpo(tree: laws.Tree, rng: np.random.Generator) -> None:
    """L5: the packed tree with M = 1 against flat sequences, parameter gradients included."""
    subject, config = laws.tiny_subject(), replace(laws.OBJECTIVE, algorithm="grpo")
    credit = replace(tree.advantages, answer=tree.advantages.thought[..., None])
    tree = tree._replace(advantages=credit)
    rows = laws.flat_rows(tree)
    flat, _ = laws.run_flat(subject, tree, rows)
    old, ref = (laws.to_packed(tree, rows, near(rng, flat)) for _ in range(2))
    trained = rows.segment > 0
    values, slopes = laws.clipped_objective(
        flat.astype(float),
        laws.to_flat(rows, old),
        laws.to_flat(rows, ref),
        laws.flat_advantages(tree, rows),
        config,
    )
    responses = tree.rollout.closed.size
    weights = trained / (responses * np.maximum(trained.sum(axis=1, keepdims=True), 1))
    _, gradient = laws.run_flat(subject, tree, rows, -weights * slopes)
    packed = laws.evaluate(subject, tree, old, ref, config)
    laws.assert_close(packed.loss, -np.sum(weights * values), 1e-5)
    laws.assert_gradients_close(packed.gradient, gradient, 1e-5)


@laws.examples(8)
@given(laws.trees(laws.tiny_subject(), TREE))
def test_the_first_step_is_reinforce(tree: laws.Tree) -> None:
    """Without old log-probs the gradient is Σ w·A·∇log π, whatever the clip."""
    subject = laws.tiny_subject()
    rows = laws.flat_rows(tree)
    weights = laws.flat_weights(tree, rows) * laws.flat_advantages(tree, rows)
    _, gradient = laws.run_flat(subject, tree, rows, -weights)
    laws.assert_gradients_close(laws.evaluate(subject, tree).gradient, gradient, 1e-5)


@laws.examples(8)
@given(laws.trees(laws.tiny_subject(), TREE), laws.generators())
def test_the_first_step_clips_nothing(tree: laws.Tree, rng: np.random.Generator) -> None:
    """The ratio is 1, no token is clipped, and the KL to oneself is 0."""
    new = random_logprobs(rng, TREE)
    config = ObjectiveConfig(beta=0.1)
    for old in (None, new):
        seen = jax.tree.map(np.asarray, objective(config)(tree, new, old, new))
        assert (seen.terms.ratio == 1).all()
        assert not seen.terms.kl.any()
        for name, metric in seen.metrics.items():
            if "clip_ratio" in name or name.endswith("/kl"):
                assert metric.total == 0
                assert metric.count > 0


@laws.examples(4)
@given(laws.trees(laws.tiny_subject(), TREE))
def test_chunks_of_slots_change_nothing(tree: laws.Tree) -> None:
    """Log-probs, entropy and the gradient of their weighted sum, five slots at a time."""
    whole, chunked = (chunk_program(size)(laws.tiny_subject().params, tree) for size in (None, 5))
    laws.assert_close(np.asarray(chunked[0]), np.asarray(whole[0]), 1e-5)
    laws.assert_close(np.asarray(chunked[1]), np.asarray(whole[1]), 1e-5)
    laws.assert_gradients_close(*(jax.tree.map(np.asarray, x[2]) for x in (chunked, whole)), 1e-5)


@functools.cache
def chunk_program(size: int | None) -> Callable[..., Any]:
    """(params, tree) → imitation loss, entropy, gradient."""
    policy = laws.tiny_subject().policy

    def run(params: Any, tree: laws.Tree) -> Any:
        packed = pack_tree(*tree)
        config = ObjectiveConfig(loss_type="dapo")
        weights = token_weights(packed.trained, packed.inputs.shape, config)

        def loss(params: Any) -> Any:
            value, terms = imitation_loss(policy, params, packed, weights, chunk_slots=size)
            return value, terms.entropy

        (value, entropy), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return value, entropy, gradient

    return laws.compiled(run)


@laws.examples(8)
@given(laws.trees(laws.tiny_subject(), TREE))
def test_imitation_is_mean_log_likelihood(tree: laws.Tree) -> None:
    """Over the tokens of thoughts, plus over those of answers; entropy is that of the softmax."""
    subject = laws.tiny_subject()
    value, entropy, _ = chunk_program(None)(subject.params, tree)
    logprobs, full_entropy, packed = plain_logprobs()(subject.params, tree)
    thoughts, answers = sequences(tree, np.asarray(packed.trained))
    expected = sum(
        -np.mean(np.concatenate([np.asarray(logprobs)[s.row, s.slots] for s in some]))
        for some in (thoughts, answers)
    )
    laws.assert_close(value, expected, 1e-5)
    laws.assert_close(np.asarray(entropy), np.asarray(full_entropy), 1e-6)
    assert (np.asarray(entropy)[:, TREE.prompt :] > 0).all()
    assert (np.asarray(entropy) < np.log(len(laws.PIECES)) + 1e-5).all()


@functools.cache
def plain_logprobs() -> Callable[..., Any]:
    def run(params: Any, tree: laws.Tree) -> Any:
        packed = pack_tree(*tree)
        return *token_logprobs(laws.tiny_subject().policy, params, packed), packed

    return laws.compiled(run)


# By hand


def test_clip_by_hand() -> None:
    """ε = 0.2 below and 0.4 above: a gain is capped at 1.4, a loss at −0.8."""
    ratio = jnp.array([0.5, 1.0, 2.0, 0.5, 1.0, 2.0])
    advantage = jnp.array([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    clip = functools.partial(clipped_surrogate, ratio, advantage, epsilon_low=0.2, epsilon_high=0.4)
    np.testing.assert_allclose(clip(), [0.5, 1, 1.4, -0.8, -1, -2], rtol=1e-6)
    # dual clip: a ratio above δ loses no more than δ·A
    np.testing.assert_allclose(clip(delta=1.5), [0.5, 1, 1.4, -0.8, -1, -1.5], rtol=1e-6)


def test_kl_estimators_by_hand() -> None:
    """π = ½, π_ref = ¼: log-ratio −ln 2."""
    new, ref = jnp.log(jnp.array([0.5])), jnp.log(jnp.array([0.25]))
    by_hand = {"k1": np.log(2), "k2": np.log(2) ** 2 / 2, "k3": 0.5 + np.log(2) - 1}
    for name, value in by_hand.items():
        np.testing.assert_allclose(KL_ESTIMATORS[name](new, ref), [value], rtol=1e-5)


def test_k1_and_k3_are_unbiased_and_k3_is_never_negative() -> None:
    """Σ π·k = KL(π ‖ π_ref) over a whole distribution."""
    rng = np.random.default_rng(0)
    policy, reference = (jnp.asarray(p, jnp.float32) for p in rng.dirichlet(np.ones(9), size=2))
    divergence = jnp.sum(policy * jnp.log(policy / reference))
    for estimator in (k1_kl, k3_kl):
        estimate = estimator(jnp.log(policy), jnp.log(reference))
        np.testing.assert_allclose(jnp.sum(policy * estimate), divergence, rtol=1e-5)
    assert (np.asarray(k3_kl(jnp.log(policy), jnp.log(reference))) >= 0).all()


@laws.examples(5)
@given(laws.trees(laws.tiny_subject(), TREE), laws.generators())
def test_clip_metrics_and_the_gap_to_the_sampler(tree: laws.Tree, rng: np.random.Generator) -> None:
    """Sums and counts over the trained tokens of thoughts and of answers."""
    config = ObjectiveConfig(epsilon=0.2, epsilon_high=0.3)
    new = random_logprobs(rng, TREE)
    old = near(rng, new)
    seen = jax.tree.map(np.asarray, objective(config)(tree, new, old, new))
    ratio, gap = np.exp(new - old), np.abs(old - seen.packed.sampler_logprobs)
    low = (ratio < 0.8) & (seen.packed.advantages < 0)
    high = (ratio > 1.3) & (seen.packed.advantages > 0)
    spans = {
        "thought": slice(TREE.prompt, TREE.answers_start),
        "answer": slice(TREE.answers_start, None),
    }
    for segment, span in spans.items():
        held = seen.packed.trained[:, span]
        expected = {
            "clip_ratio/low_mean": low,
            "clip_ratio/high_mean": high,
            "clip_ratio/region_mean": low | high,
            "logprob": new,
            "sampling/sampling_logp_difference/mean": gap,
        }
        for name, values in expected.items():
            metric = seen.metrics[f"{segment}/{name}"]
            assert metric.count == held.sum()
            laws.assert_close(metric.total, values[:, span][held].sum(), 1e-5)
        peak = seen.peaks[f"{segment}/sampling/sampling_logp_difference/max"]
        laws.assert_close(peak, gap[:, span][held].max(), 1e-5)


@laws.examples(5)
@given(laws.trees(laws.tiny_subject(), TREE), laws.generators())
def test_importance_of_trainer_over_sampler_is_capped(
    tree: laws.Tree, rng: np.random.Generator
) -> None:
    """Each surrogate is multiplied by min(π_old / π_sampler, cap), a constant."""
    new = random_logprobs(rng, TREE)
    old = near(rng, new)
    plain, capped = (
        jax.tree.map(np.asarray, objective(config)(tree, new, old, new))
        for config in (ObjectiveConfig(), ObjectiveConfig(importance_cap=1.5))
    )
    factor = np.minimum(np.exp(old - plain.packed.sampler_logprobs), 1.5)
    held = plain.packed.trained
    laws.assert_close(capped.terms.surrogate[held], (plain.terms.surrogate * factor)[held], 1e-5)
    laws.assert_close(capped.gradient[held], (plain.gradient * factor)[held], 1e-5)
