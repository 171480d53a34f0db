"""`gmma variance`: re-sampled answers of fixed thoughts, and the command around the curves."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import open_tiny

from gmma import cli
from gmma.errors import UserError
from gmma.variance.command import live_prompts, slope
from gmma.variance.simulation import resampled, simulated_variance, variance_between_parts

ANSWERS = (1, 2, 8)


def test_resampling_a_large_pool_is_sampling_anew():
    """Rewards of 0 and 1: simulated trees of the same means have the same variance, and groups die
    as often as independent answers say.
    """
    means = np.asarray([0.2, 0.5, 0.9])
    pool = np.zeros((1, 3, 1000), np.float32)
    for row, mean in enumerate(means):
        pool[0, row, : int(1000 * mean)] = 1
    found = resampled(jax.random.key(0), jnp.asarray(pool), answers=ANSWERS, replicates=20_000)
    exact, spread = jnp.asarray(means, jnp.float32), jnp.asarray(means * (1 - means), jnp.float32)
    for at, answers in enumerate(ANSWERS):
        simulated = simulated_variance(
            jax.random.key(1), exact, spread, jnp.int32(answers), trees=32_000, law="bernoulli"
        )
        assert found.variance[0, at] == pytest.approx(float(simulated.mean()), rel=0.05)
        dead = np.prod(means**answers) + np.prod((1 - means) ** answers)
        assert found.dead_trees[0, at] == pytest.approx(dead, abs=0.01)
        assert found.dead_thoughts[0, at] >= found.dead_trees[0, at]


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_more_answers_never_change_what_is_certain(seed):
    """Thoughts whose answers all earn the same: no variance at any M, and none of them dead."""
    values = np.random.default_rng(seed).permutation(4).astype(np.float32)
    pool = jnp.asarray(np.broadcast_to(values[None, :, None], (2, 4, 5)))
    found = resampled(jax.random.key(seed), pool, answers=ANSWERS, replicates=8)
    np.testing.assert_allclose(found.variance, 0, atol=1e-12)
    np.testing.assert_array_equal(found.dead_trees, 0)
    np.testing.assert_array_equal(found.dead_thoughts, 0)


@pytest.mark.parametrize("answers", [1, 2, 4])
def test_disjoint_parts_of_a_small_pool_are_unbiased(answers):
    """Known chances, 8 answers a thought: many such pools have the mean of simulated trees, which
    drawing with replacement from the same pools has not.
    """
    key, other = jax.random.split(jax.random.key(answers))
    means = jnp.asarray([0.2, 0.5, 0.9])
    chances = jnp.broadcast_to(means[None, :, None], (20_000, 3, 8))
    pools = jax.random.bernoulli(key, chances).astype(jnp.float32)
    variances, count = means * (1 - means), jnp.int32(answers)
    truth = float(
        simulated_variance(other, means, variances, count, trees=64_000, law="bernoulli").mean()
    )
    assert variance_between_parts(pools, answers=answers).mean() == pytest.approx(truth, rel=0.02)
    drawn = resampled(key, pools[:2000], answers=(answers,), replicates=100).variance.mean()
    assert abs(drawn / truth - 1) > 0.04


def test_parts_need_two_of_them():
    with pytest.raises(ValueError, match="8 answers make 1 parts of 5"):
        variance_between_parts(jnp.zeros((1, 3, 8)), answers=5)


def test_the_slope_of_a_power_is_its_exponent():
    assert slope((1, 2, 4, 8), [3 / m for m in (1, 2, 4, 8)]) == pytest.approx(-1)
    assert slope((4,), [1.0]) is None
    assert slope((1, 2), [0.0, 1.0]) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--means", "0.5"], "two thoughts or more"),
        (["--means", "0.1", "0.9", "--variances", "0.1"], "1 variances for 2 means"),
        (["--means", "0.1", "0.9", "--variances", "0.1", "0.1"], "give --law gaussian"),
        (["--answers", "0"], "1 or more"),
        (["nowhere"], "nowhere is no run"),
    ],
)
def test_wrong_options_are_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--trees", "1600", "--thoughts-grid", "3"]
    with pytest.raises(UserError, match=message):
        cli.command_variance([*arguments, *small])


def test_a_policy_s_thoughts_are_measured(tmp_path_factory, tmp_path):
    """Through the command, on a finished run: three curves over M, one picture."""
    with open_tiny(tmp_path_factory) as (_, start):
        options = ["--pool", "16", "--answers", "1", "4", "--trees", "16000", "--examples", "8"]
        options += ["--thoughts-grid", "3", "--thoughts", "3", "--output", tmp_path]
        assert start("variance", "runs/whole", *options).wait() == 0
    record = json.loads((tmp_path / "variance.json").read_text())
    found = record["against_answers"]
    assert (found["thoughts"], found["pool"], found["prompts"]) == (3, 16, 8)
    assert 1 <= found["live_prompts"] <= 8
    for name in ("measured", "formula", "simulated"):
        (mean, low, high), _ = found[name]
        assert low <= mean <= high
    assert [low <= mean <= high for mean, low, high in found["apart"]] == [True, True]
    assert (tmp_path / "variance.png").stat().st_size > 1000


def test_prompts_without_a_difference_are_left_out():
    pool = np.asarray([[[0, 1], [1, 0]], [[0, 1], [1, 1]]], np.float32)
    np.testing.assert_array_equal(live_prompts(pool), pool[1:])
    with pytest.raises(UserError, match="each of 1 prompts"):
        live_prompts(pool[:1])


def test_given_means_need_no_run(tmp_path, capsys):
    """The command alone: formula and simulation for the means it is given."""
    options = ["--means", "0.1", "0.5", "0.9", "--answers", "64", "256", "--thoughts-grid", "3"]
    cli.command_variance([*options, "--trees", "16000", "--output", str(tmp_path)])
    assert "against log M, formula: -1.00" in capsys.readouterr().out
    found = json.loads((tmp_path / "variance.json").read_text())["against_answers"]
    assert found["slopes"]["formula"] == pytest.approx(-1)
    assert found["simulated"] == pytest.approx(found["formula"], rel=0.2)
    assert "measured" not in found
    assert (tmp_path / "variance.png").stat().st_size > 1000
