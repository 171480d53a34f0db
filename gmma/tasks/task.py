"""The interface of a task to the rest of gmma: a record of functions, no base class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from PIL.Image import Image

from gmma.answers.reading import Reading
from gmma.images.frames import Frame
from gmma.options.prompt import require_no_mark
from gmma.rewards.terms import RewardTerm
from gmma.tasks.configs import TaskConfig
from gmma.types import Example

READING_TERMS = frozenset(
    (
        "affordance_points",
        "box_iou",
        "boxes",
        "choice",
        "demand",
        "detection",
        "detection_ap",
        "manipulation",
        "manipulation_contact",
        "points",
        "trajectory",
        "vqa",
    )
)
TermOptions = tuple[tuple[str, str | int | float | bool], ...]


@runtime_checkable
class ExampleSource(Protocol):
    """Random access to the examples of one split."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Example: ...


@dataclass(frozen=True)
class Rows:
    """Some examples of a source, in the order of their rows there."""

    source: ExampleSource
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Example:
        return self.source[self.rows[index]]


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """Target of SFT, without tags: the text inside `<think>` and inside `<answer>`."""

    thought: str
    answer: str


def reading_options(reading: Reading, form: str, term: RewardTerm) -> TermOptions:
    """Return a term's options: how answers are read, and the form that is asked for."""
    if term.name in READING_TERMS:
        return (("reading", reading),)
    return (("form", form),) if term.name == "answer_form" else ()


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Labelled patches on which a young vision stem learns to see, as a ported one already does."""

    pixels: np.ndarray  # uint8[N, p, p, 3]
    labels: np.ndarray  # int32[N, targets]; −1 where a target does not apply
    classes: tuple[int, ...]  # number of classes of each target


@dataclass(frozen=True, kw_only=True)
class CorpusFigure:
    """A metric of a whole split, and its values on resampled splits."""

    value: float
    resampled: np.ndarray  # float64[R]


C = TypeVar("C", bound=TaskConfig)
C_in = TypeVar("C_in", bound=TaskConfig, contravariant=True)


class Build(Protocol[C_in]):
    """Prepare the dataset under a directory; quick where it is there. UserError for bad records."""

    def __call__(self, config: C_in, data_dir: Path) -> None: ...


class OpenSource(Protocol[C_in]):
    """Open a built split: `train`, `validation` or `test`."""

    def __call__(self, config: C_in, data_dir: Path, split: str) -> ExampleSource: ...


class OpenOutline(Protocol[C_in]):
    """Open a built split whose images have their size alone (`gmma.images.common.outline_of`).

    None where that would take as long as to read them.
    """

    def __call__(self, config: C_in, data_dir: Path, split: str) -> ExampleSource | None: ...


class HashContent(Protocol[C_in]):
    """Hash all records of the built dataset, so that a run can tell whether they changed."""

    def __call__(self, config: C_in, data_dir: Path) -> str: ...


class Demonstrate(Protocol[C_in]):
    """Make what SFT imitates; None where there is nothing: the record has no trace."""

    def __call__(
        self, config: C_in, example: Example, rng: np.random.Generator
    ) -> Demonstration | None: ...


class FindDemonstrated(Protocol[C_in]):
    """List the rows of `train` that have a demonstration."""

    def __call__(self, config: C_in, data_dir: Path) -> Sequence[int]: ...


class Measure(Protocol[C_in]):
    """Judge one answer to each example: metric name → one value an answer.

    An answer that cannot be read counts at the worst value. Every task has `parsed`: 1 where the
    answer could be read.
    """

    def __call__(
        self, config: C_in, answers: Sequence[str], examples: Sequence[Example]
    ) -> Mapping[str, Sequence[float]]: ...


class MeasureGroup(Protocol[C_in]):
    """Judge the n answers to one example together, such as pass@k; `values` are their metrics."""

    def __call__(
        self,
        config: C_in,
        answers: Sequence[str],
        example: Example,
        values: Mapping[str, Sequence[float]],
    ) -> Mapping[str, float]: ...


class MeasureSplit(Protocol[C_in]):
    """Compute metrics that only a whole split has, from one answer an example.

    `picks`, int[R N], are rows of R resampled splits, on each of which the metric is measured too.
    """

    def __call__(
        self,
        config: C_in,
        answers: Sequence[str],
        examples: Sequence[Example],
        picks: np.ndarray,
    ) -> Mapping[str, CorpusFigure]: ...


class Draw(Protocol[C_in]):
    """Draw truth and some answers on an example's first image; None: there is nothing to draw on.

    Question, rewards, texts and further images are added below (`defaults.draw_answers`).
    """

    def __call__(self, config: C_in, example: Example, answers: Sequence[str]) -> Image | None: ...


class PartOf(Protocol[C_in]):
    """Return the task that an example of a mixture is of, its config, and the example in it."""

    def __call__(
        self, config: C_in, example: Example
    ) -> "tuple[Task[Any], TaskConfig, Example]": ...


class OptionsOf(Protocol[C_in]):
    """Return the options that the task's own config gives to a term of the reward."""

    def __call__(self, config: C_in, term: RewardTerm) -> TermOptions: ...


class InFrame(Protocol[C_in]):
    """Ask and judge an example in a model family's coordinates."""

    def __call__(self, config: C_in, example: Example, frame: Frame) -> Example: ...


class Augment(Protocol[C_in]):
    """Change a training example, its truth in step; before `in_frame`."""

    def __call__(self, config: C_in, example: Example, rng: np.random.Generator) -> Example: ...


class TokenizerPath(Protocol[C_in]):
    """Return the SentencePiece model of the task's own text, which `build` has trained."""

    def __call__(self, config: C_in, data_dir: Path) -> Path: ...


class MakePatches(Protocol[C_in]):
    """Make labelled patches that teach a vision stem."""

    def __call__(
        self, config: C_in, rng: np.random.Generator, count: int, patch_pixels: int
    ) -> Patches: ...


def join_words(question: str, words: Sequence[str]) -> str:
    """Put words behind a question, behind a space unless it ends a line.

    >>> join_words("Which?", ["Say it."]), join_words("A. one\\n", ["Say", "", "it."])
    ('Which? Say it.', 'A. one\\nSay it.')
    """
    behind = " ".join(word for word in words if word)
    space = " " if behind and not question.endswith("\n") else ""
    return f"{question}{space}{behind}"


def nothing_to_build(config: TaskConfig, data_dir: Path) -> None:
    """Do nothing: the dataset needs no preparation."""


def no_options(config: TaskConfig, term: RewardTerm) -> TermOptions:
    """Return no options."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Task(Generic[C]):
    """One dataset with its demonstrations, metrics and picture; `C` is its frozen dataclass.

    Your own comes in as `task.name = module:NAME` (`docs/extending.md`). Required are `config`,
    `source`, `metrics` and `headline`.
    """

    config: type[C]
    source: OpenSource[C]
    metrics: Measure[C]
    headline: str  # the metric that sums the task up
    build: Build[C] = nothing_to_build
    content: HashContent[C] | None = None  # None: a hash of every example
    outline: OpenOutline[C] | None = None  # None: `source` unpacks every picture
    demonstrate: Demonstrate[C] | None = None  # None: RL alone
    demonstrated_rows: FindDemonstrated[C] | None = None  # None: every row has a demonstration
    group_metrics: MeasureGroup[C] | None = None
    corpus: MeasureSplit[C] | None = None
    draw: Draw[C] | None = None  # None: the images as they are
    legend: str = ""  # what the colours of `draw` mean
    answer_colour: Callable[[int], tuple[int, int, int]] | None = None  # of the answer of a number
    part_of: PartOf[C] | None = None  # of a mixture
    term_options: OptionsOf[C] = no_options
    in_frame: InFrame[C] | None = None  # None: coordinates, if any, are asked as they are stored
    augment: Augment[C] | None = None
    tokenizer_path: TokenizerPath[C] | None = None  # None: one is trained on the task's texts
    patches: MakePatches[C] | None = None
    # Its questions have the config's `instruction` already; else `ask` puts it behind them
    instructs: bool = False


def ask(task: Task[Any], config: TaskConfig, example: Example, frame: Frame) -> Example:
    """Return an example as it is asked: in a family's coordinates, with the words of its config."""
    asked = example if task.in_frame is None else task.in_frame(config, example, frame)
    if config.instruction and not task.instructs:
        asked = replace(asked, question=join_words(asked.question, [config.instruction]))
    asked = asked if config.system is None else replace(asked, system=config.system)
    if asked.images:
        require_no_mark(f"the system prompt of record {asked.id}", asked.system)
    return asked
