"""The task `math`: records of every form, splits, demonstrations that earn 1, metrics, a page."""

from dataclasses import replace

import numpy as np
import pytest
from text_data import GSM8K, MATH, PLAIN, SVAMP, write_jsonl

from gmma.errors import UserError
from gmma.rewards.terms import RewardTerm
from gmma.tasks import TASKS
from gmma.tasks.mathematics import (
    MathConfig,
    demonstrate,
    demonstrated_rows,
    group_metrics,
    metrics,
    read_problem,
    source,
    storage,
    term_options,
    tokenizer_path,
)
from gmma.tasks.storage import prepare
from gmma.text.prompt import answer_text, prompt_text, thought_text
from gmma.text.tokenizer import load_sentencepiece

TASK = TASKS["math"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("records")
    return MathConfig(
        train_path=write_jsonl(path / "train.jsonl", GSM8K),
        test_path=write_jsonl(path / "test.jsonl", MATH + SVAMP),
        held_out=5,
        vocab_size=420,
    )


@pytest.fixture(scope="module")
def data_dir(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    TASK.build(config, path)
    return path


def examples_of(config, data_dir, split):
    found = source(config, data_dir, split)
    return [found[row] for row in range(len(found))]


def test_every_released_form_is_read():
    gsm8k, math, svamp = (read_problem(records[0]) for records in (GSM8K, MATH, SVAMP))
    assert gsm8k.thought == "He has 990+991 = 1981 apples."
    assert gsm8k.answer == "1981"
    assert math.answer == r"\frac{1}{4}"
    assert math.thought == MATH[0]["solution"]
    assert svamp.question.endswith("2 groups. How big is each group?")
    assert (svamp.thought, svamp.answer) == ("290 / 2 = 145", "145")
    assert [read_problem(record).answer for record in PLAIN] == ["4", "0.5"]
    assert [read_problem(record).thought for record in PLAIN] == ["", "half"]
    with pytest.raises(UserError, match="a record has the fields text, label; known are GSM8K"):
        read_problem({"text": "?", "label": 1})


def test_every_other_key_of_a_record_is_a_column(config, data_dir, tmp_path):
    """None where only others have it; a name that gmma gives itself has a prefix."""
    (math, svamp) = (e.columns for e in examples_of(config, data_dir, "test"))
    assert math == {
        "answer": r"\frac{1}{4}",
        "solution": MATH[0]["solution"],
        "level": "Level 1",
        "type": "Prealgebra",
    }
    assert svamp.keys() == math.keys()
    assert (svamp["level"], svamp["type"]) == (None, None)
    rows = [{"question": f"{n}?", "answer": n, "step": n, "tags": ["é", None]} for n in range(3)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    own = MathConfig(train_path=path, test_path=None, held_out=1)
    prepare(storage(own, tmp_path))
    (example,) = examples_of(own, tmp_path, "train")
    number = int(example.columns["answer"])
    assert example.columns["record_step"] == number
    assert example.columns["tags"] == ["é", None]
    assert "step" not in example.columns


def test_a_run_of_records_without_other_keys_resumes(tmp_path):
    """The hash of such records is the one from before the others were kept."""
    rows = [{"question": f"{n} + 1?", "answer": f"so #### {n + 1}"} for n in range(6)]
    hashes = []
    for name, first in (("plain", rows[0]), ("other", rows[0] | {"level": 3})):
        path = write_jsonl(tmp_path / f"{name}.jsonl", [first, *rows[1:]])
        own = MathConfig(train_path=path, test_path=None, held_out=1)
        prepare(storage(own, tmp_path))
        hashes.append(TASK.content(own, tmp_path))
    assert hashes[0] == "f7d59b8f990e78fa14c08162935d6df80828a96a703b5d260acc9cd14a2025b6"
    assert hashes[1] != hashes[0]


def test_splits_are_whole_and_share_no_question(config, data_dir):
    splits = {s: examples_of(config, data_dir, s) for s in ("train", "validation", "test")}
    assert [len(found) for found in splits.values()] == [25, 5, 2]
    questions = [example.question for found in splits.values() for example in found]
    assert len(set(questions)) == 32
    assert len({e.id for found in splits.values() for e in found}) == 32
    assert all(question.endswith("answer with the final result alone.") for question in questions)


def test_demonstrations_earn_the_whole_reward(config, data_dir):
    for split in ("train", "test"):
        examples = examples_of(config, data_dir, split)
        shown = [demonstrate(config, e, np.random.default_rng(0)) for e in examples]
        found = metrics(config, [demonstration.answer for demonstration in shown], examples)
        assert found["accuracy"] == found["parsed"] == [1.0] * len(examples)


def test_wrong_and_empty_answers_count_as_wrong(config, data_dir):
    examples = examples_of(config, data_dir, "test")[:1] * 4
    found = metrics(config, ["0.25", r"so \boxed{\frac14}", "", "0.3"], examples)
    assert found == {"accuracy": [1, 1, 0, 0], "parsed": [1, 1, 0, 1]}


def test_tolerance_is_one_for_metric_and_reward(config, data_dir):
    tolerant = replace(config, relative_tolerance=0.05)
    examples = examples_of(config, data_dir, "test")[1:]
    assert metrics(tolerant, ["146"], examples)["accuracy"] == [1]
    assert metrics(config, ["146"], examples)["accuracy"] == [0]
    assert term_options(tolerant, RewardTerm("math")) == (("relative_tolerance", 0.05),)
    assert term_options(tolerant, RewardTerm("format")) == term_options(config, RewardTerm("math"))


def test_pass_at_k_and_the_majority(config, data_dir):
    example = examples_of(config, data_dir, "test")[1]
    answers = ["7", "145", "145.", "9"]
    right = metrics(config, answers, [example] * 4)
    assert right["accuracy"] == [0, 1, 1, 0]
    found = group_metrics(config, answers, example, right)
    assert found == pytest.approx({"pass@1": 0.5, "pass@2": 5 / 6, "pass@4": 1, "maj@4": 1})
    wrong = group_metrics(config, ["7", "7", "145", ""], example, {"accuracy": [0, 0, 1, 0]})
    assert wrong["maj@4"] == 0


def test_records_without_a_thought_are_for_rl_alone(tmp_path):
    path = write_jsonl(
        tmp_path / "plain.jsonl",
        [{**p, "question": str(i)} for i in range(20) for p in PLAIN[i % 2 :][:1]],
    )
    config = MathConfig(train_path=path, test_path=None, held_out=4, vocab_size=400)
    TASK.build(config, tmp_path)
    examples = examples_of(config, tmp_path, "train")
    assert len(examples) == 12
    shown = [demonstrate(config, example, np.random.default_rng(0)) for example in examples]
    rows = demonstrated_rows(config, tmp_path)
    assert rows == [row for row, demonstration in enumerate(shown) if demonstration is not None]
    assert 0 < len(rows) < 12


def test_long_records_are_left_out_of_training(config, tmp_path):
    short = replace(config, longest_question=9, held_out=1)
    with pytest.raises(UserError, match=r"no train problems are left .*held_out \(now 1\)"):
        TASK.build(short, tmp_path)
    some = replace(config, longest_thought=29, held_out=1)
    TASK.build(some, tmp_path)
    thoughts = [e.columns["solution"] for e in examples_of(some, tmp_path, "train")]
    assert {len(thought) for thought in thoughts} == {29}  # He has 990+991 = 1981 apples.
    assert len(thoughts) + len(examples_of(some, tmp_path, "validation")) in (10, 11)


def test_a_changed_file_is_another_dataset(config, data_dir, tmp_path):
    path = write_jsonl(tmp_path / "train.jsonl", GSM8K[1:])
    changed = replace(config, train_path=path)
    assert tokenizer_path(changed, data_dir).parent != tokenizer_path(config, data_dir).parent
    with pytest.raises(UserError, match="build it first"):
        source(changed, data_dir, "train")


def test_the_tokenizer_spells_every_example_and_anything_else(config, data_dir):
    tokenizer = load_sentencepiece(tokenizer_path(config, data_dir))
    for example in examples_of(config, data_dir, "train"):
        shown = demonstrate(config, example, np.random.default_rng(0))
        for text in (
            prompt_text(example.question),
            thought_text(shown.thought),
            answer_text(shown.answer),
        ):
            assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("√2 ≈ 1,41 ▁")) == "√2 ≈ 1,41 ▁"


@pytest.mark.parametrize(
    "given", [{"held_out": 0}, {"longest_question": 0}, {"relative_tolerance": 1}]
)
def test_bad_fields_are_named(given):
    with pytest.raises(UserError, match=f"math: {next(iter(given))} is "):
        MathConfig(**given)


def test_real_records_are_read_whole(read_real, real_path, tmp_path):
    """Each has a thought and a result; thirty results of SVAMP equal themselves."""
    for name in ("gsm8k/train.jsonl", "math/math_test.jsonl", "svamp/svamp_test.jsonl"):
        problems = [read_problem(record) for record in read_real(name)]
        assert all(problem.answer and problem.thought for problem in problems)
        assert not any("<<" in problem.thought for problem in problems if "gsm8k" in name)
    config = MathConfig(train_path=real_path("svamp/svamp_test.jsonl"), test_path=None, held_out=30)
    TASK.build(config, tmp_path)
    examples = examples_of(config, tmp_path, "test")
    answers = [example.columns["answer"] for example in examples]
    assert metrics(config, answers, examples)["accuracy"] == [1.0] * 30
