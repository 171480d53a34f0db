"""The caller's side of the sandbox: open it, run a submission, learn what became of it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmma.errors import UserError
from gmma.rewards.sandbox.isolation import LAYERS, REQUIRED
from gmma.rewards.sandbox.results import CRASHED, FAILED, RUNNER_ERROR, TIMED_OUT

STRONG, WEAK = "strong", "weak"
_MARGIN_SECONDS = 30.0  # for what the server does itself, on a machine with a load of 15, too
# Appended, so that nothing in gmma's directory shadows the standard library, and removed again.
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from sandbox.server import serve; "
    "sys.path.pop(); serve(int(sys.argv[2]))"
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one submission."""

    wall_seconds: float | int = 6
    cpu_seconds: int = 5
    memory_megabytes: int = 512  # address space
    file_megabytes: int = 16  # all its files together, and each
    output_kilobytes: int = 1024  # what it may print
    threads: int = 64


@dataclass(frozen=True, kw_only=True)
class SubmissionResult:
    """A kind of `gmma.rewards.sandbox.results`, how many tests passed, and a word on why."""

    kind: str
    passed: int
    tests: int
    detail: str = ""
    output: str = ""  # the beginning of what it printed


class Sandbox:
    """A running server. Submissions run one at a time, each in a sandbox of its own.

    `mode` "strong" refuses to start (UserError) where a layer of isolation is missing; "weak"
    prints what is missing and goes on. `without` leaves layers out on purpose, for tests.
    """

    def __init__(self, mode: str = STRONG, *, without: Sequence[str] = ()) -> None:
        if mode not in (STRONG, WEAK):
            raise UserError(f"sandbox '{mode}': choose '{STRONG}' or '{WEAK}'")
        if not sys.platform.startswith("linux"):
            raise UserError(f"the sandbox needs Linux, and this is {sys.platform}")
        self.mode, self.without = mode, tuple(without)
        self.lock = threading.Lock()
        self._start()
        try:
            self._require_layers()
        except UserError:
            self.close()
            raise

    def run(
        self, code: str, tests: Sequence[str], setup: str = "", limits: Limits | None = None
    ) -> SubmissionResult:
        """Run `code`, then `setup`, then each test; a test passes if it raises nothing.

        `setup` and `tests` are statements that name what the code defines. Raises nothing for
        whatever the code does.
        """
        request = json.dumps({"code": code, "setup": setup, "tests": list(tests)}).encode()
        with self.lock:
            if self.process.poll() is not None:  # it dies with the thread that started it
                self.close()
                self._start()
            try:
                reply, lines = self._exchange(request, limits or Limits())
            except (OSError, ValueError) as error:
                self.close()
                self._start()
                reply, lines = {}, [{"kind": RUNNER_ERROR, "detail": f"the server failed: {error}"}]
        return _read_result(reply, lines, len(tests))

    def close(self) -> None:
        """End the server and all that it started."""
        self.control.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _start(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        directory = str(Path(__file__).parent.parent)
        command = [sys.executable, "-I", "-S", "-B", "-c", _BOOT, directory, str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                command,
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.control.settimeout(60)
        self.missing = json.loads(self._receive())

    def _receive(self) -> bytes:
        message = self.control.recv(1 << 16)
        if not message:
            raise OSError("the sandbox's server ended")
        return message

    def _require_layers(self) -> None:
        missing = [layer for layer in LAYERS if layer in (*self.missing, *self.without)]
        if self.mode == STRONG and set(missing) & REQUIRED:
            raise UserError(
                f"the code sandbox lacks {', '.join(missing)} on this machine, so a submission "
                "could reach what it must not. Allow unprivileged user namespaces "
                "(kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns"
                f"=0, or a container that permits unshare), or accept the risk: sandbox='{WEAK}'"
            )
        if self.mode == WEAK and missing:
            print(f"weak sandbox: no {', no '.join(missing)}", file=sys.stderr)

    def _exchange(self, request: bytes, limits: Limits) -> tuple[dict[str, Any], list[Any]]:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                message = json.dumps({**_in_bytes(limits), "without": self.without}).encode()
                socket.send_fds(self.control, [message], [theirs.fileno()])
            self.control.settimeout(limits.wall_seconds + _MARGIN_SECONDS)
            ours.settimeout(limits.wall_seconds + _MARGIN_SECONDS)
            with contextlib.suppress(BrokenPipeError):  # its reader died: the reply says how
                ours.sendall(request)
                ours.shutdown(socket.SHUT_WR)
            reply = json.loads(self._receive())
            with ours.makefile("rb") as stream:
                return reply, [json.loads(line) for line in stream if line.endswith(b"\n")]


def _in_bytes(limits: Limits) -> dict[str, Any]:
    return {
        "wall_seconds": limits.wall_seconds,
        "cpu_seconds": limits.cpu_seconds,
        "memory_bytes": limits.memory_megabytes << 20,
        "file_bytes": limits.file_megabytes << 20,
        "output_bytes": limits.output_kilobytes << 10,
        "threads": limits.threads,
    }


def _read_result(
    reply: dict[str, Any], lines: Sequence[dict[str, Any]], tests: int
) -> SubmissionResult:
    """Return the checker's last word, unless it was cut short."""
    said: dict[str, Any] = {key: value for line in lines for key, value in line.items()}
    kind, detail = said.get("kind"), said.get("detail", "")
    if reply.get("timed_out"):
        kind, detail = TIMED_OUT, "the wall clock ran out"
    elif reply.get("flooded"):
        kind, detail = FAILED, "it printed more than it may"
    elif kind is None and said.get("started"):
        kind, detail = CRASHED, "the checker did not survive what it was sent"
    elif kind is None:
        kind, detail = RUNNER_ERROR, "the sandbox could not be set up"
    return SubmissionResult(
        kind=kind,
        passed=sum("passed" in line for line in lines),
        tests=tests,
        detail=detail,
        output=reply.get("output", ""),
    )
