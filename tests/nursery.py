"""Processes that run `gmma …`, forked from one that has imported it: an import takes seconds.

A child is a whole process of its own: it has its own JAX, and can be killed.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Child:
    """One `gmma …`; there can be several at a time."""

    pid: int
    ask: Callable

    def running(self):
        return not self.ask({"ended": self.pid})

    def send(self, number):
        os.kill(self.pid, number)

    def wait(self):
        """The exit code; minus the signal where a signal ended it."""
        return self.ask({"wait": self.pid})


@contextlib.contextmanager
def open_nursery(directory):
    """Yields `start(*arguments) -> Child`; children run in `directory` and write to its log.txt.

    They see one device, and compile in a hurry: what is compared was compiled the same way.
    """
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    with (
        (directory / "log.txt").open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            bufsize=1,
        ) as nursery,
    ):

        def ask(request):
            nursery.stdin.write(json.dumps(request) + "\n")
            return json.loads(nursery.stdout.readline())

        def start(*arguments):
            return Child(ask({"run": [str(argument) for argument in arguments]}), ask)

        try:
            yield start
        finally:
            nursery.kill()


def raise_children():
    """Answer each request on standard input: run gmma in a fork, has it ended, wait for its end."""
    import gmma.commands  # noqa: F401  # what takes seconds, before the fork
    from gmma.cli import main

    for line in sys.stdin:
        [(verb, value)] = json.loads(line).items()
        print(json.dumps(ANSWERS[verb](main, value)), flush=True)


def fork(main, arguments):
    """The pid of a process that runs gmma."""
    pid = os.fork()
    if pid == 0:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # into the log
        code = run(main, arguments)
        sys.stdout.flush()
        atexit._run_exitfuncs()  # JAX takes leave of other hosts there
        os._exit(code)
    return pid


def has_ended(main, pid):
    """Whether a child has ended; it can still be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait(main, pid):
    """The child's exit code, minus the signal where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


ANSWERS = {"run": fork, "ended": has_ended, "wait": wait}


def run(main, arguments):
    """`main`, and the exit code it ends with."""
    try:
        main(arguments)
    except SystemExit as end:
        return end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    raise_children()
