"""The pool of scoring processes: who works on what, until when, and who is replaced."""

import contextlib
import math
import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from json import loads
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

from gmma.errors import UserError
from gmma.named import import_path, module_command
from gmma.rewards.outcomes import (
    CRASH,
    KINDS,
    TIMEOUT,
    UNFINISHED,
    UNTRIED,
    Outcome,
    Scored,
    Tally,
)
from gmma.rewards.terms import (
    Reads,
    RewardTerm,
    Units,
    calls_of,
    check_lengths,
    rows_of_terms,
    select_columns,
    units_of,
)
from gmma.rewards.worker import (
    BEGAN,
    FINISHED,
    FORKED,
    READY,
    STOP,
    Chunk,
    frame_message,
    map_progress,
)

_LARGEST_CHUNK = 64
_CHUNKS_PER_WORKER = 4  # so that one slow chunk does not leave the other workers idle
_STARTUP_SECONDS = 120.0
_SHORTEST_TRY_SECONDS = 0.25
_PATIENCE = 8  # how much longer the next try of an answer may take
_REPORTED = (*KINDS, UNFINISHED, READY, STOP)
_MARK = "GMMA_REWARD_POOL"
_FOREIGN_OUTPUT = (
    "a reward wrote on the descriptor on which its worker reports scores; a reward may write on 1 "
    "and 2 (standard output and error) and on what it opens itself"
)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The calls of (answer, term) pairs that a worker is given at once."""

    calls: tuple[Units, ...]
    try_seconds: float | None = None  # None: as long as the reward itself allows


@dataclass(kw_only=True)
class _Worker:
    """One process with the job it holds and how far it has come."""

    process: subprocess.Popen
    connection: socket.socket
    progress: np.ndarray  # float64[3] in shared memory, written by the process
    ready: bool = False
    job: _Job | None = None
    units: list[tuple[int, int]] = field(default_factory=list)  # of the job's calls, in order
    recorded: int = 0  # units whose outcome has arrived; whole calls, as they are sent
    received: bytearray = field(default_factory=bytearray)

    def call_in_hand(self, timeout_seconds: float | int) -> tuple[int, float]:
        """Return the call being made, and when it (or the process's start) has taken too long.

        Read in the reverse of the order of writing: a call that ends meanwhile is never late.
        """
        call = int(self.progress[FINISHED])
        limit = timeout_seconds if self.ready else _STARTUP_SECONDS
        return call, float(self.progress[BEGAN]) + limit

    def take(self, job: _Job | None) -> None:
        self.job, self.recorded = job, 0
        self.units = [unit for call in job.calls for unit in call] if job else []
        self.progress[BEGAN], self.progress[FINISHED] = time.monotonic(), 0

    def calls_left(self) -> list[tuple[int, Units]]:
        """Return the job's calls whose outcomes have not arrived, each with its place."""
        assert self.job is not None
        begins = accumulate(map(len, self.job.calls), initial=0)
        places = zip(begins, enumerate(self.job.calls), strict=False)
        return [numbered for begin, numbered in places if begin >= self.recorded]

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
        self.mark = uuid.uuid4().hex  # in the environment of all that its workers start
        self.workers: list[_Worker] = []
        self.reads: list[Reads] = []  # by term, as the workers say
        self.unfinished: list[tuple[tuple[int, int], float]] = []  # with the seconds it had

    def start(self, workers: int) -> None:
        self.workers = [self._start_worker() for _ in range(workers)]
        while not all(worker.ready for worker in self.workers):
            nothing = Tally(self.names, np.ones((0, len(self.names)), bool))
            self._await_events(nothing, math.inf, deque())

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
        self.workers = []
        _end_marked(f"{_MARK}={self.mark}".encode())

    def score(
        self, answers: Sequence[str], *, thoughts: Sequence[str], columns: Mapping[str, Any]
    ) -> Scored:
        check_lengths(answers, thoughts, columns)
        selected = [
            select_columns(term, reads, columns, len(answers))
            for term, reads in zip(self.terms, self.reads, strict=True)
        ]
        tally = Tally(self.names, rows_of_terms(self.terms, len(answers), columns))
        self.unfinished = []
        units = units_of(tally.applies)
        waiting = self._split(units, self._first_try(len(units)))
        step_deadline = time.monotonic() + self.step_seconds
        try:
            while waiting or self.unfinished or any(worker.job for worker in self.workers):
                if not waiting:
                    waiting += self._try_again()
                for worker in self.workers:
                    if waiting and worker.ready and worker.job is None:
                        self._hand_out(worker, waiting, answers, thoughts, selected)
                self._await_events(tally, step_deadline, waiting)
                if time.monotonic() >= step_deadline:
                    self._give_up(tally, waiting)
        except BaseException:
            # A worker may still hold answers of a batch that nobody waits for any more.
            self._replace([worker for worker in self.workers if worker.job])
            raise
        return tally.scored()

    def _split(
        self, units: Sequence[tuple[int, int]], try_seconds: float | None = None
    ) -> deque[_Job]:
        """Split the pairs into jobs of pairs far apart: what hangs in one tree delays no other."""
        if not units:
            return deque()
        calls = calls_of(self.terms, units)
        size = math.ceil(len(calls) / (_CHUNKS_PER_WORKER * len(self.workers)))
        count = math.ceil(len(calls) / min(size, _LARGEST_CHUNK))
        return deque(
            _Job(calls=tuple(calls[at::count]), try_seconds=try_seconds) for at in range(count)
        )

    def _first_try(self, units: int) -> float | None:
        """Return the seconds of the first try of each; None if the step has time for all to hang.

        Half of the step's time is for first tries. Whoever needs longer gets `_PATIENCE` times more
        when all have had theirs, and so on up to the reward's own limit.
        """
        share = self.step_seconds * len(self.workers) / (2 * max(units, 1))
        share = max(share, _SHORTEST_TRY_SECONDS)
        return None if share >= self.timeout_seconds else share

    def _try_again(self) -> deque[_Job]:
        """Make jobs with more time of the pairs that were not finished."""
        if not self.unfinished:
            return deque()
        longest = max(seconds for _, seconds in self.unfinished) * _PATIENCE
        units = [unit for unit, _ in self.unfinished]
        self.unfinished = []
        return self._split(units, longest if longest < self.timeout_seconds else None)

    def _hand_out(
        self,
        worker: _Worker,
        waiting: deque[_Job],
        answers: Sequence[str],
        thoughts: Sequence[str],
        selected: Sequence[Mapping[str, Any]],
    ) -> None:
        job = waiting.popleft()
        items = sorted({item for call in job.calls for item, _ in call})
        place = {item: at for at, item in enumerate(items)}
        chunk = Chunk(
            answers=[answers[item] for item in items],
            thoughts=[thoughts[item] for item in items],
            columns=[
                {name: [column[item] for item in items] for name, column in c.items()}
                for c in selected
            ],
            calls=[tuple((place[item], index) for item, index in call) for call in job.calls],
            try_seconds=job.try_seconds,
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
        deadlines = [worker.call_in_hand(self.timeout_seconds)[1] for worker in active]
        pause = max(0.0, min([*deadlines, step_deadline]) - time.monotonic())
        readable = wait([worker.connection for worker in active], pause)
        now = time.monotonic()
        for worker in active:
            call, deadline = worker.call_in_hand(self.timeout_seconds)
            if worker.connection in readable:
                if not self._receive(worker, tally):
                    self._fail(worker, call, CRASH, "the scoring process died", tally, waiting)
            elif now >= deadline:
                message = f"no score within {self.timeout_seconds:g} seconds"
                self._fail(worker, call, TIMEOUT, message, tally, waiting)

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
            for outcome in _read_outcomes(bytes(line)):
                self._record(worker, outcome, tally)
        return bool(data)

    def _record(self, worker: _Worker, outcome: Outcome, tally: Tally) -> None:
        if outcome.kind == STOP:
            raise UserError(outcome.message)
        if outcome.kind == READY:
            worker.ready = True
            self.reads = [
                Reads(frozenset(names), rest, frozenset(needed))
                for names, rest, needed in loads(outcome.message)
            ]
            return
        if forked := int(worker.progress[FORKED]):
            raise UserError(
                f"reward '{self.names[forked - 1]}' forked, and its child returned as if it were "
                "the reward: end the child with os._exit, or use subprocess or multiprocessing"
            )
        if worker.job is None:
            raise UserError(_FOREIGN_OUTPUT)
        unit = worker.units[worker.recorded]
        tally.record(unit, outcome)
        if outcome.kind == UNFINISHED and worker.job.try_seconds is not None:
            self.unfinished.append((unit, worker.job.try_seconds))
        worker.recorded += 1
        if worker.recorded == len(worker.units):
            worker.take(None)

    def _fail(
        self,
        worker: _Worker,
        call: int,
        kind: str,
        message: str,
        tally: Tally,
        waiting: deque[_Job],
    ) -> None:
        """Blame the call in hand, give the rest of the job back, and replace the worker."""
        if not worker.ready:
            raise UserError(
                f"a reward worker did not start ({message}); its own output says why, or run with "
                "workers=0 to see the error in this process"
            )
        if (job := worker.job) is not None:
            for unit in job.calls[call]:
                tally.record(unit, Outcome(kind, message=message))
            if rest := tuple(own for place, own in worker.calls_left() if place != call):
                waiting.appendleft(replace(job, calls=rest))
        self._replace([worker])

    def _give_up(self, tally: Tally, waiting: deque[_Job]) -> None:
        """End the step: what is in hand has timed out; what had no turn is counted apart.

        What was tried and not finished keeps what it scored until then.
        """
        over = f"the step's {self.step_seconds:g} seconds are over"
        busy = [worker for worker in self.workers if worker.job]
        untried = [unit for job in waiting for call in job.calls for unit in call]
        for worker in busy:
            in_hand = worker.call_in_hand(self.timeout_seconds)[0]
            left = worker.calls_left()
            begun = [unit for place, call in left if place <= in_hand for unit in call]
            self._record_lost(tally, begun, TIMEOUT, over)
            untried += [unit for place, call in left if place > in_hand for unit in call]
        self._record_lost(tally, untried, UNTRIED, over)
        waiting.clear()
        self.unfinished = []
        self._replace(busy)

    def _record_lost(
        self, tally: Tally, units: Sequence[tuple[int, int]], kind: str, message: str
    ) -> None:
        for unit in units:
            if not tally.is_recorded(unit):
                tally.record(unit, Outcome(kind, message=message))

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
                module_command("gmma.rewards.worker", *arguments),
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                env={**_worker_environment(), _MARK: self.mark},
                start_new_session=True,
            )
            progress = map_progress(file.fileno())
        with contextlib.suppress(OSError):  # a worker that died at once is seen by its silence
            ours.sendall(frame_message(self.terms))
        worker = _Worker(process=process, connection=ours, progress=progress)
        worker.take(None)
        return worker


def _read_outcomes(line: bytes) -> list[Outcome]:
    """Read the outcomes that a worker reports in a line. Raises UserError for any other line."""
    try:
        outcomes = [Outcome(*outcome) for outcome in loads(line)]
    except (ValueError, TypeError, RecursionError):
        raise UserError(_FOREIGN_OUTPUT) from None
    if not all(outcome.kind in _REPORTED for outcome in outcomes):
        raise UserError(_FOREIGN_OUTPUT)
    return outcomes


def _end_marked(mark: bytes) -> None:
    """Kill what a reward started and left behind: it still has its worker's environment."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is gone, or another user's
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)


def _worker_environment() -> dict[str, Any]:
    """Return the caller's environment with its import path, one thread each, and no device."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": import_path(), "JAX_PLATFORMS": "cpu"}
