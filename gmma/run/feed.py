"""Feed a run's steps: batches, prompts and demonstrations, in host arrays."""

from collections.abc import Sequence
from typing import Literal

import grain
import jax
import numpy as np

from gmma.config import ExperimentConfig
from gmma.errors import UserError
from gmma.hardware.hosts import gather_entries, wait_for_all
from gmma.run.assembly import Parts
from gmma.run.data import (
    ExampleBatch,
    batch_demonstrations,
    batch_prompts,
    example_batches,
    position_generator,
)
from gmma.tasks.defaults import hash_content
from gmma.tasks.task import ExampleSource, Rows
from gmma.types import Example, PromptBatch, TreeRollout

PhaseName = Literal["sft", "rl"]
AUGMENTING = 1  # keeps the generator of a row's augmentation apart from its demonstration's
GOING_ON = 2  # and that of demonstrations behind another run from the first run's


def read_batches(parts: Parts, phase: PhaseName) -> grain.DatasetIterator[ExampleBatch]:
    """Return the endless stream of a phase's batches, of which this host reads its own rows.

    Each phase has an order of its own, whatever the number of hosts.
    """
    config = parts.config
    source = demonstrated_source(parts) if phase == "sft" else train_source(parts)
    rows = getattr(config, phase).batch_prompts
    seed = 2 * config.seed + 1 if phase == "rl" else 2 * demonstration_seed(config)

    def prepare(example: Example, position: int) -> Example:
        if parts.task.augment is not None:
            rng = np.random.default_rng((seed, position, AUGMENTING))
            example = parts.task.augment(config.task, example, rng)
        return in_frame(parts, example)

    return example_batches(
        source,
        batch=rows,
        seed=seed,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
        prepare=prepare,
    )


def demonstration_seed(config: ExperimentConfig) -> int:
    """Return the seed for the order of demonstrations and their noise.

    It differs between an SFT run and one of the same seed that continues from it.
    """
    if config.init_from is None:
        return config.seed
    return int(np.random.SeedSequence((config.seed, GOING_ON)).generate_state(1)[0] >> 1)


def train_source(parts: Parts) -> ExampleSource:
    """Return every training example: what RL learns from."""
    return parts.task.source(parts.config.task, parts.config.launch.data_dir, "train")


def demonstrated_source(parts: Parts) -> ExampleSource:
    """Return the training examples that have a demonstration; raises UserError where none has."""
    source, rows_of = train_source(parts), parts.task.demonstrated_rows
    if rows_of is None:
        return source
    rows = rows_of(parts.config.task, parts.config.launch.data_dir)
    if not len(rows):
        raise UserError(
            f"sft.steps = {parts.config.sft.steps}, but none of the {len(source)} training records "
            f"of task {parts.config.task.name} has a thought to imitate; set sft.steps to 0"
        )
    return Rows(source, rows)


def content_of(parts: Parts) -> str:
    """Return a hash of the records of all splits.

    Raises UserError where hosts have different ones.
    """
    content = hash_content(parts.task, parts.config.task, parts.config.launch.data_dir)
    wait_for_all("the records")
    everywhere = gather_entries([content])
    for host, other in enumerate(everywhere):
        if other != everywhere[0]:
            raise UserError(
                f"host {host} has other records than host 0 (hashes {other:.12}…, "
                f"{everywhere[0]:.12}…): give all hosts the same files, and build data_dir anew"
            )
    return content


def in_frame(parts: Parts, example: Example) -> Example:
    """Return an example in the coordinates of the run's model family."""
    task = parts.task
    if task.in_frame is None:
        return example
    return task.in_frame(parts.config.task, example, parts.processor.frame)


def read_examples(parts: Parts, split: str, count: int) -> list[Example]:
    """Return the first examples of a split, as the run's model is asked them."""
    source = parts.task.source(parts.config.task, parts.config.launch.data_dir, split)
    return [in_frame(parts, source[index]) for index in range(min(count, len(source)))]


def read_prompts(parts: Parts, examples: Sequence[Example]) -> PromptBatch:
    """Read prompts with their images; raises UserError for one that does not fit."""
    return batch_prompts(
        examples,
        parts.tokenizer,
        prompt_slots=parts.config.tree.prompt_tokens,
        processor=parts.processor,
        template=parts.template,
    )


def read_demonstrations(parts: Parts, batch: ExampleBatch) -> TreeRollout:
    """Read demonstrations as trees with one thought and one answer; each row has its own noise."""
    config = parts.config
    assert parts.task.demonstrate is not None
    demonstrations = []
    for example, position in zip(batch.examples, batch.positions, strict=True):
        rng = position_generator(demonstration_seed(config), position)
        shown = parts.task.demonstrate(config.task, example, rng)
        if shown is None:
            raise UserError(
                f"task {config.task.name} has no demonstration of {example.id}; where some "
                "training records have none, Task.demonstrated_rows says which have one"
            )
        demonstrations.append(shown)
    return batch_demonstrations(
        batch.examples,
        demonstrations,
        parts.tokenizer,
        thought_slots=config.tree.thought_tokens,
        answer_slots=config.tree.answer_tokens,
    )
