"""CISPO, SAPO, the KL times the ratio and the entropy bonus, against their equations in NumPy."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmma.config import ObjectiveConfig
from gmma.errors import UserError
from gmma.masked import masked_sum
from gmma.objective import ask_surrogate, loss_terms, policy_loss, token_weights
from gmma.run.objective_trial import try_objective
from gmma.tree import TreeShape
from gmma.tree.pack import pack_tree
from gmma.types import PackedTree, TreeInputs

TREE = TreeShape(6, 4, 3, thoughts=2, answers=2)
TOKENS = 12
CISPO = ObjectiveConfig(surrogate="cispo", epsilon_high=1.5)
SAPO = ObjectiveConfig(surrogate="sapo", surrogate_options=(("tau_pos", 0.5), ("tau_neg", 2.0)))


@functools.cache
def surrogate(config: ObjectiveConfig) -> Callable[..., tuple[Any, Any]]:
    """(log-probs, old, advantages) → each token's part of J, and its slope by the log-prob."""

    def each(logprobs: Any, old: Any, advantages: Any) -> tuple[Any, Any]:
        def total(logprobs: Any) -> tuple[Any, Any]:
            values = ask_surrogate(jnp.exp(logprobs - old), advantages, logprobs, config)
            return values.sum(), values

        (_, values), slopes = jax.value_and_grad(total, has_aux=True)(logprobs)
        return values, slopes

    return laws.compiled(each)


def rows(least: float, most: float) -> st.SearchStrategy[np.ndarray]:
    """A row of a token each, of float32."""
    # Subnormal products are 0 on some processors: small sides are 0 or far above them.
    sides = st.floats(least, most, width=32).map(lambda x: x if abs(x) > 1e-20 else 0.0)
    return hnp.arrays(np.float32, (1, TOKENS), elements=sides)


def rounded_ratio(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """exp of the difference that float32 has; the rest in float64."""
    return np.exp((new - old).astype(np.float64))


@laws.examples(80)
@given(rows(-12, 0), rows(-12, 0), rows(-4, 4))
def test_cispo_equals_its_equation(new: np.ndarray, old: np.ndarray, credit: np.ndarray) -> None:
    """sg(min(r, 1 + ε_high))·A·log π; the weight is a constant, bounded, of every token."""
    values, slopes = map(np.asarray, surrogate(CISPO)(new, old, credit))
    weight = np.minimum(rounded_ratio(new, old), 2.5)
    np.testing.assert_allclose(values, weight * credit * new, rtol=1e-6, atol=1e-35)
    np.testing.assert_allclose(slopes, weight * credit, rtol=1e-6, atol=1e-35)
    assert (np.abs(slopes) <= 2.5 * np.abs(credit)).all()
    assert ((slopes != 0) | (np.abs(credit) * weight < 1e-35)).all()  # no token drops out


@laws.examples(80)
@given(rows(-12, 0), rows(-12, 0), rows(-4, 4))
def test_sapo_equals_its_equation(new: np.ndarray, old: np.ndarray, credit: np.ndarray) -> None:
    """4/τ·σ(τ (r − 1))·A, whose slope by r is 4 σ (1 − σ)·A; both bounded whatever the ratio."""
    values, slopes = map(np.asarray, surrogate(SAPO)(new, old, credit))
    ratio, tau = rounded_ratio(new, old), np.where(credit > 0, 0.5, 2.0)
    gate = 1 / (1 + np.exp(-tau * (ratio - 1)))
    close = functools.partial(np.testing.assert_allclose, rtol=0)
    close(values, 4 / tau * gate * credit, atol=1e-6 * 8 * np.abs(credit).max())
    # by log π: r times the slope by r; σ (1 − σ) falls faster than r grows
    expected = 4 * gate * (1 - gate) * ratio * credit
    close(slopes, expected, atol=1e-6 * 8 * np.abs(credit).max())
    assert (np.abs(values) <= 4 / tau * np.abs(credit) * (1 + 1e-6)).all()
    assert (np.abs(slopes) <= np.abs(credit) * ratio * (1 + 1e-6)).all()


@pytest.mark.parametrize("name", ["clipped", "cispo", "sapo"])
def test_on_policy_every_surrogate_is_the_policy_gradient(name: str) -> None:
    """At r = 1 the slope by the log-prob is A, of any temperature."""
    config = SAPO if name == "sapo" else ObjectiveConfig(surrogate=name)
    new, credit = -np.linspace(0.1, 3, TOKENS, dtype=np.float32), np.float32([2, -1, 0] * 4)
    _, slopes = surrogate(config)(new[None], new[None], credit[None])
    np.testing.assert_allclose(slopes[0], credit, rtol=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_kl_times_the_ratio(estimator: str, level: str) -> None:
    """r·k in place of k, and its gradient goes through r; the surrogate stays."""
    plain = ObjectiveConfig(beta=0.3, kl_estimator=estimator, importance_sampling_level=level)

    def see(tree: laws.Tree, new: Any, old: Any, reference: Any) -> Any:
        packed = replace(pack_tree(*tree), old_logprobs=old, reference_logprobs=reference)

        def kl(logprobs: Any, config: ObjectiveConfig) -> Any:
            terms = loss_terms(logprobs, jnp.zeros_like(logprobs), packed, config)
            return terms.kl[:, TREE.prompt :].sum(), terms

        pairs = [
            jax.value_and_grad(kl, has_aux=True)(new, config)
            for config in (plain, replace(plain, kl_times_ratio=True))
        ]
        return [(terms, slopes) for (_, terms), slopes in pairs], packed.trained

    @laws.examples(4)
    @given(laws.trees(laws.tiny_subject(), TREE), laws.generators())
    def check(tree: laws.Tree, rng: np.random.Generator) -> None:
        new = -rng.uniform(0.1, 3, size=(laws.BATCH, TREE.packed)).astype(np.float32)
        old, ref = (new + rng.normal(scale=0.3, size=new.shape).astype(np.float32) for _ in "ab")
        ((before, flat), (after, slopes)), trained = jax.tree.map(
            np.asarray, program(tree, new, old, ref)
        )
        ratio = before.ratio.astype(np.float64)
        np.testing.assert_allclose(after.kl, ratio * before.kl, rtol=1e-6)
        np.testing.assert_array_equal(after.surrogate, before.surrogate)
        if level == "token":  # then a token's KL moves with its own log-prob alone
            expected = ratio * (flat + before.kl)
            np.testing.assert_allclose(slopes[trained], expected[trained], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(
                before.ratio[trained], np.exp((new - old)[trained]), rtol=1e-5
            )

    program = laws.compiled(see)
    check()


def test_the_gradient_of_the_weighted_kl_is_that_of_the_kl() -> None:
    """Summed over a whole distribution, on policy: with the ratio ∇KL for k1; without it 0."""
    rng = np.random.default_rng(0)
    logits, other = (jnp.asarray(rng.normal(size=5), jnp.float32) for _ in range(2))
    reference = jax.nn.log_softmax(other)
    tree = next_token_tree()

    def estimate(logits: Any, config: ObjectiveConfig) -> Any:
        logprobs = jax.nn.log_softmax(logits)
        packed = replace(tree, reference_logprobs=at_answers(reference))
        terms = loss_terms(at_answers(logprobs), at_answers(logprobs), packed, config)
        drawn = jax.lax.stop_gradient(jnp.exp(logprobs))  # as often as the policy draws it
        return (drawn * terms.kl[0, 2:]).sum()

    def exact(logits: Any) -> Any:
        logprobs = jax.nn.log_softmax(logits)
        return (jnp.exp(logprobs) * (logprobs - reference)).sum()

    plain = ObjectiveConfig(beta=0.1, kl_estimator="k1")
    weighted = replace(plain, kl_times_ratio=True)
    every = laws.compiled(
        lambda logits: (
            jax.value_and_grad(estimate)(logits, weighted),
            jax.value_and_grad(exact)(logits),
            jax.grad(estimate)(logits, plain),
        )
    )
    found, wanted, without = every(logits)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(without, np.zeros(5), atol=1e-6)


def at_answers(values: Any) -> Any:
    """A row of a prompt and a thought of one slot each, and five answers of one token."""
    return jnp.pad(jnp.asarray(values), (2, 0))[None]


def next_token_tree() -> PackedTree:
    """A packed tree whose five answers are one token each: the whole vocabulary."""
    slots = jnp.arange(7, dtype=jnp.int32)[None]
    inputs = TreeInputs(
        tokens=slots,
        positions=slots,
        valid=slots >= 0,
        images=None,
        shape=TreeShape(1, 1, 1, thoughts=1, answers=5),
    )
    zero = jnp.zeros(slots.shape)
    return PackedTree(
        inputs=inputs,
        predecessor=slots,
        trained=slots >= 2,
        advantages=zero,
        sampler_logprobs=zero,
    )


@functools.cache
def entropy_program() -> Callable[..., Any]:
    """(params, tree) → loss and gradient without a bonus, with one, and of −c Σ w·H alone."""
    policy, coefficient = laws.tiny_subject().policy, 0.3

    def run(params: Any, tree: laws.Tree) -> Any:
        packed = pack_tree(*tree)
        weights = token_weights(packed.trained, packed.inputs.shape, ObjectiveConfig())

        def loss(params: Any, coefficient: float, chunk: int | None) -> Any:
            config = ObjectiveConfig(entropy_coef=coefficient)
            return policy_loss(
                policy,
                params,
                packed,
                weights,
                config,
                temperature=laws.TEMPERATURE,
                chunk_slots=chunk,
            )[0]

        def bonus(params: Any) -> Any:
            logits = policy.unembed(params, policy.forward(params, packed.inputs))
            shares = jax.nn.softmax(logits / laws.TEMPERATURE)
            entropy = -(shares * jnp.log(shares)).sum(axis=-1)
            before = jnp.take_along_axis(entropy, packed.predecessor, axis=1)
            return -coefficient * masked_sum(weights * before, packed.trained)

        return (
            jax.value_and_grad(loss)(params, 0.0, None),
            jax.value_and_grad(loss)(params, coefficient, 5),
            jax.value_and_grad(bonus)(params),
        )

    return laws.compiled(run)


@laws.examples(4)
@given(laws.trees(laws.tiny_subject(), TREE))
def test_the_entropy_bonus_is_added_with_its_gradient(tree: laws.Tree) -> None:
    """J + c Σ w·H of the softmax at the sampling temperature, five slots at a time."""
    found = entropy_program()(laws.tiny_subject().params, tree)
    plain, rewarded, bonus = jax.tree.map(np.asarray, found)
    laws.assert_close(rewarded[0], plain[0] + bonus[0], 1e-5)
    laws.assert_gradients_close(rewarded[1], jax.tree.map(np.add, plain[1], bonus[1]), 1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"surrogate": "cispo", "delta": 2.0}, "delta = 2.0 with objective.surrogate = cispo"),
        ({"surrogate": "sapo", "delta": 2.0}, "has no such bound; leave it at None"),
        ({"surrogate": "sapo", "epsilon_high": 0.3}, "epsilon_high = 0.3 with"),
        ({"surrogate": "sapo", "epsilon": 0.3}, "has no such bound; leave it at 0.2"),
        ({"surrogate": "gmma.surrogate:cispo", "delta": 2.0}, "which has no such bound"),
        ({"kl_times_ratio": True}, "no KL to weigh; set beta above 0"),
        ({"entropy_coef": -0.1}, "entropy_coef = -0.1; it must be 0 or more"),
    ],
)
def test_what_means_nothing_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ObjectiveConfig(**fields)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((("tau_pos", 0.0),), "tau_pos = 0.0 and tau_neg = 1.05: temperatures must be above 0"),
        ((("tau_neg", "warm"),), "surrogate 'sapo' raised Type"),
        ((("tau", 1.0),), "cannot be called as sapo"),
        ((("delta", 1.0),), "surrogate_options: delta = 1.0, but delta comes of itself; leave"),
        ((("tau_pos", 1.0), ("tau_pos", 3.0)), "tau_pos stands there twice; leave it out"),
    ],
)
def test_temperatures_that_cannot_be_are_refused_before_a_run(options: Any, words: str) -> None:
    config = ObjectiveConfig(surrogate="sapo", surrogate_options=options)
    with pytest.raises(UserError, match=words):
        try_objective(config, TREE)


def test_every_surrogate_passes_the_trial() -> None:
    for config in (CISPO, SAPO, ObjectiveConfig(surrogate="sapo")):
        try_objective(config, TREE)
