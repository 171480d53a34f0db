"""The program of the submission's process: load the code, answer questions about its objects."""

import ast
import asyncio
import importlib
import operator
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .channel import Channel
from .values import plain

_STACK_BYTES = 4 << 20  # of a thread: half of the usual, so that fifty leave memory for data

# Operations that the checker may apply here; `operator` has the rest by the same names.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, args, kwargs: function(*args, **kwargs),
    "plain": plain,
    "await": lambda coroutine: asyncio.run(coroutine),
    "enter": lambda manager: type(manager).__enter__(manager),
    "exit": lambda manager, error: type(manager).__exit__(
        manager, *((type(error), error, error.__traceback__) if error else (None, None, None))
    ),
    **{
        f.__name__: f
        for f in (
            getattr, setattr, iter, next, len, bool, str, repr, hash, isinstance, issubclass,
            round, divmod,
        )
    },
    **{name: getattr(operator, name) for name in ("getitem", "setitem", "delitem")},
}  # fmt: skip


class Callback:
    """A function, a class or an instance of the tests, which lives in the checker."""

    peer_channel: Channel
    peer_index: int
    peer_kind: str

    def __init__(self, index: int, kind: str) -> None:
        object.__setattr__(self, "peer_index", index)
        object.__setattr__(self, "peer_kind", kind)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.peer_channel.apply("call", self, list(args), kwargs)


class Borrowed(Callback):
    """An instance of a class of the tests, whose public attributes and operators may be used."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class of that name that the setup gave to the code, if it did."""
        found = vars(sys.modules["submission"]).get(self.peer_kind)
        return found if isinstance(found, type) else Borrowed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.peer_channel.apply("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.peer_channel.apply("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self.peer_channel.apply("delattr", self, name)

    def __iter__(self) -> Iterator[Any]:
        iterator = self.peer_channel.apply("iter", self)
        while True:
            try:
                item = self.peer_channel.apply("next", iterator)
            except StopIteration:
                return
            yield item


def _forward(name: str) -> Callable[..., Any]:
    return lambda self, *args: self.peer_channel.apply(name, self, *args)


for _name in (
    "next", "len", "bool", "str", "repr", "hash", "contains", "getitem", "setitem", "delitem",
    "eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow",
    "matmul", "and_", "or_", "xor", "lshift", "rshift", "neg", "pos", "abs", "invert",
):  # fmt: skip
    setattr(Borrowed, f"__{_name.rstrip('_')}__", _forward(_name))


def run_submission(descriptors: tuple[int, int]) -> None:
    """Serve the checker until it is gone."""
    module = types.ModuleType("submission")  # not `__main__`: its guarded script part stays asleep
    vars(module).update({name: getattr(typing, name) for name in typing.__all__})
    sys.modules["submission"] = module
    threading.stack_size(_STACK_BYTES)

    def answer(name: str, *args: Any) -> Any:
        if name == "load":
            return _load(module, *args)
        if name == "name":
            return _find(module, *args)
        if name == "make":  # an exception of the submission's own class
            index, positional, named = args
            return channel.exported[index](*positional, **named)
        function = _FUNCTIONS.get(name) or getattr(operator, name)
        return function(*args)

    channel = Channel(descriptors, answer, _describe, _resolve)
    Callback.peer_channel = channel
    channel.serve()


def _describe(channel: Channel, value: Any) -> dict[str, Any]:
    """Describe an object by its number here; an exception's class must be known to the checker."""
    if isinstance(value, Callback):
        return {"t": "yours", "v": value.peer_index}
    index, kind = channel.export(value), type(value).__name__
    if isinstance(value, type) and issubclass(value, Exception):
        bases = [b for b in value.__bases__ if issubclass(b, Exception)]
        return {
            "t": "error class",
            "v": index,
            "of": value.__name__,
            "path": [value.__module__, value.__qualname__],
            "bases": [channel._refer(base) for base in bases],
        }
    tag = "coroutine" if isinstance(value, types.CoroutineType) else "mine"
    return {"t": tag, "v": index, "of": kind}


def _resolve(channel: Channel, wire: Mapping[str, Any]) -> Any:
    if wire["t"] == "library":
        module, name = wire["v"]
        found = importlib.import_module(module)
        return operator.attrgetter(name)(found) if name else found
    return (Borrowed if wire.get("open") else Callback)(wire["v"], wire["of"])


def _load(module: types.ModuleType, code: str, setup: str) -> None:
    _run_leniently(module, setup)
    exec(compile(code, "<submission>", "exec"), vars(module))


def _find(module: types.ModuleType, name: str) -> Any:
    """Find the code's object of this name, or else a method of its `class Solution`."""
    names = vars(module)
    solution = names.get("Solution")
    if name not in names and isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    return names[name]


def _run_leniently(module: types.ModuleType, setup: str) -> None:
    """Give the code the names of the setup, as far as they do not need the code itself.

    Whether the setup works is the checker's business, which runs it too.
    """
    for statement in ast.parse(setup).body:
        try:
            exec(compile(ast.Module([statement], []), "<setup>", "exec"), vars(module))
        except Exception:
            continue
