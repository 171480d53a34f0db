"""Code: the share of unit tests that a submission passes, in the sandbox."""

import ast
import atexit
import functools
import re
import warnings
from collections.abc import Sequence

import numpy as np

from gmma.rewards.sandbox.client import STRONG, Limits, Sandbox, SubmissionResult
from gmma.rewards.sandbox.results import PASSED, RUNNER_ERROR

CODE_TERMS = ("code", "code_all_passed")  # what the rewards below are called
WALL_SECONDS = Limits().wall_seconds
_FENCE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)


def code_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    tests: Sequence[object],
    setup: Sequence[object],
    sandbox: str = STRONG,
    wall_seconds: float | int = WALL_SECONDS,
    **columns: Sequence,
) -> list[float | None]:
    """Share of the tests passed, in [0, 1]: `passed / len(tests)`.

    The answer is Python, in a ``` fence (the last one) or bare. The columns are `tests`, a list of
    statements of which each passes if it raises nothing, and `setup`, statements that run after the
    code and before the tests (and whose names the code may use). A submission that runs out of time
    or memory, or dies, keeps the tests it had passed by then. The standard library is all it has.
    None without tests, or with tests that are no Python. A fault of the sandbox itself raises
    RuntimeError; a machine without one raises UserError, unless `sandbox="weak"`.
    """
    box = _open_sandbox(sandbox)  # also for no answers: that is how a worker gets ready
    limits = Limits(wall_seconds=wall_seconds)
    records = map(read_tests, tests, setup)
    return [
        None if record is None else _share(box.run(find_code(text), *record, limits))
        for text, record in zip(answers, records, strict=True)
    ]


def code_all_passed_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    tests: Sequence[object],
    setup: Sequence[object],
    sandbox: str = STRONG,
    wall_seconds: float | int = WALL_SECONDS,
    **columns: Sequence,
) -> list[float | None]:
    """1 if every test passes, else 0; all else as in `code`."""
    shares = code_reward(
        answers,
        thoughts=thoughts,
        tests=tests,
        setup=setup,
        sandbox=sandbox,
        wall_seconds=wall_seconds,
    )
    return [None if share is None else float(share == 1.0) for share in shares]


def read_tests(tests: object, setup: object) -> tuple[list[str], str] | None:
    """The tests and the setup of a record; None without tests, or where one is no Python."""
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


def find_code(text: str) -> str:
    """The last fenced block of the text, closed or not, or else the whole text."""
    blocks = _FENCE.findall(text)
    return blocks[-1] if blocks else text


def _share(result: SubmissionResult) -> float:
    if result.kind == RUNNER_ERROR:
        raise RuntimeError(f"the sandbox failed: {result.detail}")
    return 1.0 if result.kind == PASSED else min(result.passed, result.tests - 1) / result.tests


@functools.cache
def _open_sandbox(mode: str) -> Sandbox:
    box = Sandbox(mode)
    atexit.register(box.close)
    return box
