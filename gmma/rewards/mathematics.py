"""Mathematical answers: equal or not, by math-verify (symbolic and numeric comparison)."""

import functools
import logging
import re
import threading
import warnings
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

_LIMIT_SECONDS = 2  # for one parse or one comparison
_LONGEST_ANSWER = 1000  # characters; no answer is that long, and the parser is not linear
_DEEPEST_NESTING = 12  # brackets in brackets; the parser is exponential in it
_MARKER = re.compile(r"####|^\s*(?:A|Answer|Final answer)\s*:", re.MULTILINE | re.IGNORECASE)
_PLAIN = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:/\d+)?", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:/\d+)?", re.ASCII)
_NOTATION = re.compile(r"[\\^_{}=()\[\]*]")


def math_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    relative_tolerance: float | int = 0,
    **columns: Sequence,
) -> list[float | None]:
    """1 if the answer equals the reference mathematically, else 0.

    The answer is the text in the last `\\boxed{…}`; or what follows the last `####`, or `A:` or
    `Answer:` at the start of a line; or the whole text. LaTeX or plain; where it is prose with one
    number in it ("18 dollars"), that number counts. The column `answer` is read the same way; None
    where it is not a str or cannot be parsed. With `relative_tolerance` τ > 0 numbers with
    `|p − g| ≤ τ·|g|` are equal too.

    Comparison is `math_verify.verify(gold, predicted)` (6 decimals, 15 digits). Each parse or
    comparison may take 2 seconds, enforced by an alarm: that works in a main thread only, which the
    workers of the scoring service are.
    """
    _math_verify()  # also for no answers: that is how a worker gets ready
    return [
        _score(text, gold, relative_tolerance) for text, gold in zip(answers, answer, strict=True)
    ]


def _score(text: str, gold: object, relative_tolerance: float | int) -> float | None:
    if not isinstance(gold, str) or not (truth := _parse_gold(find_answer(gold))):
        return None
    candidate = find_answer(text)
    if not is_readable(candidate):
        return 0.0
    if candidate == find_answer(gold):
        return 1.0
    if _both_integers(candidate, find_answer(gold)) and relative_tolerance == 0:
        return float(Fraction(candidate) == Fraction(find_answer(gold)))
    readings = (candidate, _only_number(candidate))
    return float(any(r and _equal(truth, r, relative_tolerance) for r in readings))


def find_answer(text: str) -> str:
    """The part of the text that is the answer, without `$` around it or commas in a number."""
    boxed = text.rfind("\\boxed{")
    if boxed >= 0:
        text = _inside_braces(text, boxed + len("\\boxed{"))
    elif markers := list(_MARKER.finditer(text)):
        text = text[markers[-1].end() :].strip().partition("\n")[0]
    text = text.strip().strip("$").strip().removesuffix(".")
    bare = text.replace(",", "")
    return bare if _PLAIN.fullmatch(bare) and _NUMBER.fullmatch(text) else text


def _inside_braces(text: str, start: int) -> str:
    depth = 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start:end]
    return text[start:]


def is_readable(text: str) -> bool:
    """Whether the parser is asked at all: not for nothing, nor for what would hold it up."""
    depth = deepest = 0
    for letter in text[: _LONGEST_ANSWER + 1]:
        depth += (letter in "([{") - (letter in ")]}")
        deepest = max(deepest, depth)
    return 0 < len(text) <= _LONGEST_ANSWER and deepest <= _DEEPEST_NESTING


def _both_integers(a: str, b: str) -> bool:
    return all(re.fullmatch(r"[-+]?\d+", text, re.ASCII) for text in (a, b))


def _only_number(text: str) -> str | None:
    """The one number of a text without mathematical notation, such as "18 dollars"."""
    numbers = _NUMBER.findall(text)
    if len(numbers) != 1 or _NOTATION.search(text):
        return None
    return numbers[0].replace(",", "")


@functools.lru_cache(maxsize=4096)  # a reference comes once for each of K·M answers
def _parse_gold(text: str) -> tuple[Any, ...]:
    return _parse(text) if text else ()


def _equal(truth: tuple[Any, ...], reading: str, relative_tolerance: float | int) -> bool:
    predicted = _parse(reading)
    if not predicted:
        return False
    verify = _math_verify().verify
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if verify(list(truth), list(predicted), timeout_seconds=_limit()):
                return True
            return relative_tolerance > 0 and _is_near(truth[0], predicted[0], relative_tolerance)
    except Exception:  # a comparison may fail in any way on arbitrary text: then it is not equal
        return False


def _is_near(gold: Any, predicted: Any, relative_tolerance: float | int) -> bool:
    if not (getattr(gold, "is_number", False) and getattr(predicted, "is_number", False)):
        return False
    target = float(gold)
    return abs(float(predicted) - target) <= relative_tolerance * abs(target)


def _parse(text: str) -> tuple[Any, ...]:
    """The text as LaTeX: (expression, text), only (text,), or nothing."""
    library = _math_verify()
    config = [library.LatexExtractionConfig(boxed_match_priority=0)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tuple(library.parse(f"\\boxed{{{text}}}", config, parsing_timeout=_limit()))
    except Exception:  # as above: text that the parser cannot read
        return ()


def _limit() -> int | None:
    return _LIMIT_SECONDS if threading.current_thread() is threading.main_thread() else None


@functools.cache
def _math_verify() -> Any:
    import math_verify  # here: a slow import that most workers never need

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it logs every text it cannot read
    return math_verify
