"""From examples to batches on the host: a stream that resumes anywhere, prompts, demonstrations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grain
import numpy as np
from PIL import Image

from gmma.errors import UserError
from gmma.images.common import resized
from gmma.tasks.frames import STORED_PIXELS, Frame, square_frame
from gmma.tasks.prompt import (
    TINY_TEMPLATE,
    PromptTemplate,
    answer_text,
    prompt_tokens,
    thought_text,
)
from gmma.tasks.task import Demonstration, ExampleSource
from gmma.tokenizer import Tokenizer
from gmma.types import Example, PromptBatch, PyTree, TreeRollout


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """What one model family does to images before its network sees them."""

    # uint8[H, W, 3] → placeholder tokens in the prompt, of each view that the network gets of it
    view_tokens: Callable[[np.ndarray], tuple[int, ...]]
    to_arrays: Callable[[Sequence[Example]], PyTree]  # host arrays, batch axis first
    buckets: tuple[int, ...] = ()  # sizes that the images of a row are padded to; (): one shape
    bucket_unit: str = ""  # what they count
    frame: Frame = STORED_PIXELS  # of the coordinates that the family is asked for


@dataclass(frozen=True, kw_only=True)
class ExampleBatch:
    """Rows of one global batch; `positions` count the rows of the endless stream from 0."""

    examples: tuple[Example, ...]
    positions: tuple[int, ...]


def example_batches(
    source: ExampleSource,
    *,
    batch: int,
    seed: int,
    host_index: int = 0,
    host_count: int = 1,
    prepare: Callable[[Example, int], Example] = lambda example, position: example,
) -> grain.DatasetIterator[ExampleBatch]:
    """An endless stream of batches, every epoch in an order of its own drawn from `seed`.

    `batch` is global: of each batch this host gets the contiguous rows from `host_index · batch /
    host_count` on, and the stream does not depend on the number of hosts. `get_state()` is a
    JSON-ready dictionary that counts batches; after `set_state()` on a stream made with the same
    arguments it goes on as if never interrupted. `prepare` gets each example with its position.
    Raises UserError where `batch` does not divide among hosts.
    """
    if batch < 1 or batch % host_count:
        raise UserError(
            f"batch {batch} does not divide among {host_count} hosts; "
            f"set a multiple of {host_count}"
        )
    if not 0 <= host_index < host_count:
        raise UserError(f"host index {host_index} is not among {host_count} hosts")
    rows = batch // host_count
    own = slice(host_index * rows, (host_index + 1) * rows)

    def read(drawn: Sequence[tuple[int, int]]) -> ExampleBatch:
        positions, indices = zip(*drawn[own], strict=True)
        examples = (prepare(source[i], p) for p, i in zip(positions, indices, strict=True))
        return ExampleBatch(examples=tuple(examples), positions=positions)

    stream = (
        grain.MapDataset.range(len(source))
        .seed(seed)
        .shuffle()
        .repeat()
        .map_with_index(lambda position, index: (position, int(index)))
        .batch(batch, drop_remainder=True, batch_fn=list)  # endless: nothing remains
        .map(read)
    )
    # The loop asks for the next batch while the devices update: no thread need read ahead.
    unthreaded = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(stream.to_iter_dataset(unthreaded))


def position_generator(seed: int, position: int) -> np.random.Generator:
    """The generator of one row of the stream, so that a resumed run draws the same noise."""
    return np.random.default_rng((seed, position))


def batch_prompts(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    *,
    prompt_slots: int,
    processor: ImageProcessor,
    template: PromptTemplate = TINY_TEMPLATE,
) -> PromptBatch:
    """Prompts as host arrays, left-aligned in `prompt_slots` slots and padded with `tokenizer.pad`.

    Raises UserError for a prompt that does not fit: nothing is cut, least of all an image.
    """
    rows = []
    for example in examples:
        counts = [processor.view_tokens(image) for image in example.images]
        row = prompt_tokens(example.question, counts, tokenizer, template)
        held = sum(map(sum, counts))
        _require_fit(example.id, "prompt", row, prompt_slots, f" ({held} of images)")
        rows.append(row)
    tokens, lengths = _left_align(rows, prompt_slots, tokenizer.pad)
    return PromptBatch(tokens=tokens, lengths=lengths, images=processor.to_arrays(examples))


def batch_demonstrations(
    examples: Sequence[Example],
    demonstrations: Sequence[Demonstration],
    tokenizer: Tokenizer,
    *,
    thought_slots: int,
    answer_slots: int,
) -> TreeRollout:
    """Demonstrations as trees with one thought and one answer (K = M = 1), in host arrays.

    Log-probs are zero: SFT reads none. Raises UserError for a demonstration that does not fit.
    """
    thoughts, answers = [], []
    for example, shown in zip(examples, demonstrations, strict=True):
        thoughts.append(tokenizer.encode(thought_text(shown.thought)))
        answers.append(tokenizer.encode(answer_text(shown.answer)))
        _require_fit(example.id, "thought", thoughts[-1], thought_slots)
        _require_fit(example.id, "answer", answers[-1], answer_slots)
    thought, thought_lengths = _left_align(thoughts, thought_slots, tokenizer.pad)
    answer, answer_lengths = _left_align(answers, answer_slots, tokenizer.pad)
    return TreeRollout(
        thoughts=thought[:, None],
        thought_lengths=thought_lengths[:, None],
        thought_sampled=thought_lengths[:, None],
        thought_logprobs=np.zeros((len(examples), 1, thought_slots), np.float32),
        closed=np.ones((len(examples), 1), bool),
        answers=answer[:, None, None],
        answer_lengths=answer_lengths[:, None, None],
        answer_logprobs=np.zeros((len(examples), 1, 1, answer_slots), np.float32),
        finished=np.ones((len(examples), 1, 1), bool),
    )


def unit_images(
    examples: Sequence[Example], images: int = 1, side: int | None = None
) -> np.ndarray | None:
    """Images of one size as float32[B, I, H, W, 3] in 0 … 1; None for I = 0, a model of text.

    A row with fewer than I images is filled up with black ones; no token of its prompt stands for
    them, so nothing sees them. Raises UserError for a row with more, or for two sizes.
    """
    sizes = {(side, side, 3)} if side is not None else set()
    for example in examples:
        if len(example.images) > images:
            raise UserError(
                f"record {example.id} has {len(example.images)} images and the model takes "
                f"{images}; set model.images to {len(example.images)}"
            )
        sizes |= {image.shape for image in example.images}
        if len(sizes) > 1:
            raise UserError(
                f"record {example.id} has images of shapes {[i.shape for i in example.images]}, "
                f"but there are {sorted(sizes)}; this model wants one size in every record"
            )
    if images == 0:
        return None
    (size,) = sizes or {(1, 1, 3)}
    filled = np.zeros((len(examples), images, *size), np.float32)
    for row, example in zip(filled, examples, strict=True):
        for place, image in zip(row, example.images, strict=False):
            place[:] = image
    return filled / np.float32(255)


def fixed_size_processor(
    tokens_per_image: int, side: int | None = None, images: int = 1
) -> ImageProcessor:
    """The `tiny` family's: every image has the same size and number of tokens.

    With a `side` in pixels images are resized to that square, and coordinates are its pixels. A
    prompt has at most so many `images`, and none where that is 0.
    """
    if side is None:
        return ImageProcessor(view_tokens=lambda image: (tokens_per_image,), to_arrays=unit_images)

    def to_arrays(examples: Sequence[Example]) -> np.ndarray | None:
        return unit_images([fit_square(example, side) for example in examples], images, side)

    return ImageProcessor(
        view_tokens=lambda image: (tokens_per_image,),
        to_arrays=to_arrays,
        frame=square_frame(side),
    )


def fit_square(example: Example, side: int) -> Example:
    """An example with its images resized to a square, where they are not that already."""
    shape = (side, side, 3)
    images = tuple(
        image if image.shape == shape else resized(image, side, side, Image.Resampling.BOX)
        for image in example.images
    )
    return replace(example, images=images)


def _left_align(
    rows: Sequence[Sequence[int]], slots: int, pad: int
) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.full((len(rows), slots), pad, np.int32)
    for filled, row in zip(tokens, rows, strict=True):
        filled[: len(row)] = row
    return tokens, np.asarray([len(row) for row in rows], np.int32)


def _require_fit(record: str, node: str, row: Sequence[Any], slots: int, note: str = "") -> None:
    if len(row) > slots:
        raise UserError(
            f"the {node} of record {record} has {len(row)} tokens{note}, but there are {slots} "
            f"{node} slots; set tree.{node}_tokens to at least {len(row)}"
        )
