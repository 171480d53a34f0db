"""Show a run's progress: a bar with rate, time left and reward, or plain lines."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import jax
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.text import Text

from gmma.images.processor import ImageProcessor
from gmma.records.metrics import Record, compiles_now
from gmma.records.pace import Estimate, spell_seconds

LINE_EVERY_SECONDS = 15.0  # where the output is no terminal
WIDTH = 80  # columns, where the output does not say how many it has
COMPILING = "compiling …"

Advance = Callable[[int, Record, Estimate], None]
Display = Callable[[str, int, int], AbstractContextManager[Advance]]


@contextmanager
def no_display(phase: str, done: int, total: int) -> Iterator[Advance]:
    """Show nothing, as `open_display` does on all hosts but one."""
    yield lambda done, record, left: None


@contextmanager
def open_display(phase: str, done: int, total: int) -> Iterator[Advance]:
    """Show a progress bar on a terminal, else a line every few seconds; on one host only.

    The function it yields takes the number of steps done, the last step's record, and the rate with
    the time left. Until there is one, and whenever a program compiles, that is said instead.
    """
    if jax.process_index() != 0:
        yield lambda done, record, left: None
        return
    console = open_console()
    shown = show_bar if can_redraw(console) else show_lines
    with shown(console, phase, done, total) as advance:
        yield advance


class RateColumn(ProgressColumn):
    """Seconds a step, unless a program is being compiled."""

    def render(self, task: Task) -> Text:
        """Return what is so at this moment."""
        return Text(COMPILING if compiles_now() else task.fields["rate"])


@contextmanager
def show_bar(console: Console, phase: str, done: int, total: int) -> Iterator[Advance]:
    """Redraw one line, as wide as the terminal."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        RateColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[shown]}"),
    )
    with Progress(*columns, console=console, expand=True) as bar:
        rate = COMPILING if done < total else ""
        task = bar.add_task(phase, total=total, completed=done, rate=rate, left="", shown="")

        def advance(done: int, record: Record, left: Estimate) -> None:
            rate, rest = rate_words(left)
            shown = figure_words(record)
            bar.update(task, completed=done, rate=rate, left=rest, shown=shown)

        yield advance


@contextmanager
def show_lines(console: Console, phase: str, done: int, total: int) -> Iterator[Advance]:
    """Print a line at the start, then every few seconds and at the end."""
    last_line = [time.monotonic()]

    def line(done: int, *words: str) -> None:
        text = "  ".join((f"{phase} {done}/{total}", *filter(None, words)))
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    def advance(done: int, record: Record, left: Estimate) -> None:
        now = time.monotonic()
        if now - last_line[0] > LINE_EVERY_SECONDS or done == total:
            last_line[0] = now
            line(done, *rate_words(left), figure_words(record))

    if done < total:
        line(done, COMPILING)
    yield advance


def rate_words(left: Estimate) -> tuple[str, str]:
    """Word the rate and the time left."""
    if left.step_seconds is None or left.left_seconds is None:
        return COMPILING, ""
    return f"{left.step_seconds:.2f} s/step", f"{spell_seconds(left.left_seconds)} left"


def figure_words(record: Record) -> str:
    """Word the figure to watch: the reward, in SFT the loss."""
    name = "reward" if "reward" in record else "loss"
    return f"{name} {record[name]:.3f}"


def print_buckets(processor: ImageProcessor) -> None:
    """Say what the images of a prompt are padded to, and so how often programs are compiled."""
    if processor.buckets:
        sizes = ", ".join(map(str, processor.buckets))
        print(
            f"images of a prompt are padded to {sizes} {processor.bucket_unit} "
            "(0: the program without a tower); each program compiles once for each size it meets"
        )


def say(words: str) -> None:
    """Print a line, on one host."""
    if jax.process_index() == 0:
        print(words, flush=True)


def warn(words: str) -> None:
    """Print a warning on stderr, on one host."""
    if jax.process_index() == 0:
        print(f"warning: {words}", file=sys.stderr, flush=True)


def open_console() -> Console:
    """Return a console as wide as its terminal, as COLUMNS says, or WIDTH columns."""
    console = Console()
    known = console.is_terminal or "COLUMNS" in os.environ
    return console if known else Console(width=WIDTH)


def can_redraw(console: Console) -> bool:
    """Return whether a line can be drawn over: no file, no pipe, no dumb terminal."""
    return console.is_terminal and not console.is_dumb_terminal


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is left-aligned, the others are figures.

    Where the columns do not fit side by side, each row's figures stand below its name.
    """
    lines = list(columned(header, rows))
    fits = max(map(cell_len, lines)) <= open_console().width
    shown = lines if fits else stacked(header, rows)
    print(*([f"\n{title}"] if title else []), *shown, sep="\n", flush=True)


def columned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table with its columns side by side, the header above a rule.

    >>> print(*columned(["", "mean", "n"], [["iou", "0.5", "8"]]), sep="\\n")
         mean  n
    ────────────
    iou   0.5  8
    """
    widths = [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]
    for place, row in enumerate((header, *rows)):
        room = [" " * (width - cell_len(cell)) for width, cell in zip(widths, row, strict=True)]
        figures = (space + cell for space, cell in zip(room[1:], row[1:], strict=True))
        yield "  ".join((row[0] + room[0], *figures)).rstrip()
        if place == 0:
            yield "─" * (sum(widths) + 2 * len(widths) - 2)


def stacked(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table whose figures stand below the names of their rows.

    >>> print(*stacked(["", "mean", "n"], [["iou", "0.5", "8"]]), sep="\\n")
    iou
      mean  0.5
      n     8
    """
    first, *others = header
    width = max(map(cell_len, others))
    for name, *figures in rows:
        yield f"{first} {name}".lstrip()
        for head, figure in zip(others, figures, strict=True):
            yield f"  {head}{' ' * (width - cell_len(head))}  {figure}".rstrip()
