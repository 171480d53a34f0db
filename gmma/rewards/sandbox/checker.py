"""What runs inside the checker's process: the tests, on proxies of the submission's objects."""

import ast
import builtins
import importlib
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .channel import CannotPassError, Channel, PeerEnded, PeerNonsense
from .results import CRASHED, FAILED, OUT_OF_MEMORY, PASSED, RUNNER_ERROR

_LONGEST_DETAIL = 500
_COMPARISONS = ("lt", "le", "gt", "ge")
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
_BITWISE = ("and_", "or_", "xor", "lshift", "rshift")
_UNARY = ("neg", "pos", "abs", "invert", "index")


class Proxy:
    """An object of the submission. It never takes part in a judgement of the tests.

    Comparison and arithmetic with a value of the tests work on the object's plain value, fetched
    and used here, so that no `__eq__` or `__sub__` of the submission has a say. Only between two
    objects of the submission does it decide itself.
    """

    peer_channel: Channel
    peer_index: int

    def __init__(self, index: int) -> None:
        object.__setattr__(self, "peer_index", index)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.peer_channel.apply("call", self, list(args), kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__", "__dict__"):
            raise AttributeError(name)
        return self.peer_channel.apply("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.peer_channel.apply("setattr", self, name, value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Proxy):
            return self.peer_index == other.peer_index or bool(
                self.peer_channel.apply("eq", self, other)
            )
        try:
            return bool(self.peer_channel.apply("plain", self) == other)
        except TypeError:
            return False

    def __hash__(self) -> int:
        return hash(self.peer_channel.apply("hash", self))

    def __iter__(self) -> Iterator[Any]:
        iterator = self.peer_channel.apply("iter", self)
        while True:
            try:
                item = self.peer_channel.apply("next", iterator)
            except StopIteration:
                return
            yield item

    def __contains__(self, item: object) -> bool:
        return any(item is each or item == each for each in self)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, Proxy) and bool(
            self.peer_channel.apply("isinstance", instance, self)
        )


def _forward(name: str) -> Callable[..., Any]:
    return lambda self, *args: self.peer_channel.apply(name, self, *args)


def _converted_to(kind: type) -> Callable[..., Any]:
    return lambda self: kind(self.peer_channel.apply("plain", self))


def _on_plain_values(name: str, swapped: bool = False) -> Callable[..., Any]:
    function = getattr(operator, name)

    def compute(self: Proxy, *others: Any) -> Any:
        if others and isinstance(others[0], Proxy):
            return self.peer_channel.apply(name, self, others[0])
        own = self.peer_channel.apply("plain", self)
        return function(*others, own) if swapped else function(own, *others)

    return compute


for _kind in (int, float):
    setattr(Proxy, f"__{_kind.__name__}__", _converted_to(_kind))
for _name in ("next", "len", "bool", "str", "repr", "getitem", "setitem", "delitem"):
    setattr(Proxy, f"__{_name}__", _forward(_name))
for _name in (*_COMPARISONS, *_ARITHMETIC, *_BITWISE, *_UNARY):
    _method = _name.rstrip("_")
    setattr(Proxy, f"__{_method}__", _on_plain_values(_name))
    if _name in (*_ARITHMETIC, *_BITWISE):
        setattr(Proxy, f"__r{_method}__", _on_plain_values(_name, swapped=True))


class Namespace(dict):
    """The globals of the tests: their own names, then Python's, then the submission's.

    The submission must not replace what tests judge with, such as `set` or `math`. Where tests use
    nothing but built-in names, one of those is what they test (a task may ask for `sum`), and then
    the submission's comes first.
    """

    def __init__(self, channel: Channel, tests: Sequence[ast.Module]) -> None:
        super().__init__(__name__="tests")
        nodes = [node for tree in tests for node in ast.walk(tree)]
        loaded = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        foreign = loaded - _bound_names(nodes)
        self.channel = channel
        self.tested = foreign if foreign <= vars(builtins).keys() else frozenset()
        self.update(_standard_modules(nodes, foreign))

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) and name not in self.tested:
            raise KeyError(name)
        return self.channel.apply("name", name)


def _bound_names(nodes: Sequence[ast.AST]) -> set[str]:
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return bound


def _standard_modules(nodes: Sequence[ast.AST], foreign: set[str]) -> dict[str, Any]:
    """Modules that tests use as `math.…` and leave to the code to import: the true ones."""
    used = {
        n.value.id for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
    }
    wanted = used & foreign & sys.stdlib_module_names
    return {name: importlib.import_module(name) for name in wanted}


def check_submission(
    descriptors: tuple[int, int],
    request: dict[str, Any],
    report: Callable[[dict[str, Any]], None],
    cause_of_death: Callable[[], str],
) -> None:
    """Run the tests one by one, reporting each, and then the kind of the whole."""
    try:
        trees = [ast.parse(text) for text in (request["setup"], *request["tests"])]
        programs = [compile(tree, "<test>", "exec") for tree in trees]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        report({"kind": RUNNER_ERROR, "detail": f"the tests cannot be read: {error}"})
        return
    channel = Channel(descriptors, _answer, Proxy, may_export=callable)
    Proxy.peer_channel = channel
    report({"started": True})
    try:
        channel.apply("load", request["code"], _without_tests(trees[0]))
        verdict = _run_tests(channel, trees, programs, report)
    except PeerNonsense as nonsense:
        verdict = {"kind": CRASHED, "detail": f"the submission's process: {nonsense}"}
    except PeerEnded as end:
        verdict = {"kind": cause_of_death(), "detail": f"the submission's process: {end}"}
    except Exception as error:
        verdict = _failure(channel, error)
    report(verdict)


def _answer(name: str, *args: Any) -> Any:
    """All that the submission may ask of us: call a function that a test gave to it."""
    if name != "call":
        raise TypeError("the tests can only be called")
    function, positional, named = args
    return function(*positional, **named)


def _without_tests(setup: ast.Module) -> str:
    """The setup as the submission may see it: no statement that holds an assertion."""
    hidden = {s for s in setup.body if any(isinstance(n, ast.Assert) for n in ast.walk(s))}
    return "\n".join(ast.unparse(s) for s in setup.body if s not in hidden)


def _run_tests(
    channel: Channel,
    trees: Sequence[ast.Module],
    programs: Sequence[Any],
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    namespace = Namespace(channel, trees)
    setup, *tests = programs
    exec(setup, namespace)
    failure = None
    for index, test in enumerate(tests):
        try:
            exec(test, namespace)
        except Exception as error:
            failure = failure or _failure(channel, error)
            if failure["kind"] == RUNNER_ERROR:
                return failure
        else:
            report({"passed": index})
    return failure or {"kind": PASSED, "detail": ""}


def _failure(channel: Channel, error: Exception) -> dict[str, Any]:
    detail = f"{type(error).__name__}: {error}"[:_LONGEST_DETAIL]
    if channel.memory_exhausted:
        return {"kind": OUT_OF_MEMORY, "detail": detail}
    ours = isinstance(error, ImportError | CannotPassError) and not hasattr(error, "by_peer")
    return {"kind": RUNNER_ERROR if ours else FAILED, "detail": detail}
