"""One reader of mathematics: what models write is read in the reward and in the metric alike."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_pairs import OTHER, SAME

from gmma.answers.math_text import find_answer
from gmma.errors import UserError
from gmma.rewards import REWARDS
from gmma.rewards.mathematics import read_answer
from gmma.tasks.mathematics import MathConfig, metrics
from gmma.types import Example

# What models put around an answer; @ is its place.
CLOTHING = (
    "@",
    "**Answer:** $@$",
    "**Answer: $@$**",
    "**@**",
    "#### Final answer\n@",
    "### Final Answer\n\n$@$",
    "$@$, since the function is odd",
    "$@$ is what was asked for, as $a = 3$.",
    "$@$\n\nThis follows from $1+1=2$ and the triangle with sides 3.",
    "We add 3 and 4 and see that $x=2$ works.\n$@$",
    "The answer is $@$.",
    "The answer is @.",
    "Answer: @",
    "Hence the value is $@$.",
    "Final Answer: The final answer is $@$. I hope it is correct.",
    "Thus, the answer is **$@$**.",
    r"\( @ \)",
    r"\[ @ \]",
    "\\[\n@\n\\]",
    "Therefore:\n\n$$\n@\n$$",
    r"So the value we want is $\boxed{@}$, as was to be shown.",
    r"The final answer is: $\boxed{@}$<|im_end|>",
    "First \\boxed{77}, but then:\n#### @",
)
# A value, as its reference has it and as an answer may, and five that are another.
VALUES = (
    ("12", "12", ("13", "12x", "-12", "1/12", "12, 13")),
    ("1234", "1,234", ("1.234", "123", "1,235", "234", r"\sqrt{1234}")),
    (r"\frac{3}{4}", r"\dfrac34", (r"\frac{4}{3}", "3", "0.34", "3-4", "3:4")),
    ("x^2+1", "1 + x^{2}", ("x^2-1", "x^2", "2x+1", "1", "y^2+1")),
    (
        r"(1, \frac{\pi}{2})",
        r"(1, \pi/2)",
        (r"(\pi/2, 1)", "(1, 2)", "1", r"[1, \pi/2]", "(1,2,3)"),
    ),
    (r"5\text{ cm}", "5", ("5^2", r"5\text{ m}", "5x", r"6\text{ cm}", "5, 6")),
)
# Ways of writing a value, each beside five ways of writing another.
FORMS = (
    ("A. 12", "A", ("B. 12", "A or B", "12", "D", "A, B")),
    ("(A) 12", "A", ("(B) 12", "(A) or (B)", "B", "(C)", "(12)")),
    ("Option A", "A", ("Option B", "Option A or B", "option", "not A", "C")),
    (r"\textbf{(A)}", r"\text{(A)}", (r"\textbf{(B)}", "AA", "x", r"\text{(E)}", "AB")),
    ("A: 12", "A", ("B: 12", "C: A", "12", "12: A", "E")),
    ("A: 12", "12", ("A: 13", "A: 2", "A", "A: 12x", "A: 1/12")),
    ("½", r"\frac{1}{2}", ("2", "1", "12", "¼", "1½")),
    ("3½", "3.5", ("3", "1.5", "3.2", "31/2", "3⅓")),
    ("2√3", r"2\sqrt{3}", ("23", "2", "√3", "3√2", "2√(3+1)")),
    ("x²+1", "x^2+1", ("x2+1", "x³+1", "x²", "2x+1", "x²−1")),
    ("１２", "12", ("１３", "１", "２１", "１２x", "１，２")),
    ("–12", "-12", ("12", "–13", "12–", "1–2", "–1")),
    ("1 234", "1234", ("1 235", "1, 234", "1 234 567", "1 2 3 4", "234")),
    ("1.234,50", "1234.5", ("1.234,60", "1.2345", "1", "12.345", "2.234,50")),
    ("7 1/2", "7.5", ("7", "71/2", "7 1/3", "1/2", "7/2")),
    ("seven and a half", "7.5", ("seven", "a half", "eight and a half", "seven or a half", "78")),
    ("$2 million", "2000000", ("2", "$2 billion", "$3 million", "$2 thousand", "million")),
    ("50%", "0.5", ("5%", "0.5x", "51%", "50.5%", "x%")),
    ("18 dollars", "18", ("not 18", "18 thousand", "more than 18", "18 or 19", "half of 18")),
    ("12 centimeters", r"12\text{ cm}", ("12 m", "12 cm^2", "13 cm", "12 inches", "cm")),
    ("36 degrees", r"36^\circ", ("63 degrees", "36 cm", "degrees", "36²", "3.6")),
    ("x = 5", "5", ("2x = 5", "x+2 = 5", "4=5", "x = 6", "5x")),
    ("3 + 4 = 7", "7", ("3 + 4 = 8", "3 + 5 = 7", "7 = 8", "x + 4 = 7", "34")),
    ("y = 3 + 2x", "y=2x+3", ("x = 3 + 2y", "y = 2x - 3", "y = 3", "y = 5x", "2x")),
    ("x = 1 or x = 2", "1,2", ("x = 1", "x = 1 or x = 3", "1.2", "12", "3")),
    ("±3", "3, -3", ("3", "-3", "±2", "3, 2", "0")),
    ("x ∈ [0, 1)", "[0,1)", ("[0, 1]", "(0, 1)", "[0, 2)", "0", "[1, 0)")),
    (
        "[[1,2],[3,4]]",
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        ("[[1,3],[2,4]]", "[[1,2]]", "[1,2,3,4]", "1", "[[1,2],[3,5]]"),
    ),
    ("It is Friday.", r"\text{Friday}", ("It is not Friday.", "Monday", "Frday", "yadirF", "5")),
    ("4:30 p.m.", r"\text{4:30 PM}", ("4:30 a.m.", "5:30 p.m.", "4:30:00", "430", "4 p.m.")),
    ("3:1", "3:1", ("1:3", "6:3", "31", "2", "3:1:1")),
    ("2020-01-02", "2020-01-02", ("2019-01-01", "2017", "2020-02-01", "2020-01", "2020")),
    ("listen", "listen", ("silent", "enlist", "listens", "l", "list")),
    ("no", "no", ("on", "n", "not", "yes", "o")),
    ("52₈", "52_8", ("52₉", "53₈", "25₈", "528", "5")),
    ("6 − 5i", "6-5i", ("6", "6+5i", "5-6i", "1", "-5i")),
    ("p − q", "p-q", ("q − p", "p + q", "pq", "p", "q")),
)


def score(texts, golds, **options):
    return REWARDS["math"](texts, thoughts=texts, answer=golds, **options)


def judged(texts, golds):
    examples = [
        Example(question="", images=(), columns={"answer": gold, "solution": ""}, id=str(row))
        for row, gold in enumerate(golds)
    ]
    return metrics(MathConfig(), texts, examples)["accuracy"]


def sixty_forms():
    """(right, gold, five wrong): every clothing about a value, and every way to write one."""
    dressed = zip(CLOTHING, itertools.cycle(VALUES), strict=False)
    for clothing, (gold, right, wrong) in dressed:
        yield clothing.replace("@", right), gold, [clothing.replace("@", text) for text in wrong]
    yield from FORMS


@pytest.mark.parametrize(
    "judged_each", [pytest.param(11, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_sixty_forms_each_beside_five_wrong_ones_in_reward_and_metric(judged_each):
    forms = list(sixty_forms())
    assert len(forms) == 60
    assert all(len(wrong) == 5 for *_, wrong in forms)
    rows = [
        (text, gold, float(text is right))
        for right, gold, wrong in forms
        for text in (right, *wrong)
    ]
    # The metric asks the same reward, in a process of its own, whose parser starts cold.
    for name, scorer, some in (("reward", score, rows), ("metric", judged, rows[::judged_each])):
        texts, golds, expected = zip(*some, strict=True)
        found = scorer(list(texts), list(golds))
        judgements = zip(texts, golds, found, expected, strict=True)
        assert [row for row in judgements if row[2] != row[3]] == [], name


def test_answers_as_models_write_them():
    found = score([text for text, _ in SAME], [gold for _, gold in SAME])
    assert [pair for pair, value in zip(SAME, found, strict=True) if value != 1.0] == []


def test_what_is_never_equal():
    found = score([text for text, _ in OTHER], [gold for _, gold in OTHER])
    assert [pair for pair, value in zip(OTHER, found, strict=True) if value != 0.0] == []


@pytest.mark.parametrize(
    "share",
    [pytest.param(0.005, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)],
)
def test_every_answer_of_math_in_every_clothing(read_real, share):
    golds = sorted({find_answer(r["solution"]) for r in read_real("math/math_test.jsonl")})
    golds = random.Random(0).sample(golds, round(share * len(golds)))
    unread = []
    for clothing in CLOTHING:
        texts = [clothing.replace("@", gold) for gold in golds]
        values = score(texts, golds)
        unread += [t for t, value in zip(texts, values, strict=True) if value != 1.0]
    assert unread == []


@pytest.mark.parametrize(
    "name", ["gsm8k/train.jsonl", "gsm8k/test.jsonl", "svamp/svamp_test.jsonl"]
)
def test_truths_of_word_problems_in_every_clothing(read_real, name):
    records = read_real(name)[::230]
    golds = [find_answer(str(r.get("answer") or r["Answer"]).removesuffix(".0")) for r in records]
    for clothing in CLOTHING:
        texts = [clothing.replace("@", gold) for gold in golds]
        assert score(texts, golds) == [1.0] * len(golds), clothing


def test_a_strict_reading_takes_the_answer_alone():
    alone = ["12", "$12$", r"\boxed{12}", "#### 12", r"$\boxed{12}$"]
    clothed = ["The answer is 12.", "There are 12 apples", "It is **12**", r"so \boxed{12}"]
    assert score(alone, ["12"] * 5, reading="strict") == [1.0] * 5
    assert score(clothed, ["12"] * 4, reading="strict") == [0.0] * 4
    assert score(clothed, ["12"] * 4) == [1.0] * 4
    with pytest.raises(UserError, match="reading is 'loose'; it must be lenient or strict"):
        score(["12"], ["12"], reading="loose")


def test_equal_answers_have_one_name():
    same = ("72", "$72$", "**72**", "The answer is 72.", "72 clips", r"\boxed{72}", "x = 72.")
    assert {read_answer(text) for text in same[:-1]} == {"72"}
    assert read_answer("**Answer:** 1,234") == read_answer("1234") == "1234"
    assert read_answer("Friday") == read_answer("**friday**.")
    assert read_answer("") is None
    assert read_answer("12 cm") != read_answer("12 m")


PIECES = (
    " \n12x=+-*/^_%{}()[],.:$|<&'\"`½√π≈±−²",
    (
        "**",
        "$$",
        r"\(",
        r"\)",
        r"\[",
        r"\]",
        "####",
        r"\boxed{",
        r"\frac",
        r"\text{",
        r"\sqrt",
        r"\\",
    ),
    (
        "and ",
        "or ",
        "is ",
        "answer ",
        "The answer is ",
        "Answer: ",
        "not ",
        "apples ",
        " cm",
        "two ",
    ),
)


@settings(max_examples=40)
@given(st.lists(st.sampled_from([piece for kind in PIECES for piece in kind]), max_size=20))
def test_any_text_has_a_value(pieces):
    text = "".join(pieces)
    assert set(score([text, "12", text], ["12", text, text])) <= {0.0, 1.0, None}
