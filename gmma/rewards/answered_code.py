"""The one reader of code in an answer: which of what a model wrote is its program.

Models write prose, several blocks, a usage, its output, a shell line, a test. The program is the
last block that defines what the tests name; of the others only the definitions that it lacks are
taken along, and never a statement that does something.
"""

import ast
import builtins
import re
import sys
import textwrap
import warnings
from collections.abc import Collection, Iterator, Sequence

from gmma.rewards.sandbox.names import FUNCTIONS, bound_names, loaded_names, untold_names

_FENCE = re.compile(
    r"(?P<indent>^[ \t]+)?(?P<fence>(?<!`)`{3,}+|(?<!~)~{3,}+)[ \t]*(?P<language>[^\n`]*)\n"
    r"(?P<code>.*?)"
    r"(?:(?P=fence)[ \t]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = ("", "py", "python", "python3", "py3", "{.python}", "pycon")
_BEGINS_CODE = re.compile(r"^(?:def|class|import|from|@|async def)\b", re.MULTILINE)
_MOST_LINES_CUT = 40
_NOT_CALLED = frozenset({"input", "open", "print", "exit", "quit", "eval", "exec"})


def find_code(text: str, wanted: Collection[str] = (), prompt: str = "") -> str:
    """The program of an answer; `wanted` are the names that the tests need of it.

    Without a fence all of the text is the program, or its part from the first definition to the
    last line with which that is Python. Where `prompt` is Python that ends in a function, as
    HumanEval's, an answer that is that function's body is put behind it. What is no Python is
    returned as it is.
    """
    fenced = list(_FENCE.finditer(text))
    blocks = [_dedented(match) for match in fenced if _is_python_fence(match)]
    if not blocks:
        outside = _FENCE.sub("", text)
        if fenced and not _BEGINS_CODE.search(outside):
            return str(fenced[-1]["code"])
        blocks = [_without_prose(outside)]
    trees = [parse_quietly(block) for block in blocks]
    main = _main_block(trees, wanted)
    if main is None or not _defines(trees[main], wanted):
        continued = _continue_prompt(prompt, blocks[-1 if main is None else main], wanted)
        if continued is not None:
            return continued
    if main is None:
        return blocks[-1]
    others = [pair for i, pair in enumerate(zip(blocks, trees, strict=True)) if i != main]
    added = _definitions_needed(trees[main], others, wanted)
    return "\n".join([*added, blocks[main]])


def parse_quietly(code: str) -> ast.Module | None:
    """The syntax tree, or None of what is no Python. Odd escapes in it are not our concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def names_wanted(tests: Sequence[str]) -> frozenset[str]:
    """What the tests name and neither define nor find in Python.

    >>> sorted(names_wanted(["xs = [1]\\nassert f(xs) == len(xs)", "assert math.isclose(g(1), 1)"]))
    ['f', 'g']
    """
    trees = [tree for tree in map(parse_quietly, tests) if tree is not None]
    return frozenset(untold_names([node for tree in trees for node in ast.walk(tree)]))


def _is_python_fence(match: re.Match[str]) -> bool:
    return [*match["language"].lower().split(), ""][0] in _PYTHON


def _dedented(match: re.Match[str]) -> str:
    code = match["code"]
    if match["language"].lower().startswith("pycon"):
        code = "\n".join(line[4:] for line in code.splitlines() if line[:4] in (">>> ", "... "))
    return textwrap.dedent(code) if match["indent"] else code  # a block in a list


def _without_prose(text: str) -> str:
    if parse_quietly(text) is not None:
        return text
    begin = _BEGINS_CODE.search(text)
    lines = text[begin.start() :].split("\n") if begin else []
    for cut in range(min(len(lines), _MOST_LINES_CUT)):
        code = "\n".join(lines[: len(lines) - cut])
        if (tree := parse_quietly(code)) is not None and tree.body:
            return code
    return text


def _main_block(trees: Sequence[ast.Module | None], wanted: Collection[str]) -> int | None:
    """The last block that defines what is wanted; else anything; else that is Python."""

    def defines_any(tree: ast.Module) -> bool:
        return any(isinstance(s, (*FUNCTIONS, ast.ClassDef)) for s in tree.body)

    read = [(index, tree) for index, tree in enumerate(trees) if tree is not None and tree.body]
    for fits in (lambda tree: _defines(tree, wanted), defines_any, lambda tree: True):
        for index, tree in reversed(read):
            if fits(tree):
                return index
    return None


def _defines(tree: ast.Module | None, wanted: Collection[str]) -> bool:
    """Whether one of the names is a function, a class, or a method of `class Solution`.

    So is one that is assigned, unless from itself: `f = f(3)` is a usage.
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
    """The prompt's function with this as its body, or None where the two make no such function."""
    started = parse_quietly(prompt)
    if started is None or not started.body or not isinstance(started.body[-1], FUNCTIONS):
        return None
    name = started.body[-1].name
    if not body.strip() or (wanted and name not in wanted):
        return None
    indented = textwrap.indent(textwrap.dedent(body), "    ")
    for way in (body, f"    {body.lstrip()}", indented):
        tree = parse_quietly(f"{prompt.rstrip()}\n{way}")
        if tree is None or not isinstance(function := tree.body[-1], FUNCTIONS):
            continue
        if function.name == name and len(function.body) > len(started.body[-1].body):
            return f"{prompt.rstrip()}\n{way}"
    return None


def _definitions_needed(
    main: ast.Module | None,
    others: Sequence[tuple[str, ast.Module | None]],
    wanted: Collection[str],
) -> list[str]:
    """Of the other blocks what binds names that the program loads and lacks, in their order."""
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
    """The lines of a statement, its decorators too."""
    above = [d.lineno for d in getattr(statement, "decorator_list", ())]
    first = min([statement.lineno, *above])
    return "\n".join(code.splitlines()[first - 1 : statement.end_lineno])


def _only_defines(statement: ast.stmt) -> bool:
    """A definition, an import of Python's own, or a constant: nothing that runs the program."""
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
