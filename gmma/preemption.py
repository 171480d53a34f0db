"""Ends of a run that another start goes on from: SIGTERM, and the loss of another host.

A cloud takes a machine back with a SIGTERM and some seconds of notice. The run finishes its step,
writes a checkpoint and exits with a code that says "start me again with --resume". A host that goes
without notice takes the others down behind the last checkpoint, with a code of its own.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

CODE_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h; tpu_setup/common.sh names it too

CODE_HOST_LOST = 76  # EX_PROTOCOL; likewise

_asked = threading.Event()


class Preempted(Exception):  # noqa: N818  # no error: the run ended as it was asked to
    """The run was asked to end and has written a checkpoint; the message says how to go on."""


def _note(signal_number: int, frame: FrameType | None) -> None:
    _asked.set()


@contextmanager
def watch() -> Iterator[None]:
    """Within the block SIGTERM only makes `requested` true.

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
    """Whether a SIGTERM has come since the block was entered."""
    return _asked.is_set()
