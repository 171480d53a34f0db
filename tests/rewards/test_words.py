"""Text rewards: ANLS, exact match, demand; and length."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from gmma.rewards import REWARDS
from gmma.rewards.anls import edit_distance

words = st.text(max_size=12)


def score(name, text, gold, **options):
    return REWARDS[name]([text], thoughts=[""], answer=[gold], **options)[0]


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edit_distance_by_hand(a, b, distance):
    assert edit_distance(a, b) == distance


@given(words, words, words)
@settings(max_examples=150, deadline=None)
def test_edit_distance_is_a_metric(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a) <= max(len(a), len(b))
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


@pytest.mark.parametrize(
    ("text", "golds", "anls"),
    [
        ("Carpark", ["carpark"], 1),
        (" carpark\n", ["CARPARK"], 1),
        ("carparc", ["carpark"], 6 / 7),
        ("abcd", ["abxy"], 0),  # NL = 0.5 is not below the threshold
        ("abcde", ["abcxy"], 3 / 5),
        ("b", ["a", "b"], 1),
        ("", ["a"], 0),
        ("", [""], 1),
        ("a" * 10**6, ["a"], 0),
        ("x", "x", 1),
    ],
)
def test_anls_by_hand(text, golds, anls):
    assert score("anls", text, golds) == pytest.approx(anls)


@given(words, st.lists(words, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_anls_and_exact_laws(text, golds):
    anls, exact = score("anls", text, golds), score("exact", text, golds)
    assert anls == 0 or 0.5 < anls <= 1
    assert exact in (0, 1)
    assert score("anls", golds[0], golds) == score("exact", golds[0], golds) == 1
    assert score("anls", text, golds[::-1]) == anls


@pytest.mark.parametrize(
    ("text", "gold", "exact"),
    [
        ("  Two  Words ", "two words", 1),
        ("STRASSE", "straße", 1),
        ("two", ["one", "Two"], 1),
        ("two", ["one"], 0),
        ("two words", "twowords", 0),
    ],
)
def test_exact_by_hand(text, gold, exact):
    assert score("exact", text, gold) == exact


@pytest.mark.parametrize("gold", [None, 3, [], [None], ["a", 3], {"a": 1}, b"a"])
def test_a_reference_that_cannot_be_read_is_none(gold):
    assert score("exact", "a", gold) is None
    assert score("anls", "a", gold) is None


TRUTH = {"boxes": [[0, 0, 10, 10], [50, 50, 60, 60]], "names": ["coffee mug", "cup"]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[0, 0, 10, 10]", 1),
        ("[0, 0, 10, 5]", 1),  # IoU 0.5
        ("[0, 0, 10, 4.9]", 0),
        ("[55, 55]", 1),
        ("(55, 55)", 1),
        ("[30, 30]", 0),
        ("Coffee  Mug", 1),
        ("bowl", 0),
        ("", 0),
    ],
)
def test_demand_by_hand(text, value):
    assert score("demand", text, TRUTH) == value


@pytest.mark.parametrize(
    "gold", [None, {}, [], "cup", {"boxes": [[1, 2]]}, {"names": [3]}, {"boxes": [], "names": []}]
)
def test_demand_without_a_truth_is_none(gold):
    assert score("demand", "cup", gold) is None


def test_demand_may_know_names_or_boxes_only():
    assert score("demand", "cup", {"names": ["cup"]}) == 1
    assert score("demand", "cup", {"boxes": [[0, 0, 1, 1]]}) == 0
    assert score("demand", "[0, 0, 1, 1]", {"names": ["cup"]}) == 0


def test_soft_overlong_is_a_ramp():
    lengths = [0, 80, 81, 90, 100, 101, 10_000]
    values = REWARDS["soft_overlong"](
        [""] * 7,
        thoughts=[""] * 7,
        response_tokens=lengths,
        limit_tokens=100,
        buffer_tokens=20,
    )
    assert values == pytest.approx([0, 0, -0.05, -0.5, -1, -1, -1])
