"""The one reader of code in an answer: which of what a model wrote is its program.

Models write prose, several blocks, a usage, its output, a shell line, a test. The program is the
last block that defines what the tests name; of the others only the definitions that it lacks are
taken along, and never a statement that does something.
"""

import ast
import builtins
import itertools
import re
import sys
import textwrap
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from gmma.rewards.sandbox.names import FUNCTIONS, bound_names, loaded_names, untold_names

_FENCE = re.compile(
    r"(?P<indent>^[ \t]+)?(?P<fence>(?<!`)`{3,}+|(?<!~)~{3,}+)[ \t]*(?P<language>[^\n`]*)\n",
    re.MULTILINE,
)
_PYTHON = ("", "py", "python", "python3", "py3", "{.python}", "pycon")
_BEGINS_CODE = re.compile(r"^(?:(?:def|class|import|from|async def)\b|@)", re.MULTILINE)
_BEGIN = re.compile(r"^\[BEGIN\][ \t]*$", re.MULTILINE)  # MBPP's own marks
_DONE = re.compile(r"^\[DONE\][ \t]*$", re.MULTILINE)
_PROMPTED = re.compile(r"^(?:>>>|\.\.\.)(?: (?P<code>.*))?$", re.MULTILINE)
_BEGINS_PROMPTED = re.compile(r"^>>> (?:def|class|import|from|@|async def)", re.MULTILINE)
# Characters that look like a space or like nothing, and are neither to Python.
_ODD_SPACES = dict.fromkeys(map(ord, "\u00a0\u202f\u2007"), " ") | dict.fromkeys(
    map(ord, "\ufeff\u200b\u200c\u200d\u2060")
)
_ODD_FRONT = re.compile(r"\A[\u00a0\u202f\u2007](?=\w)")
_MOST_CUTS, _MOST_BEGINS, _MOST_FENCES_INSIDE = 40, 40, 8
_NOT_CALLED = frozenset({"input", "open", "print", "exit", "quit", "eval", "exec"})


class _Fenced(NamedTuple):
    start: int
    end: int
    language: str
    code: str


def find_code(text: str, wanted: Collection[str] = (), prompt: str = "") -> str:
    """Find the program of an answer; `wanted` are the names that the tests need of it.

    Without a fence all of the text is the program, or its parts from a definition to the last line
    with which that is Python. Where `prompt` is Python that ends in a function, as HumanEval's, an
    answer that is that function's body is put behind it. What is no Python is returned as it is.
    """
    code = _find_code(text, wanted, prompt)
    if (plain := _ODD_FRONT.sub("", text).translate(_ODD_SPACES)) != text:
        tree = parse_quietly(code)  # such characters stay where they are part of a string
        if tree is None or (wanted and not _defines(tree, wanted)):
            return _find_code(plain, wanted, prompt)
    return code


def _find_code(text: str, wanted: Collection[str], prompt: str) -> str:
    text = _without_marks(text.replace("\r\n", "\n"))
    whole = parse_quietly(text) is not None  # then what looks like a fence stands in a string
    fences = [] if whole else _fences(text)
    fenced = [block for block in fences if not _only_closes(text, block)]
    blocks = bodies = [block.code for block in fenced if block.language in _PYTHON]
    if not blocks:
        outside = _outside(text, fences)
        if fenced and not _BEGINS_CODE.search(outside):
            return fenced[-1].code
        blocks, bodies = [outside] if whole else _without_prose(outside), [outside]
    trees = [parse_quietly(block) for block in blocks]
    main = _main_block(trees, wanted)
    if main is None or not _defines(trees[main], wanted):
        indented = [body for body in bodies if body.lstrip("\n")[:1] in (" ", "\t")]
        likely = bodies[-1 if main is None or bodies is not blocks else main]
        continued = _continue_prompt(prompt, [likely, *indented][-1], wanted)
        if continued is not None:
            return continued
    if main is None:
        return blocks[-1]
    others = [pair for i, pair in enumerate(zip(blocks, trees, strict=True)) if i != main]
    added = _definitions_needed(trees[main], others, wanted)
    return "\n".join([*added, blocks[main]])


def parse_quietly(code: str) -> ast.Module | None:
    """Parse code, or return None where it is no Python. Warnings of odd escapes are silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def names_wanted(tests: Sequence[str]) -> frozenset[str]:
    """Return the names that the tests use and neither define nor find in Python.

    >>> sorted(names_wanted(["xs = [1]\\nassert f(xs) == len(xs)", "assert math.isclose(g(1), 1)"]))
    ['f', 'g']
    """
    trees = [tree for tree in map(parse_quietly, tests) if tree is not None]
    return frozenset(untold_names([node for tree in trees for node in ast.walk(tree)]))


def _without_marks(text: str) -> str:
    """Turn `[BEGIN]` and `[DONE]` into fences; drop what follows a `[DONE]` that comes first."""
    begin, done = _BEGIN.search(text), _DONE.search(text)
    if done and (begin is None or done.start() < begin.start()):
        text = text[: done.start()]
    has_fences = begin is None or _FENCE.search(text) is not None
    text = _BEGIN.sub("" if has_fences else "```python", text)
    return _DONE.sub("" if has_fences else "```", text)


def _fences(text: str) -> list[_Fenced]:
    """Return the fenced blocks. A fence within a triple-quoted string is part of the string."""
    found: list[_Fenced] = []
    at = 0
    while opened := _FENCE.search(text, at):
        language = [*opened["language"].lower().split(), ""][0]
        ends = list(_ends(text, opened))
        codes = [_dedented(opened, text[opened.end() : start]) for start, _ in (ends[0], ends[-1])]
        whole = len(ends) > 1 and parse_quietly(codes[1]) is not None
        at = ends[-1 if whole else 0][1]
        found.append(_Fenced(opened.start(), at, language, codes[whole]))
    return found


def _ends(text: str, opened: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Return where a fence may close: the first place, and the next ones while in a string."""
    closing = re.compile(re.escape(opened["fence"]) + r"[ \t]*$", re.MULTILINE)
    found = closing.finditer(text, opened.end())
    start, end = next((m.span() for m in found), (len(text), len(text)))
    yield start, end
    for _ in range(_MOST_FENCES_INSIDE):
        if not _is_cut(text[opened.end() : start]):
            break
        start, end = next((m.span() for m in found), (len(text), len(text)))
        yield start, end


def _is_cut(code: str) -> bool:
    return any(code.count(quotes) % 2 for quotes in ('"""', "'''"))


def _only_closes(text: str, block: _Fenced) -> bool:
    """Return whether this ends a block that the prompt opened, and what is said behind it."""
    if not block.code.strip():
        return True
    before = text[: block.start]
    if block.language or text.count("```", block.start) != 1 or parse_quietly(block.code):
        return False
    return before[:1] in (" ", "\t") or _BEGINS_CODE.search(before) is not None


def _outside(text: str, fenced: Sequence[_Fenced]) -> str:
    ends = [0, *(block.end for block in fenced)]
    starts = [*(block.start for block in fenced), len(text)]
    return "".join(text[end:start] for end, start in zip(ends, starts, strict=True))


def _dedented(opened: re.Match[str], code: str) -> str:
    code = textwrap.dedent(code) if opened["indent"] else code  # in a list
    return _without_prompts(code) if code.lstrip().startswith(">>>") else code


def _without_prompts(code: str) -> str:
    """Return what was typed in a session of the interpreter, without its output."""
    return "\n".join(match["code"] or "" for match in _PROMPTED.finditer(code))


def _without_prose(text: str) -> list[str]:
    """Return the programs in a text, each from a definition to the last line Python can read."""
    found: list[str] = []
    at = 0
    if _BEGINS_PROMPTED.search(text):
        text = _without_prompts(text)
    for begin in itertools.islice(_BEGINS_CODE.finditer(text), _MOST_BEGINS):
        if begin.start() >= at and (code := _longest_program(text[begin.start() :])):
            found.append(code)
            at = begin.start() + len(code)
    return found or [text]


def _longest_program(text: str) -> str:
    """Return the first lines of a text that Python reads; empty where they define nothing."""
    lines = text.split("\n")
    for _ in range(_MOST_CUTS):
        code = "\n".join(lines)
        line = _line_refused(code)
        if line is None:
            tree = parse_quietly(code)
            return code if tree is not None and tree.body else ""
        lines = lines[: max(0, min(line, len(lines)) - 1)]
    return ""


def _line_refused(code: str) -> int | None:
    """Return the line, from 1, where Python stops reading; None if it reads to the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(code)
        except SyntaxError as error:
            return error.lineno or 1
        except (ValueError, RecursionError, MemoryError):
            return 1
    return None


def _main_block(trees: Sequence[ast.Module | None], wanted: Collection[str]) -> int | None:
    """Return the last block that defines a wanted name; else anything; else that is Python."""

    def defines_any(tree: ast.Module) -> bool:
        return any(isinstance(s, (*FUNCTIONS, ast.ClassDef)) for s in tree.body)

    read = [(index, tree) for index, tree in enumerate(trees) if tree is not None and tree.body]
    for fits in (lambda tree: _defines(tree, wanted), defines_any, lambda tree: True):
        for index, tree in reversed(read):
            if fits(tree):
                return index
    return None


def _defines(tree: ast.Module | None, wanted: Collection[str]) -> bool:
    """Return whether one of the names is a function, a class, or a method of `class Solution`.

    A name that is assigned counts too, unless from itself: `f = f(3)` is a usage.
    """
    if tree is None:
        return False
    names = set()
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef) and statement.name == "Solution":
            names |= {s.name for s in statement.body if isinstance(s, FUNCTIONS)}
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            names |= set(_bound_by(statement)) - _used_by_value(statement)
    return not names.isdisjoint(wanted)


def _used_by_value(statement: ast.stmt) -> set[str]:
    value = getattr(statement, "value", None)
    return set() if value is None else loaded_names(ast.walk(value))


def _continue_prompt(prompt: str, body: str, wanted: Collection[str]) -> str | None:
    """Return the prompt's function with this as its body; None where the two make no function.

    Of the possible indents of the body, the one with which Python reads most lines counts.
    Definitions behind the function are kept.

    Of the ways to indent the body that one counts of which Python reads most lines. Of what stands
    behind the function the definitions are kept.
    """
    started = parse_quietly(prompt)
    if started is None or not started.body or not isinstance(started.body[-1], FUNCTIONS):
        return None
    name = started.body[-1].name
    if not body.strip() or (wanted and name not in wanted):
        return None
    place, begun = len(started.body) - 1, len(started.body[-1].body)
    indented = textwrap.indent(textwrap.dedent(body), "    ")
    found = ""
    for way in (body, f"    {body.lstrip()}", indented):
        code = _longest_program(f"{prompt.rstrip()}\n{way}")
        if code.count("\n") <= found.count("\n") or not _compiles(code):
            continue
        function = ast.parse(code).body[place]
        if isinstance(function, FUNCTIONS) and function.name == name:
            found = code if len(function.body) > begun else found
    if not found:
        return None
    statements = ast.parse(found).body
    function = statements[place]
    behind = [_source(found, s) for s in statements[place + 1 :] if _only_defines(s)]
    return "\n".join([*found.split("\n")[: function.end_lineno], *behind])


def _compiles(code: str) -> bool:
    """Return whether nothing in it is out of place, as a `return` outside of a function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(code, "", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def _definitions_needed(
    main: ast.Module | None,
    others: Sequence[tuple[str, ast.Module | None]],
    wanted: Collection[str],
) -> list[str]:
    """Return what of the other blocks binds names that the program loads and lacks, in order."""
    if main is None:
        return []
    available = [(code, s) for code, tree in others if tree for s in tree.body if _only_defines(s)]
    last = {name: at for at, (_, s) in enumerate(available) for name in _bound_by(s)}
    nodes = list(ast.walk(main))
    have = bound_names(nodes) | vars(builtins).keys()
    missing, chosen = (loaded_names(nodes) | set(wanted)) - have, set[int]()
    while missing:
        name = missing.pop()
        if name in last and last[name] not in chosen:
            chosen.add(last[name])
            inner = list(ast.walk(available[last[name]][1]))
            missing |= loaded_names(inner) - have - bound_names(inner)
    return [_source(*available[at]) for at in sorted(chosen)]


def _source(code: str, statement: ast.stmt) -> str:
    """Return the lines of a statement, its decorators too."""
    above = [d.lineno for d in getattr(statement, "decorator_list", ())]
    first = min([statement.lineno, *above])
    return "\n".join(code.splitlines()[first - 1 : statement.end_lineno])


def _only_defines(statement: ast.stmt) -> bool:
    """Return whether a statement is a definition, an import of Python's own, or a constant."""
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
        return True
    if isinstance(statement, ast.Import | ast.ImportFrom):
        modules = [a.name for a in statement.names]
        if isinstance(statement, ast.ImportFrom):
            modules = [statement.module or ""]
        return all(m.partition(".")[0] in sys.stdlib_module_names for m in modules)
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return False
    return _NOT_CALLED.isdisjoint(loaded_names(list(ast.walk(statement))))


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from ((a.asname or a.name).partition(".")[0] for a in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
