"""Ends of a run that are neither success nor a mistake in its settings, each with its exit code.

A cloud takes a machine back with a SIGTERM and some seconds of notice; a person presses Ctrl-C.
Either way the run finishes its step, writes a checkpoint and exits with a code that says "start me
again with --resume". A second Ctrl-C waits for nothing. A host that goes without notice takes the
others down behind the last checkpoint, with a code of its own. A run that can no longer learn has
codes of its own, too: values are not finite, or no reward counts.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

CODE_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h; tpu_setup/common.sh names it too

CODE_HOST_LOST = 76  # EX_PROTOCOL; likewise

CODE_NOT_FINITE = 70  # EX_SOFTWARE
CODE_UNSCORED = 69  # EX_UNAVAILABLE
CODE_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
_SHOW_CURSOR = b"\x1b[?25h"  # which a progress bar hides
_asked: list[str] = []  # by what the run was asked to end, in order


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
    _asked.append(_NAMES[signal.Signals(signal_number)])


@contextmanager
def watch(*, several_hosts: bool = False) -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C within the block into `requested`.

    With several hosts Ctrl-C becomes a SIGTERM, which JAX notes and tells to all of them. Signals
    belong to the main thread: in another one the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked.clear()
    noted = (signal.SIGINT,) if several_hosts else (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, _note) for number in noted}
    try:
        with _count_presses(several_hosts):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _count_presses(several_hosts: bool) -> Iterator[None]:
    """Let a thread see each Ctrl-C as it comes, and end the process at the second.

    Python calls handlers between two steps of the main thread alone, which may wait for a device or
    a compiler for minutes. The bytes of `set_wakeup_fd` are written by the signal itself.
    """
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    before = signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        presses = 0
        while numbers := reads.recv(64):
            for _ in range(numbers.count(signal.SIGINT)):
                presses += 1
                _press(presses, several_hosts)

    thread = threading.Thread(target=listen, name="ctrl-c", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writes.close()  # which ends the thread
        thread.join()
        reads.close()


def _press(count: int, several_hosts: bool) -> None:
    """Act on the first or a further Ctrl-C; the second ends the process, whatever it does."""
    if count == 1:
        if sys.stderr.isatty():
            _write("Ctrl-C: ending with a checkpoint as soon as the step is done; again: at once")
        if several_hosts:
            os.kill(os.getpid(), signal.SIGTERM)
        return
    if sys.stderr.isatty():
        os.write(2, _SHOW_CURSOR)
    _write("Ctrl-C twice: ended at once; --resume goes on from the last checkpoint")
    os._exit(CODE_INTERRUPTED)


def _write(words: str) -> None:
    # Not `print`: the main thread may be in the midst of one.
    os.write(2, f"\n{words}\n".encode())


def stop(place: str) -> NoReturn:
    """End the run here; `place` says where, and what is kept."""
    by = _asked[0] if _asked else _NAMES[signal.SIGTERM]  # on another host
    raise Preempted(f"{by}: ended {place}; start it again with --resume")


def requested() -> bool:
    """Return whether SIGTERM or Ctrl-C has come since the block was entered."""
    return bool(_asked)
