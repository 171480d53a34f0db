"""The pool of scoring processes: who works on what, until when, and who is replaced."""

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from json import loads
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from gmma.errors import UserError
from gmma.rewards.outcomes import CRASH, TIMEOUT, Outcome, Scored, Tally
from gmma.rewards.terms import (
    RewardTerm,
    check_lengths,
    columns_read,
    rows_of_terms,
    select_columns,
)
from gmma.rewards.worker import (
    BEGAN,
    FINISHED,
    READY,
    STOP,
    Chunk,
    frame_message,
    map_progress,
)

_LARGEST_CHUNK = 64
_CHUNKS_PER_WORKER = 4  # so that one slow chunk does not leave the other workers idle
_STARTUP_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Neighbouring answers `first … last − 1` and the (answer, term) pairs still to be scored."""

    first: int
    last: int
    units: tuple[tuple[int, int], ...]


@dataclass(kw_only=True)
class _Worker:
    """One process with the job it holds and how far it has come."""

    process: subprocess.Popen
    connection: socket.socket
    progress: np.ndarray  # float64[2] in shared memory, written by the process
    ready: bool = False
    job: _Job | None = None
    recorded: int = 0  # units of the job whose outcome has arrived
    received: bytearray = field(default_factory=bytearray)

    def unit_in_hand(self, timeout_seconds: float | int) -> tuple[int, float]:
        """The unit being scored, and when it (or the start of the process) has taken too long.

        Read in the reverse of the order of writing: a unit that ends meanwhile is never late.
        """
        unit = int(self.progress[FINISHED])
        limit = timeout_seconds if self.ready else _STARTUP_SECONDS
        return unit, float(self.progress[BEGAN]) + limit

    def take(self, job: _Job | None) -> None:
        self.job, self.recorded = job, 0
        self.progress[BEGAN], self.progress[FINISHED] = time.monotonic(), 0

    def end(self) -> None:
        """Kill the process with all that it started, and wait for it."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Pool:
    """The workers, each replaced when it fails; `score` runs one batch through them."""

    def __init__(
        self,
        terms: tuple[RewardTerm, ...],
        timeout_seconds: float | int,
        step_seconds: float | int,
        memory_bytes: int,
    ) -> None:
        self.terms = terms
        self.names = tuple(term.label for term in terms)
        self.timeout_seconds = timeout_seconds
        self.step_seconds = step_seconds
        self.memory_bytes = memory_bytes
        self.workers: list[_Worker] = []
        self.wanted: list[frozenset[str] | None] = []

    def start(self, workers: int) -> None:
        self.workers = [self._start_worker() for _ in range(workers)]
        while not all(worker.ready for worker in self.workers):
            nothing = Tally(self.names, np.ones((0, len(self.names)), bool))
            self._await_events(nothing, math.inf, deque())
        self.wanted = [columns_read(term) for term in self.terms]

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
        self.workers = []

    def score(
        self, answers: Sequence[str], *, thoughts: Sequence[str], columns: Mapping[str, Any]
    ) -> Scored:
        check_lengths(answers, thoughts, columns)
        selected = [
            select_columns(term, wanted, columns)
            for term, wanted in zip(self.terms, self.wanted, strict=True)
        ]
        tally = Tally(self.names, rows_of_terms(self.terms, len(answers), columns))
        waiting = self._split(tally.applies)
        step_deadline = time.monotonic() + self.step_seconds
        try:
            while waiting or any(worker.job for worker in self.workers):
                for worker in self.workers:
                    if waiting and worker.ready and worker.job is None:
                        self._hand_out(worker, waiting, answers, thoughts, selected)
                self._await_events(tally, step_deadline, waiting)
                if time.monotonic() >= step_deadline:
                    self._give_up(tally, waiting)
        except BaseException:
            # What a worker still holds belongs to a batch that nobody waits for any more.
            self._replace([worker for worker in self.workers if worker.job])
            raise
        return tally.scored()

    def _split(self, applies: np.ndarray) -> deque[_Job]:
        answers = len(applies)
        size = math.ceil(answers / (_CHUNKS_PER_WORKER * len(self.workers)))
        size = min(max(size, 1), _LARGEST_CHUNK)
        starts = range(0, answers, size)
        spans = [(first, min(first + size, answers)) for first in starts]
        units = [
            tuple((a + row, index) for row, index in np.argwhere(applies[a:b]).tolist())
            for a, b in spans
        ]
        return deque(
            _Job(first=a, last=b, units=own)
            for (a, b), own in zip(spans, units, strict=True)
            if own
        )

    def _hand_out(
        self,
        worker: _Worker,
        waiting: deque[_Job],
        answers: Sequence[str],
        thoughts: Sequence[str],
        selected: Sequence[Mapping[str, Any]],
    ) -> None:
        job = waiting.popleft()
        span = slice(job.first, job.last)
        chunk = Chunk(
            answers=answers[span],
            thoughts=thoughts[span],
            columns=[{name: column[span] for name, column in c.items()} for c in selected],
            units=[(item - job.first, index) for item, index in job.units],
        )
        worker.take(job)
        try:
            worker.connection.settimeout(self.timeout_seconds)
            worker.connection.sendall(frame_message(chunk))
        except OSError:  # it died while idle: no answer is to blame
            waiting.appendleft(job)
            worker.take(None)
            self._replace([worker])

    def _await_events(self, tally: Tally, step_deadline: float, waiting: deque[_Job]) -> None:
        """Wait for the next record or deadline, and deal with all that have come."""
        active = [worker for worker in self.workers if worker.job or not worker.ready]
        deadlines = [worker.unit_in_hand(self.timeout_seconds)[1] for worker in active]
        pause = max(0.0, min([*deadlines, step_deadline]) - time.monotonic())
        readable = wait([worker.connection for worker in active], pause)
        now = time.monotonic()
        for worker in active:
            unit, deadline = worker.unit_in_hand(self.timeout_seconds)
            if worker.connection in readable:
                if not self._receive(worker, tally):
                    self._fail(worker, unit, CRASH, "the scoring process died", tally, waiting)
            elif now >= deadline:
                message = f"no score within {self.timeout_seconds:g} seconds"
                self._fail(worker, unit, TIMEOUT, message, tally, waiting)

    def _receive(self, worker: _Worker, tally: Tally) -> bool:
        """Take in what a worker has written; False if it has closed its end."""
        try:
            data = worker.connection.recv(1 << 16)
        except OSError:
            return False
        worker.received += data
        *lines, rest = worker.received.split(b"\n")
        worker.received = bytearray(rest)
        for line in lines:
            for outcome in loads(line):
                self._record(worker, Outcome(*outcome), tally)
        return bool(data)

    def _record(self, worker: _Worker, outcome: Outcome, tally: Tally) -> None:
        if outcome.kind == STOP:
            raise UserError(outcome.message)
        if outcome.kind == READY:
            worker.ready = True
            return
        assert worker.job is not None
        tally.record(worker.job.units[worker.recorded], outcome)
        worker.recorded += 1
        if worker.recorded == len(worker.job.units):
            worker.take(None)

    def _fail(
        self,
        worker: _Worker,
        unit: int,
        kind: str,
        message: str,
        tally: Tally,
        waiting: deque[_Job],
    ) -> None:
        """Blame the unit in hand, give the rest of the job back, and replace the worker."""
        if not worker.ready:
            raise UserError(
                f"a reward worker did not start ({message}); its own output says why, or run with "
                "workers=0 to see the error in this process"
            )
        if (job := worker.job) is not None:
            tally.record(job.units[unit], Outcome(kind, message=message))
            if rest := job.units[worker.recorded : unit] + job.units[unit + 1 :]:
                waiting.appendleft(_Job(first=job.first, last=job.last, units=rest))
        self._replace([worker])

    def _give_up(self, tally: Tally, waiting: deque[_Job]) -> None:
        outcome = Outcome(TIMEOUT, message=f"the step's {self.step_seconds:g} seconds are over")
        busy = [worker for worker in self.workers if worker.job]
        left = [
            unit for worker in busy if worker.job for unit in worker.job.units[worker.recorded :]
        ]
        left += [unit for job in waiting for unit in job.units]
        for unit in left:
            tally.record(unit, outcome)
        waiting.clear()
        self._replace(busy)

    def _replace(self, ended: Sequence[_Worker]) -> None:
        for worker in ended:
            worker.end()
            self.workers[self.workers.index(worker)] = self._start_worker()

    def _start_worker(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as file:
            descriptors = (theirs.fileno(), file.fileno())
            arguments = map(str, (*descriptors, os.getpid(), self.memory_bytes))
            process = subprocess.Popen(
                [sys.executable, "-m", "gmma.rewards.worker", *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                env=_worker_environment(),
                start_new_session=True,
            )
            progress = map_progress(file.fileno())
        with contextlib.suppress(OSError):  # a worker that died at once is seen by its silence
            ours.sendall(frame_message(self.terms))
        worker = _Worker(process=process, connection=ours, progress=progress)
        worker.take(None)
        return worker


def _worker_environment() -> dict[str, Any]:
    """The caller's environment, its import path, one thread each, and no claim on a device."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
