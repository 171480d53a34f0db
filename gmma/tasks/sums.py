"""Task `sums`: add up numbers of one digit, one step after another.

    question  3 + 8 + 5 + 9
    thought   3 + 8 = 11; 11 + 5 = 16; 16 + 9 = 25
    answer    25

The opposite of `digits`: a thought is many times as long as its answer, and the answer says what
the thought came to. Text alone, drawn and not read. Each number is one token.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds

from gmma.errors import UserError
from gmma.rewards.mathematics import read_answer
from gmma.rewards.terms import RewardTerm
from gmma.tasks.configs import TaskConfig
from gmma.tasks.judge import judge
from gmma.tasks.storage import (
    SPLITS,
    Storage,
    content_by,
    dataset_directory,
    prepare,
    read_split,
)
from gmma.tasks.task import Demonstration, ExampleSource, Task
from gmma.tasks.vocabulary import corpus_texts
from gmma.text.prompt import TAGS
from gmma.text.tokenizer import train_sentencepiece
from gmma.types import Example

LARGEST = 9  # of the numbers that are added; the least is 1


@dataclass(frozen=True, kw_only=True)
class SumsConfig(TaskConfig):
    """Numbers of a sum, problems of each split, and how often a demonstration adds wrongly."""

    name: Literal["sums"] = "sums"  # which task this is
    terms: int = 5  # numbers in a sum
    train_problems: int = 16384  # problems drawn for training
    validation_problems: int = 512  # problems drawn for evaluation during training
    test_problems: int = 512  # problems drawn for evaluation after it
    seed: int = 0  # of the problems
    step_error_rate: float = 0.3  # share of a demonstration's steps whose result is 1 too many;
    # what follows, the answer too, goes on from there
    vocab_size: int = 256  # upper bound of the SentencePiece vocabulary

    def __post_init__(self) -> None:
        self._require(self.terms >= 2, "terms", "at least 2")
        for split in SPLITS:
            field = f"{split}_problems"
            self._require(getattr(self, field) >= 1, field, "at least 1")
        self._require(self.seed >= 0, "seed", "0 or more")
        self._require(0 <= self.step_error_rate <= 1, "step_error_rate", "within 0 … 1")

    def _require(self, holds: bool, field: str, rule: str) -> None:
        if not holds:
            raise UserError(f"sums: {field} is {getattr(self, field)}; it must be {rule}")


def draw_problem(config: SumsConfig, split: str, index: int) -> dict[str, Any]:
    """Record `index` of `split`, a pure function of its arguments; no sum is in two splits."""
    rng = np.random.default_rng((config.seed, SPLITS.index(split), index))
    while True:
        terms = rng.integers(1, LARGEST + 1, config.terms).astype(np.int32)
        if split_of(terms) == split:
            return {"id": f"{split}/{index}", "terms": terms}


def split_of(terms: np.ndarray) -> str:
    """Return the split that a sum belongs to, by its hash: a tenth each for both held-out ones."""
    place = zlib.crc32(terms.astype("<i4").tobytes()) % 10
    return {0: "validation", 1: "test"}.get(place, "train")


def storage(config: SumsConfig, data_dir: Path) -> Storage:
    """Describe the dataset on disk; errors enter in `demonstrate`."""
    counts = "_".join(str(getattr(config, f"{split}_problems")) for split in SPLITS)

    def records(split: str) -> Iterator[dict[str, Any]]:
        for index in range(getattr(config, f"{split}_problems")):
            yield draw_problem(config, split, index)

    return Storage(
        name="sums",
        directory=Path(data_dir) / f"sums_{config.terms}terms_{counts}_seed{config.seed}",
        features={
            "id": tfds.features.Text(),
            "terms": tfds.features.Tensor(shape=(None,), dtype=np.int32),
        },
        records=records,
        description=__doc__ or "",
    )


def tokenizer_path(config: SumsConfig, data_dir: Path) -> Path:
    """Return where `build` puts the SentencePiece model of this config."""
    directory = dataset_directory(storage(config, data_dir))
    return directory / f"tokenizer_{config.vocab_size}.model"


def build(config: SumsConfig, data_dir: Path) -> None:
    """Draw the problems and train the tokenizer; returns at once where both are there."""
    prepare(storage(config, data_dir))
    path = tokenizer_path(config, data_dir)
    if not path.exists():
        results = map(str, range(LARGEST * config.terms + config.terms))  # of wrong sums too
        pieces = [*TAGS, *results, " + ", " = ", "; "]
        right = replace(config, step_error_rate=0.0)
        corpus = corpus_texts(source(config, data_dir, "train"), partial(demonstrate, right))
        train_sentencepiece(corpus, path, vocab_size=config.vocab_size, pieces=pieces)


def _read_example(record: Mapping[str, Any]) -> Example:
    terms = record["terms"].tolist()
    return Example(
        question=" + ".join(map(str, terms)),
        images=(),
        columns={"answer": str(sum(terms)), "terms": terms},
        id=record["id"],
    )


@dataclass(frozen=True)
class _Source:
    records: Any  # TFDS's random access to one split

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int, /) -> Example:
        record = self.records[index]
        return _read_example({**record, "id": record["id"].decode()})


def source(config: SumsConfig, data_dir: Path, split: str) -> ExampleSource:
    """Open random access to a split; raises UserError on an unknown split or before `build`.

    Columns: `answer`, the sum as a text; `terms`, what is added.
    """
    return _Source(read_split(storage(config, data_dir), split))


def demonstrate(config: SumsConfig, example: Example, rng: np.random.Generator) -> Demonstration:
    """Demonstrate the steps as a careless teacher takes them; our choice.

    A step's result is 1 too many with probability `step_error_rate`, and never too few: errors both
    ways would undo each other, and the reward would teach a network to err back. The teacher does
    not look back, so the answer follows from the thought, and a right answer takes right steps.
    """
    total, *others = example.columns["terms"]
    steps = []
    for term in others:
        off = int(rng.random() < config.step_error_rate)
        steps.append(f"{total} + {term} = {total + term + off}")
        total += term + off
    return Demonstration(thought="; ".join(steps), answer=str(total))


def metrics(
    config: SumsConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `accuracy`: the true sum, by the reward `math`; `parsed`: there is something."""
    truths = [example.columns["answer"] for example in examples]
    return {
        "accuracy": judge(RewardTerm("math"), answers, {"answer": truths}),
        "parsed": [float(read_answer(answer) is not None) for answer in answers],
    }


SUMS = Task(
    config=SumsConfig,
    build=build,
    source=source,
    content=content_by(storage),
    demonstrate=demonstrate,
    metrics=metrics,
    headline="accuracy",
    tokenizer_path=tokenizer_path,
)
