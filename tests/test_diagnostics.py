"""What a run says about its noise, held against the formulas, and against drawing it anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gmma.advantage import multi_answer
from gmma.records.diagnostics import (
    SPIKE_SCORE,
    RunningMean,
    advantage_metrics,
    gradient_powers,
    spike_score,
    thought_noise,
)
from gmma.records.metrics import compute
from gmma.run.summary import spike_row
from gmma.theory import gradient_spike_score, thought_advantage_variance
from gmma.variance.simulation import simulated_variance

NAN = np.nan
CORRECTED, VARIANCE = "reward_variance/between_thoughts_corrected", "thought/advantage_variance"
# Below 1e-30 a mean of norms may be subnormal, which some processors take for 0.
NORMS = st.just(0.0) | st.floats(2.0**-100, 1e6, width=32)


def scores_of(norms, mean):
    scores = []
    for norm in norms:
        mean, score = spike_score(mean, norm)
        scores.append(score)
    return mean, scores


@given(st.lists(NORMS, min_size=12, max_size=12), st.data())
def test_spike_scores_step_by_step_are_the_formula_and_go_on_after_a_stop(norms, data):
    _, whole = scores_of(norms, RunningMean())
    np.testing.assert_allclose(whole, gradient_spike_score(jnp.float32(norms)), rtol=1e-4)
    stop = data.draw(st.integers(0, len(norms)))
    held, before = scores_of(norms[:stop], RunningMean())
    assert before + scores_of(norms[stop:], held)[1] == whole


def test_spikes_are_counted_with_their_share():
    scores = [1.0, 2.5, SPIKE_SCORE, 11.0, NAN]
    records = [{"phase": "rl", "grad_spike_score": score} for score in scores]
    records += [{"phase": "rl"}, {"phase": "sft", "grad_spike_score": 99.0}]  # one is older
    assert spike_row("rl", records) == ["rl", "5", "11.00", "3 (60.0%)", "1 (20.0%)", "1"]
    assert spike_row("rl", []) == []


def test_powers_are_unbiased_where_parts_are_alike():
    """A signal of 4 = |(2, 0, 0)|² and noise of 3 dimensions, in 20,000 batches of 4 parts."""
    draws = np.random.default_rng(0).normal(size=(20_000, 4, 3)).astype(np.float32)
    parts = draws * 0.5 + np.float32([0.5, 0, 0])
    total = np.square(parts.sum(axis=1)).sum(axis=1)
    found = jax.vmap(gradient_powers)(jnp.array(total), jnp.array(np.square(parts).sum(axis=2)))
    mean = {name: float(power.mean()) for name, power in found.items()}
    assert mean["gradient/noise_power"] == pytest.approx(4 * 0.25 * 3, rel=0.02)
    assert mean["gradient/signal_power"] == pytest.approx(4, rel=0.03)
    assert mean["gradient/total_power"] == pytest.approx(7, rel=0.02)


def test_one_microbatch_says_nothing_of_its_noise():
    assert gradient_powers(jnp.float32(4), jnp.float32([4])) == {}


def drawn(means, answers, trees, seed):
    """Rewards of 0 and 1 of the same thoughts, answered anew in every tree."""
    draws = np.random.default_rng(seed).random((trees, len(means), answers))
    return (draws < means[:, None]).astype(np.float32)


@pytest.mark.parametrize("answers", [2, 3, 8])
def test_corrected_variance_is_unbiased_for_that_of_true_values(answers):
    """Also where answers are missing; the raw one is too large by within/M."""
    means = np.array([0.1, 0.3, 0.35, 0.6, 0.9])
    true = means.var(ddof=1)
    rewards = drawn(means, answers, 40_000, answers)
    found = thought_noise(rewards)[CORRECTED]
    error = found.std() / np.sqrt(found.size)
    assert abs(found.mean() - true) < 4 * error < 0.05 * true
    raw = rewards.astype(float).mean(axis=2).var(axis=1, ddof=1).mean()
    assert raw - true == pytest.approx((means * (1 - means)).mean() / answers, rel=0.05)
    some = np.where(np.arange(answers) < 2, rewards, NAN)
    some[:, ::2] = rewards[:, ::2]
    assert abs(thought_noise(some)[CORRECTED].mean() - true) < 0.02 * true + 4 * error


@given(hnp.arrays(np.float32, (2, 4, 3), elements=st.floats(0, 1, width=16)))
def test_advantage_variance_is_the_formula_at_what_the_answers_show(rewards):
    exact = rewards.astype(float)
    values, within = exact.mean(axis=2), exact.var(axis=2, ddof=1)
    for tree, found in enumerate(thought_noise(rewards)[VARIANCE]):
        if np.isnan(found):
            assert np.ptp(values[tree]) <= 4 * np.finfo(np.float32).eps * np.ptp(exact[tree])
            continue
        with jax.enable_x64(True):
            known = (jnp.array(x[tree]) for x in (values, within))
            expected = float(thought_advantage_variance(*known, answers=3).mean())
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("answers", "low", "high"), [(256, 0.95, 1.05), (4, 1.1, 1.3)])
def test_advantage_variance_is_that_of_answering_the_same_thoughts_anew(answers, low, high):
    """From each of many trees alone, over what drawing anew shows: right at M = 256, and at M = 4
    about a fifth too large, the bias that its docstring speaks of.
    """
    means = np.linspace(0.2, 0.8, 8, dtype=np.float32)
    mu, anew = jnp.array(means), jax.random.key(0)
    variance = simulated_variance(
        anew, mu, mu * (1 - mu), jnp.int32(answers), trees=32_000, law="bernoulli"
    )
    found = thought_noise(drawn(means, answers, 2000, 1))[VARIANCE]
    assert low < found.mean() / float(variance.mean()) < high


def test_answers_that_do_not_count_are_as_if_not_there():
    rewards = drawn(np.array([0.2, 0.5, 0.8]), 4, 50, 0)
    wider = np.full((50, 5, 6), NAN, np.float32)
    wider[:, 1:4, ::2], wider[:, 1:4, 1] = rewards[..., :3], rewards[..., 3]
    wider[:, 4, 0] = 1  # a thought with one answer: its noise is not known
    for name, expected in thought_noise(rewards).items():
        np.testing.assert_allclose(thought_noise(wider)[name], expected, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("tree", "corrected"),
    [
        ([[1], [0]], NAN),  # M = 1
        ([[1, 0]], NAN),  # K = 1
        ([[1, 0], [NAN, NAN]], NAN),  # one thought left
        ([[NAN, NAN], [NAN, NAN]], NAN),
        ([[1, 1], [1, 1]], 0),
        ([[0.1, 0.2, 0.7], [0.7, 0.1, 0.2]], -0.31 / 9),  # equal but for rounding
    ],
)
def test_trees_that_show_no_advantage_have_no_variance_of_it(tree, corrected):
    found = thought_noise(np.float32([tree]))
    assert np.isnan(found[VARIANCE]).all()
    np.testing.assert_allclose(found[CORRECTED], [corrected], atol=1e-6)


def test_deviation_of_advantages_by_hand():
    """One tree of two has an advantage: of ±1, so √½ over both. What does not count is left out."""
    rewards = np.float32([[[1, 1], [0, 0]], [[1, 1], [1, 1]]])
    counted = np.ones((2, 2, 2), bool)
    for rows, expected in ((1, {1.0}), (2, {np.float32(0.5**0.5).item()})):
        credit = multi_answer(jnp.array(rewards[:rows]))
        found = compute(jax.device_get(advantage_metrics(credit, jnp.array(counted[:rows]))))
        assert found.keys() == {"thought/advantage_std", "answer/advantage_std"}
        assert set(found.values()) == expected
    half = counted & (np.arange(2) == 0)[:, None, None]
    assert compute(jax.device_get(advantage_metrics(credit, jnp.array(half)))) == {
        "answer/advantage_std": 1.0,
        "thought/advantage_std": 1.0,
    }
    assert compute(jax.device_get(advantage_metrics(credit, jnp.array(counted & False)))) == {}
