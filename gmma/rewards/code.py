"""Code: the share of unit tests that a submission passes, in the sandbox."""

import ast
import atexit
import functools
import re
from collections.abc import Sequence

import numpy as np

from gmma.rewards.sandbox.client import STRONG, Limits, Sandbox, SubmissionResult
from gmma.rewards.sandbox.results import PASSED, RUNNER_ERROR

_FENCE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)


def code_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    tests: Sequence[Sequence[str]],
    setup: Sequence[str | None],
    sandbox: str = STRONG,
    wall_seconds: float | int = 6,
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
    return [
        _share(box.run(find_code(text), cases, prelude or "", limits))
        if are_tests(cases, prelude)
        else None
        for text, cases, prelude in zip(answers, tests, setup, strict=True)
    ]


def code_all_passed_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    tests: Sequence[Sequence[str]],
    setup: Sequence[str | None],
    sandbox: str = STRONG,
    wall_seconds: float | int = 6,
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


def are_tests(cases: object, prelude: object) -> bool:
    """Whether a record has at least one test, and its tests and setup are Python."""
    if isinstance(cases, str) or not isinstance(cases, Sequence | np.ndarray) or not len(cases):
        return False
    try:
        for source in (*cases, prelude or ""):
            ast.parse(source)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return False
    return True


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
