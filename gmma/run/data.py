"""Batch examples on the host: a stream that resumes anywhere, prompts, demonstrations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from gmma.errors import UserError
from gmma.images.processor import ImageProcessor
from gmma.options.prompt import DEFAULT_TAGS, Tags
from gmma.tasks.task import Demonstration, ExampleSource
from gmma.text.prompt import (
    TINY_TEMPLATE,
    PromptTemplate,
    answer_text,
    prompt_tokens,
    thought_text,
)
from gmma.text.tokenizer import Tokenizer
from gmma.types import Example, PromptBatch, TreeRollout


@dataclass(frozen=True, kw_only=True)
class ExampleBatch:
    """This host's rows of one global batch of the endless stream; both are counted from 0."""

    examples: tuple[Example, ...]
    positions: tuple[int, ...]  # of the rows
    number: int  # of the batch


def example_batches(
    source: ExampleSource,
    *,
    batch: int,
    seed: int,
    host_index: int = 0,
    host_count: int = 1,
    prepare: Callable[[Example, int], Example] = lambda example, position: example,
) -> grain.DatasetIterator[ExampleBatch]:
    """Return an endless stream of batches, every epoch in an order of its own drawn from `seed`.

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
        number = drawn[0][0] // batch
        return ExampleBatch(examples=tuple(examples), positions=positions, number=number)

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
    """Return the generator of one row of the stream, so that a resumed run draws the same noise."""
    return np.random.default_rng((seed, position))


def batch_prompts(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    *,
    prompt_slots: int,
    processor: ImageProcessor,
    template: PromptTemplate = TINY_TEMPLATE,
) -> PromptBatch:
    """Lay out prompts as host arrays, left-aligned in `prompt_slots` slots, padded with `pad`.

    Raises UserError for a prompt that does not fit: nothing is cut, least of all an image.
    """
    rows = []
    for example in examples:
        row, counts = prompt_row(example, tokenizer, processor, template)
        if len(row) > prompt_slots:
            advice = smaller_images(example, counts, len(row), prompt_slots, processor)
            raise UserError(
                f"{too_long_words(example, counts, len(row), prompt_slots)}; set "
                f"tree.prompt_tokens to at least {len(row)}" + (f", or {advice}" if advice else "")
            )
        rows.append(row)
    tokens, lengths = _left_align(rows, prompt_slots, tokenizer.pad)
    return PromptBatch(tokens=tokens, lengths=lengths, images=processor.to_arrays(examples))


def prompt_row(
    example: Example, tokenizer: Tokenizer, processor: ImageProcessor, template: PromptTemplate
) -> tuple[list[int], list[tuple[int, ...]]]:
    """Return the tokens of a prompt, and the placeholders of each view of its images."""
    counts = [processor.view_tokens(image) for image in example.images]
    row = prompt_tokens(example.question, counts, tokenizer, template, example.system)
    return row, counts


def batch_demonstrations(
    examples: Sequence[Example],
    demonstrations: Sequence[Demonstration],
    tokenizer: Tokenizer,
    *,
    thought_slots: int,
    answer_slots: int,
    tags: Tags = DEFAULT_TAGS,
) -> TreeRollout:
    """Lay out demonstrations as trees with one thought and one answer (K = M = 1).

    Log-probs are zero: SFT reads none. Raises UserError for a demonstration that does not fit.
    """
    thoughts, answers = [], []
    for example, shown in zip(examples, demonstrations, strict=True):
        thoughts.append(tokenizer.encode(thought_text(shown.thought, tags)))
        answers.append(tokenizer.encode(answer_text(shown.answer, tags)))
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


def _left_align(
    rows: Sequence[Sequence[int]], slots: int, pad: int
) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.full((len(rows), slots), pad, np.int32)
    for filled, row in zip(tokens, rows, strict=True):
        filled[: len(row)] = row
    return tokens, np.asarray([len(row) for row in rows], np.int32)


def _require_fit(record: str, node: str, row: Sequence[Any], slots: int) -> None:
    if len(row) > slots:
        raise UserError(
            f"the {node} of record {record} has {len(row)} tokens, but there are {slots} "
            f"{node} slots; set tree.{node}_tokens to at least {len(row)}"
        )


def too_long_words(
    example: Example, counts: Sequence[Sequence[int]], tokens: int, slots: int
) -> str:
    """Say that a prompt does not fit, with the share of its images."""
    images = ""
    if counts:
        held = [sum(views) for views in counts]
        sizes = [f"{image.shape[1]} × {image.shape[0]}" for image in example.images]
        each = ", ".join(f"{n} of {size} pixels" for n, size in zip(held, sizes, strict=True))
        images = f" ({sum(held)} of images: {each})"
    return (
        f"the prompt of record {example.id} has {tokens} tokens{images}, but there are {slots} "
        "prompt slots"
    )


def smaller_images(
    example: Example,
    counts: Sequence[Sequence[int]],
    tokens: int,
    slots: int,
    processor: ImageProcessor,
) -> str:
    """Return what to set so that the images of a prompt leave it room; "" for nothing."""
    if not counts:
        return ""
    held = sum(map(sum, counts))
    sides = [image.shape[:2] for image in example.images]
    ratio = max(max(pair) / min(pair) for pair in sides)
    return processor.fewer_tokens((slots - tokens + held) // len(counts), ratio)
