"""Shared parts of the tasks on real images: records, frames, augmentation, an own tokenizer.

A task describes itself as a `Visual`; `visual_task` makes a `Task` of it. Examples come in pixels
of the stored image; `in_frame` asks them in a model family's coordinates. Columns of every example:

    answer       the truth in the units of the example
    image_size   [w, h] of the first image in those units
    pixels       [w, h] of the first image in pixels
    thought      a reasoning trace where the record brings one, else ""
    taught       whether SFT imitates the example (the field `demonstrations`)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from PIL.Image import Image

from gmma.answers.reading import Number, Reading
from gmma.errors import UserError
from gmma.images.common import outline_of
from gmma.images.frames import AxisMap, Frame, between, square_frame
from gmma.rewards.terms import RewardTerm
from gmma.tasks.augment import AugmentConfig, Geometry, augment_example
from gmma.tasks.configs import TaskConfig, require_asked
from gmma.tasks.drawing import LEGEND, Board, guess_colour
from gmma.tasks.manifest import (
    ManifestRecord,
    RecordsConfig,
    StoredRecord,
    manifest_storage,
    read_back,
)
from gmma.tasks.public import is_public, open_builder, open_public
from gmma.tasks.records import fingerprint
from gmma.tasks.storage import Storage, dataset_directory, prepare, read_content, read_split
from gmma.tasks.task import (
    Demonstrate,
    Demonstration,
    ExampleSource,
    MakePatches,
    Measure,
    MeasureSplit,
    Rows,
    Task,
    TermOptions,
    ask,
    join_words,
    reading_options,
)
from gmma.tasks.truths import require_on_image
from gmma.tasks.vocabulary import corpus_texts, prepare_vocabulary, wording
from gmma.types import Example

_CORPUS_RECORDS = 512
Demonstrations = Literal["own", "made", "none"]


@dataclass(frozen=True, kw_only=True)
class AskedConfig(TaskConfig):
    """Settings of how a record is asked, shown, read and varied."""

    # Text of the prompt beside the question: the form of an answer and the frame of its
    # coordinates, the frame alone (where the questions say the form), or nothing
    explain: Literal["all", "frame", "nothing"] = "all"
    # Records that SFT imitates: those that bring a trace of their own (own); every record, with a
    # trace made from the truth where it brings none (made); nothing (none). None: own where any
    # training record brings a trace, else made
    demonstrations: Demonstrations | None = None
    # The reading of boxes, points and paths in rewards, metrics and pictures alike: in any common
    # form (two answers where one was asked for are none), or in the form of the prompt alone
    reading: Reading = "lenient"
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # of training examples
    tiny_pixels: int = 48  # the task's own tokenizer, for the tiny family, spells each whole number
    # up to this as one token: the side of that family's image
    vocab_size: int = 1024  # upper bound of that tokenizer's vocabulary

    def __post_init__(self) -> None:
        require_asked(self, self.explain == "all")
        if self.tiny_pixels < 1:
            raise UserError(f"tiny_pixels = {self.tiny_pixels}; it must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class VisualConfig(AskedConfig):
    """Settings that the tasks on real images share."""

    records: RecordsConfig = field(default_factory=RecordsConfig)


V = TypeVar("V", bound=AskedConfig)


@dataclass(frozen=True, kw_only=True)
class Visual(Generic[V]):
    """The parts of a task on real images that are its own."""

    name: str
    config: type[V]
    # (config, answer, mask) → the columns of its truth, in pixels. UserError where it is no truth
    # for this task; the message gets the record's name
    read_truth: Callable[[V, Any, np.ndarray | None], dict[str, Any]]
    # (answer, map): a record's answer that `read_truth` takes, with its coordinates mapped
    place: Callable[[Any, AxisMap], Any]
    geometry: Geometry
    instruct: Callable[[V], str]  # how to answer
    # Whether the frame matters to an answer
    speaks_coordinates: Callable[[V], bool] = lambda config: True
    # The system prompt that a record's answer brings; "": none
    system: Callable[[Any], str] = lambda answer: ""
    demonstrate: Demonstrate[V]
    metrics: Measure[V]
    headline: str
    form: Callable[[V], str] | None = None  # of an answer: a key of `answer_form.FORMS`
    # None: nothing of truth and answers is a place in the image
    draw: Callable[[V, Example, Sequence[str], Board], None] | None = None
    takes: Callable[[V, Any], bool] = lambda config, answer: True  # whether it wants a record
    storage: Callable[[V, Path], Storage] | None = None  # None: of the config's records
    pieces: tuple[str, ...] = ()  # what else is one token of the task's own tokenizer
    corpus: MeasureSplit[V] | None = None
    patches: MakePatches[V] | None = None


def visual_task(visual: Visual[V]) -> Task[V]:
    """Return the task behind its description."""
    return Task(
        config=visual.config,
        build=partial(build, visual),
        source=partial(source, visual),
        outline=partial(outline, visual),
        content=partial(content, visual),
        demonstrate=partial(demonstrate, visual),
        demonstrated_rows=partial(demonstrated_rows, visual),
        metrics=visual.metrics,
        headline=visual.headline,
        draw=partial(draw, visual),
        legend=LEGEND,
        answer_colour=guess_colour,
        term_options=partial(term_options, visual),
        in_frame=partial(in_frame, visual),
        augment=partial(augment, visual),
        corpus=visual.corpus,
        tokenizer_path=partial(tokenizer_path, visual),
        patches=visual.patches,
        instructs=True,
    )


def storage(visual: Visual[V], config: V, data_dir: Path) -> Storage:
    """Return the dataset on disk, in pixels of the stored images."""
    if visual.storage is not None:
        return visual.storage(config, data_dir)
    return records_storage(visual, config, data_dir)


def records_storage(visual: Visual[V], config: V, data_dir: Path) -> Storage:
    """Describe the records of a config's files, answers checked, in pixels of upright images."""
    assert isinstance(config, VisualConfig), "a task on other records brings its own storage"
    records = config.records

    def accept(record: ManifestRecord, size: tuple[int, int], mask: np.ndarray | None) -> Any:
        columns = visual.read_truth(config, record.answer, mask)
        units = between(records.frame_size(size), size)
        answer = record.answer
        if units != AxisMap():
            answer = visual.place(answer, units)
            columns = visual.read_truth(config, answer, mask)
        # A mask lies over the image by itself; what the record says in numbers must do so too.
        bounds = visual.geometry.bounds({**columns, "mask": None})
        if bounds is not None and answer is not None:
            require_on_image(bounds, size, units, records.frame, record.answer)
        return answer

    return manifest_storage(
        visual.name,
        records,
        data_dir,
        accept,
        lambda record: visual.takes(config, record.answer),
    )


def build(visual: Visual[V], config: V, data_dir: Path) -> None:
    """Store the records and train the task's own tokenizer, where they are not there."""
    if (public := public_records(visual, config)) is not None:
        open_builder(public.train)  # or says how to prepare it
    else:
        prepare(storage(visual, config, data_dir))
    path = tokenizer_path(visual, config, data_dir)
    corpus = read_corpus(visual, config, data_dir)
    prepare_vocabulary(path, corpus, config.vocab_size, pieces_of(visual, config))


def public_records(visual: Visual[V], config: V) -> RecordsConfig | None:
    """Return the place of records that are read where TFDS prepared them; None for others."""
    if visual.storage is not None or not isinstance(config, VisualConfig):
        return None
    return config.records if is_public(config.records) else None


@dataclass(frozen=True)
class Framed:
    """Examples, each asked in a frame."""

    examples: ExampleSource
    ask: Callable[[Example], Example]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> Example:
        return self.ask(self.examples[index])


@dataclass(frozen=True)
class _Source:
    visual: Visual
    config: Any
    records: Any  # random access to one split
    read: Callable[[Any], StoredRecord]
    kind: Demonstrations

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int, /) -> Example:
        return to_example(self.visual, self.config, self.read(self.records[index]), self.kind)


def source(visual: Visual[V], config: V, data_dir: Path, split: str) -> ExampleSource:
    """Open random access to a split, in pixels of the stored images."""
    kind = demonstrations(visual, config, data_dir)
    if (public := public_records(visual, config)) is not None:
        rows = open_public(public, split)
        return _Source(visual, config, rows, lambda record: record, kind)
    stored = read_split(storage(visual, config, data_dir), split)
    return _Source(visual, config, stored, read_back, kind)


def outline(visual: Visual[V], config: V, data_dir: Path, split: str) -> ExampleSource | None:
    """Open random access to a split with images of their size alone; None for a public dataset."""
    if public_records(visual, config) is not None:
        return None
    kind = demonstrations(visual, config, data_dir)
    stored = read_split(storage(visual, config, data_dir), split)
    return _Source(visual, config, stored, partial(read_back, picture=outline_of), kind)


def demonstrations(visual: Visual[V], config: V, data_dir: Path) -> Demonstrations:
    """Return the source of demonstrations: the config's, or else the training records'."""
    if config.demonstrations is not None:
        return config.demonstrations
    return "own" if traced_rows(visual, config, data_dir) else "made"


def traced_rows(visual: Visual[V], config: V, data_dir: Path) -> Sequence[int]:
    """Return the training records that bring a trace; those that TFDS prepared bring none."""
    if public_records(visual, config) is not None:
        return ()
    return read_content(storage(visual, config, data_dir)).traced["train"]


def demonstrated_rows(visual: Visual[V], config: V, data_dir: Path) -> Sequence[int]:
    """Return the training records that SFT imitates."""
    kind = demonstrations(visual, config, data_dir)
    if kind == "own":
        return traced_rows(visual, config, data_dir)
    return range(len(source(visual, config, data_dir, "train")) if kind == "made" else 0)


def demonstrate(
    visual: Visual[V], config: V, example: Example, rng: np.random.Generator
) -> Demonstration | None:
    """Return an example's demonstration; None where it is not taught."""
    return visual.demonstrate(config, example, rng) if example.columns["taught"] else None


def content(visual: Visual[V], config: V, data_dir: Path) -> str:
    """Return a hash of the records; of those that TFDS prepared, of its own account of them."""
    if (public := public_records(visual, config)) is not None:
        return fingerprint(public.train)
    return read_content(storage(visual, config, data_dir)).digest


def to_example(
    visual: Visual[V], config: V, record: StoredRecord, kind: Demonstrations = "made"
) -> Example:
    """Turn a stored record into an example in pixels; without an image it has no size."""
    columns = visual.read_truth(config, record.answer, record.mask)
    size = list(record.images[0].shape[1::-1]) if record.images else None
    columns |= {"image_size": size, "pixels": size and [*size], "thought": record.thought}
    columns["taught"] = kind == "made" or (kind == "own" and bool(record.thought))
    for name, value in record.others.items():
        columns[f"record_{name}" if name in columns else name] = value
    return Example(
        question=record.question,
        images=record.images,
        columns=columns,
        id=record.id,
        system=visual.system(record.answer),
    )


def in_frame(visual: Visual[V], config: V, example: Example, frame: Frame) -> Example:
    """Ask the example in a frame: convert its truth, and name the frame in its prompt."""
    words, columns = [], dict(example.columns)
    if config.explain == "all":
        own = visual.instruct(config)
        words.append(own if config.instruction is None else config.instruction)
    if example.images:
        width, height = columns["pixels"]
        size = list(frame.size(width, height))
        columns |= visual.geometry.move(columns, between(columns["image_size"], size))
        columns["image_size"] = size
        if config.explain != "nothing" and visual.speaks_coordinates(config):
            words.append(frame.words(width, height))
    return replace(example, question=join_words(example.question, words), columns=columns)


def term_options(visual: Visual[V], config: V, term: RewardTerm) -> TermOptions:
    """Return how the terms of the reward read an answer, and the form that is asked for."""
    if visual.form is None:
        return ()
    return reading_options(config.reading, visual.form(config), term)


def to_pixels(example: Example) -> AxisMap:
    """Convert the example's coordinates to pixels of its image."""
    return between(example.columns["image_size"], example.columns["pixels"])


def augment(visual: Visual[V], config: V, example: Example, rng: np.random.Generator) -> Example:
    """Return a training example changed as the config says; the same one where it says nothing."""
    return augment_example(config.augment, visual.geometry, example, rng)


def draw(visual: Visual[V], config: V, example: Example, answers: Sequence[str]) -> Image | None:
    """Draw truth in green and each answer in a colour of its own; None: there is nothing to."""
    if visual.draw is None or not example.images:
        return None
    board = Board(example)
    visual.draw(config, example, answers, board)
    return board.finish()


def traced(
    make: Callable[[V, Example, np.random.Generator], Demonstration],
) -> Demonstrate[V]:
    """Return a demonstration with the record's own reasoning trace, where it brings one."""

    def demonstrate(config: V, example: Example, rng: np.random.Generator) -> Demonstration:
        shown = make(config, example, rng)
        thought = example.columns["thought"]
        return replace(shown, thought=thought) if thought else shown

    return demonstrate


def tokenizer_path(visual: Visual[V], config: V, data_dir: Path) -> Path:
    """Return where `build` puts the SentencePiece model of this config."""
    form = f"{config.explain}_{config.tiny_pixels}_{config.vocab_size}{wording(config)}"
    if (public := public_records(visual, config)) is not None:
        home = Path(data_dir) / f"{visual.name}_{public.format}"
        return home / f"vocabulary_{form}_{fingerprint(public.train)}.model"
    return dataset_directory(storage(visual, config, data_dir)) / f"vocabulary_{form}.model"


def read_corpus(visual: Visual[V], config: V, data_dir: Path) -> Iterator[str]:
    """Yield prompts and demonstrations of the training split as the tiny family is asked them."""
    examples = source(visual, config, data_dir, "train")
    some = Rows(examples, range(min(len(examples), _CORPUS_RECORDS)))

    def respond(example: Example, rng: np.random.Generator) -> Demonstration | None:
        return visual.demonstrate(config, example, rng)  # also where SFT imitates nothing

    frame = square_frame(config.tiny_pixels)
    task = visual_task(visual)
    return corpus_texts(Framed(some, lambda example: ask(task, config, example, frame)), respond)


def pieces_of(visual: Visual[V], config: V) -> list[str]:
    """Return texts of one token each beside tags: coordinates, also after a comma; the task's."""
    coordinates = range(config.tiny_pixels + 1)
    return [
        *(str(n) for n in coordinates),
        *(f", {n}" for n in coordinates),
        *visual.pieces,
    ]


def bounds_of(points: Sequence[Sequence[Number]]) -> tuple[float, float, float, float] | None:
    """Return the box round some points; None without any."""
    if not len(points):
        return None
    x, y = np.asarray(points, np.float64).T
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())
