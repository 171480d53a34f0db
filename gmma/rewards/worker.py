"""One scoring process: chunks of answers in, outcomes out, through one socket.

Started by `gmma.rewards.service` as a fresh interpreter (never a fork of the trainer, so neither
JAX nor the accelerator is here) and killed by it when an answer takes too long.
"""

import contextlib
import ctypes
import inspect
import json
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from gmma.errors import UserError
from gmma.rewards import REWARDS
from gmma.rewards.outcomes import Outcome
from gmma.rewards.terms import (
    Reward,
    RewardTerm,
    Units,
    columns_read,
    find_reward,
    score_call,
    takes_time_limit,
)

READY, STOP = "ready", "stop"
# Slots of the progress: calls finished in this chunk, start of the next, whether a reward forked.
FINISHED, BEGAN, FORKED = 0, 1, 2
_SLOTS = 3
_LENGTH = struct.Struct("<Q")
_FLUSH_SECONDS = 0.001
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some answers with their columns, and the calls of (answer, term) pairs to make, in order."""

    answers: Sequence[str]
    thoughts: Sequence[str]
    columns: Sequence[Mapping[str, Any]]  # per term, the columns it reads
    calls: Sequence[Units]
    try_seconds: float | None = None  # what a reward that takes such a limit gets for an answer


def map_progress(descriptor: int) -> np.ndarray:
    """Map float64[3] that parent and worker share; each slot is read and written whole."""
    os.truncate(descriptor, 8 * _SLOTS)
    return np.frombuffer(mmap.mmap(descriptor, 8 * _SLOTS))


def frame_message(message: Any) -> bytes:
    """Return a pickled message behind its length. Both ends are our own processes."""
    payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(payload)) + payload


def read_message(stream: BinaryIO) -> Any | None:
    """Return the next message, or None at the end of the stream."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    return pickle.loads(stream.read(_LENGTH.unpack(header)[0]))


def main(connection_fd: int, progress_fd: int, parent: int, memory_bytes: int) -> None:
    """Score until the parent closes its end of the socket, or dies."""
    _die_with(parent)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    progress = map_progress(progress_fd)
    with (
        socket.socket(fileno=connection_fd) as connection,
        connection.makefile("rb") as stream,
        contextlib.suppress(BrokenPipeError),  # the parent no longer wants the result
    ):
        try:
            _serve(connection, stream, progress)
        except UserError as error:
            _send(connection, [Outcome(STOP, message=str(error))])


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this worker with its parent: hanging C code never notices the end."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the end of input must do
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)


def _serve(connection: socket.socket, stream: BinaryIO, progress: np.ndarray) -> None:
    terms: Sequence[RewardTerm] = read_message(stream) or ()
    rewards = [find_reward(term) for term in terms]
    for term, reward in zip(terms, rewards, strict=True):
        _warm_up(term, reward)
    _send(connection, [Outcome(READY, message=_spell_reads(terms, rewards))])
    while (chunk := read_message(stream)) is not None:
        _score_chunk(connection, chunk, terms, rewards, progress)


def _spell_reads(terms: Sequence[RewardTerm], rewards: Sequence[Reward]) -> str:
    """Return as JSON what each term reads: only a worker imports a user's function."""
    reads = [columns_read(term, reward) for term, reward in zip(terms, rewards, strict=True)]
    return json.dumps([[sorted(own.names), own.rest, sorted(own.needed)] for own in reads])


def _score_chunk(
    connection: socket.socket,
    chunk: Chunk,
    terms: Sequence[RewardTerm],
    rewards: Sequence[Reward],
    progress: np.ndarray,
) -> None:
    """Make the calls in order. Progress is shared memory: exact at every call, and free.

    Outcomes are gathered for a millisecond, because a write for each would cost more than a cheap
    reward; those lost when a later call hangs are the parent's to hand out again.
    """
    finished: list[Outcome] = []
    flushed = time.monotonic()
    own = os.getpid()
    limited = [takes_time_limit(reward) for reward in rewards]
    for done, call in enumerate(chunk.calls):
        now = time.monotonic()
        progress[BEGAN], progress[FINISHED] = now, done
        if finished and now - flushed > _FLUSH_SECONDS:
            _send(connection, finished)
            finished, flushed = [], now
        items, index = [item for item, _ in call], call[0][1]
        columns = {
            n: [column[item] for item in items] for n, column in chunk.columns[index].items()
        }
        answers = [chunk.answers[item] for item in items]
        thoughts = [chunk.thoughts[item] for item in items]
        limit = chunk.try_seconds if limited[index] else None
        try:
            scored = score_call(terms[index], rewards[index], answers, thoughts, columns, limit)
        finally:
            if os.getpid() != own:  # the reward forked, and its child came back from the call
                progress[FORKED] = 1 + index
                os._exit(0)
        finished += scored
    _send(connection, finished)


def _warm_up(term: RewardTerm, reward: Any) -> None:
    """Load a rule's libraries with an empty batch, so that no answer pays for it in its limit."""
    if term.name in REWARDS:
        parameters = inspect.signature(reward).parameters.values()
        required = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
        reward([], **{name: [] for name in required}, **dict(term.options))


def _send(connection: socket.socket, outcomes: Sequence[Outcome]) -> None:
    connection.sendall(json.dumps(outcomes).encode() + b"\n")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
