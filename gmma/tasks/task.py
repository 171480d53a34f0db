"""What the rest of gmma knows of a task: a record of functions, no base class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL.Image import Image

from gmma.types import Example


@runtime_checkable
class ExampleSource(Protocol):
    """Random access to the examples of one split."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Example: ...


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """What SFT imitates, without tags: the text inside `<think>` and inside `<answer>`."""

    thought: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Labelled patches on which a young vision stem learns to see, as a ported one already does."""

    pixels: np.ndarray  # uint8[N, p, p, 3]
    labels: np.ndarray  # int32[N, targets]; −1 where a target does not apply
    classes: tuple[int, ...]  # number of classes of each target


@dataclass(frozen=True, kw_only=True)
class Task:
    """One dataset with its demonstrations, metrics and picture.

    `config` is the task's own frozen dataclass; every function takes an instance of it first.
    Splits are `train`, `validation` and `test`.
    """

    config: type
    build: Callable[[Any, Path], None]  # (config, data_dir): prepares the dataset; quick if done
    source: Callable[[Any, Path, str], ExampleSource]  # (config, data_dir, split)
    demonstrate: Callable[[Any, Example, np.random.Generator], Demonstration] | None
    # (config, answers, examples) → metric name → one value per answer; an answer that cannot be
    # parsed counts at the worst value. Every task has `parsed`: 1 where the answer could be read.
    metrics: Callable[[Any, Sequence[str], Sequence[Example]], Mapping[str, Sequence[float]]]
    headline: str  # the metric that sums the task up
    draw: Callable[[Any, Example, Sequence[str]], Image]  # (config, example, answers): both drawn
    tokenizer_path: Callable[[Any, Path], Path] | None = (
        None  # (config, data_dir): its own tokenizer
    )
    # (config, rng, count, patch_pixels): where the task can teach a vision stem
    patches: Callable[[Any, np.random.Generator, int, int], Patches] | None = None
