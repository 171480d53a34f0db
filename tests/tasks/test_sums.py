"""Task `sums`: problems, a careless teacher, tokens, and what counts as right."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmma.errors import UserError
from gmma.tasks.sums import (
    LARGEST,
    SUMS,
    SumsConfig,
    build,
    demonstrate,
    draw_problem,
    metrics,
    source,
)
from gmma.text.prompt import answer_text, prompt_text, thought_text
from gmma.text.tokenizer import load_sentencepiece
from gmma.types import Example

FEW = SumsConfig(train_problems=40, validation_problems=8, test_problems=8)
STEP = re.compile(r"(\d+) \+ (\d+) = (\d+)")


def example(terms):
    """A problem as the source gives it."""
    columns = {"answer": str(sum(terms)), "terms": terms}
    return Example(question=" + ".join(map(str, terms)), images=(), columns=columns, id="0")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sums")
    build(FEW, folder)
    return folder


def test_records_are_what_they_say(built):
    for split, count in (("train", 40), ("validation", 8), ("test", 8)):
        records = source(FEW, built, split)
        assert len(records) == count
        for record in map(records.__getitem__, range(count)):
            terms = [int(term) for term in record.question.split(" + ")]
            assert len(terms) == FEW.terms
            assert set(terms) <= set(range(1, LARGEST + 1))
            assert record.columns == {"answer": str(sum(terms)), "terms": terms}
            assert record.images == ()


@pytest.mark.parametrize("terms", [2, 8])
def test_no_sum_is_in_two_splits(terms):
    """Also where there are as few as 81 of them."""
    config = replace(FEW, terms=terms)
    drawn = {
        split: {tuple(draw_problem(config, split, index)["terms"]) for index in range(500)}
        for split in ("train", "validation", "test")
    }
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not drawn[one] & drawn[other]
    assert min(map(len, drawn.values())) > (4 if terms == 2 else 490)


@given(
    terms=st.lists(st.integers(1, LARGEST), min_size=2, max_size=12),
    rate=st.sampled_from((0.0, 0.3, 1.0)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_teacher_goes_on_from_what_it_said(terms, rate, seed):
    config = SumsConfig(step_error_rate=rate)
    shown = demonstrate(config, example(terms), np.random.default_rng(seed))
    steps = [tuple(map(int, STEP.fullmatch(step).groups())) for step in shown.thought.split("; ")]
    assert [term for _, term, _ in steps] == terms[1:]
    assert [before for before, _, _ in steps] == [terms[0], *(after for *_, after in steps[:-1])]
    assert shown.answer == str(steps[-1][2])
    off = [after - before - term for before, term, after in steps]
    assert set(off) <= {0.0: {0}, 0.3: {0, 1}, 1.0: {1}}[rate]
    if rate == 0.0:
        assert shown.answer == example(terms).columns["answer"]


def test_a_step_is_wrong_as_often_as_asked():
    rng = np.random.default_rng(0)
    shown = [demonstrate(SumsConfig(), example([5] * 8), rng).thought for _ in range(1000)]
    steps = [tuple(map(int, step)) for thought in shown for step in STEP.findall(thought)]
    errors = np.array([after - before - term for before, term, after in steps])
    assert set(errors) == {0, 1}  # two errors that undo each other would be rewarded
    # 3 standard errors of 7,000 steps
    assert abs(errors.mean() - SumsConfig().step_error_rate) < 0.018


@pytest.mark.parametrize("terms", [2, 8, 20])
def test_every_number_is_one_token(terms, tmp_path):
    """Also the largest sums, and wrong ones, that no problem of the corpus has."""
    config = replace(FEW, terms=terms, step_error_rate=1.0, vocab_size=512)
    build(config, tmp_path)
    tokenizer = load_sentencepiece(SUMS.tokenizer_path(config, tmp_path))
    most = example([LARGEST] * terms)
    for seed in range(20):
        shown = demonstrate(config, most, np.random.default_rng(seed))
        thought = tokenizer.encode(thought_text(shown.thought))
        assert len(thought) == 6 * (terms - 1)  # a + b = c; and the closing tag for the last "; "
        assert tokenizer.decode(thought) == thought_text(shown.thought)
        assert len(tokenizer.encode(answer_text(shown.answer))) == 3
    assert len(tokenizer.encode(prompt_text(most.question))) == 2 * terms


def test_right_is_the_true_sum():
    answers = ["25", " 25.0", "The sum is 25", "26", "2 5", "", "twenty"]
    found = metrics(FEW, answers, [example([9, 9, 7])] * len(answers))
    assert found["accuracy"] == [1, 1, 1, 0, 0, 0, 0]
    assert found["parsed"][:4] == [1, 1, 1, 1]
    assert found["parsed"][5] == 0


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("terms", 1, "at least 2"),
        ("train_problems", 0, "at least 1"),
        ("test_problems", -1, "at least 1"),
        ("seed", -1, "0 or more"),
        ("step_error_rate", 1.1, "within 0 … 1"),
        ("step_error_rate", float("nan"), "within 0 … 1"),
    ],
)
def test_wrong_fields_are_refused(field, value, rule):
    with pytest.raises(UserError, match=rf"sums: {field} is .*; it must be {rule}"):
        SumsConfig(**{field: value})
