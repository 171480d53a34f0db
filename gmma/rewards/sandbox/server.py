"""The clean server: a bare Python, no environment, that starts one sandbox per submission.

It never reads a request. Each comes as a descriptor that only the checker reads, after the
submission's process has parted from it, so that its memory never held the tests.
"""

import contextlib
import fcntl
import functools
import json
import os
import resource
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from . import isolation, kernel
from .checker import check_submission
from .results import CRASHED, OUT_OF_MEMORY, TIMED_OUT
from .submission import run_submission

_CHECKER_MEMORY_BYTES = 2 << 30
_OPEN_FILES = 64
_OUTPUT_KEPT_BYTES = 2000
_GRACE_SECONDS = 0.2
_F_SETPIPE_SZ = 1031
_CHANNEL, _VERDICT = (3, 4), 5  # descriptors, once renumbered

Limits = dict[str, Any]


def serve(descriptor: int) -> None:
    """Report which layers are missing, then run submissions until the client closes its end."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    isolation.preload_libraries()
    kernel.keep_few_arenas()
    null = os.open(os.devnull, os.O_RDWR)
    with socket.socket(fileno=descriptor) as control:
        missing = isolation.missing_layers()
        control.sendall(json.dumps(missing).encode())
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 1)
            if not message:
                return
            limits = json.loads(message)
            layers = set(isolation.LAYERS) - set(missing) - set(limits["without"])
            control.sendall(json.dumps(_run(descriptors[0], limits, layers, null)).encode())


@dataclass(frozen=True, kw_only=True)
class _Room:
    """Resources of one submission: descriptors, a directory to write in, layers and limits."""

    request: int
    output: int
    null: int
    scratch: str
    layers: Collection[str]
    limits: Limits


def _run(request: int, limits: Limits, layers: Collection[str], null: int) -> dict[str, Any]:
    own_scratch = tempfile.mkdtemp() if isolation.MOUNT not in layers else None
    output, output_end = os.pipe()
    room = _Room(
        request=request,
        output=output_end,
        null=null,
        scratch=own_scratch or "/tmp",
        layers=layers,
        limits=limits,
    )
    supervisor = os.fork()
    if supervisor == 0:
        try:
            _supervise(room)
        finally:
            os._exit(1)
    os.close(request)
    os.close(output_end)
    try:
        return _watch(supervisor, output, limits)
    finally:
        _end(supervisor)
        os.close(output)
        if own_scratch:
            shutil.rmtree(own_scratch, ignore_errors=True)


def _watch(supervisor: int, output: int, limits: Limits) -> dict[str, Any]:
    """Wait for the end, the wall clock or the cap on output, whichever comes first."""
    deadline = time.monotonic() + limits["wall_seconds"]
    kept, written = b"", 0
    reply = {"timed_out": False, "flooded": False, "output": ""}
    with _descriptor_of(supervisor) as ended:
        waiting = select.poll()
        waiting.register(ended, select.POLLIN)
        waiting.register(output, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            ready = dict(waiting.poll(max(0.0, left) * 1000))
            if output in ready:
                data = os.read(output, 1 << 16)
                written += len(data)
                kept = (kept + data)[:_OUTPUT_KEPT_BYTES]
                if not data:
                    waiting.unregister(output)
            reply["flooded"] = written > limits["output_bytes"]
            reply["timed_out"] = left <= 0 and ended not in ready
            if ended in ready or reply["flooded"] or reply["timed_out"]:
                return {**reply, "output": kept.decode("utf-8", "replace")}


@contextlib.contextmanager
def _descriptor_of(process: int) -> Any:
    descriptor = os.pidfd_open(process)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _end(supervisor: int) -> None:
    """Kill the supervisor's whole group, and whatever found another way to become our child."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(supervisor, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(supervisor, 0)
    while orphans := _children():
        for orphan in orphans:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, 0)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as listing:
        return [int(child) for child in listing.read().split()]


def _supervise(room: _Room) -> None:
    """Enter the namespaces and wait for their first process, the checker: all die with it."""
    os.setsid()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    isolation.enter_namespaces(room.layers)
    checker = os.fork()
    if checker == 0:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        _become_checker(room)
        os._exit(0)
    _keep_descriptors([room.null])
    os.waitpid(checker, 0)
    os._exit(0)


def _become_checker(room: _Room) -> None:
    if isolation.MOUNT in room.layers:
        isolation.confine_files(room.limits["file_bytes"])
    questions, questions_end = _wide_pipe()
    answers, answers_end = _wide_pipe()
    submission = os.fork()
    if submission == 0:
        try:
            _become_submission(room, (questions, answers_end))
        finally:
            os._exit(1)
    _keep_descriptors([room.null] * 3 + [answers, questions_end, room.request])
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # not to be traced, even where the filter is missing
    text = _read_all(_VERDICT)
    memory = (_CHECKER_MEMORY_BYTES, _CHECKER_MEMORY_BYTES)
    isolation.confine_process(room.layers, room.scratch, {resource.RLIMIT_AS: memory})
    cause = functools.partial(_cause_of_death, submission, room.limits)
    check_submission(_CHANNEL, json.loads(text), _report, cause)


def _become_submission(room: _Room, channel: tuple[int, int]) -> None:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    _keep_descriptors([room.null, room.output, room.output, *channel])
    bounds = {
        resource.RLIMIT_AS: room.limits["memory_bytes"],
        resource.RLIMIT_FSIZE: room.limits["file_bytes"],
        resource.RLIMIT_NPROC: room.limits["threads"],
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    both = {which: (bound, bound) for which, bound in bounds.items()}
    seconds = room.limits["cpu_seconds"]  # then SIGXCPU, which tells time from memory; then SIGKILL
    both[resource.RLIMIT_CPU] = (seconds, seconds + 1)
    isolation.confine_process(room.layers, room.scratch, both)
    run_submission(_CHANNEL)


def _wide_pipe() -> tuple[int, int]:
    """Open a pipe with a large buffer: on busy cores every filling costs a time slice."""
    reading, writing = os.pipe()
    with contextlib.suppress(OSError):  # the user's pipes together may be too many
        fcntl.fcntl(writing, _F_SETPIPE_SZ, 1 << 20)
    return reading, writing


def _keep_descriptors(kept: Sequence[int]) -> None:
    """Renumber the descriptors 0, 1, 2 … in the order given, and close all others."""
    safe = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in kept]
    for number, descriptor in enumerate(safe):
        os.dup2(descriptor, number)
    os.closerange(len(kept), resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _report(line: dict[str, Any]) -> None:
    os.write(_VERDICT, json.dumps(line).encode() + b"\n")


def _cause_of_death(submission: int, limits: Limits) -> str:
    """Return why a process was killed. Only the kernel kills here: for time, or for memory."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline:
        process, status, usage = os.wait4(submission, os.WNOHANG)
        if process:
            return _read_status(status, usage.ru_utime + usage.ru_stime, limits)
        time.sleep(0.001)
    return CRASHED  # it lives on, but closed the pipe


def _read_status(status: int, cpu_seconds: float, limits: Limits) -> str:
    signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if signal_number == signal.SIGXCPU:
        return TIMED_OUT
    if signal_number != signal.SIGKILL:
        return CRASHED
    return TIMED_OUT if cpu_seconds > 0.5 * limits["cpu_seconds"] else OUT_OF_MEMORY
