"""The order of a mixture's rows, and the source that reads several parts as one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gmma.tasks.task import ExampleSource
from gmma.types import Example


def interleave(counts: Sequence[int]) -> np.ndarray:
    """Return the part of each row, `int[Σ counts]`, every part as evenly spread as it can be.

    >>> interleave([4, 2]).tolist()
    [0, 1, 0, 0, 1, 0]
    """
    place = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    part = np.repeat(np.arange(len(counts)), counts)
    return part[np.lexsort((part, place))]


def training_counts(lengths: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Return each part's rows in one epoch: by the weights, none below the part's length.

    >>> training_counts([10, 100], [1.0, 1.0]), training_counts([10, 100], [1.0, 4.0])
    ([100, 100], [25, 100])
    """
    unit = max(length / weight for length, weight in zip(lengths, weights, strict=True))
    return [
        max(length, round(unit * weight)) for length, weight in zip(lengths, weights, strict=True)
    ]


def turns(lengths: Sequence[int]) -> np.ndarray:
    """Return the parts in turn, each until its records are used up.

    >>> turns([1, 3]).tolist()
    [0, 1, 1, 1]
    """
    row = np.concatenate([np.arange(length) for length in lengths])
    part = np.repeat(np.arange(len(lengths)), lengths)
    return part[np.lexsort((part, row))]


def place_rows(parts: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Return (part, row) of each row: a part's records in order, and from the first again."""
    rows = np.zeros_like(parts)
    for index, length in enumerate(lengths):
        own = parts == index
        rows[own] = np.arange(own.sum()) % length
    return np.stack([parts, rows], axis=1)


@dataclass(frozen=True)
class MixedSource:
    """Rows of several sources as one, each with the columns of all and the label of its own."""

    titles: tuple[str, ...]  # labels of the parts
    sources: tuple[ExampleSource, ...]
    places: np.ndarray  # int[N, 2]: part and row of each
    columns: tuple[str, ...]  # of all parts

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int, /) -> Example:
        part, row = self.places[index].tolist()
        example, title = self.sources[part][row], self.titles[part]
        columns = {**dict.fromkeys(self.columns), **example.columns, "task": title}
        return replace(example, columns=columns, id=f"{title}/{example.id}")


@dataclass(frozen=True)
class AskedSource:
    """A source whose examples are changed as they are read."""

    source: ExampleSource
    ask: Callable[[Example], Example]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Example:
        return self.ask(self.source[index])
