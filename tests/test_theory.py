"""The delta-method formula against simulation, and the facts that the paper states in words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmma.theory import gradient_spike_score, thought_advantage_variance
from gmma.variance.simulation import simulated_variance

TREES = 32_000


def spread_means(count: int) -> jax.Array:
    return jnp.linspace(0.2, 0.8, count)


def simulated(means: jax.Array, answers: int, law: str) -> np.ndarray:
    variances = means * (1 - means)
    key, m = jax.random.key(answers), jnp.int32(answers)
    return np.asarray(simulated_variance(key, means, variances, m, trees=TREES, law=law))


@pytest.mark.parametrize(
    ("count", "law"),
    [(3, "bernoulli"), (4, "gaussian"), (8, "gaussian"), (16, "bernoulli"), (64, "gaussian")],
)
def test_formula_against_simulation(count: int, law: str) -> None:
    means = spread_means(count)
    for answers, tolerance in ((64, 0.20), (1024, 0.05)):
        formula = thought_advantage_variance(means, means * (1 - means), answers)
        ratio = np.asarray(formula) / simulated(means, answers, law)
        assert np.abs(ratio - 1).max() < tolerance, (answers, ratio)


def test_simulated_variance_falls_as_one_over_answers() -> None:
    means, answers = spread_means(8), np.array([64, 128, 256, 512, 1024])
    variance = [simulated(means, int(m), "gaussian").mean() for m in answers]
    slope, _ = np.polyfit(np.log(answers), np.log(variance), 1)
    assert abs(slope + 1) < 0.05


def test_more_thoughts_leave_a_floor() -> None:
    variance, answers = 0.2, 4
    for count in (8, 64, 512, 4096):
        means = spread_means(count)
        found = thought_advantage_variance(means, jnp.full(count, variance), answers)
        floor = variance / (answers * np.var(np.asarray(means)))
        # (1 − (1 + A²)/K)² bounds each term from below; it tends to 1 as K grows.
        assert (np.asarray(found) > floor * (1 - 4 / count) ** 2 * 0.99).all()
    assert np.allclose(found, floor, rtol=0.01)


@pytest.mark.parametrize("answers", [64, 1024])
@pytest.mark.parametrize("count", [3, 8, 64])
def test_simulated_trees_stay_above_the_floor(count: int, answers: int) -> None:
    """The floor: what a thought's own answers alone contribute, which no other thought removes.

    They are divided by the spread of the sampled values: that of the means, widened by noise.
    """
    means = spread_means(count)
    exact = np.asarray(means)
    advantage = (exact - exact.mean()) / exact.std()
    noise = exact * (1 - exact) / answers
    spread = exact.var() + (1 - 1 / count) * noise.mean()
    own = noise * (1 - (1 + advantage**2) / count) ** 2 / spread
    found = simulated(means, answers, "gaussian")
    assert found.mean() > own.mean()
    assert (found > 0.97 * own).all()  # of each thought, to the simulation's error


def test_degenerate_groups_have_no_variance() -> None:
    for count in (2, 3, 7):
        equal = thought_advantage_variance(jnp.full(count, 0.1), jnp.full(count, 0.3), 4)
        assert (np.asarray(equal) == 0).all()
    two = thought_advantage_variance(jnp.array([0.1, 0.7]), jnp.array([0.3, 0.2]), 4)
    assert np.allclose(two, 0, atol=1e-12)


def test_spike_score_of_a_jump() -> None:
    score = gradient_spike_score(jnp.array([1.0, 1.0, 1.0, 27.0]))
    assert np.allclose(score, [1, 1, 1, 27 / 7.5])
    assert np.isfinite(np.asarray(gradient_spike_score(jnp.zeros(3)))).all()
