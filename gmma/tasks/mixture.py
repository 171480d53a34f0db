"""Task `mixture`: several tasks in one run, each with its share of the prompts.

The method trains one model on diverse tasks: SFT on the records that have a reasoning trace, RL on
all. Every example carries the column `task`, the label of its part; a reward term with that `task`
counts for those rows alone, and so do metrics, whose names begin with the label. A column that only
another part has is None.

Training rows are interleaved by weight, the same way every time: over one epoch each part comes in
proportion to its weight, and every record of it at least once. Held-out splits hold each record
once, the parts in turn.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gmma.errors import UserError
from gmma.images.frames import STORED_PIXELS, Frame
from gmma.rewards.terms import RewardTerm
from gmma.tasks import find_task
from gmma.tasks.configs import AnyTaskConfig, TaskConfig
from gmma.tasks.defaults import hash_content
from gmma.tasks.mixing import (
    AskedSource,
    MixedSource,
    interleave,
    place_rows,
    training_counts,
    turns,
)
from gmma.tasks.records import fingerprint
from gmma.tasks.task import (
    CorpusFigure,
    Demonstration,
    ExampleSource,
    Patches,
    Task,
    TermOptions,
    ask,
)
from gmma.tasks.vocabulary import corpus_texts, prepare_vocabulary
from gmma.types import Example

_LONGEST_LABEL = 64  # bytes: what travels between hosts


@dataclass(frozen=True, kw_only=True)
class MixturePart:
    """One task of a mixture."""

    task: AnyTaskConfig
    weight: float = 1.0  # its share of the training rows, relative to the other parts'
    label: str = ""  # what columns, terms and metrics call it; "": the task's name

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise UserError(f"mixture: the weight of {self.title} is {self.weight}; it must be > 0")
        if "/" in self.title or len(self.title.encode()) > _LONGEST_LABEL:
            raise UserError(
                f"mixture: the label {self.title!r} must hold no /, which metrics use, and no more "
                f"than {_LONGEST_LABEL} bytes; give the part a label"
            )

    @property
    def title(self) -> str:
        """The label, or the task's name."""
        return self.label or self.task.name


@dataclass(frozen=True, kw_only=True)
class MixtureConfig(TaskConfig):
    """The tasks of a mixture, and their proportions."""

    name: Literal["mixture"] = "mixture"  # which task this is
    parts: tuple[MixturePart, ...]  # the command line changes a part by its place, from 0 on
    vocab_size: int = 4096  # upper bound of the SentencePiece vocabulary of all parts together

    def __post_init__(self) -> None:
        titles = self.titles
        if len(titles) < 1 or len(set(titles)) < len(titles):
            raise UserError(
                f"mixture: the parts are {', '.join(titles) or 'none'}; give at least one, and "
                "each a label of its own"
            )
        leaving = [part.title for part in self.parts if part.task.too_long == "leave_out"]
        if leaving and self.too_long == "refuse":
            raise UserError(
                f"mixture: {leaving[0]} has too_long = leave_out, but the slots are those of all "
                "parts: set task.too_long of the mixture"
            )
        if self.instruction is not None:
            raise UserError(
                "mixture: an instruction says how to answer one task; set that of each part"
            )
        worded = [part.title for part in self.parts if part.task.system is not None]
        if worded and self.system is not None:
            raise UserError(
                f"mixture: it has a system prompt for all parts, and {worded[0]} one of its own; "
                "leave one of them"
            )

    @property
    def titles(self) -> tuple[str, ...]:
        """The labels in order."""
        return tuple(part.title for part in self.parts)

    def part(self, title: str) -> MixturePart:
        """Return the part with this label."""
        return self.parts[self.titles.index(title)]


def source(config: MixtureConfig, data_dir: Path, split: str) -> MixedSource:
    """Open random access to a split; raises UserError on an unknown split or before `build`."""
    sources = tuple(
        find_task(part.task.name).source(part.task, data_dir, split) for part in config.parts
    )
    return mix(config, sources, split)


def outline(config: MixtureConfig, data_dir: Path, split: str) -> MixedSource | None:
    """Open the same with images of their size alone; None where a part cannot."""
    found = []
    for part in config.parts:
        open_part = find_task(part.task.name).outline
        own = None if open_part is None else open_part(part.task, data_dir, split)
        if own is None:
            return None
        found.append(own)
    return mix(config, tuple(found), split)


def mix(config: MixtureConfig, sources: tuple[ExampleSource, ...], split: str) -> MixedSource:
    """Return the rows of all parts as one source."""
    lengths = [len(found) for found in sources]
    if split == "train":
        parts = interleave(training_counts(lengths, [part.weight for part in config.parts]))
    else:
        parts = turns(lengths)
    columns = dict.fromkeys(name for found in sources for name in found[0].columns)
    return MixedSource(config.titles, sources, place_rows(parts, lengths), tuple(columns))


def content(config: MixtureConfig, data_dir: Path) -> str:
    """Hash the records of every part."""
    return fingerprint(
        *(hash_content(find_task(part.task.name), part.task, data_dir) for part in config.parts)
    )


def demonstrated_rows(config: MixtureConfig, data_dir: Path) -> list[int]:
    """Return the rows of `train` whose record has a demonstration."""
    mixed = source(config, data_dir, "train")
    shown = []
    for part, found in zip(config.parts, mixed.sources, strict=True):
        task, has = find_task(part.task.name), np.zeros(len(found), bool)
        if task.demonstrate is not None:
            rows_of = task.demonstrated_rows
            has[slice(None) if rows_of is None else list(rows_of(part.task, data_dir))] = True
        shown.append(has)
    return np.flatnonzero([shown[part][row] for part, row in mixed.places]).tolist()


def build(config: MixtureConfig, data_dir: Path) -> None:
    """Build every part, and train the tokenizer of all together."""
    for part in config.parts:
        find_task(part.task.name).build(part.task, data_dir)
    path = tokenizer_path(config, data_dir)
    prepare_vocabulary(path, read_corpus(config, data_dir), config.vocab_size)


def tokenizer_path(config: MixtureConfig, data_dir: Path) -> Path:
    """Return where `build` puts the SentencePiece model; its name follows those of its parts."""
    parts = []
    for part in config.parts:
        own = find_task(part.task.name).tokenizer_path
        parts.append(str(part.task) if own is None else str(own(part.task, Path())))
    return (
        Path(data_dir) / f"mixture_{fingerprint(*parts)}" / f"tokenizer_{config.vocab_size}.model"
    )


def read_corpus(config: MixtureConfig, data_dir: Path) -> Iterator[str]:
    """Yield prompts and responses of every part, one part after the other."""

    def ask(example: Example) -> Example:
        return in_frame(config, example, STORED_PIXELS)

    for part in config.parts:
        found = source(replace(config, parts=(part,)), data_dir, "train")
        yield from corpus_texts(AskedSource(found, ask), partial(demonstrate, config))


def part_of(config: MixtureConfig, example: Example) -> tuple[Task, Any, Example]:
    """Return an example's task, its config, and the example without the column that names it."""
    part = config.part(example.columns["task"])
    columns = {name: value for name, value in example.columns.items() if name != "task"}
    return find_task(part.task.name), part.task, replace(example, columns=columns)


def demonstrate(
    config: MixtureConfig, example: Example, rng: np.random.Generator
) -> Demonstration | None:
    """Demonstrate as the example's own task does; None where the task or the record has none."""
    task, own, bare = part_of(config, example)
    return None if task.demonstrate is None else task.demonstrate(own, bare, rng)


def in_frame(config: MixtureConfig, example: Example, frame: Frame) -> Example:
    """Ask the example as its own task does."""
    task, own, bare = part_of(config, example)
    asked = ask(task, own, bare, frame)
    return example if asked is bare else _merged(example, asked)


def augment(config: MixtureConfig, example: Example, rng: np.random.Generator) -> Example:
    """Change the example, where its task can."""
    task, own, bare = part_of(config, example)
    return example if task.augment is None else _merged(example, task.augment(own, bare, rng))


def _merged(example: Example, changed: Example) -> Example:
    return replace(changed, columns={**example.columns, **changed.columns})


def by_part(
    config: MixtureConfig, examples: Sequence[Example]
) -> Iterator[tuple[str, Task, Any, list[int], list[Example]]]:
    """Yield label, task, config, rows and examples of every part that is among them."""
    for part in config.parts:
        rows = [row for row, e in enumerate(examples) if e.columns["task"] == part.title]
        if rows:
            bare = [part_of(config, examples[row])[2] for row in rows]
            yield part.title, find_task(part.task.name), part.task, rows, bare


def metrics(
    config: MixtureConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `{label}/{metric}` of each part, `score` and `parsed`.

    Other parts' answers have NaN. `score` is the headline metric of the answer's own task.
    """
    found: dict[str, np.ndarray] = {}
    for title, task, own, rows, bare in by_part(config, examples):
        measured = task.metrics(own, [answers[row] for row in rows], bare)
        named = {f"{title}/{name}": values for name, values in measured.items()}
        named |= {"score": measured[task.headline], "parsed": measured["parsed"]}
        for name, values in named.items():
            found.setdefault(name, np.full(len(answers), np.nan))[rows] = values
    return {name: values.tolist() for name, values in found.items()}


def group_metrics(
    config: MixtureConfig,
    answers: Sequence[str],
    example: Example,
    values: Mapping[str, Sequence[float]],
) -> dict[str, float]:
    """Measure an example's answers together as its own task does, behind the label."""
    task, own, bare = part_of(config, example)
    if task.group_metrics is None:
        return {}
    title = example.columns["task"]
    mine = {n.removeprefix(f"{title}/"): v for n, v in values.items() if n.startswith(f"{title}/")}
    said = task.group_metrics(own, answers, bare, mine)
    return {f"{title}/{name}": value for name, value in said.items()}


def corpus(
    config: MixtureConfig,
    answers: Sequence[str],
    examples: Sequence[Example],
    picks: np.ndarray,
) -> dict[str, CorpusFigure]:
    """Measure what only a whole split has, of each part on its own examples.

    Each part is resampled among its own, as often as the mixture is.
    """
    figures: dict[str, CorpusFigure] = {}
    for title, task, own, rows, bare in by_part(config, examples):
        if task.corpus is not None:
            drawn = np.random.default_rng(0).integers(0, len(rows), (len(picks), len(rows)))
            found = task.corpus(own, [answers[row] for row in rows], bare, drawn)
            figures |= {f"{title}/{name}": figure for name, figure in found.items()}
    return figures


def term_options(config: MixtureConfig, term: RewardTerm) -> TermOptions:
    """Return what the term's own task adds to it; for a term of every task, what any adds."""
    own = [part for part in config.parts if term.task in (None, part.title)]
    added = (find_task(part.task.name).term_options(part.task, term) for part in own)
    options = tuple(dict.fromkeys(option for options in added for option in options))
    names = [name for name, _ in options]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"reward '{term.name}': the tasks of the mixture set its option {name} to "
                f"{' and '.join(repr(value) for key, value in options if key == name)}; write one "
                "such term for each, with its task"
            )
    return options


def patches(
    config: MixtureConfig, rng: np.random.Generator, count: int, patch_pixels: int
) -> Patches:
    """Return the patches of the first part that can teach a vision stem."""
    for part in config.parts:
        draw_patches = find_task(part.task.name).patches
        if draw_patches is not None:
            return draw_patches(part.task, rng, count, patch_pixels)
    raise UserError(
        f"none of {', '.join(config.titles)} can teach the patch stem; set model.stem_steps to 0"
    )


MIXTURE = Task(
    config=MixtureConfig,
    build=build,
    source=source,
    outline=outline,
    content=content,
    demonstrate=demonstrate,
    demonstrated_rows=demonstrated_rows,
    metrics=metrics,
    headline="score",
    group_metrics=group_metrics,
    part_of=part_of,
    term_options=term_options,
    in_frame=in_frame,
    augment=augment,
    corpus=corpus,
    tokenizer_path=tokenizer_path,
    patches=patches,
    instructs=True,
)
