"""Task `digits`: find one of several real handwritten digits on a canvas.

Scenes hold the 8×8 digits that ship inside scikit-learn (1,797 images), at most one in each cell of
a grid, at a random offset inside its cell. Coordinates are edges of pixels: the origin is the
canvas's top-left corner, x runs right, y down, and the box `[x1, y1, x2, y2]` of a digit is its 8×8
patch `canvas[y1:y2, x1:x2]`, so x2 = x1 + 8 and y2 = y1 + 8. One record:

    question  Where is the 7?
    thought   7 at 25, 38; 3 at 12, 0        top-left corners, the asked digit's first
    answer    [25, 38, 33, 46]

The text is made to be cheap: each class and each coordinate is one token, and the answer's corner
is spelt with the very tokens of the thought.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw

from gmma.answers.boxes import Box, parse_box
from gmma.answers.reading import Reading
from gmma.errors import UserError
from gmma.images.frames import near_box
from gmma.rewards.boxes import box_iou
from gmma.rewards.terms import RewardTerm
from gmma.tasks.configs import TaskConfig
from gmma.tasks.drawing import LEGEND, TRUTH_COLOUR, guess_colour
from gmma.tasks.storage import (
    SPLITS,
    Storage,
    content_by,
    dataset_directory,
    encode_png,
    prepare,
    read_split,
)
from gmma.tasks.task import (
    Demonstration,
    ExampleSource,
    Patches,
    Task,
    TermOptions,
    reading_options,
)
from gmma.text.prompt import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    THINK_CLOSE,
    THINK_OPEN,
    answer_text,
    prompt_text,
    thought_text,
)
from gmma.text.tokenizer import train_sentencepiece
from gmma.types import Example

DIGIT_PIXELS = 8
CLOSE_IOU = 0.7  # of `acc_0.7`
CLASSES = 10
_HELD_OUT_SHARE = 0.1  # of each class's digit images, for validation and for test each
_POOL_SEED = 0  # the pools stay the same for every config, so that no held-out digit ever leaks
_PICTURE_SCALE = 8


@dataclass(frozen=True, kw_only=True)
class DigitsConfig(TaskConfig):
    """The drawing, the number of scenes, and how far demonstrations stray from the truth."""

    name: Literal["digits"] = "digits"  # which task this is
    cells_per_side: int = 4  # the canvas is a square grid of cells
    cell_pixels: int = 12  # side of a cell; a digit's offset in it is 0 … cell_pixels − 8
    digits_min: int = 2  # digits in a scene, all of distinct classes; the number is uniform
    digits_max: int = 3  # digits in a scene at most
    train_scenes: int = 16384  # scenes drawn for training
    validation_scenes: int = 512  # scenes drawn for evaluation during training
    test_scenes: int = 512  # scenes drawn for evaluation after it
    seed: int = 0  # of the scenes
    point_noise_pixels: int = 1  # each point of a demonstration's thought is off by up to ±this
    box_noise_pixels: int = 2  # its answer is off by up to ±this more, on x and y, uniformly
    thought_error_rate: float = 0.1  # share of demonstrations whose thought takes another digit
    # for the one asked for (the two names exchanged); the answer follows its thought
    reading: Reading = "lenient"  # a box in any common form, or "strict": [x1, y1, x2, y2] alone
    vocab_size: int = 256  # upper bound of the SentencePiece vocabulary

    def __post_init__(self) -> None:
        self._require(self.cells_per_side >= 1, "cells_per_side", "at least 1")
        self._require(self.cell_pixels >= DIGIT_PIXELS, "cell_pixels", f"at least {DIGIT_PIXELS}")
        self._require(self.digits_min >= 2, "digits_min", "at least 2: one asked for, one other")
        most = min(CLASSES, self.cells_per_side**2)
        self._require(
            self.digits_min <= self.digits_max <= most,
            "digits_max",
            f"between digits_min ({self.digits_min}) and {most} (classes and cells)",
        )
        for split in SPLITS:
            field = f"{split}_scenes"
            self._require(getattr(self, field) >= 1, field, "at least 1")
        for field in ("seed", "point_noise_pixels", "box_noise_pixels"):
            self._require(getattr(self, field) >= 0, field, "0 or more")
        self._require(0 <= self.thought_error_rate <= 1, "thought_error_rate", "within 0 … 1")

    def _require(self, holds: bool, field: str, rule: str) -> None:
        if not holds:
            raise UserError(f"digits: {field} is {getattr(self, field)}; it must be {rule}")

    @property
    def canvas_pixels(self) -> int:
        """Side of the square canvas."""
        return self.cells_per_side * self.cell_pixels


@dataclass(frozen=True, kw_only=True)
class DigitPool:
    """Digit images of one split."""

    images: np.ndarray  # uint8[1797, 8, 8], 0 … 255; scikit-learn's array, shared by all pools
    rows: tuple[np.ndarray, ...]  # per class, rows of `images`


@cache
def digit_pools() -> Mapping[str, DigitPool]:
    """Return the digit images of each split.

    Disjoint, stratified by class, the same for every config.
    """
    from sklearn.datasets import load_digits  # slow, and only a build needs it

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    rng = np.random.default_rng(_POOL_SEED)
    rows: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label in range(CLASSES):
        order = rng.permutation(np.flatnonzero(data.target == label))
        held_out = round(len(order) * _HELD_OUT_SHARE)
        parts = np.split(order, [held_out, 2 * held_out])
        for split, part in zip(("validation", "test", "train"), parts, strict=True):
            rows[split].append(part)
    return {split: DigitPool(images=images, rows=tuple(rows[split])) for split in SPLITS}


def draw_scene(config: DigitsConfig, split: str, index: int) -> dict[str, Any]:
    """Record `index` of `split`, a pure function of its arguments."""
    rng = np.random.default_rng((config.seed, SPLITS.index(split), index))
    pool = digit_pools()[split]
    count = int(rng.integers(config.digits_min, config.digits_max + 1))
    labels = rng.choice(CLASSES, count, replace=False)
    digits = np.asarray([pool.rows[label][rng.integers(len(pool.rows[label]))] for label in labels])
    cells = np.sort(rng.choice(config.cells_per_side**2, count, replace=False))
    corners = np.stack([cells % config.cells_per_side, cells // config.cells_per_side], axis=1)
    offsets = rng.integers(0, config.cell_pixels - DIGIT_PIXELS + 1, (count, 2))
    points = corners * config.cell_pixels + offsets
    canvas = np.zeros((config.canvas_pixels, config.canvas_pixels), np.uint8)
    for (x, y), digit in zip(points, digits, strict=True):
        canvas[y : y + DIGIT_PIXELS, x : x + DIGIT_PIXELS] = pool.images[digit]
    asked = int(rng.integers(count))
    return {
        "id": f"{split}/{index}",
        "image": encode_png(np.repeat(canvas[:, :, None], 3, axis=2)),
        "question": f"Where is the {labels[asked]}?",
        "answer": np.asarray(_box(points[asked]), np.int32),
        "labels": labels.astype(np.int32),
        "points": points.astype(np.int32),
        "digits": digits.astype(np.int32),
    }


def _box(corner: np.ndarray) -> list[int]:
    return [*corner.tolist(), *(corner + DIGIT_PIXELS).tolist()]


def storage(config: DigitsConfig, data_dir: Path) -> Storage:
    """Describe the dataset on disk; it holds the truth alone, noise enters in `demonstrate`."""
    side = config.canvas_pixels
    name = (  # all that the stored scenes depend on
        f"digits_{config.cells_per_side}x{config.cells_per_side}_{config.cell_pixels}px"
        f"_{config.digits_min}to{config.digits_max}digits_{config.train_scenes}"
        f"_{config.validation_scenes}_{config.test_scenes}scenes_seed{config.seed}"
    )

    def records(split: str) -> Iterator[dict[str, Any]]:
        for index in range(getattr(config, f"{split}_scenes")):
            yield draw_scene(config, split, index)

    return Storage(
        name="digits",
        directory=Path(data_dir) / name,
        features={
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(side, side, 3), encoding_format="png"),
            "question": tfds.features.Text(),
            "answer": tfds.features.Tensor(shape=(4,), dtype=np.int32),
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "points": tfds.features.Tensor(shape=(None, 2), dtype=np.int32),
            "digits": tfds.features.Tensor(shape=(None,), dtype=np.int32),
        },
        records=records,
        description=__doc__ or "",
    )


def tokenizer_path(config: DigitsConfig, data_dir: Path) -> Path:
    """Return where `build` puts the SentencePiece model of this config."""
    directory = dataset_directory(storage(config, data_dir))
    return directory / f"tokenizer_{config.vocab_size}.model"


def build(config: DigitsConfig, data_dir: Path) -> None:
    """Draw the scenes and train the tokenizer; returns at once where both are there."""
    prepare(storage(config, data_dir))
    path = tokenizer_path(config, data_dir)
    if not path.exists():
        pieces = number_pieces(config.canvas_pixels)
        train_sentencepiece(_corpus(config), path, vocab_size=config.vocab_size, pieces=pieces)


def number_pieces(canvas_pixels: int) -> list[str]:
    """Return texts of one token each: coordinates (first, and after a comma), digits, tags."""
    coordinates = range(canvas_pixels + 1)
    return [
        *(str(n) for n in coordinates),
        *(f", {n}" for n in coordinates),
        *(f"{label} at " for label in range(CLASSES)),
        "; ",
        THINK_OPEN,
        THINK_CLOSE,
        f"{ANSWER_OPEN}[",
        f"]{ANSWER_CLOSE}",
    ]


def _corpus(config: DigitsConfig) -> Iterator[str]:
    clean = replace(config, point_noise_pixels=0, box_noise_pixels=0, thought_error_rate=0.0)
    for index in range(min(config.train_scenes, 1024)):
        record = draw_scene(clean, "train", index)
        example = Example(
            question=record["question"],
            images=(),
            columns=_columns(record, config.canvas_pixels),
            id=record["id"],
        )
        shown = demonstrate(clean, example, np.random.default_rng(0))
        yield prompt_text(example.question)
        yield thought_text(shown.thought) + answer_text(shown.answer)


@dataclass(frozen=True)
class _Source:
    records: Any  # TFDS's random access to one split
    side: int  # of the canvas, in pixels

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int, /) -> Example:
        record = self.records[index]
        return Example(
            question=record["question"].decode(),
            images=(np.asarray(Image.open(io.BytesIO(record["image"]))),),
            columns=_columns(record, self.side),
            id=record["id"].decode(),
        )


def _columns(record: Mapping[str, Any], side: int) -> dict[str, Any]:
    names = ("answer", "labels", "points", "digits")
    return {name: record[name].tolist() for name in names} | {"image_size": [side, side]}


def source(config: DigitsConfig, data_dir: Path, split: str) -> ExampleSource:
    """Open random access to a split; raises UserError on an unknown split or before `build`.

    Columns: `answer` is the box asked for; `labels`, `points` ([x1, y1]) and `digits` (rows of
    scikit-learn's array) have one entry per digit, in reading order of the cells; `image_size` is
    that of the canvas.
    """
    as_stored = {"image": tfds.decode.SkipDecoding()}
    return _Source(read_split(storage(config, data_dir), split, as_stored), config.canvas_pixels)


def demonstrate(config: DigitsConfig, example: Example, rng: np.random.Generator) -> Demonstration:
    """Demonstrate a thought and an answer as an imprecise teacher gives them; our choice.

    The thought names the asked digit first, then the others in reading order. Its points are off
    by uniform noise, sometimes two names are exchanged, and the answer is the box at the point that
    the thought gives to the asked digit, off by noise of its own: so a right answer takes a right
    thought, and the same thought has better and worse answers.
    """
    points = np.asarray(example.columns["points"])
    labels = list(example.columns["labels"])
    points = _shift(config, points, config.point_noise_pixels, rng)
    asked = labels.index(asked_label(example))
    other = (asked + int(rng.integers(1, len(labels)))) % len(labels)
    if rng.random() < config.thought_error_rate:
        labels[asked], labels[other] = labels[other], labels[asked]
        asked = other
    corner = _shift(config, points[asked], config.box_noise_pixels, rng)
    order = [asked, *(i for i in range(len(labels)) if i != asked)]
    named = [f"{labels[i]} at {points[i][0]}, {points[i][1]}" for i in order]
    return Demonstration(thought="; ".join(named), answer=str(_box(corner)))


def asked_label(example: Example) -> int:
    """Return the class of the digit that the question asks for."""
    position = example.columns["points"].index(example.columns["answer"][:2])
    return example.columns["labels"][position]


def true_box(example: Example) -> Box:
    """Return the box that the question asks for, in pixels."""
    x1, y1, x2, y2 = map(float, example.columns["answer"])
    return x1, y1, x2, y2


def _shift(
    config: DigitsConfig, points: np.ndarray, noise_pixels: int, rng: np.random.Generator
) -> np.ndarray:
    moved = points + rng.integers(-noise_pixels, noise_pixels + 1, points.shape)
    return np.clip(moved, 0, config.canvas_pixels - DIGIT_PIXELS)


def metrics(
    config: DigitsConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `iou` with the true box, 0 where the answer is no box; `acc_0.7`; `parsed`.

    The second is whether the first is 0.7 or more, as Acc@0.7 of referring expressions.
    """
    size = (config.canvas_pixels, config.canvas_pixels)
    boxes = [parse_box(answer, config.reading, size) for answer in answers]
    pairs = zip(boxes, map(true_box, examples), strict=True)
    iou = [box_iou(box, truth) if box else 0.0 for box, truth in pairs]
    return {
        "iou": iou,
        "acc_0.7": [float(value >= CLOSE_IOU) for value in iou],
        "parsed": [float(box is not None) for box in boxes],
    }


def draw(config: DigitsConfig, example: Example, answers: Sequence[str]) -> Image.Image:
    """Draw the canvas enlarged, the true box in green, each answer's box in its own colour."""
    side = config.canvas_pixels * _PICTURE_SCALE
    picture = Image.fromarray(example.images[0]).resize((side, side), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    _outline(pen, true_box(example), TRUTH_COLOUR, width=4)
    for number, answer in enumerate(answers):
        box = parse_box(answer, config.reading, (config.canvas_pixels, config.canvas_pixels))
        if box is not None:
            _outline(pen, box, guess_colour(number), width=2)
    return picture


def _outline(
    pen: ImageDraw.ImageDraw, box: Box, colour: tuple[int, int, int], *, width: int
) -> None:
    """Outline a box whose last pixel is inside; an empty one is a dot or a line."""
    x1, y1, x2, y2 = (edge * _PICTURE_SCALE for edge in near_box(box))
    pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=width)


def term_options(config: DigitsConfig, term: RewardTerm) -> TermOptions:
    """Return how the terms of the reward read a box."""
    return reading_options(config.reading, "box", term)


def label_patches(
    config: DigitsConfig, rng: np.random.Generator, count: int, patch_pixels: int
) -> Patches:
    """Draw cells of the training pool with their class (10: empty) and the digit's offset.

    A tenth of them is empty; those have no offset.
    """
    pool = digit_pools()["train"]
    room = patch_pixels - DIGIT_PIXELS + 1
    labels = rng.integers(0, (CLASSES, room, room), (count, 3))
    pixels = np.zeros((count, patch_pixels, patch_pixels), np.uint8)
    for patch, (label, x, y) in zip(pixels, labels, strict=True):
        digit = pool.images[rng.choice(pool.rows[label])]
        patch[y : y + DIGIT_PIXELS, x : x + DIGIT_PIXELS] = digit
    empty = rng.random(count) < 0.1
    pixels[empty] = 0
    labels[empty] = (CLASSES, -1, -1)
    return Patches(
        pixels=np.repeat(pixels[..., None], 3, axis=-1),
        labels=labels.astype(np.int32),
        classes=(CLASSES + 1, room, room),
    )


DIGITS = Task(
    config=DigitsConfig,
    build=build,
    source=source,
    content=content_by(storage),
    demonstrate=demonstrate,
    metrics=metrics,
    headline="iou",
    draw=draw,
    legend=LEGEND,
    answer_colour=guess_colour,
    term_options=term_options,
    tokenizer_path=tokenizer_path,
    patches=label_patches,
)
