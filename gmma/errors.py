"""The one exception a user is meant to read."""

import errno
import re
from collections.abc import Callable, Sequence
from typing import Any

CODE_USER_ERROR = 2  # of the command line
DISK = {  # errors of a system that are a disk's, whether or not they name a file
    errno.ENOSPC: "make room on that disk; a run goes on with --resume",
    errno.EDQUOT: "make room in that quota; a run goes on with --resume",
    errno.EROFS: "the disk is read-only: give another path",
    errno.EACCES: "change its permissions, or give another path",
    errno.ENAMETOOLONG: "give a shorter name",
}


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Spell what a terminal would obey in a text of a record, a model or a reward.

    Lines and tabs stay; other control characters, and those that turn the direction, are escaped.

    >>> printable("a\\x1b[2Jb\\n")
    'a\\\\x1b[2Jb\\n'
    """
    return _CONTROL.sub(lambda sign: ascii(sign[0])[1:-1], text)


class UserError(Exception):
    """A mistake found at the edge: a config field, a file, a dataset record, a checkpoint.

    The message says what was wrong, shows the numbers, and says the fix. The command line prints it
    without a traceback and exits with code 2.
    """


class UserErrors(UserError):  # noqa: N818 - a plural
    """Several mistakes in one message."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        listed = "".join(f"\n  {i}. {text}" for i, text in enumerate(self.problems, 1))
        super().__init__(f"{len(self.problems)} problems:{listed}")


def problems_of(error: UserError) -> tuple[str, ...]:
    """Return the mistakes that an error speaks of, one or several."""
    return error.problems if isinstance(error, UserErrors) else (str(error),)


def gather(*steps: Callable[[], Any]) -> list[Any]:
    """Run every step and return its results; raise the mistakes of all as one UserError."""
    results: list[Any] = []
    problems: list[str] = []
    for step in steps:
        try:
            results.append(step())
        except UserError as error:
            problems += problems_of(error)
    if problems:
        raise UserErrors(problems) if len(problems) > 1 else UserError(problems[0])
    return results


def os_error_text(error: OSError) -> str:
    """Return a system's error about a file as a message: which file, what is wrong, what helps."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    place = " to ".join(names) or "a file"
    return f"{place}: {error.strerror or error}; {DISK.get(error.errno or 0, 'give another path')}"
