"""Lengths of all records before anything is compiled: which fit the slots, and which do not.

Pictures count by their size alone, which their headers say (`Task.outline`). A record that does not
fit ends the run at its start, or is left out of it (`task.too_long`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from gmma.config import ExperimentConfig
from gmma.errors import UserError
from gmma.run.assembly import HostParts, in_frame
from gmma.run.backbone import sees_images
from gmma.run.data import position_generator, prompt_row, smaller_images, too_long_words
from gmma.tasks.task import Demonstration, ExampleSource
from gmma.text.prompt import answer_text, thought_text
from gmma.types import Example

GOING_ON = 2  # keeps demonstrations behind another run apart from the first run's
_NAMED = 3  # records in a message


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """A record that does not fit the slots of a node."""

    node: str  # prompt, thought or answer
    tokens: int  # 0: its images cannot be shown at all
    words: str  # names the record, and says why
    advice: str = ""  # what else than its slots could be set


@dataclass(frozen=True, kw_only=True)
class PromptLength:
    """Tokens of a prompt, 0 where its images cannot be shown, and what is wrong with them."""

    tokens: int
    misfit: Misfit | None


@dataclass(frozen=True, kw_only=True)
class DemonstrationLength:
    """Tokens of a demonstration's nodes, tags included, and what is wrong with them."""

    thought: int
    answer: int
    misfit: Misfit | None


def outline_source(parts: HostParts, split: str) -> ExampleSource | None:
    """Open a split whose images have their size alone; None where each would be unpacked for it.

    That is too much for pictures that are drawn, or read where TFDS prepared them, unless records
    are to be left out.
    """
    task, config = parts.task, parts.config.task
    place = parts.config.launch.data_dir
    found = None if task.outline is None else task.outline(config, place, split)
    if found is None and (config.too_long == "leave_out" or not sees_images(parts.config, task)):
        found = task.source(config, place, split)
    return found


def prompt_length(parts: HostParts, example: Example) -> PromptLength:
    """Count the tokens of a prompt, and say what is wrong where it does not fit its slots."""
    slots = parts.config.tree.prompt_tokens
    try:
        asked = in_frame(parts, example)
        row, counts = prompt_row(asked, parts.tokenizer, parts.processor, parts.template)
        if len(row) <= slots:
            parts.processor.check(asked)
            return PromptLength(tokens=len(row), misfit=None)
    except UserError as error:
        known = f"record {example.id}" in str(error)
        words = str(error) if known else f"record {example.id}: {error}"
        return PromptLength(tokens=0, misfit=Misfit(node="prompt", tokens=0, words=words))
    misfit = Misfit(
        node="prompt",
        tokens=len(row),
        words=too_long_words(asked, counts, len(row), slots),
        advice=smaller_images(asked, counts, len(row), slots, parts.processor),
    )
    return PromptLength(tokens=len(row), misfit=misfit)


def demonstration_length(parts: HostParts, example: Example, row: int) -> DemonstrationLength:
    """Count the tokens of a demonstration, and say what is wrong where it does not fit."""
    shown = demonstration_of(parts, in_frame(parts, example), row)
    tags = parts.template.tags
    tokens = {
        "thought": len(parts.tokenizer.encode(thought_text(shown.thought, tags))),
        "answer": len(parts.tokenizer.encode(answer_text(shown.answer, tags))),
    }
    misfit = None
    for node, count in reversed(tokens.items()):
        slots = getattr(parts.config.tree, f"{node}_tokens")
        if count > slots:
            words = (
                f"the {node} of record {example.id} has {count} tokens, but there are {slots} "
                f"{node} slots"
            )
            misfit = Misfit(node=node, tokens=count, words=words)
    return DemonstrationLength(**tokens, misfit=misfit)


def demonstration_of(parts: HostParts, example: Example, position: int) -> Demonstration:
    """Return what SFT shows of an example, asked in the model's frame, at a position of the stream.

    Each position has its own noise. UserError where the task has nothing to show.
    """
    config = parts.config
    assert parts.task.demonstrate is not None
    rng = position_generator(demonstration_seed(config), position)
    shown = parts.task.demonstrate(config.task, example, rng)
    if shown is None:
        raise UserError(
            f"task {config.task.name} has no demonstration of {example.id}; where some "
            "training records have none, Task.demonstrated_rows says which have one"
        )
    for name, text in vars(shown).items():
        if tag := next((tag for tag in config.prompt.tags.all if tag in text), None):
            raise UserError(
                f"the {name} that SFT would show of record {example.id} holds the tag {tag} "
                "itself; set other prompt.tags, or take it out of the record"
            )
    return shown


def demonstration_seed(config: ExperimentConfig) -> int:
    """Return the seed for the order of demonstrations and their noise.

    It differs between an SFT run and one of the same seed that continues from it.
    """
    if config.init_from is None:
        return config.seed
    return int(np.random.SeedSequence((config.seed, GOING_ON)).generate_state(1)[0] >> 1)


def fitting_rows(parts: HostParts, split: str) -> Iterator[int]:
    """Yield the rows of a split whose prompts fit, in order."""
    source = outline_source(parts, split)
    assert source is not None
    for row in range(len(source)):
        if prompt_length(parts, source[row]).misfit is None:
            yield row


def kept_rows(parts: HostParts) -> Sequence[int]:
    """Return the training rows whose prompts fit; found out once for a run's parts."""
    if "rl" not in parts.kept:
        parts.kept["rl"] = tuple(fitting_rows(parts, "train"))
    return require_some(parts.kept["rl"], "prompt")


def shown_rows(parts: HostParts, rows: Sequence[int]) -> Sequence[int]:
    """Return which of the demonstrated rows fit, prompt and demonstration alike."""
    if "sft" not in parts.kept:
        source = outline_source(parts, "train")
        assert source is not None
        fits = sorted(set(kept_rows(parts)) & set(rows))
        parts.kept["sft"] = tuple(
            row for row in fits if demonstration_length(parts, source[row], row).misfit is None
        )
    return require_some(parts.kept["sft"], "demonstration")


def require_some(rows: Sequence[int], what: str) -> Sequence[int]:
    """Return the rows. UserError where there are none."""
    if not rows:
        raise UserError(
            f"task.too_long = leave_out left out every training record: no {what} fits its slots; "
            "raise tree.prompt_tokens, tree.thought_tokens and tree.answer_tokens"
        )
    return rows


def check_lengths(parts: HostParts, demonstrated: Sequence[int]) -> list[str]:
    """Look at every prompt that a run will ask, and every demonstration that SFT imitates.

    Returns a line for each split of which records are left out. Raises UserError that says how many
    do not fit, and names the longest, unless `task.too_long` is `leave_out`. `demonstrated` are the
    training rows with a demonstration.
    """
    found: list[str] = []
    for split in ("train", "validation", "test"):
        source = outline_source(parts, split)
        if source is None:
            continue
        limit = len(source) if split == "train" else parts.config.evaluation.examples
        count = min(len(source), limit)
        misfits = [prompt_length(parts, source[row]).misfit for row in range(count)]
        found += report(parts, "prompts", split, misfits)
        if split == "train" and parts.config.sft.steps:
            fits = [row for row in demonstrated if misfits[row] is None]
            shown = [demonstration_length(parts, source[row], row).misfit for row in fits]
            found += report(parts, "demonstrations", split, shown)
    return found


def report(parts: HostParts, what: str, split: str, judged: Sequence[Misfit | None]) -> list[str]:
    """Return a line on misfits that are left out, if any; UserError where they are refused."""
    misfits = [misfit for misfit in judged if misfit is not None]
    if not misfits:
        return []
    told, named = f"{len(misfits)} of {len(judged)} {what} of split {split}", name_misfits(misfits)
    if parts.config.task.too_long == "leave_out":
        return [f"{told} are left out (task.too_long): {named}"]
    fixes = [*fixes_of(misfits), "or leave such records out: task.too_long = leave_out"]
    raise UserError(f"{told} do not fit: {named}; {', '.join(fixes)}")


def name_misfits(misfits: Sequence[Misfit]) -> str:
    """Say what is wrong with a few of some misfits, the longest first."""
    longest = max(misfits, key=lambda misfit: misfit.tokens)
    ordered = sorted(misfits, key=lambda misfit: (misfit.tokens > 0, -misfit.tokens))
    named = list(dict.fromkeys([longest.words, *(misfit.words for misfit in ordered)]))
    more = f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f"{'; '.join(named[:_NAMED])}{more}"


def fixes_of(misfits: Sequence[Misfit]) -> list[str]:
    """Return what to set so that all of these fit."""
    most: dict[str, int] = {}
    for misfit in misfits:
        if misfit.tokens:
            most[misfit.node] = max(most.get(misfit.node, 0), misfit.tokens)
    fixes = [f"set tree.{node}_tokens to at least {tokens}" for node, tokens in most.items()]
    advice = max(misfits, key=lambda misfit: misfit.tokens).advice
    return [*fixes, f"or {advice}"] if advice else fixes


def first_rows(parts: HostParts, split: str, count: int) -> Sequence[int]:
    """Return the first rows of a split, of those whose prompts fit where others are left out."""
    if parts.config.task.too_long == "leave_out":
        return tuple(islice(fitting_rows(parts, split), count))
    source = parts.task.source(parts.config.task, parts.config.launch.data_dir, split)
    return range(min(count, len(source)))
