"""The task `code`: both forms of records, the standard split, references that pass, pass@k."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from text_data import HUMANEVAL, MBPP, write_jsonl

from gmma.config import RewardConfig
from gmma.errors import UserError
from gmma.rewards.answered_code import find_code
from gmma.rewards.sandbox.client import Sandbox
from gmma.rewards.terms import RewardTerm
from gmma.tasks import TASKS
from gmma.tasks.code import (
    CodeConfig,
    demonstrate,
    group_metrics,
    metrics,
    read_exercises,
    source,
    term_options,
    tokenizer_path,
)
from gmma.tasks.exercises import read_exercise
from gmma.tasks.storage import Storage, prepare
from gmma.text.prompt import answer_text, prompt_text, thought_text
from gmma.text.tokenizer import load_sentencepiece
from gmma.types import Example

sys.path.append(str(Path(__file__).parent.parent / "rewards"))
import code_forms

TASK = TASKS["code"]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("records")
    return CodeConfig(
        train_path=write_jsonl(path / "mbpp.jsonl", MBPP),
        test_path=write_jsonl(path / "humaneval.jsonl", HUMANEVAL),
        vocab_size=440,
    )


@pytest.fixture(scope="module")
def data_dir(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    TASK.build(config, path)
    return path


@pytest.fixture(scope="module")
def _sandbox_works():
    try:
        Sandbox().close()
    except UserError as error:
        pytest.skip(str(error))


def examples_of(config, data_dir, split):
    found = source(config, data_dir, split)
    return [found[row] for row in range(len(found))]


def test_every_other_key_of_a_record_is_a_column(config, data_dir):
    (first, *_), (last, *_) = (examples_of(config, data_dir, s) for s in ("train", "test"))
    assert first.columns["task_id"] == 601
    assert last.columns["task_id"] == "HumanEval/0"
    made = {"answer", "prompt", "tests", "setup", "signature"}
    assert first.columns.keys() == last.columns.keys() == {"task_id", *made}


def test_both_released_forms_are_read():
    mbpp = read_exercise(MBPP[0], 2)
    assert mbpp.question.splitlines() == [
        "Write a function to add 1.",
        "Your code should pass these tests: assert add_1(0) == 1",
        "assert add_1(1) == 2",
    ]
    assert mbpp.solution == "def add_1(x):\n    return x + 1"
    assert (mbpp.signature, len(mbpp.tests)) == ("add_1(x)", 3)
    human = read_exercise(HUMANEVAL[2], 0)
    assert human.setup.startswith("from typing import List")
    assert human.setup.endswith("return 1")
    assert human.solution.startswith("def more_2(xs: List[int])")
    assert human.solution.endswith("return [x + 2 * one() for x in xs]")
    assert human.tests[0].endswith("check(more_2)")
    with pytest.raises(UserError, match="a record has the fields question; known are MBPP"):
        read_exercise({"question": "?"}, 1)


def test_mbpp_is_split_as_its_authors_do(config):
    alone = read_exercises(replace(config, test_path=None))
    first = {split: found[0].signature for split, found in alone.items()}
    assert first == {"train": "add_601(x)", "validation": "add_511(x)", "test": "add_11(x)"}
    assert {split: len(found) for split, found in alone.items()} == {
        "train": 25,
        "validation": 2,
        "test": 3,
    }
    assert [e.signature for e in read_exercises(config)["test"]] == [
        f"more_{n}(xs)" for n in range(3)
    ]


def test_a_prepared_dataset_serves_as_well(config, tmp_path):
    text = tfds.features.Text()
    lists = tfds.features.Sequence(text)
    features = dict.fromkeys(("text", "code", "test_setup_code"), text)
    features |= {"task_id": np.int32, "test_list": lists, "challenge_test_list": lists}
    prepared = prepare(
        Storage(
            name="mbpp",
            directory=tmp_path,
            features=features,
            records=lambda split: iter(MBPP),
        )
    )
    assert read_exercises(replace(config, train_path=prepared)) == read_exercises(config)


def test_other_records_are_split_by_their_questions(config):
    path = config.test_path
    found = read_exercises(replace(config, train_path=path, test_path=None, held_out=1))
    assert sorted(e.signature for split in found.values() for e in split) == [
        f"more_{n}(xs)" for n in range(3)
    ]
    assert {len(split) for split in found.values()} == {1}
    with pytest.raises(UserError, match="no train records are left"):
        read_exercises(replace(config, train_path=path, held_out=2))


@pytest.mark.usefixtures("_sandbox_works")
def test_references_pass_and_every_kind_of_failure_does_not(config, data_dir):
    examples = examples_of(config, data_dir, "test") + examples_of(config, data_dir, "train")[:3]
    shown = [demonstrate(config, example, RNG) for example in examples]
    found = metrics(config, [demonstration.answer for demonstration in shown], examples)
    assert found == {name: [1.0] * 6 for name in ("passed", "tests_passed", "parsed")}
    bad = ["", "def (", "def add_601(x): return 601 + x * (x < 2)", "import os; os._exit(0)"]
    found = metrics(config, bad, examples[3:4] * 4)
    assert found["passed"] == [0, 0, 0, 0]
    assert found["tests_passed"] == [0, 0, pytest.approx(2 / 3), 0]
    assert found["parsed"] == [0, 0, 1, 1]


@pytest.mark.usefixtures("_sandbox_works")
def test_the_metric_reads_every_form_as_the_reward_does(config, data_dir):
    columns = {"tests": code_forms.TESTS, "setup": "", "prompt": code_forms.PROMPT}
    example = Example(question=code_forms.PROMPT, images=(), columns=columns, id="0")
    for result, expected in ((code_forms.RIGHT, 1.0), (code_forms.WRONG[2], 0.0)):
        answers = [form.replace("HOLE", result) for form in code_forms.FORMS.values()]
        found = metrics(config, answers, [example] * len(answers))
        assert found["passed"] == found["tests_passed"] == [expected] * len(answers)
        assert found["parsed"] == [1.0] * len(answers)


@pytest.mark.parametrize(
    ("keep", "split", "numbers"),
    [
        (range(601, 700), "validation", "511 to 600, and the ids here are 601 to"),
        (range(511, 601), "train", "601 to 974, and the ids here are 511 to"),
    ],
)
def test_mbpp_without_the_ids_of_a_split_says_which(config, tmp_path, keep, split, numbers):
    some = [record for record in MBPP if record["task_id"] in keep]
    path = write_jsonl(tmp_path / "some.jsonl", some)
    with pytest.raises(UserError, match=f"is for {split}: MBPP is split by task_id, .*{numbers}"):
        read_exercises(replace(config, train_path=path))
    write_jsonl(path, [{**some[0], "task_id": "MBPP/1"}])
    with pytest.raises(UserError, match="has task_id 'MBPP/1'; MBPP is split by task_id"):
        read_exercises(replace(config, train_path=path))


def test_pass_at_k_is_unbiased(config, data_dir):
    example = examples_of(config, data_dir, "test")[0]
    found = group_metrics(config, [""] * 6, example, {"passed": [1, 0, 0, 1, 0, 0]})
    assert found == pytest.approx({"pass@1": 1 / 3, "pass@2": 0.6, "pass@4": 14 / 15, "pass@6": 1})


def test_the_prompt_asks_for_a_fence_and_the_tokenizer_spells_it(config, data_dir):
    tokenizer = load_sentencepiece(tokenizer_path(config, data_dir))
    for example in examples_of(config, data_dir, "train"):
        assert "```python block" in example.question
        shown = demonstrate(config, example, RNG)
        assert find_code(shown.answer).strip() == example.columns["answer"]
        for text in (
            prompt_text(example.question),
            thought_text(shown.thought),
            answer_text(shown.answer),
        ):
            assert tokenizer.decode(tokenizer.encode(text)) == text
    pieces = [tokenizer.token_bytes[i] for i in tokenizer.encode("```python\nx\n    y\n```")]
    assert pieces == [b"```python\n", b"x", b"\n    ", b"y", b"\n```"]


def test_long_solutions_are_left_out_of_training_alone(config):
    longest = max(len(exercise.solution) for exercise in read_exercises(config)["train"])
    assert read_exercises(replace(config, longest_solution=longest)) == read_exercises(config)
    with pytest.raises(UserError, match="no train records are left"):
        read_exercises(replace(config, longest_solution=longest - 1))


def test_the_sandbox_of_the_task_is_that_of_its_rewards(config):
    weak = replace(config, sandbox="weak")
    assert term_options(weak, RewardTerm("code_all_passed")) == (("sandbox", "weak"),)
    assert term_options(weak, RewardTerm("format")) == ()


def test_a_submission_may_not_outlast_its_scorer():
    with pytest.raises(UserError, match=r"timeout_seconds = 5.0, but the sandbox gives .* 6 sec"):
        RewardConfig(terms=(RewardTerm("code"),))
    RewardConfig(terms=(RewardTerm("code", options=(("wall_seconds", 2),)),))


@pytest.mark.usefixtures("_sandbox_works")
def test_real_references_pass_as_the_task_puts_them(real_path, tmp_path):
    """Setup behind the code (MBPP) or cut off the prompt (HumanEval): every thirteenth record."""
    config = CodeConfig(
        train_path=real_path("mbpp/mbpp.jsonl"), test_path=real_path("humaneval/HumanEval.jsonl")
    )
    TASK.build(config, tmp_path)
    examples = [e for s in ("train", "test") for e in examples_of(config, tmp_path, s)]
    assert len(examples) == 374 + 100
    some = examples[::13]
    answers = [demonstrate(config, example, RNG).answer for example in some]
    found = metrics(config, answers, some)
    assert [e.id for e, ok in zip(some, found["passed"], strict=True) if not ok] == []
