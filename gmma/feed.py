"""What a run's steps read: its parts' batches, prompts and demonstrations, in host arrays."""

from collections.abc import Sequence
from typing import Literal

import grain

from gmma.assembly import Parts
from gmma.data import (
    ExampleBatch,
    batch_demonstrations,
    batch_prompts,
    example_batches,
    position_generator,
)
from gmma.types import Example, PromptBatch, TreeRollout

PhaseName = Literal["sft", "rl"]


def read_batches(parts: Parts, phase: PhaseName) -> grain.DatasetIterator[ExampleBatch]:
    """The endless stream of a phase's batches; each phase has an order of its own."""
    config = parts.config
    source = parts.task.source(config.task, config.data_dir, "train")
    rows = getattr(config, phase).batch_prompts
    return example_batches(source, batch=rows, seed=2 * config.seed + (phase == "rl"))


def read_prompts(parts: Parts, examples: Sequence[Example]) -> PromptBatch:
    """Prompts with their images; raises UserError for one that does not fit."""
    return batch_prompts(
        examples,
        parts.tokenizer,
        prompt_slots=parts.config.tree.prompt_tokens,
        processor=parts.processor,
        template=parts.template,
    )


def read_demonstrations(parts: Parts, batch: ExampleBatch) -> TreeRollout:
    """Demonstrations as trees with one thought and one answer; a row's noise is its own."""
    config = parts.config
    assert parts.task.demonstrate is not None
    demonstrations = [
        parts.task.demonstrate(config.task, example, position_generator(config.seed, position))
        for example, position in zip(batch.examples, batch.positions, strict=True)
    ]
    return batch_demonstrations(
        batch.examples,
        demonstrations,
        parts.tokenizer,
        thought_slots=config.tree.thought_tokens,
        answer_slots=config.tree.answer_tokens,
    )
