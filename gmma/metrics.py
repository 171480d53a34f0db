"""Sums and counts until they are printed; then JSON lines, TensorBoard and one line on screen."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from gmma.files import RunPath, growing_files, write_whole
from gmma.types import Metric

Record = dict[str, Any]
RECORDS = "metrics.jsonl"


def mean(total: float | np.number, count: float | np.number) -> Metric:
    """A metric on the host."""
    return Metric(total=np.asarray(total, np.float32), count=np.asarray(count, np.float32))


def mean_of(values: np.ndarray) -> Metric:
    """The mean of an array, NaN left out, as sum and count."""
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
    """The metric of both together, on the host."""
    return Metric(
        total=np.asarray(first.total + second.total), count=np.asarray(first.count + second.count)
    )


def compute(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Names to means; a metric that counted nothing is left out."""
    return {
        name: float(metric.total) / float(metric.count)
        for name, metric in sorted(metrics.items())
        if float(metric.count) > 0
    }


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Where records go: `metrics.jsonl`, and TensorBoard events beside it."""

    write: Callable[[Record], None]  # its `step` is the global step of the run
    flush: Callable[[], None]  # what was written before outlives a kill


SILENT = Writer(write=lambda record: None, flush=lambda: None)  # of a host that does not lead


def read_records(path: RunPath) -> list[Record]:
    """The records of a run; a last line that a kill cut short is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


@contextmanager
def open_writer(run_dir: RunPath, *, before_step: int) -> Iterator[Writer]:
    """Open a run's metrics, dropping records that a resumed run will write again.

    Records of `step ≥ before_step` were written after the checkpoint that the run resumes from.
    """
    kept = [r for r in read_records(run_dir / RECORDS) if r["step"] < before_step]
    # The name has the second alone: a run resumed at once would write over its own file.
    suffix = f".{time.time_ns()}"
    with growing_files(run_dir) as (folder, bring):
        path = folder / RECORDS
        write_whole(path, "".join(json.dumps(record) + "\n" for record in kept))
        shown = str(folder / "tensorboard")
        events = SummaryWriter(shown, purge_step=before_step, filename_suffix=suffix)

        def write(record: Record) -> None:
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            for name, value in record.items():
                if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                    events.add_scalar(f"{record['phase']}/{name}", value, record["step"])

        def flush() -> None:
            events.flush()
            bring()

        try:
            yield Writer(write=write, flush=flush)
        finally:
            events.close()


_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
_compile_count = [0]


def _count_compile(event: str, duration_secs: float, **_: str | int) -> None:
    _compile_count[0] += event == _COMPILE_EVENT


jax.monitoring.register_event_duration_secs_listener(_count_compile)


def compilations() -> int:
    """Programs compiled, or read from the compilation cache, in this process so far."""
    return _compile_count[0]
