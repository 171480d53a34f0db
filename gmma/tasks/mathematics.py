"""Task `math`: word problems and competition problems with one final answer.

    question  Natalia sold clips to 48 of her friends in April, and then she sold half as many …
    thought   Natalia sold 48/2 = 24 clips in May.
              Natalia sold 48+24 = 72 clips altogether in April and May.
    answer    72

Records are those of GSM8K, MATH or SVAMP as released, or plain ones: `question` or `problem`;
`answer`, the truth, or else a `solution` that ends in one; perhaps `thought` or `solution`, the
trace; perhaps `image` or `images`, paths of pictures. A demonstration is the record's own solution:
GSM8K's without its `<<48/2=24>>` marks, MATH's with its `\\boxed{…}`, SVAMP's equation.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from gmma.answers.math_text import find_answer, marks_answer
from gmma.errors import UserError
from gmma.files import SourcePath
from gmma.images.common import outline_of, read_rgb
from gmma.rewards.attempts import majority_at_k, pass_rates
from gmma.rewards.mathematics import read_answer
from gmma.rewards.terms import RewardTerm
from gmma.tasks.configs import TaskConfig, require_asked
from gmma.tasks.judge import judge
from gmma.tasks.pictures import Outside, find_pictures, read_picture
from gmma.tasks.records import (
    RawRecord,
    fingerprint,
    hold_out,
    other_columns,
    place_of,
    read_number,
    read_record_file,
    read_trace,
    refuse_tags,
    require_text,
    spell_columns,
    spell_value,
)
from gmma.tasks.storage import (
    Storage,
    content_by,
    dataset_directory,
    prepare,
    read_content,
    read_split,
)
from gmma.tasks.task import Demonstration, ExampleSource, Task, TermOptions
from gmma.tasks.vocabulary import corpus_texts, prepare_vocabulary, wording
from gmma.types import Example

_STORED_TEXTS = ("id", "question", "thought", "answer", "others")
_HOW_TO_ANSWER = "Think step by step, then answer with the final result alone."
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_DECIMAL_ZERO = re.compile(r"(\d+)\.0\b")
_READ = ("question", "problem", "answer", "solution", "thought", "image", "images")
_READ_OF_SVAMP = ("Body", "Question", "Equation", "Answer")
_FIELDS = (
    "GSM8K (question, answer with ####), MATH (problem, solution), SVAMP (Body, Question, "
    "Equation, Answer), or question or problem with answer, and perhaps thought or solution"
)


@dataclass(frozen=True, kw_only=True)
class MathConfig(TaskConfig):
    """Files of records, the choice among them, and the wording of the question."""

    name: Literal["math"] = "math"  # which task this is
    # A JSONL file, or a directory that TFDS prepared (tfds build gsm8k --file_format=array_record)
    train_path: SourcePath = Path("data/gsm8k/train.jsonl")
    # None: held out of the training records
    test_path: SourcePath | None = Path("data/gsm8k/test.jsonl")
    held_out: int = 500  # training records kept for validation, and as many for test without a path
    longest_question: int | None = None  # characters; records beyond are left out; None: no bound
    longest_thought: int | None = None  # the same of the thoughts of training records
    explain: bool = True  # say in the question how to answer
    relative_tolerance: float = 0.0  # a number is right within this share of the true one
    # folder of the pictures' paths; None: that of the records' file
    images: SourcePath | None = None
    outside_images: Outside = "refuse"  # what to do with a relative path that leaves this folder
    reading: Literal["lenient", "strict"] = "lenient"  # an answer in any clothing, or alone
    vocab_size: int = 2048  # upper bound of the SentencePiece vocabulary

    def __post_init__(self) -> None:
        require_asked(self, self.explain)
        for name in ("held_out", "longest_question", "longest_thought"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"math: {name} is {value}; it must be 1 or more")
        if not 0 <= self.relative_tolerance < 1:
            raise UserError(
                f"math: relative_tolerance is {self.relative_tolerance}; it must be within [0, 1)"
            )


class Problem(NamedTuple):
    """The kept part of a record; an empty thought is none."""

    question: str
    thought: str
    answer: str
    images: tuple[Path, ...] = ()
    others: Mapping[str, Any] = MappingProxyType({})  # keys that are no part of the problem


def read_problem(record: RawRecord) -> Problem:
    """Return a record of any of the known kinds, without its pictures.

    Raises UserError naming record and field for another kind, for what is no text or number, and
    for a text that holds a tag.
    """
    where = f"math: {place_of(record)}"
    if set(_READ_OF_SVAMP) <= record.keys():
        return _read_svamp(record, where)
    named = [key for key in ("question", "problem") if key in record]
    if len(named) != 1 or not ({"answer", "solution"} & record.keys()):
        raise UserError(f"{where} has the fields {', '.join(record)}; known are {_FIELDS}")
    question = require_text(record[named[0]], f"{where}: {named[0]}")
    trace = "thought" if "thought" in record else "solution"
    thought = read_trace(record, trace, where)
    if "answer" not in record:
        return Problem(question, thought, _read_result(record, where))
    before, marker, answer = _spell_answer(record["answer"], f"{where}: answer").rpartition("####")
    if marker:
        thought = thought or _CALCULATOR.sub("", before).strip()
        answer = find_answer(answer)
    return Problem(question, thought, require_text(answer, f"{where}: the result in answer"))


def _read_result(record: RawRecord, where: str) -> str:
    """Read the result that a solution marks. UserError where it marks none.

    A solution that is a result alone needs no mark.
    """
    solution = require_text(record["solution"], f"{where}: solution").strip()
    if " " in solution and not marks_answer(solution):
        raise UserError(
            f"{where}: solution marks no result (\\boxed{{…}}, ####), and its whole text is none: "
            f"{spell_value(solution)}; give the result as answer"
        )
    return require_text(find_answer(solution), f"{where}: the result in solution")


def _spell_answer(value: Any, what: str) -> str:
    """Return a true result, a text or a number, as a text."""
    if isinstance(value, str):
        return refuse_tags(require_text(value, what), what)
    if isinstance(value, float):
        return _plain_number(read_number(value, what))
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(
            f"{what} is a {type(value).__name__}, neither a text nor a number: {spell_value(value)}"
        )
    return str(value)


def _read_svamp(record: RawRecord, where: str) -> Problem:
    said = {key: require_text(record[key], f"{where}: {key}") for key in ("Body", "Question")}
    body, answer = said["Body"].strip(), _spell_answer(record["Answer"], f"{where}: Answer")
    try:
        answer = _plain_number(float(answer))
    except (ValueError, OverflowError):
        raise UserError(f"{where}: Answer is {spell_value(answer)}, not a finite number") from None
    question = f"{body}{'' if body.endswith(('.', '?', '!')) else '.'} {said['Question']}"
    equation = require_text(record["Equation"], f"{where}: Equation")
    equation = _DECIMAL_ZERO.sub(r"\1", refuse_tags(equation, f"{where}: Equation")).strip()
    equation = equation.removeprefix("(").removesuffix(")").strip()
    equation = equation.replace("( ", "(").replace(" )", ")")
    return Problem(question, f"{equation} = {answer}", answer)


def _plain_number(number: float | int) -> str:
    """Spell 12.0 as 12, and 0.5 as it is. ValueError or OverflowError for what is not finite."""
    return str(int(number)) if int(number) == number else str(number)


def find_images(config: MathConfig, record: RawRecord, path: Path) -> tuple[Path, ...]:
    """Return the pictures that a record names under `image` or `images`."""
    folder = path.parent if config.images is None else config.images
    return tuple(
        picture
        for key in ("image", "images")
        if key in record
        for picture in find_pictures(
            folder, record[key], f"math: {place_of(record)}: {key}", config.outside_images
        )
    )


def read_problems(config: MathConfig) -> dict[str, list[Problem]]:
    """Return the problems of each split that are not too long."""
    train = _read_fitting(config, config.train_path, "train")
    train, validation = hold_out(train, _question, config.held_out)
    if config.test_path is None:
        train, test = hold_out(train, _question, config.held_out)
    else:
        test = _read_fitting(config, config.test_path, "test")
    train = [problem for problem in train if _within(config.longest_thought, problem.thought)]
    splits = {"train": train, "validation": validation, "test": test}
    for split, problems in splits.items():
        if not problems:
            raise UserError(
                f"math: no {split} problems are left of {config.train_path} and "
                f"{config.test_path}; lower held_out (now {config.held_out}) or raise "
                "longest_question and longest_thought"
            )
    return splits


def _question(problem: Problem) -> str:
    return problem.question


def _read_fitting(config: MathConfig, path: Path, split: str) -> list[Problem]:
    problems = [
        read_problem(record)._replace(
            images=find_images(config, record, path),
            others=other_columns(record, (*_READ, *_READ_OF_SVAMP)),
        )
        for record in read_record_file(path, split)
    ]
    return [problem for problem in problems if _within(config.longest_question, problem.question)]


def _within(bound: int | None, text: str) -> bool:
    return bound is None or len(text) <= bound


def storage(config: MathConfig, data_dir: Path) -> Storage:
    """Describe the dataset on disk; reading it chooses how the question is put."""
    bounds = (config.held_out, config.longest_question, config.longest_thought)
    folder = None if config.images is None else str(config.images)  # where, not what is in it
    places = (folder, config.outside_images)
    name = f"math_{fingerprint(config.train_path, config.test_path, *bounds, *places)}"

    def records(split: str) -> Iterator[dict[str, Any]]:
        splits = read_problems(config)
        every = (problem.others for problems in splits.values() for problem in problems)
        others = spell_columns([problem.others for problem in splits[split]], every)
        for index, problem in enumerate(splits[split]):
            name = f"{split}/{index}"
            pictures = [read_picture(path, f"math: {name}") for path in problem.images]
            stored = {"images": pictures, "others": others[index]}
            yield {"id": name, **problem._asdict(), **stored}

    return Storage(
        name="math",
        directory=Path(data_dir) / name,
        features={
            **{field: tfds.features.Text() for field in _STORED_TEXTS},
            "images": tfds.features.Sequence(tfds.features.Text()),  # the bytes of their files
        },
        records=records,
        version="1.2.0",  # all keys of a record are kept
        description=__doc__ or "",
    )


def tokenizer_path(config: MathConfig, data_dir: Path) -> Path:
    """Return where `build` puts the SentencePiece model of this config."""
    form = f"{'explained' if config.explain else 'bare'}_{config.vocab_size}{wording(config)}"
    return dataset_directory(storage(config, data_dir)) / f"tokenizer_{form}.model"


def build(config: MathConfig, data_dir: Path) -> None:
    """Read the records and train the tokenizer; returns at once where both are there."""
    prepare(storage(config, data_dir))
    corpus = corpus_texts(
        source(config, data_dir, "train"), lambda example, rng: demonstrate(config, example, rng)
    )
    prepare_vocabulary(tokenizer_path(config, data_dir), corpus, config.vocab_size)


@dataclass(frozen=True)
class _Source:
    config: MathConfig
    records: Any  # TFDS's random access to one split
    picture: Callable[[bytes], np.ndarray] = read_rgb

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int, /) -> Example:
        stored = dict(self.records[index])
        pictures = stored.pop("images")
        record = {name: value.decode() for name, value in stored.items()}
        question = record["question"]
        return Example(
            question=pose_question(self.config, question),
            images=tuple(map(self.picture, pictures)),
            columns={
                **json.loads(record["others"]),
                "answer": record["answer"],
                "solution": record["thought"],
            },
            id=record["id"],
        )


def pose_question(config: MathConfig, question: str) -> str:
    """Put the instruction on a line of its own behind the question, where one is wanted."""
    words = _HOW_TO_ANSWER if config.instruction is None else config.instruction
    return f"{question}\n{words}" if config.explain and words else question


def source(config: MathConfig, data_dir: Path, split: str) -> ExampleSource:
    """Open random access to a split; raises UserError on an unknown split or before `build`.

    Columns: `answer`, the final result, `solution`, the thought that leads there, perhaps "", and
    the keys of the record that are none of these (`other_columns`).
    """
    return _Source(config, read_split(storage(config, data_dir), split))


def outline(config: MathConfig, data_dir: Path, split: str) -> ExampleSource:
    """Open the same with pictures of their size alone."""
    return _Source(config, read_split(storage(config, data_dir), split), outline_of)


def demonstrate(
    config: MathConfig, example: Example, rng: np.random.Generator
) -> Demonstration | None:
    """Demonstrate the record's own solution and result; None for a record without a solution."""
    thought = example.columns["solution"]
    return Demonstration(thought=thought, answer=example.columns["answer"]) if thought else None


def demonstrated_rows(config: MathConfig, data_dir: Path) -> list[int]:
    """Return the training records that have a solution."""
    return list(read_content(storage(config, data_dir)).traced["train"])


def metrics(
    config: MathConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `accuracy`: equal by the reward `math`; `parsed`: there is something."""
    term = RewardTerm("math")
    term = replace(term, options=term_options(config, term))
    truths = [example.columns["answer"] for example in examples]
    return {
        "accuracy": judge(term, answers, {"answer": truths}),
        "parsed": [float(_name_of(config, answer) is not None) for answer in answers],
    }


def group_metrics(
    config: MathConfig,
    answers: Sequence[str],
    example: Example,
    values: Mapping[str, Sequence[float]],
) -> dict[str, float]:
    """Measure `pass@k`, and `maj@n`: the chance that the result given most often is right.

    Results vote together where `read_answer` gives them the same name.
    """
    right = values["accuracy"]
    names = [_name_of(config, answer) for answer in answers]
    vote = majority_at_k(names, [value == 1.0 for value in right])
    return {**pass_rates(right), f"maj@{len(answers)}": vote}


def _name_of(config: MathConfig, answer: str) -> str | None:
    return read_answer(answer, strict=config.reading == "strict")


def term_options(config: MathConfig, term: RewardTerm) -> TermOptions:
    """Return how the task reads an answer, and its tolerance: those of its reward."""
    usual = MathConfig()
    chosen = {name: getattr(config, name) for name in ("relative_tolerance", "reading")}
    own = term.name == "math"
    return tuple((k, v) for k, v in chosen.items() if own and v != getattr(usual, k))


MATH = Task(
    config=MathConfig,
    build=build,
    source=source,
    outline=outline,
    content=content_by(storage),
    demonstrate=demonstrate,
    demonstrated_rows=demonstrated_rows,
    metrics=metrics,
    group_metrics=group_metrics,
    headline="accuracy",
    term_options=term_options,
    tokenizer_path=tokenizer_path,
    instructs=True,
)
