"""Task `code`: write a Python function that passes hidden tests, which run in the sandbox.

    question  Write a python function to find the first repeated character in a given string.
              Your code should pass this test: assert first_repeated_char("abcabc") == "a"
    thought   The function is first_repeated_char(str1).
    answer    a fenced block of Python with the whole function

Records are those of MBPP or HumanEval as released; which, their fields tell (`exercises.py`). The
thought of a demonstration is ours, since the records have no reasoning: the signature, which the
question does not spell out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds

from gmma.errors import UserError
from gmma.files import SourcePath
from gmma.rewards.answered_code import find_code, names_wanted, parse_quietly
from gmma.rewards.attempts import pass_rates
from gmma.rewards.code import CODE_TERMS
from gmma.rewards.terms import RewardTerm
from gmma.tasks.configs import TaskConfig, require_asked
from gmma.tasks.exercises import Exercise, read_exercise
from gmma.tasks.judge import judge
from gmma.tasks.records import RawRecord, fingerprint, hold_out, read_record_file, spell_columns
from gmma.tasks.storage import Storage, content_by, dataset_directory, prepare, read_split
from gmma.tasks.task import Demonstration, ExampleSource, Task, TermOptions
from gmma.tasks.vocabulary import corpus_texts, prepare_vocabulary, wording
from gmma.types import Example

FENCE_OPEN, FENCE_CLOSE = "```python\n", "\n```"
_HOW_TO_ANSWER = "Answer with the whole function in a ```python block."
_PIECES = (FENCE_OPEN, FENCE_CLOSE, *("\n" + " " * indent for indent in (0, 4, 8, 12, 16)))
_MBPP_SPLITS = {"test": range(11, 511), "validation": range(511, 601), "train": range(601, 975)}


@dataclass(frozen=True, kw_only=True)
class CodeConfig(TaskConfig):
    """Files of records, the choice among them, and the wording of the question."""

    name: Literal["code"] = "code"  # which task this is
    # A JSONL file, or a directory that TFDS prepared. MBPP is split as its authors do by task_id
    # (train 601–974, validation 511–600, test 11–510), others by a hash of the question.
    train_path: SourcePath = Path("data/mbpp/mbpp.jsonl")
    # None: out of train_path
    test_path: SourcePath | None = Path("data/humaneval/HumanEval.jsonl")
    held_out: int = 20  # validation records where the split is by hash, and as many for test
    shown_tests: int = 1  # MBPP tests that the question shows (its authors show all three)
    longest_question: int | None = None  # characters; records beyond are left out; None: no bound
    longest_solution: int | None = None  # the same of the solutions of training records
    explain: bool = True  # say in the question how to answer
    sandbox: Literal["strong", "weak"] = "strong"  # weak runs code where the kernel isolates less
    vocab_size: int = 2048  # upper bound of the SentencePiece vocabulary

    def __post_init__(self) -> None:
        require_asked(self, self.explain)
        for name in ("held_out", "longest_question", "longest_solution"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"code: {name} is {value}; it must be 1 or more")
        if self.shown_tests < 0:
            raise UserError(f"code: shown_tests is {self.shown_tests}; it must be 0 or more")


def read_exercises(config: CodeConfig) -> dict[str, list[Exercise]]:
    """Return the exercises of each split that are not too long."""
    records = read_record_file(config.train_path, "train")
    splits = _split_mbpp(records, config) or _split_by_hash(records, config)
    if config.test_path is not None:
        splits["test"] = read_record_file(config.test_path, "test")
    read = {split: list(_fitting(config, found, split)) for split, found in splits.items()}
    for split, exercises in read.items():
        if not exercises:
            raise UserError(
                f"code: no {split} records are left of {config.train_path} and {config.test_path}; "
                "give a test_path, or change held_out, longest_question or longest_solution"
            )
    return read


def _split_mbpp(
    records: Sequence[RawRecord], config: CodeConfig
) -> dict[str, list[RawRecord]] | None:
    if not all("test_list" in record for record in records):
        return None
    numbers = [_task_id(record, config) for record in records]
    splits = {
        split: [r for r, number in zip(records, numbers, strict=True) if number in own]
        for split, own in _MBPP_SPLITS.items()
    }
    needed = [split for split in splits if split != "test" or config.test_path is None]
    for split in needed:
        if not splits[split]:
            own = _MBPP_SPLITS[split]
            raise UserError(
                f"code: no record of {config.train_path} is for {split}: MBPP is split by task_id, "
                f"{split} is {own.start} to {own.stop - 1}, and the ids here are {min(numbers)} to "
                f"{max(numbers)}; add records with such ids, from MBPP's full file of 974, or "
                "number some of yours so"
            )
    return splits


def _task_id(record: RawRecord, config: CodeConfig) -> int:
    try:
        return int(record["task_id"])
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"code: a record of {config.train_path} has task_id {record.get('task_id')!r:.80}; "
            "MBPP is split by task_id, which must be a whole number"
        ) from None


def _split_by_hash(records: Sequence[RawRecord], config: CodeConfig) -> dict[str, list[RawRecord]]:
    train, validation = hold_out(records, _text, config.held_out)
    train, test = hold_out(train, _text, config.held_out)
    return {"train": train, "validation": validation, "test": test}


def _text(record: RawRecord) -> str:
    return str(record.get("prompt", record.get("text")))


def _fitting(config: CodeConfig, records: Sequence[RawRecord], split: str) -> Iterator[Exercise]:
    longest = {"question": config.longest_question}
    if split == "train":
        longest["solution"] = config.longest_solution
    for record in records:
        exercise = read_exercise(record, config.shown_tests)
        if all(b is None or len(getattr(exercise, name)) <= b for name, b in longest.items()):
            yield exercise


def storage(config: CodeConfig, data_dir: Path) -> Storage:
    """Describe the dataset on disk; reading it chooses whether the question explains itself."""
    bounds = (config.held_out, config.longest_question, config.longest_solution, config.shown_tests)
    name = f"code_{fingerprint(config.train_path, config.test_path, *bounds)}"

    def records(split: str) -> Iterator[dict[str, Any]]:
        splits = read_exercises(config)
        every = (exercise.others for exercises in splits.values() for exercise in exercises)
        others = spell_columns([exercise.others for exercise in splits[split]], every)
        for index, exercise in enumerate(splits[split]):
            yield {"id": f"{split}/{index}", **exercise._asdict(), "others": others[index]}

    texts = {field: tfds.features.Text() for field in ("id", *Exercise._fields)}
    return Storage(
        name="code",
        directory=Path(data_dir) / name,
        features={**texts, "tests": tfds.features.Sequence(tfds.features.Text())},
        records=records,
        version="1.1.0",  # all keys of a record are kept
        description=__doc__ or "",
    )


def tokenizer_path(config: CodeConfig, data_dir: Path) -> Path:
    """Return where `build` puts the SentencePiece model of this config."""
    form = f"{'explained' if config.explain else 'bare'}_{config.vocab_size}{wording(config)}"
    return dataset_directory(storage(config, data_dir)) / f"tokenizer_{form}.model"


def build(config: CodeConfig, data_dir: Path) -> None:
    """Read the records and train the tokenizer; returns at once where both are there."""
    prepare(storage(config, data_dir))
    corpus = corpus_texts(
        source(config, data_dir, "train"), lambda example, rng: demonstrate(config, example, rng)
    )
    prepare_vocabulary(tokenizer_path(config, data_dir), corpus, config.vocab_size, _PIECES)


@dataclass(frozen=True)
class _Source:
    config: CodeConfig
    records: Any  # TFDS's random access to one split

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int, /) -> Example:
        record = self.records[index]
        question = record["question"].decode()
        texts = {name: record[name].decode() for name in ("setup", "signature")}
        return Example(
            question=pose_question(self.config, question),
            images=(),
            columns={
                **json.loads(record["others"].decode()),
                **texts,
                "answer": record["solution"].decode(),
                "prompt": question,
                "tests": [test.decode() for test in record["tests"]],
            },
            id=record["id"].decode(),
        )


def pose_question(config: CodeConfig, question: str) -> str:
    """Put the instruction on a line of its own behind the question, where one is wanted."""
    words = _HOW_TO_ANSWER if config.instruction is None else config.instruction
    return f"{question}\n{words}" if config.explain and words else question


def source(config: CodeConfig, data_dir: Path, split: str) -> ExampleSource:
    """Open random access to a split; raises UserError on an unknown split or before `build`.

    Columns: `tests`, `setup` and `prompt` as the reward `code` reads them, the reference solution
    `answer`, the `signature` of its function, and the keys of the record that are none of these.
    """
    return _Source(config, read_split(storage(config, data_dir), split))


def demonstrate(config: CodeConfig, example: Example, rng: np.random.Generator) -> Demonstration:
    """Demonstrate the signature as a thought, and the reference solution in a fenced block."""
    return Demonstration(
        thought=f"The function is {example.columns['signature']}.",
        answer=f"{FENCE_OPEN}{example.columns['answer']}{FENCE_CLOSE}",
    )


def metrics(
    config: CodeConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `passed`: every test passes; `tests_passed`: their share; `parsed`: it is Python."""
    term = RewardTerm("code")
    read = ("tests", "setup", "prompt")
    columns = {name: [example.columns[name] for example in examples] for name in read}
    shares = judge(replace(term, options=term_options(config, term)), answers, columns)
    return {
        "passed": [float(share == 1.0) for share in shares],
        "tests_passed": shares,
        "parsed": [
            float(_is_python(answer, example))
            for answer, example in zip(answers, examples, strict=True)
        ],
    }


def _is_python(answer: str, example: Example) -> bool:
    wanted, prompt = names_wanted(example.columns["tests"]), str(example.columns["prompt"])
    tree = parse_quietly(find_code(answer, wanted, prompt))
    return tree is not None and bool(tree.body)


def group_metrics(
    config: CodeConfig,
    answers: Sequence[str],
    example: Example,
    values: Mapping[str, Sequence[float]],
) -> dict[str, float]:
    """Measure `pass@k`, unbiased."""
    return pass_rates(values["passed"])


def term_options(config: CodeConfig, term: RewardTerm) -> TermOptions:
    """Give the task's rewards its sandbox."""
    return (("sandbox", config.sandbox),) if term.name in CODE_TERMS else ()


CODE = Task(
    config=CodeConfig,
    build=build,
    source=source,
    content=content_by(storage),
    demonstrate=demonstrate,
    metrics=metrics,
    group_metrics=group_metrics,
    headline="passed",
    term_options=term_options,
    tokenizer_path=tokenizer_path,
    instructs=True,
)
