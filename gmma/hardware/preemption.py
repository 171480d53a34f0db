"""Ends of a run that are neither success nor a mistake in its settings, each with its exit code.

A cloud takes a machine back with a SIGTERM and some seconds of notice. The run finishes its step,
writes a checkpoint and exits with a code that says "start me again with --resume". A host that goes
without notice takes the others down behind the last checkpoint, with a code of its own. A run
that can no longer learn has codes of its own, too: values are not finite, or no reward counts.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

CODE_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h; tpu_setup/common.sh names it too

CODE_HOST_LOST = 76  # EX_PROTOCOL; likewise

CODE_NOT_FINITE = 70  # EX_SOFTWARE
CODE_UNSCORED = 69  # EX_UNAVAILABLE

_asked = threading.Event()


class Ended(Exception):  # noqa: N818  # on all hosts behind the same step
    """The run ends with this exit code; the message says why, and how to go on."""

    code: int


class Preempted(Ended):
    """The run was asked to end and has written a checkpoint."""

    code = CODE_PREEMPTED


class NotFinite(Ended):
    """Loss, gradient or state hold values that are not finite; what they replaced is kept."""

    code = CODE_NOT_FINITE


class Unscored(Ended):
    """Nothing that was sampled for some steps has counted; the run has written a checkpoint."""

    code = CODE_UNSCORED


def _note(signal_number: int, frame: FrameType | None) -> None:
    _asked.set()


@contextmanager
def watch() -> Iterator[None]:
    """Turn SIGTERM within the block into `requested`.

    Signals belong to the main thread: in another one the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked.clear()
    before = signal.signal(signal.SIGTERM, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stop(place: str) -> NoReturn:
    """End the run here; `place` says where, and that a checkpoint was written."""
    raise Preempted(f"SIGTERM: ended {place}; start it again with --resume")


def requested() -> bool:
    """Return whether a SIGTERM has come since the block was entered."""
    return _asked.is_set()
