"""Find the names that a program binds and uses, as far as its syntax tells."""

import ast
import builtins
import sys
from collections.abc import Collection, Iterable, Sequence

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def loaded_names(nodes: Iterable[ast.AST]) -> set[str]:
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def bound_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return every name that is bound somewhere in these nodes."""
    bound = set()
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return bound


def standard_modules(nodes: Sequence[ast.AST], foreign: Collection[str]) -> set[str]:
    """Modules of Python's library among the names, used as `math.…`."""
    values = (n.value for n in nodes if isinstance(n, ast.Attribute))
    used = {value.id for value in values if isinstance(value, ast.Name)}
    return used & set(foreign) & sys.stdlib_module_names


def untold_names(nodes: Sequence[ast.AST]) -> set[str]:
    """Return the names that tests leave to the code to define.

    Where they use nothing but built-in names, one of those is what they test (a task may ask for
    `sum`).
    """
    foreign = loaded_names(nodes) - bound_names(nodes)
    own = foreign - vars(builtins).keys()
    return own - standard_modules(nodes, foreign) if own else foreign
