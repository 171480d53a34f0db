"""Trajectories, points on a mask, and what lies under them: the distances."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from gmma.answers.points import parse_point, parse_points
from gmma.rewards import REWARDS
from gmma.rewards.points import share_inside
from gmma.rewards.trajectory import (
    discrete_frechet,
    hausdorff,
    path_distances,
    resampled_rmse,
)

number = st.floats(-1000, 1000)
paths = st.lists(st.tuples(number, number), min_size=1, max_size=8).map(
    lambda points: np.array(points, dtype=float)
)
MASK = np.zeros((6, 10), dtype=bool)
MASK[2:4, 5:8] = True


def score(text, path, size=(300, 400)):
    return REWARDS["trajectory"]([text], thoughts=[""], answer=[path], image_size=[size])[0]


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("[[1, 2], [3.5, -4]]", [[1, 2], [3.5, -4]]),
        ("[(1,2),(3,4)]", [[1, 2], [3, 4]]),
        (" [ ] ", np.zeros((0, 2))),
        ("[1, 2]", None),
        ("[[1, 2], [3]]", None),
        ("[[1, 2] [3, 4]]", None),
        ("[[1, 2, 3]]", None),
        ("[[1e10, 2]]", None),
        ("[[nan, 2]]", None),
        ("", None),
        ("path: [[1, 2]]", None),
    ],
)
def test_the_strict_form_of_points(text, points):
    parsed = parse_points(text, "strict")
    assert (parsed is None) if points is None else np.array_equal(parsed, points)


def test_parse_point():
    assert parse_point("[1, 2]") == parse_point("(1,2)") == parse_point("[[1, 2]]") == (1.0, 2.0)
    assert parse_point("[[1, 2], [3, 4]]") is parse_point("here") is None


def test_distances_by_hand():
    p = np.array([[0.0, 0], [10, 0]])
    g = np.array([[0.0, 3], [5, 3], [10, 3]])
    distances = path_distances(p, g)
    assert distances.hausdorff == pytest.approx(np.hypot(5, 3))  # of (5, 3)
    assert distances.frechet == pytest.approx(np.hypot(5, 3))
    assert distances.rmse == pytest.approx(3)  # resampled, p has (5, 0) too
    assert distances.end_point == pytest.approx(3)
    # The set of points cannot tell a path from its reverse; the order of points can.
    assert hausdorff(p, p[::-1]) == 0
    assert discrete_frechet(p, p[::-1]) == 10


def slow_frechet(p, g):
    def c(i, j):
        distance = np.hypot(*(p[i] - g[j]))
        before = [c(a, b) for a, b in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if min(a, b) >= 0]
        return max(distance, min(before)) if before else distance

    return c(len(p) - 1, len(g) - 1)


@given(paths, paths)
@settings(max_examples=60, deadline=None)
def test_frechet_is_its_recursion_and_dominates_hausdorff(p, g):
    p, g = p[:5], g[:5]
    assert discrete_frechet(p, g) == pytest.approx(slow_frechet(p, g))
    assert discrete_frechet(p, g) >= hausdorff(p, g) - 1e-9


@given(paths, paths, st.tuples(number, number), st.floats(0.01, 100))
@settings(max_examples=150, deadline=None)
def test_distances_are_symmetric_and_move_with_the_plane(p, g, shift, scale):
    for distance in (discrete_frechet, hausdorff, resampled_rmse):
        value = distance(p, g)
        assert distance(p, p) == 0
        assert distance(g, p) == pytest.approx(value)
        assert distance(p + shift, g + shift) == pytest.approx(value, abs=1e-6)
        assert distance(p * scale, g * scale) == pytest.approx(value * scale, abs=1e-6)
        assert distance(p, p + np.array([3, 4])) <= 5 + 1e-9


def test_trajectory_reward_by_hand():
    path = [[0, 0], [100, 0], [200, 0]]  # the diagonal is 500, a quarter of it 125
    assert score(str(path), path) == 1.0
    assert score("[[0, 25], [100, 25], [200, 25]]", path) == pytest.approx(0.8)
    assert score("[[0, 125], [100, 125], [200, 125]]", path) == 0.0
    assert score("[[200, 0], [100, 0], [0, 0]]", path) == pytest.approx(0.25)  # HD alone is 0
    assert score("[]", path) == score("[1, 2, 3]", path) == score("up", path) == 0.0
    assert score("[100, 0]", path) == score("[[100, 0]]", path) > 0  # one point is a path


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ([], (3, 4)),
        (None, (3, 4)),
        ([[1, 2, 3]], (3, 4)),
        ("up", (3, 4)),
        ([[1, 2]], None),
        ([[1, 2]], (0, 4)),
        ([[1, 2]], (3,)),
        ([[1, float("nan")]], (3, 4)),
    ],
)
def test_unreadable_path_or_size_is_none(path, size):
    assert score("[[1, 2]]", path, size) is None


@given(paths, st.floats(0, 500), st.floats(0, 500), st.floats(0.1, 10))
@settings(max_examples=100, deadline=None)
def test_trajectory_reward_falls_with_the_shift_and_knows_no_scale(path, near, far, scale):
    near, far = sorted((near, far))
    close, distant = (score(str((path + np.array([d, 0])).tolist()), path) for d in (near, far))
    assert 1 >= close >= distant >= 0
    scaled = score(
        str(((path + np.array([near, 0])) * scale).tolist()),
        path * scale,
        (300 * scale, 400 * scale),
    )
    assert scaled == pytest.approx(close, abs=1e-6)


def test_points_by_hand():
    def share(text, mask=MASK, **options):
        values = REWARDS["affordance_points"]([text], thoughts=[""], answer=[mask], **options)
        return values[0]

    assert share("[[5, 2], [7.9, 3.9]]") == 1.0
    assert share("[[5, 2], [8, 2], [5, 4], [4.9, 2]]") == 0.25
    assert share("[[-1, 2], [5, 100], [1e9, -1e9]]") == 0.0
    assert share("[]") == share("left of it") == 0.0
    assert share("[[500, 500], [10, 10]]", grid=1000) == 0.5
    assert share("[[5, 2]]", MASK.tolist()) == share("[[5, 2]]", MASK * np.uint8(255)) == 1.0
    for unreadable in (None, 3, [], [[]], "mask", np.zeros((4, 4)), np.ones(4), [[1], [1, 2]]):
        assert share("[[5, 2]]", unreadable) is None


@given(paths)
@settings(max_examples=50, deadline=None)
def test_share_inside_is_a_mean_over_points(points):
    each = [share_inside(point[None], MASK) for point in points]
    assert share_inside(points, MASK) == pytest.approx(np.mean(each))
