"""Sums and counts until they are printed; then JSON lines, TensorBoard and one line on screen."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gmma.files import RunPath, growing_files, write_whole
from gmma.types import Metric

if TYPE_CHECKING:  # tensorboardX imports torch where it finds it, which takes seconds
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event

Record = dict[str, Any]
RECORDS = "metrics.jsonl"
TIME, LEFT = "clock/time", "clock/left"  # seconds since 1970; of the phase, as estimated
UNSHOWN = ("step", "phase", TIME, LEFT)  # of a record: no curves
UNREADABLE = "metrics.unreadable"  # lines of it that are no records, as they stood there


def mean(total: float | np.number, count: float | np.number) -> Metric:
    """Make a metric on the host."""
    return Metric(total=np.asarray(total, np.float32), count=np.asarray(count, np.float32))


def mean_of(values: np.ndarray) -> Metric:
    """Return the mean of an array, NaN left out, as sum and count."""
    held = values[np.isfinite(values)]
    return mean(held.sum(dtype=np.float64), held.size)


def merge(first: Mapping[str, Metric], second: Mapping[str, Metric]) -> dict[str, Metric]:
    """Add sums and counts name by name, on the host."""
    merged = dict(first)
    for name, metric in second.items():
        held = merged.get(name)
        merged[name] = metric if held is None else add(held, metric)
    return merged


def add(first: Metric, second: Metric) -> Metric:
    """Add two metrics on the host."""
    return Metric(
        total=np.asarray(first.total + second.total), count=np.asarray(first.count + second.count)
    )


def compute(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Turn sums and counts into means by name; a metric that counted nothing is left out."""
    return {
        name: float(metric.total) / float(metric.count)
        for name, metric in sorted(metrics.items())
        if float(metric.count) > 0
    }


Completion = tuple[str, str, str, float | None]  # prompt, thought, answer, reward


def no_completions(step: int, rows: Sequence[Completion]) -> None:
    """Keep no table of completions: trees are in `samples/`."""


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Destination of records: `metrics.jsonl` with TensorBoard's events, Weights & Biases."""

    write: Callable[[Record], None]  # its `step` is the global step of the run
    flush: Callable[[], None]  # what was written before outlives a kill
    completions: Callable[[int, Sequence[Completion]], None] = no_completions


SILENT = Writer(write=lambda record: None, flush=lambda: None)  # of a host that does not lead


def read_records(path: RunPath) -> list[Record]:
    """Read the records of a run. Other lines are left out, and their number is logged."""
    records, unreadable = split_records(path)
    if unreadable:
        logging.getLogger(__name__).warning(
            _say_unreadable(path, unreadable) + " They are left out."
        )
    return records


def split_records(path: RunPath) -> tuple[list[Record], list[bytes]]:
    """Split a file into the records of a run and the other lines, without their ends.

    An unfinished last line that is no record is in neither: a kill has cut it.
    """
    *lines, last = path.read_bytes().split(b"\n") if path.exists() else [b""]
    read = [(line, _read_record(line)) for line in lines if line.strip()]
    unreadable = [line for line, record in read if record is None]
    records = [record for _, record in [*read, (last, _read_record(last))] if record is not None]
    return records, unreadable


def _read_record(line: bytes) -> Record | None:
    """Return a JSON object with a step and a phase, else None."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or brackets without end
        return None
    whole = isinstance(record, dict) and type(record.get("step")) is int
    return record if whole and isinstance(record.get("phase"), str) else None


def _say_unreadable(path: RunPath, lines: list[bytes]) -> str:
    return f"{path}: no record of a step in {len(lines)} of its lines, first {lines[0][:60]!r}."


@contextmanager
def open_writer(run_dir: RunPath, *, before_step: int) -> Iterator[Writer]:
    """Open a run's metrics, dropping records that a resumed run will write again.

    Records of `step ≥ before_step` were written after the checkpoint that the run resumes from.
    Lines that are no records go to a file beside it, and that is printed.
    """
    found, unreadable = split_records(run_dir / RECORDS)
    kept = [record for record in found if record["step"] < before_step]
    if unreadable:
        set_lines_aside(run_dir, unreadable)
    say_missing(run_dir, kept, before_step)
    with growing_files(run_dir) as (folder, bring):
        path = folder / RECORDS
        write_whole(path, "".join(json.dumps(record) + "\n" for record in kept))
        events = open_events(folder / "tensorboard", before_step)

        def write(record: Record) -> None:
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            events.write_event(step_event(record))

        def flush() -> None:
            with path.open("a") as file:
                os.fsync(file.fileno())
            events.flush()  # to the disk, too
            bring()

        try:
            yield Writer(write=write, flush=flush)
        finally:
            events.close()


def set_lines_aside(run_dir: RunPath, lines: list[bytes]) -> None:
    """Keep lines that are no records in a file beside them, and say so."""
    path = run_dir / UNREADABLE
    before = path.read_bytes() if path.exists() else b""
    path.write_bytes(before + b"".join(line + b"\n" for line in lines))
    print(f"{_say_unreadable(run_dir / RECORDS, lines)} They are now in {path}.")


def say_missing(run_dir: RunPath, records: list[Record], before_step: int) -> None:
    """Say which steps behind the checkpoint have no record."""
    missing = sorted(set(range(before_step)) - {record["step"] for record in records})
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
        print(
            f"{run_dir / RECORDS}: no record of {len(missing)} of the {before_step} steps before "
            f"the checkpoint: {shown}. Curves lack them; the run does not."
        )


def open_events(directory: Path, before_step: int) -> "EventsWriter":
    """Open a TensorBoard file that hides the steps from this one on in older files.

    Not `SummaryWriter`: its `flush` writes out what its thread has taken from a queue, and leaves
    what is still in it, so that a kill behind a checkpoint lost the steps before it.
    """
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    directory.mkdir(parents=True, exist_ok=True)
    # The name has the second alone: a run resumed at once would write over its own file.
    events = EventsWriter(str(directory / "events"), f".{time.time_ns()}")
    start = SessionLog(status=SessionLog.START)
    events.write_event(Event(wall_time=time.time(), step=before_step, session_log=start))
    events.flush()
    return events


def curves(record: Record) -> dict[str, int | float]:
    """Return a record's finite figures by `{phase}/{name}`."""
    return {
        f"{record['phase']}/{name}": value
        for name, value in record.items()
        if name not in UNSHOWN and isinstance(value, int | float) and math.isfinite(value)
    }


def join_writers(writers: Sequence[Writer]) -> Writer:
    """Return a writer to several destinations."""

    def write(record: Record) -> None:
        for writer in writers:
            writer.write(record)

    def flush() -> None:
        for writer in writers:
            writer.flush()

    def completions(step: int, rows: Sequence[Completion]) -> None:
        for writer in writers:
            writer.completions(step, rows)

    return Writer(write=write, flush=flush, completions=completions)


def step_event(record: Record) -> "Event":
    """Return a record's figures that are finite, as TensorBoard shows them."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import scalar

    values = [
        shown for name, value in curves(record).items() for shown in scalar(name, value).value
    ]
    return Event(wall_time=time.time(), step=record["step"], summary=Summary(value=values))


_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # ends where the compiler begins
_COMPILED = "/jax/core/compile/backend_compile_duration"
_compile_count, _compile_total, _compiles_now = [0], [0.0], [False]


def _watch_compiler(event: str, duration_secs: float, **_: str | int) -> None:
    if event == _LOWERED:
        _compiles_now[0] = True
    elif event == _COMPILED:
        _compiles_now[0] = False
        _compile_count[0] += 1
        _compile_total[0] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_watch_compiler)


def compilations() -> int:
    """Count the programs compiled, or read from the compilation cache, in this process so far."""
    return _compile_count[0]


def compile_seconds() -> float:
    """Return what compiling them took, in seconds; of several threads, the sum."""
    return _compile_total[0]


def compiles_now() -> bool:
    """Return whether a program is being compiled."""
    return _compiles_now[0]
