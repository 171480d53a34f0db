"""Names in a config: something of gmma's, or a user's own as `module:NAME`.

Rewards, tasks, credit rules, policy losses and model families all come in by this one door
(`docs/extending.md`). Gmma's own are tables of addresses too, and are imported when asked for.
"""

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

from gmma.errors import UserError

T = TypeVar("T")
# What is written in the place of `module:NAME`: a file, or a dot for the colon
_PATH = re.compile(r"(?:(?P<folder>[^:]+)/)?(?P<module>\w+)(?:\.py)?:(?P<attribute>\w+)")
_DOTTED = re.compile(r"(?P<module>\w+(?:\.\w+)*)\.(?!py$)(?P<attribute>\w+)")


class Named(Mapping[str, T], Generic[T]):
    """Table of gmma's own things by name, each imported from its `module:NAME` on first use."""

    def __init__(self, kind: str, addresses: Mapping[str, str]) -> None:
        self.kind, self.addresses = kind, dict(addresses)

    def __getitem__(self, name: str) -> T:
        module, _, attribute = self.addresses[name].partition(":")
        return cast(T, getattr(importlib.import_module(module), attribute))

    def __iter__(self) -> Iterator[str]:
        return iter(self.addresses)

    def __len__(self) -> int:
        return len(self.addresses)

    def __contains__(self, name: object) -> bool:
        return name in self.addresses

    def short(self, name: str) -> str:
        """Return the table's own name for one of its addresses; any other name as it is."""
        return next((own for own, address in self.addresses.items() if address == name), name)

    def check(self, name: str) -> None:
        """Raise UserError unless a name is in the table or has the form `module:NAME`."""
        if name not in self and not is_address(name):
            raise UserError(unknown(self.kind, name, self))

    def find(self, name: str) -> T:
        """Return the thing of that name in the table, or import a user's own `module:NAME`.

        Raises UserError where the name is unknown, or the import fails.
        """
        return self[name] if name in self else cast(T, import_own(self.kind, name, self))


def import_own(kind: str, name: str, known: Iterable[str]) -> Any:
    """Import a user's `module:NAME`. Raises UserError that says what there is instead."""
    if not is_address(name):
        raise UserError(unknown(kind, name, known))
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # a console script does not look where it was started
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises on import
        relative = isinstance(error, ImportError) and "relative import" in str(error)
        raise UserError(
            f"{kind} '{name}' cannot be imported: {type(error).__name__}: {spelled(error, str)}; "
            + (
                "what stands beside a module is imported by `import NAME`, or the module named "
                f"within its package: PACKAGE.{name}"
                if relative
                else "the module must be importable from the directory you start gmma in, from "
                "that of the experiment file, or from PYTHONPATH"
            )
            + (f"; is it {name.replace('.py:', ':')}?" if ".py:" in name else "")
        ) from error
    top = module_name.partition(".")[0]
    hidden = hidden_file(top)
    if hidden and (top in sys.stdlib_module_names or not hasattr(module, attribute)):
        place = getattr(sys.modules[top], "__file__", None) or "built into Python"
        raise UserError(
            f"{kind} '{name}': Python finds another module {top} before your {hidden}: {place}; "
            "give your file another name"
        )
    if not hasattr(module, attribute):
        has = [own for own in vars(module) if not own.startswith("_")]
        near = difflib.get_close_matches(attribute, has, n=3)
        callables = [own for own in has if callable(getattr(module, own))]
        raise UserError(
            f"{kind} '{name}': module {module_name} has no {attribute}; it has "
            f"{', '.join(near or callables) or 'nothing to call'}"
        )
    return getattr(module, attribute)


def hidden_file(top: str) -> str:
    """Return a file of a module on the import path that is not the one imported; "" for none."""
    imported = getattr(sys.modules.get(top), "__file__", None)
    for entry in sys.path:
        for inner in (f"{top}.py", os.path.join(top, "__init__.py")):
            path = os.path.join(entry or os.curdir, inner)
            if os.path.isfile(path) and not (imported and os.path.samefile(path, imported)):
                return path
    return ""


def is_address(name: str) -> bool:
    """Tell whether a name has the form `module:NAME`."""
    module, _, attribute = name.partition(":")
    return bool(attribute) and all(part.isidentifier() for part in (*module.split("."), attribute))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that there is no such name, what there is, and what is nearest."""
    near = difflib.get_close_matches(name, list(known), n=1)
    if not near and (found := _PATH.fullmatch(name) or _DOTTED.fullmatch(name)):
        folder = found.groupdict().get("folder")
        return (
            f"{kind} '{name}' is not of the form 'module:NAME', which has no slash and no .py; "
            f"write '{found['module']}:{found['attribute']}'"
            + (f", and start gmma with PYTHONPATH={folder}" if folder else "")
        )
    return (
        f"{kind} '{name}' is unknown; choose one of {', '.join(sorted(known))}, or give your own "
        "as a path 'module:NAME'" + (f"; did you mean '{near[0]}'?" if near else "")
    )


def import_path() -> str:
    """Return this process's import path as PYTHONPATH, so that a child finds the same modules."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)


def module_command(name: str, *arguments: str) -> list[str]:
    """Return the command of a process that runs a module of gmma; its PYTHONPATH is `import_path`.

    Without -P Python would look first where gmma was started: a user's json.py there is not JSON's.
    """
    return [sys.executable, "-P", "-m", name, *arguments]


def check_call(kind: str, name: str, function: Any, /, *given: str, **named: str) -> None:
    """Raise UserError unless a function can be called with these arguments.

    `given` are positional arguments, `named` those by keyword; what they are stands in the message.
    """
    if not callable(function):
        raise UserError(f"{kind} '{name}' is of type {type(function).__name__}, not a function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # compiled code may tell nothing
        return
    try:
        signature.bind(*given, **named)
    except TypeError as error:
        called = ", ".join((*given, *(f"{key}={value}" for key, value in named.items())))
        raise UserError(
            f"{kind} '{name}' takes {signature}, and cannot be called as {name.split(':')[-1]}"
            f"({called}): {error}; further arguments can be taken as **_"
        ) from None


def spelled(value: object, spell: Callable[[object], str] = repr) -> str:
    """Return what a user's object says of itself; its own code may raise."""
    try:
        return spell(value)[:400]
    except Exception:
        return "(what it says cannot be shown)"
