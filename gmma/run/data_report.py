"""Show in plain text what a run would ask: a prompt, lengths in tokens, and what does not fit.

Lines have 80 columns and ASCII alone, but for the words of the records themselves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from gmma.run.assembly import HostParts
from gmma.run.feed import read_prompts, rows_with_demonstrations
from gmma.run.lengths import (
    DemonstrationLength,
    Misfit,
    PromptLength,
    demonstration_length,
    fixes_of,
    name_misfits,
    outline_source,
    prompt_length,
)
from gmma.text.tokenizer import shown
from gmma.types import Example

UNPACKED = 1024  # records of a split that are looked at where each picture would be unpacked
_BINS, _BAR = 12, 48  # of a histogram: rows at most, and columns of the longest bar


@dataclass(frozen=True, kw_only=True)
class SplitLengths:
    """Lengths of a split's prompts, and of its demonstrations where the task has any."""

    split: str
    records: int  # of the split; the first of them were looked at, all if not said otherwise
    prompts: tuple[PromptLength, ...]
    demonstrations: tuple[DemonstrationLength, ...]

    def nodes(self) -> dict[str, list[int]]:
        """Return the known lengths in tokens of each kind of node."""
        return {
            "prompt": [found.tokens for found in self.prompts if found.tokens],
            "thought": [found.thought for found in self.demonstrations],
            "answer": [found.answer for found in self.demonstrations],
        }


def measure_split(parts: HostParts, split: str) -> SplitLengths:
    """Count the tokens of every prompt of a split, and of the demonstrations of `train`.

    Where pictures would be unpacked for it, of the first `UNPACKED` records alone.
    """
    source = outline_source(parts, split)
    whole = source is not None
    if source is None:
        source = parts.task.source(parts.config.task, parts.config.launch.data_dir, split)
    count = len(source) if whole else min(len(source), UNPACKED)
    prompts = tuple(prompt_length(parts, source[row]) for row in range(count))
    rows = rows_with_demonstrations(parts) if split == "train" else ()
    # One whose images cannot be shown has no frame to demonstrate in.
    known = [row for row in rows if row < count and prompts[row].tokens]
    return SplitLengths(
        split=split,
        records=len(source),
        prompts=prompts,
        demonstrations=tuple(demonstration_length(parts, source[row], row) for row in known),
    )


def prompt_lines(parts: HostParts, example: Example) -> list[str]:
    """Return the whole prompt of an example, image slots counted; UserError if it does not fit."""
    prompts = read_prompts(parts, [example])
    count = int(prompts.lengths[0])
    row = np.asarray(prompts.tokens[0, :count]).tolist()
    slots = parts.config.tree.prompt_tokens
    return [
        f"prompt of {example.id}, {count} tokens of {slots} slots:",
        shown(parts.tokenizer, row, fold_images=True),
    ]


def length_lines(parts: HostParts, found: SplitLengths) -> list[str]:
    """Return a table of lengths and a histogram of each kind of node."""
    slots = {node: getattr(parts.config.tree, f"{node}_tokens") for node in found.nodes()}
    held = {node: tokens for node, tokens in found.nodes().items() if tokens}
    looked = len(found.prompts)
    less = f"the first {looked} of {found.records}" if looked < found.records else f"{looked}"
    lines = [
        f"lengths in tokens, {less} records of {found.split}",
        f"{'':10}{'records':>9}{'median':>9}{'longest':>9}{'slots':>9}",
    ]
    for node, tokens in held.items():
        middle = f"{median(tokens):g}"
        figures = (len(tokens), middle, max(tokens), slots[node])
        lines.append(f"{node + 's':10}" + "".join(f"{figure:>9}" for figure in figures))
    for node, tokens in held.items():
        lines += ["", f"{node}s by tokens (# fits the slots, x does not)"]
        lines += histogram(tokens, slots[node])
    return lines


def histogram(values: Sequence[int], limit: int) -> Iterator[str]:
    """Yield a line a bin of equal width: its values as `#` up to the limit and as `x` beyond.

    >>> print(*histogram([1, 2, 2, 4], 3), sep="\\n")
                  1 | ######################## 1
                  2 | ################################################ 2
                  3 | 0
                  4 | xxxxxxxxxxxxxxxxxxxxxxxx 1
    """
    width = bin_width(min(values), max(values))
    first, last = min(values) // width, max(values) // width
    places = [value // width for value in values]
    most = max(places.count(place) for place in set(places))
    for place in range(first, last + 1):
        own = [value for value in values if value // width == place]
        fits = sum(value <= limit for value in own)
        bars = [round(_BAR * count / most) for count in (fits, len(own))]
        low, high = place * width, (place + 1) * width - 1
        name = f"{low}" if width == 1 else f"{low} - {high}"
        bar = "#" * bars[0] + "x" * (bars[1] - bars[0])
        yield f"{name:>15} | {bar}{' ' if bar else ''}{len(own)}"


def bin_width(low: int, high: int) -> int:
    """Return 1, 2, 5, 10, … so that few bins hold all integers of a range.

    >>> bin_width(3, 9), bin_width(0, 400)
    (1, 50)
    """
    widths = (digit * 10**power for power in range(10) for digit in (1, 2, 5))
    return next(width for width in widths if high // width - low // width < _BINS)


def fit_lines(parts: HostParts, found: SplitLengths) -> Iterator[str]:
    """Yield a line each on prompts and demonstrations: all fit, or which do not and what to set."""
    judged: dict[str, list[Misfit | None]] = {
        "prompts": [one.misfit for one in found.prompts],
        "demonstrations": [one.misfit for one in found.demonstrations],
    }
    refused = parts.config.task.too_long == "refuse"
    fate = "a run refuses them" if refused else "a run leaves them out"
    for what, each in judged.items():
        misfits = [misfit for misfit in each if misfit is not None]
        if misfits:
            fixes = ", ".join(fixes_of(misfits))
            yield (
                f"{len(misfits)} of {len(each)} {what} of {found.split} do not fit, and {fate} "
                f"(task.too_long): {name_misfits(misfits)}{'; ' if fixes else ''}{fixes}"
            )
        elif each:
            yield f"all {len(each)} {what} of {found.split} that were looked at fit their slots"
