"""Show a run's progress: a bar with rate, time left and reward, or plain lines."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from gmma.images.processor import ImageProcessor
from gmma.records.metrics import Record

LINE_EVERY_SECONDS = 15.0  # where the output is no terminal


Display = Callable[[str, int, int], AbstractContextManager[Callable[[int, Record], None]]]


@contextmanager
def no_display(phase: str, done: int, total: int) -> Iterator[Callable[[int, Record], None]]:
    """Show nothing, as `open_display` does on all hosts but one."""
    yield lambda step, record: None


@contextmanager
def open_display(phase: str, done: int, total: int) -> Iterator[Callable[[int, Record], None]]:
    """Show a progress bar on a terminal, else a line every few seconds; on one host only.

    The function it yields takes the number of steps done and the last step's record.
    """
    if jax.process_index() != 0:
        yield lambda step, record: None
        return
    console = wide_console()
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    )
    start, last_line = time.monotonic(), [0.0]
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(phase, total=total, completed=done, rate="", shown="")

        def advance(step: int, record: Record) -> None:
            name = "reward" if "reward" in record else "loss"
            shown = f"{name} {record[name]:.3f}"
            now = time.monotonic()
            seconds = (now - start) / max(step - done, 1)
            rate = f"{seconds:.2f} s/step"
            bar.update(task, completed=step, shown=shown, rate=rate)
            due = now - last_line[0] > LINE_EVERY_SECONDS or step == total
            if not console.is_terminal and due:
                last_line[0] = now
                left = f"{seconds * (total - step):.0f} s left"
                console.print(f"{phase} {step}/{total}  {rate}  {left}  {shown}", highlight=False)

        yield advance


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


def wide_console() -> Console:
    """Return a console that does not fold tables where the output is a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table; the first column is left-aligned, the others are figures."""
    table = Table(title=title)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    wide_console().print(table)
