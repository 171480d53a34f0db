"""Programming exercises as MBPP and HumanEval release them, in one form.

The setup that MBPP gives runs behind the code, as the sandbox does it (two of its references fail
otherwise); of HumanEval's prompt all above the function, its imports and helpers, is setup too.
"""

import ast
import warnings
from typing import NamedTuple

from gmma.errors import UserError
from gmma.tasks.records import Record

_FIELDS = (
    "MBPP (task_id, text, code, test_list, test_setup_code) and HumanEval (task_id, prompt, "
    "canonical_solution, test, entry_point)"
)


class Exercise(NamedTuple):
    """What is kept of a record."""

    question: str
    setup: str
    tests: tuple[str, ...]
    solution: str
    signature: str  # of the function that the tests call


def read_exercise(record: Record, shown_tests: int) -> Exercise:
    """A record of either kind. Raises UserError for another, or one whose solution is no Python."""
    if {"text", "code", "test_list", "test_setup_code"} <= record.keys():
        return _read_mbpp(record, shown_tests)
    if {"prompt", "canonical_solution", "test", "entry_point"} <= record.keys():
        return _read_humaneval(record)
    raise UserError(f"code: a record has the fields {', '.join(record)}; known are {_FIELDS}")


def _read_mbpp(record: Record, shown_tests: int) -> Exercise:
    tests = [
        _clean(test) for test in (*record["test_list"], *record.get("challenge_test_list", ()))
    ]
    solution, shown = _clean(record["code"]), tests[:shown_tests]
    question = _clean(record["text"])
    if shown:
        noun = "this test" if len(shown) == 1 else "these tests"
        question += f"\nYour code should pass {noun}: " + "\n".join(shown)
    return Exercise(
        question=question,
        setup=_clean(record["test_setup_code"]),
        tests=tuple(tests),
        solution=solution,
        signature=_signature(solution, called_names(tests[0]), record),
    )


def _read_humaneval(record: Record) -> Exercise:
    prompt, entry = _clean(record["prompt"]), str(record["entry_point"])
    above, _, head = ("\n" + prompt).rpartition(f"\ndef {entry}(")
    solution = f"def {entry}({head}\n{_clean(record['canonical_solution'], strip=False)}".rstrip()
    return Exercise(
        question=prompt,
        setup=above.strip(),
        tests=(f"{_clean(record['test'])}\ncheck({entry})",),
        solution=solution,
        signature=_signature(solution, {entry}, record),
    )


def _clean(text: object, *, strip: bool = True) -> str:
    """Unix line ends, spaces for tabs, no white space at the ends of lines or of the text."""
    lines = str(text).replace("\r\n", "\n").expandtabs(4).split("\n")
    joined = "\n".join(line.rstrip() for line in lines)
    return joined.strip() if strip else joined.rstrip()


def parse_quietly(code: str) -> ast.Module:
    """The syntax tree; the references hold odd escapes, which are not our concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def called_names(test: str) -> set[str]:
    """Names that a test calls.

    >>> sorted(called_names("assert set(f(g(1))) == set([2])"))
    ['f', 'g', 'set']
    """
    calls = [node.func for node in ast.walk(parse_quietly(test)) if isinstance(node, ast.Call)]
    return {call.id for call in calls if isinstance(call, ast.Name)}


def _signature(solution: str, names: set[str], record: Record) -> str:
    """The first function of the solution that the tests call, with its parameters' names."""
    for node in parse_quietly(solution).body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            return f"{node.name}({', '.join(a.arg for a in node.args.args)})"
        if isinstance(node, ast.ClassDef) and node.name in names:
            return node.name
    raise UserError(
        f"code: the solution of record {record.get('task_id')} defines none of what its first test "
        f"calls ({', '.join(sorted(names))})"
    )
