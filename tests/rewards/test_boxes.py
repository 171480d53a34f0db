"""Boxes: what counts as one, and the facts of IoU."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from gmma.answers.boxes import parse_box
from gmma.errors import UserError
from gmma.rewards import REWARDS
from gmma.rewards.boxes import box_iou, box_iou_reward

coordinate = st.floats(-1e6, 1e6)
boxes = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[1, 2, 3, 4]", (1, 2, 3, 4)),
        (" [1,2.5 ,-3.,+.5e1]\n", (-3, 2.5, 1, 5)),
        ("[3, 4, 1, 2]", (1, 2, 3, 4)),
        ("[1, 2, 3]", None),
        ("[1, 2, 3, 4, 5]", None),
        ("[1, 2, 3, nan]", None),
        ("[1, 2, 3, 1e999]", None),
        ("[1, 2, 3, 4] or [5, 6, 7, 8]", None),
        ("the box is [1, 2, 3, 4]", None),
        ("1, 2, 3, 4", None),
        ("[١, ٢, ٣, ٤]", None),
        ("", None),
    ],
)
def test_the_strict_form_of_a_box(text, box):
    assert parse_box(text, "strict") == box


numbers = st.one_of(
    st.integers(-999, 999).map(str),
    st.floats(-1e4, 1e4).map(repr),
    st.sampled_from([".5", "7.", "+3", "1e2", "2E-3", "1e999"]),
)
gaps = st.sampled_from(["", " ", "\t", "\n"])


@given(st.lists(st.tuples(gaps, numbers, gaps).map("".join), min_size=4, max_size=4))
def test_the_strict_form_is_read_as_amid_words(parts):
    """The quick way for the form that the prompt asks for says what the reader of any form says."""
    text = f"[{','.join(parts)}]"
    assert parse_box(text) == parse_box(text, "strict") == parse_box(f"It is {text}.")


def test_two_boxes_are_none_and_one_said_twice_is_one():
    assert parse_box("[1, 2, 3, 4] or [5, 6, 7, 8]") is None
    assert parse_box("[1, 2, 3, 4]; yes, [3, 4, 1, 2].") == (1, 2, 3, 4)


def test_box_2d_is_y_first_in_thousandths_of_the_image():
    text = '{"box_2d": [250, 500, 750, 1000], "label": "cup"}'
    assert parse_box(text, image_size=(640, 480)) == (320, 120, 640, 360)
    assert parse_box(text) == (500, 250, 1000, 750)
    score = REWARDS["box_iou"]
    gold = {"answer": [[320, 120, 640, 360]], "image_size": [[640, 480]]}
    assert score([text], thoughts=[""], **gold) == [1.0]
    assert score([text], thoughts=[""], reading="strict", **gold) == [0.0]


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0),  # a shared edge is no area
        ((0, 0, 1, 1), (0.25, 0.25, 0.75, 0.75), 0.25),  # in units of 0-1 as in pixels
        ((0, 0, 0, 0), (0, 0, 0, 0), 1),
        ((0, 0, 0, 5), (0, 0, 0, 6), 0),
    ],
)
def test_iou_by_hand(a, b, iou):
    assert box_iou(a, b) == pytest.approx(iou)


@given(boxes, boxes, st.floats(1e-3, 1e3))
@settings(max_examples=300, deadline=None)
def test_iou_is_symmetric_bounded_and_free_of_scale(a, b, scale):
    iou = box_iou(a, b)
    assert 0 <= iou <= 1
    assert iou == pytest.approx(box_iou(b, a))
    assert box_iou(a, a) == 1
    scaled = [tuple(scale * x for x in box) for box in (a, b)]
    assert box_iou(*scaled) == pytest.approx(iou, abs=1e-6)


@given(st.floats(0, 10), st.floats(0, 10))
@settings(max_examples=100, deadline=None)
def test_iou_falls_with_the_shift(near, far):
    near, far = sorted((near, far))
    still, size = (0.0, 0.0, 8.0, 4.0), (8.0, 4.0)
    shifted = [(d, 0.0, d + size[0], size[1]) for d in (near, far)]
    assert box_iou(still, shifted[0]) >= box_iou(still, shifted[1])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=8, max_size=8))
@settings(max_examples=300, deadline=None)
def test_no_finite_box_breaks_iou(numbers):
    a, b = parse_box(str(numbers[:4])), parse_box(str(numbers[4:]))
    assert 0 <= box_iou(a, b) <= 1


def test_box_reward_tells_wrong_answers_from_unreadable_references():
    golds = [[0, 0, 2, 2], "[0, 0, 2, 2]", np.array([2, 2, 0, 0]), None, [0, 0, 2], "left", {}]
    answers = ["[0, 0, 2, 1]"] * len(golds)
    values = REWARDS["box_iou"](answers, thoughts=answers, answer=golds, other=golds)
    assert values == [0.5, 0.5, 0.5, None, None, None, None]
    assert REWARDS["box_iou"](["?"], thoughts=[""], answer=[[0, 0, 2, 2]]) == [0.0]


def test_format_reward_is_half_thought_half_answer():
    values = REWARDS["format"](
        [""] * 4,
        thoughts=[""] * 4,
        closed=[True, True, False, False],
        finished=[True, False, True, False],
    )
    assert values == [1.0, 0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("at_least", "expected"),
    [(0.0, [1.0, 0.6, 0.0]), (0.6, [1.0, 1.0, 0.0]), (0.7, [1.0, 0.0, 0.0])],
)
def test_an_overlap_can_be_a_success_or_none(at_least, expected):
    """Boxes of eight by eight, the second two off along x: 48 of 80."""
    answers = ["[0, 0, 8, 8]", "[2, 0, 10, 8]", "no box"]
    truth = [[0, 0, 8, 8]] * 3
    found = box_iou_reward(answers, thoughts=[""] * 3, answer=truth, at_least=at_least)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("at_least", [-0.1, 1.5, float("nan")])
def test_a_bound_that_no_overlap_has_is_refused(at_least):
    with pytest.raises(UserError, match="must be an IoU within 0"):
        box_iou_reward(["[0, 0, 8, 8]"], thoughts=[""], answer=[[0, 0, 8, 8]], at_least=at_least)
