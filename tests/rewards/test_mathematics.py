"""The math reward: what equals what, and the verdicts of 4,000 real solutions."""

import threading
import time

import pytest

from gmma.answers.math_text import find_answer
from gmma.rewards import REWARDS


def score(text, gold, **options):
    return REWARDS["math"]([text], thoughts=[""], answer=[gold], **options)[0]


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("18", "18"),
        ("18.0", "18"),
        ("18 dollars", "18"),
        ("$1,234.50", "1234.5"),
        ("1/2", r"\frac{1}{2}"),
        ("0.5", r"\frac12"),
        (r"50\%", "0.5"),
        (r"so we get $\boxed{\frac{2}{4}}$", r"\frac{1}{2}"),
        (r"first \boxed{3}, then \boxed{5}", "5"),
        ("3 + 4 = 7\nA: 7", "3 apples and 4 apples\n#### 7"),
        ("Answer: 7.", "7"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        ("2x+1", "1+2x"),
        ("x=5", "5"),
        ("(1,2)", "(1, 2)"),
        ("Sunday", r"\text{Sunday}"),
        ("-5", "-5.000"),
    ],
)
def test_equal(text, gold):
    assert score(text, gold) == 1.0


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("17", "18"),
        ("-5", "5"),
        ("", "5"),
        ("7 or 8", "7"),
        ("1, 2", "12"),
        ("1,23", "123"),
        ("3.14", r"\pi"),
        (r"\frac{1}{0}", "5"),
        ("9^{9^{9}}", "9"),
        (r"\boxed{5} but rather \boxed{6}", "5"),
        ("5" * 2000, "5"),
    ],
)
def test_not_equal(text, gold):
    assert score(text, gold) == 0.0


@pytest.mark.parametrize("gold", ["", None, 5, ["5"], float("nan")])
def test_a_reference_that_cannot_be_read_is_none(gold):
    assert score("5", gold) is None


def test_relative_tolerance_is_relative_to_the_reference():
    assert score("3.14", "3.15") == 0.0
    assert score("3.14", "3.15", relative_tolerance=0.01) == 1.0
    assert score(r"\frac{22}{7}", r"\pi", relative_tolerance=0.001) == 1.0
    assert score("98", "100", relative_tolerance=0.01) == 0.0
    assert score("x", "100", relative_tolerance=0.01) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9^{9}}}",
        "((1000!)!)!",
        r"\binom{100000000}{50000000}",
        r"\sum_{i=1}^{1000000000} i^i",
        "(" * 30 + "1" + ")" * 30,
        "{" * 5000,
        r"\frac" * 400,
        "__import__('os').system('true')",
    ],
)
def test_no_text_holds_it_up(text):
    began = time.monotonic()
    assert score(text, "18") == 0.0
    assert time.monotonic() - began < 60  # at most 4 s of processor time


def test_another_thread_may_score_too():
    values = []
    thread = threading.Thread(target=lambda: values.append(score(r"\frac{4}{2}", "2")))
    thread.start()
    thread.join()
    assert values == [1.0]


def test_find_answer():
    assert find_answer(r"\boxed{a{b}c} d") == "a{b}c"
    assert find_answer(r"\boxed{unclosed") == "unclosed"
    assert find_answer("A: 1\nAnswer: $2,000$\nthe end") == "2000"


def test_verdicts_agree_with_those_of_gsm8k(read_real):
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    for record in read_real("gsm8k/example_model_solutions.jsonl"):
        flags = [record[model]["is_correct"] for model in models]
        whole = [record[model]["solution"] for model in models]
        tagged = [text.rsplit("A:", 1)[-1] for text in whole]
        gold = record["ground_truth"].rsplit("A:", 1)[-1].strip()
        for answers in (whole, tagged):
            values = REWARDS["math"](answers, thoughts=[""] * 4, answer=[gold] * 4)
            assert [value == 1.0 for value in values] == flags, answers


def test_boxed_answers_of_math_equal_themselves_and_rarely_their_neighbours(read_real):
    golds = [find_answer(r["solution"]) for r in read_real("math/math_test.jsonl")[:150]]
    boxed = [f"Thus $\\boxed{{ {gold} }}$." for gold in golds]
    assert REWARDS["math"](boxed, thoughts=boxed, answer=golds) == [1.0] * len(golds)
    shifted = [*golds[1:], golds[0]]
    agreements = REWARDS["math"](boxed, thoughts=boxed, answer=shifted)
    expected = [float(a == b) for a, b in zip(golds, shifted, strict=True)]
    assert sum(abs(a - b) for a, b in zip(agreements, expected, strict=True)) <= 2
