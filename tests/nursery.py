"""Processes that run `gmma …`, forked from one that has imported it: an import takes seconds.

A child is a whole process of its own: it has its own JAX, and can be killed.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Child:
    """One `gmma …`; one at a time."""

    pid: int
    nursery: subprocess.Popen

    def running(self):
        return not select.select([self.nursery.stdout], [], [], 0)[0]

    def send(self, number):
        os.kill(self.pid, number)

    def wait(self):
        """The exit code; minus the signal where a signal ended it."""
        return int(self.nursery.stdout.readline())


@contextlib.contextmanager
def open_nursery(directory):
    """Yields `start(*arguments) -> Child`; children run in `directory` and write to its log.txt.

    They see one device, and compile in a hurry: what is compared was compiled the same way.
    """
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
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

        def start(*arguments):
            nursery.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
            return Child(int(nursery.stdout.readline()), nursery)

        try:
            yield start
        finally:
            nursery.kill()


def raise_children():
    """For each line of standard input: fork, run gmma with it, print the pid and the exit code."""
    import gmma.commands  # noqa: F401  # what takes seconds, before the fork
    from gmma.cli import main

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # into the log
            code = run(main, json.loads(line))
            sys.stdout.flush()
            os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


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
