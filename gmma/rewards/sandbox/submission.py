"""What runs inside the submission's process: load the code, answer questions about its objects."""

import ast
import operator
import sys
import types
from collections.abc import Callable
from typing import Any

from .channel import Channel
from .values import plain

# What the checker may do to an object here; `operator` has the rest by the same names.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, args, kwargs: function(*args, **kwargs),
    "plain": plain,
    **{
        f.__name__: f
        for f in (getattr, setattr, iter, next, len, bool, str, repr, hash, isinstance)
    },
    **{name: getattr(operator, name) for name in ("getitem", "setitem", "delitem")},
}


class Callback:
    """A function of the tests, which runs in the checker."""

    peer_channel: Channel

    def __init__(self, index: int) -> None:
        self.peer_index = index

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.peer_channel.apply("call", self, list(args), kwargs)


def run_submission(descriptors: tuple[int, int]) -> None:
    """Serve the checker until it is gone."""
    module = types.ModuleType("submission")  # not `__main__`: its guarded script part stays asleep
    sys.modules["submission"] = module

    def answer(name: str, *args: Any) -> Any:
        if name == "load":
            return _load(module, *args)
        if name == "name":
            return vars(module)[args[0]]
        function = _FUNCTIONS.get(name) or getattr(operator, name)
        return function(*args)

    Callback.peer_channel = Channel(descriptors, answer, Callback, may_export=lambda value: True)
    Callback.peer_channel.serve()


def _load(module: types.ModuleType, code: str, setup: str) -> None:
    _run_leniently(module, setup)
    exec(compile(code, "<submission>", "exec"), vars(module))


def _run_leniently(module: types.ModuleType, setup: str) -> None:
    """Give the code the names of the setup, as far as they do not need the code itself.

    Whether the setup works is the checker's business, which runs it too.
    """
    for statement in ast.parse(setup).body:
        try:
            exec(compile(ast.Module([statement], []), "<setup>", "exec"), vars(module))
        except Exception:
            continue
