"""Rewards written for TRL, EasyR1 and verl run as they are; values as by hand."""

import functools
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gmma.errors import UserError
from gmma.options.prompt import Tags
from gmma.rewards.service import RewardTerm, check_rewards, open_scorer
from gmma.rewards.signatures import recognised
from gmma.scoring import reward_columns
from gmma.tasks.judge import answer_columns, judge
from gmma.types import Example

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
WRITTEN = ("trl_rewards.py", "easyr1_rewards.py", "verl_rewards.py")
RESPONSES = (
    r"<think>6 and 1.</think><answer>\boxed{7}</answer>",
    r"<think>6 = 5.</think><answer>#### 8</answer>",
    r"<think>I go on and on",
)


@pytest.fixture(autouse=True)
def written(tmp_path, monkeypatch):
    """The page's files and this folder's, importable."""
    for name in WRITTEN:
        (tmp_path / name).write_text(FILES[name])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield tmp_path
    for name in WRITTEN:
        sys.modules.pop(name.removesuffix(".py"), None)


def columns_of(columns, responses=RESPONSES, step=0):
    """What rewards get of three records, with a response each."""
    count = len(responses)
    images = (np.full((2, 3, 3), 9, np.uint8),)
    examples = [
        Example(
            question=f"What is 6 + {n} ?",
            images=images,
            columns={name: values[n % 3] for name, values in columns.items()},
            id=f"train/{n}",
        )
        for n in range(count)
    ]
    of_answers = {
        "closed": [True] * count,
        "finished": [True] * count,
        "response_tokens": [len(text) for text in responses],
        "response": list(responses),
        "completion_ids": [list(range(n + 1)) for n in range(count)],
    }
    return reward_columns(examples, of_answers, step=step, steps=8)


def score(term, columns, workers=0, responses=RESPONSES, step=0):
    """What a term gives each response."""
    with open_scorer([term], workers=workers) as scorer:
        return scorer.score(
            ["7"] * len(responses),
            thoughts=[""] * len(responses),
            columns=columns_of(columns, responses, step),
        )


def values(*given, **options):
    return score(*given, **options).values[:, 0].tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_functions_of_trl_easyr1_and_verl_run_unchanged(workers):
    nan = pytest.approx(float("nan"), nan_ok=True)
    truths = {"answer": ["7", "8", "9"]}
    own = functools.partial(values, workers=workers)
    assert own(RewardTerm("trl_rewards:boxed_result"), {"ground_truth": ["7", "8", "9"]}) == [
        1,  # a box with the truth
        0,  # no box
        0,
    ]
    assert own(RewardTerm("trl_rewards:has_form"), truths) == [1, 1, 0]
    assert own(RewardTerm("trl_rewards:brevity"), truths, step=4) == [-0.5, -1, -1.5]  # half way
    tasks = {"record_task": ["sum", "sum", "angle"]}  # `task` is gmma's
    assert own(RewardTerm("trl_rewards:sums_alone"), tasks) == [0, 1, nan]
    assert own(RewardTerm("trl_rewards:tokens"), truths) == [1, 2, 3]
    assert own(RewardTerm("foreign_rewards:kinds_alone"), {**tasks, "kind": ["a"] * 3}) == [3, 3, 5]
    assert own(RewardTerm("easyr1_rewards:compute_score"), truths) == [1, 0, 0]
    halves = RewardTerm("easyr1_rewards:compute_score", options=(("format_weight", 0.5),))
    assert own(halves, {"answer": ["1", "8", "9"]}) == [0.5, 0, 0]  # the form of the first alone
    sources = {"data_source": ["own", "openai/gsm8k", "own"], "level": [5, 1, 1]}
    of_verl = {"ground_truth": [RESPONSES[0], "8</answer>", "x"], **sources}
    assert own(RewardTerm("verl_rewards:compute_score"), of_verl) == [0.5, 1, 0]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_an_asynchronous_function_is_awaited_whatever_its_batch(workers, batch):
    term = RewardTerm("trl_rewards:judged", batch=batch)
    responses = ("?", "no", "? yes", "no", "?")  # the last word of the question
    assert values(term, {}, workers, responses) == [1, 0, 1, 0, 1]


def test_parameters_tell_the_signature():
    import easyr1_rewards
    import foreign_rewards
    import trl_rewards
    import verl_rewards

    told = {
        trl_rewards.boxed_result: "trl",
        trl_rewards.has_form: "trl_messages",
        trl_rewards.judged: "trl",
        trl_rewards.tokens: "trl",
        foreign_rewards.judge: "trl_messages",
        foreign_rewards.partly: "trl",
        easyr1_rewards.compute_score: "easyr1",
        foreign_rewards.one_input: "easyr1",
        verl_rewards.compute_score: "verl",
        foreign_rewards.ours: "gmma",
        foreign_rewards.by_its_module: "gmma",
        lambda said, **columns: 1: "gmma",
    }
    assert [recognised(function) for function in told] == list(told.values())


TOLD = RewardTerm("foreign_rewards:through_a_helper", signature="trl_messages")
LENGTHS = [float(len(text)) for text in RESPONSES]


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (RewardTerm("foreign_rewards:one_input"), LENGTHS),
        (RewardTerm("foreign_rewards:by_its_module", signature="easyr1"), LENGTHS),
        (TOLD, LENGTHS),
        (RewardTerm("foreign_rewards:names_images"), [12, 12, 12]),  # 3 wide, and red is 9
        (RewardTerm("foreign_rewards:no_images_asked"), [1, 1, 1]),
        (RewardTerm("foreign_rewards:names_columns"), [4, 5, 6]),
        (RewardTerm("foreign_rewards:partly"), [4, 5, 6]),
        (RewardTerm("foreign_rewards:judge"), [2, 2, 0]),
        (RewardTerm("foreign_rewards:ours"), [3.25, 5.25, 7.25]),  # n + 3 wide + n + 2 / 8
    ],
)
def test_less_usual_forms(term, expected):
    columns = {"label": ["4", "5", "6"], "answer": ["7", "8", "9"]}
    for workers in (0, 1):
        assert values(term, columns, workers, step=2) == expected


def test_a_column_of_the_record_goes_before_what_is_told_of_it():
    columns = {"question": ["1 ?", "1 ?", "1 ?"], "id": ["a/1", "a/1", "a/1"]}
    assert values(RewardTerm("foreign_rewards:ours"), columns, step=2) == [5.25] * 3
    with pytest.raises(UserError, match="the column response, step, which gmma says of each"):
        columns_of({"step": [1, 1, 1], "response": ["", "", ""]})


def test_the_truth_of_verl_stands_in_its_own_layout_or_in_a_column():
    term = RewardTerm("foreign_rewards:truth_of_verl")
    nested = [{"style": "rule", "ground_truth": n} for n in ("1", "2", "3")]
    assert values(term, {"reward_model": nested, "answer": ["9"] * 3}) == [1, 2, 3]
    assert values(term, {"ground_truth": [1, 2, 3], "answer": ["9"] * 3}) == [1, 2, 3]
    with pytest.raises(UserError, match="the records have no column ground_truth or answer; they"):
        values(term, {"label": [1, 2, 3]})


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["of_verl", "slow_verl"])
def test_a_call_for_one_answer_fails_alone(name, batch, workers):
    term = RewardTerm(f"foreign_rewards:{name}", batch=batch)
    found = score(term, {"answer": ["7"] * 3}, workers)
    np.testing.assert_array_equal(found.values[:, 0], [1, np.nan, 1])
    assert found.outcomes[term.name]["crash"] == 1
    assert "answer 1: crash: ValueError: no sum; called as verl; say another" in found.messages[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_of_answers_far_apart_and_its_call_fails_whole(workers):
    """Seven answers in calls of three: (0, 3, 6), (1, 4), (2, 5)."""
    counts = RewardTerm("foreign_rewards:counts_its_batch", batch=3)
    assert values(counts, {}, workers, ["x"] * 7) == [3, 2, 2, 3, 2, 2, 3]
    breaks = RewardTerm("foreign_rewards:breaks_its_batch", batch=3)
    found = score(breaks, {}, workers, ["x", "raise", *"xxxxx"])
    np.testing.assert_array_equal(found.values[:, 0], [1, np.nan, 1, 1, np.nan, 1, 1])
    assert found.outcomes[breaks.name]["crash"] == 2


def test_a_call_that_hangs_or_dies_costs_its_own_answers():
    """Calls of two of eight answers: (0, 4), (1, 5), (2, 6), (3, 7)."""
    terms = [RewardTerm("foreign_rewards:breaks_its_batch", batch=2), RewardTerm("exact")]
    responses = ["x", "hang", "x", "x", "x", "x", "die", "x"]
    with open_scorer(terms, workers=1, timeout_seconds=2.5) as scorer:
        columns = columns_of({"answer": ["7"] * 3}, responses)
        found = scorer.score(["7"] * 8, thoughts=[""] * 8, columns=columns)
    lost = [1, np.nan, np.nan, 1, 1, np.nan, np.nan, 1]
    np.testing.assert_array_equal(found.values, np.transpose([lost, [1] * 8]))
    assert found.outcomes[terms[0].name]["timeout"] == 2
    assert found.outcomes[terms[0].name]["crash"] == 2


@pytest.mark.parametrize(
    ("term", "complaint"),
    [
        (
            RewardTerm("foreign_rewards:without_overall"),
            "{'accuracy': 1.0}, which has no 'overall'",
        ),
        (RewardTerm("foreign_rewards:one_for_all"), "returned a dict; it must return a list"),
        (
            RewardTerm("foreign_rewards:names_columns", signature="verl"),
            r"takes \(completions, label, log_metric\), and cannot be called as names_columns",
        ),
        (
            RewardTerm("foreign_rewards:one_input", options=(("weight", 1),)),
            r"cannot be called as one_input\(reward_input, weight=",
        ),
    ],
)
def test_what_cannot_work_is_one_message(term, complaint):
    with pytest.raises(UserError, match=complaint):
        values(term, {"answer": ["7", "8", "9"]})


def test_a_wrong_guess_says_how_the_function_was_called():
    term = RewardTerm("foreign_rewards:through_a_helper")
    with (
        open_scorer([term], workers=0) as scorer,
        pytest.raises(UserError, match=r"string indices .*called as trl; say another by rewards"),
    ):
        check_rewards(scorer, ["7"] * 3, thoughts=[""] * 3, columns=columns_of({}))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_column_that_is_not_there_is_named_with_those_that_are(workers):
    """Before training; a later batch whose records lack it gives None, and ends no run."""
    told = r"wants label, of which there is no column; there are answer, closed, .*uid"
    with open_scorer([RewardTerm("foreign_rewards:names_columns")], workers=workers) as scorer:
        has_none = {"answer": [1] * 3, "uid": [2] * 3}
        for columns in ({**has_none, "label": [1, 0, 1]}, has_none):
            trial = {"thoughts": [""] * 3, "columns": columns_of(columns)}
            if "label" in columns:
                assert check_rewards(scorer, ["7"] * 3, **trial).values.T.tolist() == [[1, 0, 1]]
                continue
            with pytest.raises(UserError, match=told):
                check_rewards(scorer, ["7"] * 3, **trial)
            late = scorer.score(["7"] * 3, **trial)
            assert np.isnan(late.values).all()
            assert "NoneType" in late.messages[0]


def test_what_every_answer_fails_of_is_said_once():
    term = RewardTerm("foreign_rewards:through_a_helper")
    with open_scorer([term], workers=0) as scorer, pytest.raises(UserError) as error:
        check_rewards(scorer, ["7"] * 3, thoughts=[""] * 3, columns=columns_of({}))
    assert str(error.value).count("string indices") == 1
    assert "trl_messages where completions are messages" in str(error.value)


def test_a_key_with_the_name_of_an_option_is_no_option_of_gmmas_own():
    """A record of a reading test has a key `reading`; the reward's own option keeps its default."""
    columns = {"answer": ["7", "7", "8"], "reading": ["a", "b", "c"], "relative_tolerance": [9] * 3}
    assert values(RewardTerm("math"), columns) == [1, 1, 0]


def test_a_reward_is_a_tasks_metric_of_answers_alone():
    """With an empty thought; what needs more than answers is one message, and no row of zeros."""
    answers = [r"\boxed{7}", "7", r"\boxed{9}"]
    columns = {"ground_truth": "7"}
    examples = [Example(question="?", images=(), columns=columns, id="a")] * 3
    told = answer_columns(answers, examples)
    assert judge(RewardTerm("trl_rewards:boxed_result"), answers, told) == [1, 0, 0]
    assert judge(RewardTerm("trl_rewards:has_form"), answers, told) == [1, 1, 1]
    with pytest.raises(UserError, match=r"as a metric failed on each of 3 answers.*trainer_state"):
        judge(RewardTerm("trl_rewards:brevity"), answers, told)


def test_a_metric_of_answers_alone_sees_them_between_the_tags_of_the_run():
    tags = Tags(think=("<reasoning>", "</reasoning>"), answer=("<result>", "</result>"))
    example = Example(question="?", images=(), columns={}, id="a")
    asked = replace(example, tags=tags.all)
    told = answer_columns(["7", "8"], [asked, example])
    assert told["response"] == [
        "<reasoning></reasoning><result>7</result>",
        "<think></think><answer>8</answer>",
    ]


def test_gmmas_own_have_neither_signature_nor_batch():
    for given in ({"signature": "trl"}, {"batch": 2}):
        with pytest.raises(UserError, match="reward 'exact' is gmma's own"):
            RewardTerm("exact", **given)
    with pytest.raises(UserError, match="batch is 0; it must be 1 or more"):
        RewardTerm("mine:own", batch=0)
