"""Programming exercises as MBPP and HumanEval release them, in one form.

MBPP's setup runs after the code, as in the sandbox (two of its references fail otherwise). In
HumanEval's prompt everything above the function, its imports and helpers, is setup too.
"""

import ast
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from gmma.errors import UserError
from gmma.tasks.records import (
    RawRecord,
    other_columns,
    place_of,
    require_text,
    spell_value,
)

_READ_OF_MBPP = ("text", "code", "test_list", "test_setup_code", "challenge_test_list")
_READ_OF_HUMANEVAL = ("prompt", "canonical_solution", "test", "entry_point")
_WRITTEN = ("setup", "signature", "answer", "tests")  # columns that the task makes itself
_FIELDS = (
    "MBPP (task_id, text, code, test_list, test_setup_code) and HumanEval (task_id, prompt, "
    "canonical_solution, test, entry_point)"
)


class Exercise(NamedTuple):
    """The kept part of a record."""

    question: str
    setup: str
    tests: tuple[str, ...]
    solution: str
    signature: str  # of the function that the tests call
    others: Mapping[str, Any]  # keys of the record that are no part of the exercise


def read_exercise(record: RawRecord, shown_tests: int) -> Exercise:
    """Read a record of either kind. UserError for another, or a solution that is no Python."""
    where = f"code: {place_of(record)}"
    if pictures := sorted({"image", "images"} & record.keys()):
        raise UserError(f"{where} has {pictures[0]}, which this task does not show; use task math")
    if set(_READ_OF_MBPP[:4]) <= record.keys():
        return _read_mbpp(record, shown_tests, where)
    if set(_READ_OF_HUMANEVAL) <= record.keys():
        return _read_humaneval(record, where)
    raise UserError(f"{where} has the fields {', '.join(record)}; known are {_FIELDS}")


def _read_mbpp(record: RawRecord, shown_tests: int, where: str) -> Exercise:
    tests = [
        _clean(require_text(test, f"{where}: a test of {key}"))
        for key in ("test_list", "challenge_test_list")
        for test in _list_of(record, key, where)
    ]
    if not tests:
        raise UserError(f"{where}: test_list is empty")
    setup = record["test_setup_code"]
    if not isinstance(setup, str):
        raise UserError(f"{where}: test_setup_code is {spell_value(setup)}, not a string")
    solution = _clean(require_text(record["code"], f"{where}: code"))
    shown = tests[:shown_tests]
    question = _clean(require_text(record["text"], f"{where}: text"))
    if shown:
        noun = "this test" if len(shown) == 1 else "these tests"
        question += f"\nYour code should pass {noun}: " + "\n".join(shown)
    return Exercise(
        question=question,
        setup=_clean(setup),
        tests=tuple(tests),
        solution=solution,
        signature=_signature(solution, called_names(tests[0]), where),
        others=other_columns(record, (*_READ_OF_MBPP, *_WRITTEN)),
    )


def _list_of(record: RawRecord, key: str, where: str) -> list[Any]:
    value = record.get(key, [])
    if not isinstance(value, list):
        raise UserError(f"{where}: {key} is {spell_value(value)}, not a list of strings")
    return value


def _read_humaneval(record: RawRecord, where: str) -> Exercise:
    said = {key: require_text(record[key], f"{where}: {key}") for key in _READ_OF_HUMANEVAL}
    prompt, entry = _clean(said["prompt"]), said["entry_point"]
    above, _, head = ("\n" + prompt).rpartition(f"\ndef {entry}(")
    solution = f"def {entry}({head}\n{_clean(said['canonical_solution'], strip=False)}".rstrip()
    return Exercise(
        question=prompt,
        setup=above.strip(),
        tests=(f"{_clean(said['test'])}\ncheck({entry})",),
        solution=solution,
        signature=_signature(solution, {entry}, where),
        others=other_columns(record, (*_READ_OF_HUMANEVAL, *_WRITTEN)),
    )


def _clean(text: str, *, strip: bool = True) -> str:
    """Make line ends Unix's and tabs spaces; strip white space at the ends of lines and text."""
    lines = text.replace("\r\n", "\n").expandtabs(4).split("\n")
    joined = "\n".join(line.rstrip() for line in lines)
    return joined.strip() if strip else joined.rstrip()


def parse_quietly(code: str) -> ast.Module:
    """Parse code; warnings of the references' odd escapes are silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def called_names(test: str) -> set[str]:
    """Return the names that a test calls.

    >>> sorted(called_names("assert set(f(g(1))) == set([2])"))
    ['f', 'g', 'set']
    """
    try:
        tree = parse_quietly(test)
    except SyntaxError as error:
        raise UserError(f"code: a test is no Python ({error}): {spell_value(test)}") from error
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {call.id for call in calls if isinstance(call, ast.Name)}


def _signature(solution: str, names: set[str], where: str) -> str:
    """Return the first function of the solution that the tests call, with its parameters' names."""
    try:
        body = parse_quietly(solution).body
    except SyntaxError as error:
        raise UserError(f"{where}: the solution is no Python ({error})") from error
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            return f"{node.name}({', '.join(a.arg for a in node.args.args)})"
        if isinstance(node, ast.ClassDef) and node.name in names:
            return node.name
    raise UserError(
        f"{where}: the solution defines none of what its first test calls "
        f"({', '.join(sorted(names))})"
    )
