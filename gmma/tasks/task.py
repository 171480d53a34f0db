"""What the rest of gmma knows of a task: a record of functions, no base class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL.Image import Image

from gmma.answers.reading import Reading
from gmma.images.frames import Frame
from gmma.rewards.terms import RewardTerm
from gmma.types import Example

READING_TERMS = frozenset(
    (
        "affordance_points",
        "box_iou",
        "demand",
        "detection",
        "detection_ap",
        "manipulation",
        "manipulation_contact",
        "trajectory",
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
    """What SFT imitates, without tags: the text inside `<think>` and inside `<answer>`."""

    thought: str
    answer: str


def reading_options(reading: Reading, form: str, term: RewardTerm) -> TermOptions:
    """What a term needs to know of how answers are read, and of the form that is asked for."""
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
    """A metric of a whole split, and what it is on resampled splits."""

    value: float
    resampled: np.ndarray  # float64[R]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One dataset with its demonstrations, metrics and picture.

    `config` is the task's own frozen dataclass; every function takes an instance of it first.
    Splits are `train`, `validation` and `test`.
    """

    config: type
    build: Callable[[Any, Path], None]  # (config, data_dir): prepares the dataset; quick if done
    source: Callable[[Any, Path, str], ExampleSource]  # (config, data_dir, split)
    # (config, example, rng); None where there is nothing to imitate: the record has no trace
    demonstrate: Callable[[Any, Example, np.random.Generator], Demonstration | None] | None
    # (config, answers, examples) → metric name → one value per answer; an answer that cannot be
    # parsed counts at the worst value. Every task has `parsed`: 1 where the answer could be read.
    metrics: Callable[[Any, Sequence[str], Sequence[Example]], Mapping[str, Sequence[float]]]
    headline: str  # the metric that sums the task up
    # (config, the n answers to one example, example, the n values of each metric) → values of the
    # example, such as pass@k
    group_metrics: (
        Callable[[Any, Sequence[str], Example, Mapping[str, Sequence[float]]], Mapping[str, float]]
        | None
    ) = None
    draw: Callable[[Any, Example, Sequence[str]], Image]  # (config, example, answers): both drawn
    # (config, data_dir): a hash of all records of the built dataset, so that a run can tell whether
    # it goes on with the same ones
    content: Callable[[Any, Path], str]
    # (config, data_dir): rows of `train` that have a demonstration; None: every row has
    demonstrated_rows: Callable[[Any, Path], Sequence[int]] | None = None
    # (config, term): options that the task's own config gives to a term of the reward
    term_options: Callable[[Any, RewardTerm], TermOptions] = lambda config, term: ()
    # (config, example, frame) → the example asked and judged in a model family's coordinates;
    # None: the dataset is in the coordinates that are asked for
    in_frame: Callable[[Any, Example, Frame], Example] | None = None
    # (config, example, rng) → a training example changed, its truth in step; before `in_frame`
    augment: Callable[[Any, Example, np.random.Generator], Example] | None = None
    # (config, one answer per example, examples, picks[R N]) → metrics that only a whole split has,
    # each with R values on resampled examples, whose rows are `picks`
    corpus: (
        Callable[[Any, Sequence[str], Sequence[Example], np.ndarray], Mapping[str, CorpusFigure]]
        | None
    ) = None
    tokenizer_path: Callable[[Any, Path], Path] | None = (
        None  # (config, data_dir): its own tokenizer
    )
    # (config, rng, count, patch_pixels): where the task can teach a vision stem
    patches: Callable[[Any, np.random.Generator, int, int], Patches] | None = None
