"""Feed a run's steps: batches, prompts and demonstrations, in host arrays."""

from collections.abc import Sequence
from typing import Literal

import grain
import jax
import numpy as np

from gmma.errors import UserError
from gmma.hardware.hosts import gather_entries, wait_for_all
from gmma.run.assembly import HostParts, Parts, in_frame
from gmma.run.data import (
    ExampleBatch,
    batch_demonstrations,
    batch_prompts,
    example_batches,
)
from gmma.run.lengths import (
    demonstration_of,
    demonstration_seed,
    first_rows,
    kept_rows,
    shown_rows,
)
from gmma.tasks.defaults import hash_content
from gmma.tasks.task import ExampleSource, Rows
from gmma.types import Example, PromptBatch, TreeRollout

PhaseName = Literal["sft", "rl"]
AUGMENTING = 1  # keeps the generator of a row's augmentation apart from its demonstration's


def read_batches(parts: Parts, phase: PhaseName) -> grain.DatasetIterator[ExampleBatch]:
    """Return the endless stream of a phase's batches, of which this host reads its own rows.

    A batch of RL is what one rollout grows. Each phase has an order of its own, whatever the number
    of hosts.
    """
    config = parts.config
    source = demonstrated_source(parts) if phase == "sft" else train_source(parts)
    rows = config.sft.batch_prompts if phase == "sft" else config.rl.grown_prompts
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


def train_source(parts: Parts) -> ExampleSource:
    """Return every training example that is not left out: what RL learns from."""
    source = parts.task.source(parts.config.task, parts.config.launch.data_dir, "train")
    leaves = parts.config.task.too_long == "leave_out"
    return Rows(source, kept_rows(parts)) if leaves else source


def demonstrated_source(parts: Parts) -> ExampleSource:
    """Return the training examples that have a demonstration; raises UserError where none has."""
    source = parts.task.source(parts.config.task, parts.config.launch.data_dir, "train")
    rows = demonstrated_rows(parts)
    if parts.config.task.too_long == "leave_out":
        rows = shown_rows(parts, rows)
    return Rows(source, rows)


def demonstrated_rows(parts: HostParts) -> Sequence[int]:
    """Return the training rows with a demonstration, fit or not; raises UserError without any."""
    config = parts.config.task
    rows = rows_with_demonstrations(parts)
    if not len(rows):
        records = len(parts.task.source(config, parts.config.launch.data_dir, "train"))
        raise UserError(
            f"sft.steps = {parts.config.sft.steps}, but none of the {records} training records "
            f"of task {config.name} has a thought to imitate; set sft.steps to 0"
        )
    return rows


def rows_with_demonstrations(parts: HostParts) -> Sequence[int]:
    """Return the training rows with a demonstration, fit or not; none where the task has none."""
    config, place = parts.config.task, parts.config.launch.data_dir
    if parts.task.demonstrate is None:
        return ()
    if parts.task.demonstrated_rows is None:
        return range(len(parts.task.source(config, place, "train")))
    return parts.task.demonstrated_rows(config, place)


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


def read_examples(parts: Parts, split: str, count: int) -> list[Example]:
    """Return the first examples of a split, as the run's model is asked them."""
    source = parts.task.source(parts.config.task, parts.config.launch.data_dir, split)
    return [in_frame(parts, source[row]) for row in first_rows(parts, split, count)]


def read_prompts(parts: HostParts, examples: Sequence[Example]) -> PromptBatch:
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
    demonstrations = [
        demonstration_of(parts, example, position)
        for example, position in zip(batch.examples, batch.positions, strict=True)
    ]
    return batch_demonstrations(
        batch.examples,
        demonstrations,
        parts.tokenizer,
        thought_slots=config.tree.thought_tokens,
        answer_slots=config.tree.answer_tokens,
        tags=parts.template.tags,
    )
