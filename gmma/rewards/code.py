"""Code: the share of unit tests that a submission passes, in the sandbox."""

import ast
import atexit
import functools
import warnings
from collections.abc import Sequence

import numpy as np

from gmma.rewards.answered_code import find_code, names_wanted
from gmma.rewards.outcomes import UnfinishedError
from gmma.rewards.sandbox.client import STRONG, Limits, Sandbox, SubmissionResult
from gmma.rewards.sandbox.results import PASSED, RUNNER_ERROR, TIMED_OUT

CODE_TERMS = ("code", "code_all_passed")  # what the rewards below are called
WALL_SECONDS = Limits().wall_seconds


def code_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    tests: Sequence[object],
    setup: Sequence[object],
    sandbox: str = STRONG,
    prompt: Sequence[object] | None = None,
    wall_seconds: float | int = WALL_SECONDS,
    try_seconds: float | int | None = None,
    **columns: Sequence,
) -> list[float | None]:
    """Return the share of the tests passed, in [0, 1]: `passed / len(tests)`.

    The answer is Python, in ``` fences or bare, as `find_code` reads it. The columns are `tests`, a
    list of statements of which each passes if it raises nothing, and `setup`, statements that run
    after the code and before the tests (and whose names the code may use). A submission that runs
    out of time or memory, or dies, keeps the tests it had passed by then. The standard library is
    all it has.
    The column `prompt`, where there is one, is what HumanEval's answers may continue. `try_seconds`
    is the scoring service's: what needs longer raises `UnfinishedError`, to be tried again.
    None without tests, or with tests that are no Python. A fault of the sandbox itself raises
    RuntimeError; a machine without one raises UserError, unless `sandbox="weak"`.
    """
    box = _open_sandbox(sandbox)  # also for no answers: that is how a worker gets ready
    seconds = wall_seconds if try_seconds is None else min(wall_seconds, try_seconds)
    limits = Limits(wall_seconds=seconds)
    shares: list[float | None] = []
    for text, record, start in zip(
        answers, map(read_tests, tests, setup), prompt or [""] * len(answers), strict=True
    ):
        if record is None:
            shares.append(None)
            continue
        code = find_code(text, names_wanted(record[0]), start if isinstance(start, str) else "")
        result = box.run(code, *record, limits)
        if result.kind == TIMED_OUT and seconds < wall_seconds:
            raise UnfinishedError(_share(result))
        shares.append(_share(result))
    return shares


def code_all_passed_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    tests: Sequence[object],
    setup: Sequence[object],
    sandbox: str = STRONG,
    prompt: Sequence[object] | None = None,
    wall_seconds: float | int = WALL_SECONDS,
    try_seconds: float | int | None = None,
    **columns: Sequence,
) -> list[float | None]:
    """Return 1 if every test passes, else 0; all else as in `code`."""
    try:
        shares = code_reward(
            answers,
            thoughts=thoughts,
            tests=tests,
            setup=setup,
            sandbox=sandbox,
            prompt=prompt,
            wall_seconds=wall_seconds,
            try_seconds=try_seconds,
        )
    except UnfinishedError:
        raise UnfinishedError(0.0) from None
    return [None if share is None else float(share == 1.0) for share in shares]


def read_tests(tests: object, setup: object) -> tuple[list[str], str] | None:
    """Return the tests and the setup of a record; None without tests, or where one is no Python."""
    if isinstance(tests, str | bytes) or not isinstance(tests, Sequence | np.ndarray):
        return None
    sources = [*tests, setup or ""]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a test is not our concern
            for source in sources:
                ast.parse(source)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return None
    if not len(tests) or not all(isinstance(source, str) for source in sources):
        return None
    return sources[:-1], sources[-1]


def _share(result: SubmissionResult) -> float:
    if result.kind == RUNNER_ERROR:
        raise RuntimeError(f"the sandbox failed: {result.detail}")
    return 1.0 if result.kind == PASSED else min(result.passed, result.tests - 1) / result.tests


@functools.cache
def _open_sandbox(mode: str) -> Sandbox:
    box = Sandbox(mode)
    atexit.register(box.close)
    return box
