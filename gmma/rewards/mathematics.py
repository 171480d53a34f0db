"""Mathematical answers: equal or not, by math-verify (symbolic and numeric comparison)."""

import contextlib
import functools
import logging
import re
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from gmma.answers.math_text import find_answer, has_words, normalise
from gmma.answers.math_units import conflict, only_number, read_quantity, spelled_number
from gmma.errors import UserError

_LIMIT_SECONDS = 4.0  # of processor time, for one answer
_AGAIN_SECONDS = 0.5
_LONGEST_ANSWER = 1000  # characters; no answer is that long, and the parser is not linear
_DEEPEST_NESTING = 12  # brackets in brackets; the parser is exponential in it
_MOST_LAYERS = 3  # of words around one value
_MOST_WORDS = 12  # of one number
_MOST_SIDES = 6  # of one chain of equations
_ROUNDING = 0.05  # what may lie between the two sides of ≈
_DECIMALS = 6  # as math-verify rounds

_DECIMAL = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_GROUPED = re.compile(
    r"([-+]?\d{1,3}(?:,\d{2,3})*,\d{3}|[-+]?\d{1,3}(?:[ '_]\d{3})+)(\.\d+)?", re.ASCII
)
_EUROPEAN = re.compile(r"[-+]?\d{1,3}(?:\.\d{3})+,\d+|[-+]?\d+,\d{1,2}", re.ASCII)
_MIXED = re.compile(
    r"(-?)\s*(\d+)\s*(?:\\frac\s*\{?\s*(\d+?)\s*\}?\s*\{?\s*(\d+)\s*\}?"
    r"|(?<=\s)(\d+)/(\d+))",
    re.ASCII,
)
# Dates, scores, times, ratios and ranges are texts: as a difference or a quotient, 1-1 is 2-2.
_NO_ARITHMETIC = re.compile(
    r"\d+\s*-\s*\d+(?:\s*-\s*\d+)?|\d+/\d+/\d+|\d+(?:\s*:\s*\d+)+", re.ASCII
)
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s*)?\(?([A-Za-z])\s*(?:\)|[.:]|(?=\s*$))"
    r"(?!\s*(?:or\b|and\b|[,(]))\s*(?P<value>.*)"
    r"|(?:option|choice)\s*\(?([A-Za-z])\)?\b(?!\s*(?:or|and|,)).*",
    re.IGNORECASE | re.DOTALL,
)
_CHOSEN = re.compile(
    r"(?:i|we)\s+(?:choose|pick|select)\s+(?:(?:option|choice|answer)\s+)?\(?([A-Z])\)?"
    r"|(?:(?:option|choice|answer)\s+)?\(?([A-Z])\)?\s+is\s+(?:the\s+)?(?:correct|right)"
    r"(?:\s+(?:one|answer|option|choice))?",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"\\?[a-zA-Z]+'*(?:_\{?\w+\}?)?(?:\([^()=]*\))?"
    r"|\\(?:angle|triangle|overline|text)\s*\{?[\w ]+\}?"
    r"|\|[a-zA-Z]+\||\[[A-Z]+\]"
)
# Sides of an equation that say something else of the unknown: -x = 12, \sqrt{x} = 12, x^n = 12.
_CHANGED = re.compile(
    r"\s*(?:-|\\(?:neg|lnot|sqrt|ln|log|lg|exp)(?![a-zA-Z])|(?:not|never)\b|(?:sqrt|ln|log)\s*$"
    r"|(?:minus|negative|half|twice|double|triple|sqrt|ln|log)\s+\\?[a-zA-Z]\s*$)|.*[\^!]",
    re.IGNORECASE | re.DOTALL,
)
_CHANGED_BEFORE = re.compile(
    r"(?:\bnot|n't|\bnever|\bminus|\bnegative|\bhalf|\btwice|\bdouble|\btriple"
    r"|\b(?:half|third|quarter|root|square|cube|log|logarithm|factorial|reciprocal|inverse|opposite)"
    r"\s+of)\s*$",
    re.IGNORECASE,
)
_EQUALS = re.compile(r"(?<![\\<>!:])=|≡")
_COMMA = re.compile(r"[,;]")
_PM = "\\pm"
_ROWS = re.compile(r"\[\s*(\[[^\[\]]*\](?:\s*,\s*\[[^\[\]]*\])*)\s*\]")
_ORDER = re.compile(r"(\\(?:le|ge|lt|gt)(?![a-zA-Z])|<(?!=)|>(?!=))")
_VARIABLE = re.compile(r"[a-zA-Z]|\\[a-z]+")
_ROW_END = re.compile(r"\]\s*,\s*\[")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_SAID = re.compile(r"^(?:.{0,60}?\b(?:is|are|on|was)\s)?(?:an?\s|the\s)?", re.IGNORECASE)
_APART = re.compile(r"(?<!\\frac )(?<![_^])\d\s+\d")  # 1 2, which is not 12
_MEMBER = re.compile(r"[a-zA-Z]\s*\\in(?![a-z])\s*")
_WORD_BEFORE = re.compile(r"[A-Za-z]{2,}[.,:;]?\s")
_AND_PART = re.compile(r"(-?\d+) and (\d+/\d+|\\frac.*)", re.ASCII)
_AND = re.compile(r"\s*,?\s*(?:\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)\s*", re.IGNORECASE)


class Meaning(NamedTuple):
    """An answer as one formula with its unit, or as a text."""

    formula: str  # LaTeX; "" for a text
    unit: str  # its usual name, such as "cm^2" or "%"; "" without one
    text: str  # folded, without spaces


def math_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    relative_tolerance: float | int = 0,
    reading: str = "lenient",
    **columns: Sequence,
) -> list[float | None]:
    r"""Return 1 if the answer equals the reference mathematically, else 0.

    Where a text gives its answer, `find_answer` says: in `\boxed{…}`, behind `####` or "the answer
    is", in `$…$` or bold, with a remark or not. Where `reading` is strict
    the text must be the answer alone. The column `answer` is read leniently; None where it is not a
    str or says nothing.

    Units may be left out; two that differ are not equal, and none is converted. A percentage is
    equal to its number and to its hundredth. Where the answer is prose with one number in it ("18
    dollars"), that number counts, unless the prose changes it ("not 18", "18 thousand", "2x").
    Words, dates, scores and ratios are equal as texts alone. A reference that is a letter takes
    that letter in any form of a choice: "(B) 12", "Option B". With `relative_tolerance` τ > 0
    numbers with `|p − g| ≤ τ·|g|` are equal too.

    Comparison is `math_verify.verify(gold, predicted)` (6 decimals, 15 digits). An answer
    may take 4 seconds of processor time, enforced by a signal: that works in a main thread only,
    which the workers of the scoring service are.
    """
    if reading not in ("lenient", "strict"):
        raise UserError(f"math: reading is '{reading}'; it must be lenient or strict")
    _math_verify()  # also for no answers: that is how a worker gets ready
    return [
        _score(text, gold, relative_tolerance, reading == "strict")
        for text, gold in zip(answers, answer, strict=True)
    ]


def read_answer(text: str, *, strict: bool = False) -> str | None:
    """Return the name of the answer that a text gives: equal names are equal answers.

    None without one.
    """
    found = find_answer(text, strict=strict)
    if not is_readable(found):
        return None
    readings = _meanings(found, strict)
    return next(
        (r.formula.replace(" ", "") + r.unit for r in readings if r.formula),
        _fold(normalise(found)),
    )


def _score(text: str, gold: object, tolerance: float | int, strict: bool) -> float | None:
    if not isinstance(gold, str):
        return None
    try:
        with _limited():
            truth = find_answer(gold)
            if not is_readable(truth):
                return None
            candidate = find_answer(text, strict=strict)
            if not is_readable(candidate):
                return 0.0
            return float(candidate == truth or _matches(truth, candidate, tolerance, strict))
    except _TooLongError:
        return 0.0


class _TooLongError(BaseException):  # not an Exception: libraries catch those on the way
    pass


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Stop what is inside by an exception, after some seconds of this process's own work.

    Not of the clock's: a verdict must not depend on what else the machine does. The signal comes
    again and again, should a library have caught the first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _LIMIT_SECONDS, _AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _stop(number: int, frame: Any) -> None:
    raise _TooLongError


def is_readable(text: str) -> bool:
    """Return whether an answer is read: not empty, and nothing that would hold up the parser."""
    depth = deepest = 0
    for letter in text[: _LONGEST_ANSWER + 1]:
        depth += (letter in "([{") - (letter in ")]}")
        deepest = max(deepest, depth)
    return 0 < len(text) <= _LONGEST_ANSWER and deepest <= _DEEPEST_NESTING


def _matches(truth: str, candidate: str, tolerance: float | int, strict: bool) -> bool:
    if letter := _choice(truth):
        return letter == _choice(candidate, prose=not strict)
    gold, given = _gold_meanings(truth), _meanings(candidate, strict)
    if any(g.text and g.text == r.text for g in gold for r in given):
        return True
    return any(_same(g, r, tolerance) for g in gold for r in given if g.formula and r.formula)


@functools.lru_cache(maxsize=4096)  # a reference comes once for each of K·M answers
def _gold_meanings(text: str) -> tuple[Meaning, ...]:
    return _meanings(text, strict=True)


def _choice(text: str, *, prose: bool = False) -> str | None:
    """Return the letter that is chosen, alone or, in `prose`, before the words of the choice."""
    plain = re.sub(r"\\text\{([^{}]*)\}|[$*{}]", r"\1", normalise(text)).strip().rstrip(".")
    if not prose:
        return match[1] if (match := re.fullmatch(r"\(?([A-Z])\)?", plain)) else None
    if match := _CHOSEN.fullmatch(plain):
        return (match[1] or match[2]).upper()
    match = _CHOICE.fullmatch(plain)
    return (match[1] or match[3]).upper() if match else None


def _meanings(text: str, strict: bool, depth: int = 0) -> tuple[Meaning, ...]:
    """Return the possible meanings: formula and unit, or the text alone, then its one number."""
    if depth > _MOST_LAYERS:
        return ()
    within = functools.partial(_meanings, strict=strict, depth=depth + 1)
    text = normalise(text)
    plain = _TEXT.sub(r"\1", text)
    whole = Meaning("", "", _fold(plain))
    if (choice := _CHOICE.fullmatch(plain)) and choice["value"]:
        return (whole, *within(choice["value"]))
    if _NO_ARITHMETIC.fullmatch(plain):
        return (whole,)
    text = plain if _TEXT.fullmatch(text) else text
    if mixed := _AND_PART.fullmatch(plain):  # one number, or two
        two = within(f"{mixed[1]}, {mixed[2]}")
        return (whole, *two, *within(f"{mixed[1]} {mixed[2]}"))
    text = _AND.sub(", ", text) if not has_words(_AND.sub(", ", plain)) else text
    if (quantity := read_quantity(text)) and not has_words(_TEXT.sub(r" \1 ", quantity[0])):
        formula = _formula(_TEXT.sub(r"\1", quantity[0]))
        if _NO_ARITHMETIC.fullmatch(formula):
            return (whole,)
        return (whole._replace(formula=formula, unit=quantity[1]),)
    if (worded := _worded(plain)) or strict:
        return (whole, worded) if worded else (whole,)
    if (equation := _equation_in(plain)) is not None:
        return (whole, *within(equation))
    if number := only_number(plain):
        return (whole, Meaning(*number, ""))
    said = _SAID.sub("", plain)
    return (whole, *(within(said) if said != plain else ()))


def _worded(text: str) -> Meaning | None:
    """Read a number in words with what is counted: seven apples."""
    words = text.rstrip(".").split()[:_MOST_WORDS]
    for length in range(len(words), 0, -1):
        if number := spelled_number(" ".join(words[:length])):
            quantity = read_quantity(" ".join([number, *words[length:]]))
            return Meaning(*quantity, "") if quantity and quantity[0] == number else None
    return None


def _equation_in(text: str) -> str | None:
    """Return the equation that a sentence ends with, without the words before it, or its value.

    "There were 12 - 5 = 7 left" says `12 - 5 = 7 left`, "Total cost = 5 dollars" `5 dollars`.
    """
    before, equals, value = text.rpartition("=")
    terms = _WORD_BEFORE.split(before)[-1].strip()
    if not equals or (not terms and re.search(r"\d", before)):
        return None
    if terms == before.strip():  # no words, so no sentence
        return None
    if _CHANGED_BEFORE.search(before.rstrip().removesuffix(terms)[-30:]):
        return None
    return f"{terms} = {value}" if terms else value


def _fold(text: str) -> str:
    """Reduce a text for comparison: no spaces; where there are words, no case and no dots."""
    text = text.strip(" .,;:*\"'")
    if has_words(text):
        text = re.sub(r"(?<!\d)\.|\.(?!\d)|!", "", text.casefold())
    return re.sub(r"[\s$]", "", re.sub(r"(?<=\d)\s+(?=\d)", "_", text))


def _formula(text: str) -> str:
    """Return a formula in the notation that math-verify reads."""
    text = _MEMBER.sub("", text, count=1) if _MEMBER.match(text) else text
    text = _plain_number(re.sub(r"\\?\$", "", text).replace("**", "^"))
    text = re.sub(r"\^\s*(-?\d+|-[a-zA-Z])", r"^{\1}", text)
    text = re.sub(r"(?<=\d)\s*[xX]\s*(?=10\^)|(?<=\d)\s[xX]\s(?=\d)", r"\\times ", text)
    text = _MIXED.sub(_add_fraction, text)
    if rows := _ROWS.fullmatch(text):
        text = (
            r"\begin{pmatrix}"
            + _ROW_END.sub(r"\\\\", rows[1].strip("[ ]")).replace(",", "&")
            + r"\end{pmatrix}"
        )
    if text.count(r"\pm") == 1 and "," not in text:
        text = f"{text.replace(_PM, '+')}, {text.replace(_PM, '-')}"
    return "" if _APART.search(text) else text.strip()


def _plain_number(text: str) -> str:
    """Return a number without marks between its thousands, with a point for its decimals."""
    if _GROUPED.fullmatch(text):
        return re.sub(r"[ ,'_]", "", text)
    return text


def _add_fraction(match: re.Match) -> str:
    sign, whole, *parts = match.groups()
    above, below = [part for part in parts if part]
    return f"{sign}({whole}+\\frac{{{above}}}{{{below}}})"


def _same(gold: Meaning, given: Meaning, tolerance: float | int) -> bool:
    if conflict(gold.unit, given.unit):
        return False
    if given.unit.startswith("base ") and gold.unit != given.unit:
        return False
    for truth, value in _comparable(gold.formula, given.formula):
        if _equal(truth, value, tolerance):
            return True
        if "%" in (gold.unit, given.unit) and gold.unit != given.unit:
            hundredth = f"({value})/100" if given.unit else f"({value})*100"
            if _equal(truth, hundredth, tolerance):
                return True
    return False


def _comparable(gold: str, given: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs to compare: values where one side or both only name theirs."""
    if gold.strip().startswith(("[", "(")) and (ends := _interval(given)):
        yield gold, ends
    if given.strip().startswith(("[", "(")) and (ends := _interval(gold)):
        yield ends, given
    truths, values = _split(gold, _EQUALS), _split(given, _EQUALS)
    if len(near := given.split(r"\approx")) == 2:
        exact = _split(near[0], _EQUALS)[-1]
        if exact.strip() and not _is_name(exact) and _equal(exact, near[1], _ROUNDING):
            yield from _comparable(gold, near[0])
        if not exact.strip() or _is_name(exact) or _equal(exact, near[1], _ROUNDING):
            yield gold, near[1]
    elif len(_split(gold, _COMMA)) > 1 or len(_split(given, _COMMA)) > 1:
        parts: list[str | None] = [_unnamed(given)]
        if "=" in given and "=" not in gold:
            sides = [_split(part, _EQUALS) for part in _split(_unnamed(given), _COMMA)]
            parts = [_assigned(side) for side in sides]
        if None not in parts:
            yield _unnamed(gold), ", ".join(part or "" for part in parts)
    elif len(truths) == 1 and len(values) == 1:
        yield gold, given
    elif len(truths) == 1:
        if (value := _assigned(values)) is not None:
            yield gold, value
    elif len(values) == 1:
        if _is_name(truths[0]):
            yield truths[-1], given
    elif _is_name(truths[0]) and _is_name(values[0]):
        if truths[0].replace(" ", "") == values[0].replace(" ", ""):
            yield truths[-1], values[-1]
    else:
        yield gold, given


def _interval(inequality: str) -> str | None:
    r"""Read `-1 \le x < 2` as `[-1, 2)`; None where both ends are open and finite, a point too."""
    parts = [part.strip() for part in _ORDER.split(inequality)]
    if len(parts) not in (3, 5) or "" in parts or "=" in inequality:
        return None
    rising = [sign in ("<", r"\le", r"\lt") for sign in parts[1::2]]
    if len(parts) == 3 and _VARIABLE.fullmatch(parts[0]):  # x < 2
        parts = [r"-\infty" if rising[0] else r"\infty", "<", *parts]
    elif len(parts) == 3:  # 2 < x
        parts = [*parts, "<", r"\infty" if rising[0] else r"-\infty"]
    low, first, name, second, high = parts
    closed = [sign in (r"\le", r"\ge") for sign in (first, second)]
    if not _VARIABLE.fullmatch(name) or len(set(rising)) > 1:
        return None
    if not (any(closed) or "infty" in low + high):
        return None
    if not rising[0]:
        low, high, closed = high, low, closed[::-1]
    return f"{'[' if closed[0] else '('}{low}, {high}{']' if closed[1] else ')'}"


def _assigned(sides: Sequence[str]) -> str | None:
    """Return the value of `x = 5` or of `3 + 4 = 7`; None of `2x = 12`, and of `5 = 12`.

    What stands before the last sign must be a name or equal to what stands behind it.
    """
    *before, value = sides[: _MOST_SIDES + 1]
    if not before:
        return value
    if _is_name(value) and len(before) == 1 and not _is_name(before[0]):
        before, value = [value], before[0]  # 5 = x
    named = before[1:] if _is_name(before[0]) else before
    return value if all(_equal(value, side, 0) for side in named) else None


def _is_name(side: str) -> bool:
    """Return whether a side of an equation names a quantity: not a number or a multiple of it."""
    side = side.strip()
    if _CHANGED.match(re.sub(r"\^\\circ|\([^()=]*\)", "", side)):
        return False
    if _NAME.fullmatch(side):
        return True
    return bool(re.search(r"[a-zA-Z]", side)) and not re.search(r"\d", side)


def _unnamed(values: str) -> str:
    """Return a list `x = 1, x = 2` as `1, 2`, and one `x = 1, y = 2` as `(1, 2)`."""
    pairs = [_split(part, _EQUALS) for part in _split(values, _COMMA)]
    if any(len(pair) != 2 or not _is_name(pair[0]) for pair in pairs):
        if len(pairs[0]) == 2 and _is_name(pairs[0][0]) and all(len(p) == 1 for p in pairs[1:]):
            return ", ".join([pairs[0][1], *(pair[0] for pair in pairs[1:])])  # x = 1, 2
        return values
    names = [name.strip() for name, _ in pairs]
    together = ", ".join(value.strip() for _, value in pairs)
    return together if len(set(names)) == 1 else f"({together})"


def _split(formula: str, separator: re.Pattern) -> list[str]:
    """Return the parts of a formula between signs that stand in no bracket."""
    parts, begin, depth, last = [], 0, 0, 0
    for match in separator.finditer(formula):
        for letter in formula[last : match.start()]:
            depth += (letter in "([{") - (letter in ")]}")
        last = match.start()
        if depth == 0 and r"\begin" not in formula:
            parts.append(formula[begin : match.start()])
            begin = match.end()
    return [*parts, formula[begin:]]


def _equal(truth: str, value: str, tolerance: float | int) -> bool:
    truth, value = truth.strip(), _plain_number(value.strip())
    if _DECIMAL.fullmatch(truth) and _EUROPEAN.fullmatch(value):
        value = value.replace(".", "").replace(",", ".")
    if truth.replace(" ", "") == value.replace(" ", ""):
        return True
    if _DECIMAL.fullmatch(truth) and _DECIMAL.fullmatch(value):
        gold, given = Fraction(truth), Fraction(value)
        return round(gold, _DECIMALS) == round(given, _DECIMALS) or (
            abs(given - gold) <= Fraction(tolerance) * abs(gold) and tolerance > 0
        )
    return _verified(_parse_gold(truth), value, tolerance)


@functools.lru_cache(maxsize=4096)
def _parse_gold(text: str) -> tuple[Any, ...]:
    return _parse(text) if text else ()


def _verified(truth: tuple[Any, ...], value: str, tolerance: float | int) -> bool:
    if not truth or not (predicted := _parse(value)):
        return False
    verify = _math_verify().verify
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if verify(list(truth), list(predicted), timeout_seconds=None):
                return True
            return tolerance > 0 and _is_near(truth[0], predicted[0], tolerance)
    except Exception:  # a comparison may fail in any way on arbitrary text: then it is not equal
        return False


def _is_near(gold: Any, predicted: Any, relative_tolerance: float | int) -> bool:
    if not (getattr(gold, "is_number", False) and getattr(predicted, "is_number", False)):
        return False
    target = float(gold)
    return abs(float(predicted) - target) <= relative_tolerance * abs(target)


def _parse(text: str) -> tuple[Any, ...]:
    """Return the text as LaTeX: (expression, text), only (text,), or nothing."""
    library = _math_verify()
    config = [library.LatexExtractionConfig(boxed_match_priority=0)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tuple(library.parse(f"\\boxed{{{text}}}", config, parsing_timeout=None))
    except Exception:  # as above: text that the parser cannot read
        return ()


@functools.cache
def _math_verify() -> Any:
    import math_verify  # here: a slow import that most workers never need

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it logs every text it cannot read
    math_verify.parse("1", parsing_timeout=None)  # builds its grammar, which takes seconds
    return math_verify
