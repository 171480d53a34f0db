"""Metrics that are no rewards: heat maps, pass@k, maj@k."""

from itertools import combinations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from gmma.rewards.attempts import majority_at_k, pass_at_k
from gmma.rewards.heatmap import (
    heat_kld,
    heat_nss,
    heat_sim,
    normalise_heat,
    render_box,
    render_points,
)


@pytest.mark.parametrize(
    ("attempts", "correct"), [(n, c) for n in range(1, 7) for c in range(n + 1)]
)
def test_pass_at_k_is_the_share_of_lucky_draws(attempts, correct):
    verdicts = [True] * correct + [False] * (attempts - correct)
    for k in range(1, attempts + 1):
        draws = [any(draw) for draw in combinations(verdicts, k)]
        assert pass_at_k(attempts, correct, k) == pytest.approx(np.mean(draws))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, 1, 4), (3, 1, 0), (3, -1, 1)])
def test_pass_at_k_refuses_nonsense(n, c, k):
    with pytest.raises(ValueError, match="undefined"):
        pass_at_k(n, c, k)


def test_majority_by_hand():
    assert majority_at_k(["7", "7", "8"], [True, True, False]) == 1
    assert majority_at_k(["7", "8", "8"], [True, False, False]) == 0
    assert majority_at_k(["7", "8"], [True, False]) == 0.5
    assert majority_at_k([None, None, "7"], [False, False, True]) == 1
    assert majority_at_k([None], [False]) == 0


def test_rendered_points_and_boxes_have_their_peak_there():
    heat = render_points(np.array([[12.5, 4.5]]), height=20, width=30)
    assert heat.shape == (20, 30)
    assert heat.sum() == pytest.approx(1)
    assert np.unravel_index(heat.argmax(), heat.shape) == (4, 12)
    box = render_box((10, 2, 20, 8), height=20, width=30)
    assert box.sum() == pytest.approx(1)
    assert np.unravel_index(box.argmax(), box.shape) in [(4, 14), (4, 15), (5, 14), (5, 15)]
    assert np.ptp(render_points(np.zeros((0, 2)), 4, 5)) == 0


maps = st.lists(st.floats(0, 10), min_size=12, max_size=12).map(
    lambda values: np.array(values).reshape(3, 4)
)


@given(maps, maps)
@settings(max_examples=100, deadline=None)
def test_laws_of_heat_maps(p, g):
    assert heat_sim(p, g) == pytest.approx(heat_sim(g, p))
    assert 0 <= heat_sim(p, g) <= 1 + 1e-9
    assert heat_sim(p, p) == pytest.approx(1)
    assert heat_kld(p, g) >= -1e-6
    assert heat_kld(g, g) == pytest.approx(0, abs=1e-9)
    assert heat_sim(3 * p, g) == pytest.approx(heat_sim(p, g))
    assert normalise_heat(p).sum() == pytest.approx(1)


def test_heat_maps_by_hand():
    truth = np.array([[1.0, 0.0], [0.0, 0.0]])
    even = np.ones((2, 2))
    assert heat_sim(even, truth) == 0.25
    assert heat_kld(even, truth) == pytest.approx(np.log(4))
    assert heat_nss(even, truth) == 0
    # One pixel of four: mean 1/4, deviation √3/4, so its z-score is √3.
    assert heat_nss(truth, truth) == pytest.approx(np.sqrt(3))
    assert heat_nss(1 - truth, truth) == pytest.approx(-np.sqrt(3))
