"""The program of the checker's process: the tests, on proxies of the submission's objects."""

import abc
import ast
import builtins
import collections
import enum
import functools
import importlib
import operator
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from .channel import CannotPassError, Channel, PeerEnded, PeerNonsense
from .names import FUNCTIONS, bound_names, loaded_names, standard_modules
from .results import CRASHED, FAILED, OUT_OF_MEMORY, PASSED, RUNNER_ERROR
from .values import Shared, decode

_LONGEST_DETAIL = 500
_COMPARISONS = ("lt", "le", "gt", "ge")
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
_BITWISE = ("and_", "or_", "xor", "lshift", "rshift")
_UNARY = ("neg", "pos", "abs", "invert", "index")
_MODULE = "tests"  # what the classes of the tests have as their module
_MOST_PROXIES = 1 << 20
_METACLASSES = (type, abc.ABCMeta, enum.EnumMeta)
_PLAIN_OWNERS = (list, dict, set, tuple, str, bytes, bytearray, collections.deque)
_FUNCTIONS = (types.FunctionType, operator.itemgetter, functools._lru_cache_wrapper)
_NAMED_IN_LIBRARY = (
    type,
    types.BuiltinFunctionType,
    types.FunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)
_OPERATIONS: dict[str, Callable[..., Any]] = {
    **{
        f.__name__: f
        for f in (getattr, setattr, delattr, iter, next, len, bool, str, repr, hash, isinstance)
    },
    **{
        name: getattr(operator, name)
        for name in (
            *_COMPARISONS, "eq", "ne", *_ARITHMETIC, *_BITWISE, *_UNARY, "contains",
            "getitem", "setitem", "delitem",
        )
    },
}  # fmt: skip


class Proxy:
    """An object of the submission. It never takes part in a judgement of the tests.

    Comparison and arithmetic with a value of the tests work on the object's plain value, fetched
    and used here, so that no `__eq__` or `__sub__` of the submission has a say. Only between two
    objects of the submission does it decide itself.
    """

    peer_channel: Channel
    peer_index: int
    peer_kind: str  # what its class is called
    peer_tests: dict[str, Any]  # the names of the tests
    peer_judging: Collection[tuple[str, int]]  # where an assertion must not be skipped

    def __init__(self, index: int, kind: str) -> None:
        object.__setattr__(self, "peer_index", index)
        object.__setattr__(self, "peer_kind", kind)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The tests' own class, where the submission has one of the same name."""
        found = dict.get(self.peer_tests, self.peer_kind)
        return found if isinstance(found, type) and _is_own_class(found) else Proxy

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.peer_channel.apply("call", self, list(args), kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__", "__dict__"):
            raise AttributeError(name)
        return self.peer_channel.apply("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.peer_channel.apply("setattr", self, name, value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PEERS):
            return self is other or bool(self.peer_channel.apply("eq", self, other))
        if _is_own_class(type(other)):
            return NotImplemented
        try:
            return bool(self._plain() == other)
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

    def __format__(self, form: str) -> str:
        return format(self._plain(), form) if form else str(self)

    def __contains__(self, item: object) -> bool:
        return any(item is each or item == each for each in self)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, PEERS) and bool(
            self.peer_channel.apply("isinstance", instance, self)
        )

    def __subclasscheck__(self, kind: object) -> bool:
        return isinstance(kind, PEERS) and bool(self.peer_channel.apply("issubclass", kind, self))

    def __exit__(self, kind: Any, error: Any, trace: TracebackType | None) -> bool:
        """Leave a block. It swallows no failed assertion, nor what skips an assertion."""
        swallows = bool(self.peer_channel.apply("exit", self, error))
        return swallows and not isinstance(error, AssertionError) and not _skips_assertion(trace)

    def _plain(self) -> Any:
        value = self.peer_channel.apply("plain", self)
        if isinstance(value, PEERS):
            raise TypeError("a plain value that is none")
        return value


class ForeignError(Exception):
    """An exception of a class that the submission defines; each such class has one here.

    It has the name and the built-in bases of that class and nothing else of it: attributes are
    asked for there. `except`, `raise` and `issubclass` take classes alone, so a proxy will not do.
    """

    peer_index: int  # of the class
    peer: Any = None  # the exception itself
    text: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Made by a test: the submission's own class makes it there."""
        super().__init__(*args)
        self.peer = Proxy.peer_channel.apply("make", self.peer_index, list(args), kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_", "peer")):
            raise AttributeError(name)
        return getattr(self.peer, name)

    def __str__(self) -> str:
        return str(self.peer) if self.text is None else self.text


PEERS = (Proxy, ForeignError)


def _forward(name: str) -> Callable[..., Any]:
    return lambda self, *args: self.peer_channel.apply(name, self, *args)


def _converted_to(kind: type) -> Callable[..., Any]:
    return lambda self: kind(self._plain())


def _on_plain_values(function: Callable[..., Any], swapped: bool = False) -> Callable[..., Any]:
    def compute(self: Proxy, *others: Any) -> Any:
        if others and isinstance(others[0], Proxy):
            return self.peer_channel.apply(function.__name__, self, others[0])
        own = self._plain()
        return function(*others, own) if swapped else function(own, *others)

    return compute


for _kind in (int, float, complex):
    setattr(Proxy, f"__{_kind.__name__}__", _converted_to(_kind))
for _name in ("next", "len", "bool", "str", "repr", "getitem", "setitem", "delitem", "enter"):
    setattr(Proxy, f"__{_name}__", _forward(_name))
for _name in ("round", "divmod"):
    setattr(Proxy, f"__{_name}__", _on_plain_values(getattr(builtins, _name)))
for _name in (*_COMPARISONS, *_ARITHMETIC, *_BITWISE, *_UNARY):
    _method, _function = _name.rstrip("_"), getattr(operator, _name)
    setattr(Proxy, f"__{_method}__", _on_plain_values(_function))
    if _name in (*_ARITHMETIC, *_BITWISE):
        setattr(Proxy, f"__r{_method}__", _on_plain_values(_function, swapped=True))


class Namespace(dict):
    """The globals of the tests: their own names, then Python's, then the submission's.

    The submission must not replace what tests judge with, such as `set` or `math`. Where tests use
    nothing but built-in names, one of those is what they test (a task may ask for `sum`), and then
    the submission's comes first.
    """

    def __init__(self, channel: Channel, tests: Sequence[ast.Module]) -> None:
        super().__init__(__name__=_MODULE)
        nodes = [node for tree in tests for node in ast.walk(tree)]
        foreign = loaded_names(nodes) - bound_names(nodes)
        self.channel = channel
        self.tested = foreign if foreign <= vars(builtins).keys() else frozenset()
        modules = standard_modules(nodes, foreign)
        self.update({name: importlib.import_module(name) for name in modules})

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) and name not in self.tested:
            raise KeyError(name)
        return self.channel.apply("name", name)


def check_submission(
    descriptors: tuple[int, int],
    request: dict[str, Any],
    report: Callable[[dict[str, Any]], None],
    cause_of_death: Callable[[], str],
) -> None:
    """Run the tests one by one, reporting each, and then the kind of the whole."""
    try:
        trees = [ast.parse(text) for text in (request["setup"], *request["tests"])]
        programs = [compile(t, f"<test {n}>", "exec") for n, t in enumerate(trees)]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        report({"kind": RUNNER_ERROR, "detail": f"the tests cannot be read: {error}"})
        return
    objects = _Objects()
    channel = Channel(
        descriptors,
        lambda name, *args: _answer(channel, name, *args),
        objects.describe,
        objects.resolve,
    )
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


class _Objects:
    """The stand-ins for objects on either side, one for each object."""

    def __init__(self) -> None:
        self.proxies: dict[int, Proxy] = {}
        self.errors: dict[int, type[Exception]] = {}

    def describe(self, channel: Channel, value: Any) -> dict[str, Any]:
        """Describe a value of the tests that is no plain data: by name, or by its export number.

        What Python itself has goes by name, so that the submission uses its own. Of what the tests
        made it may call functions, and ask instances of the tests' classes for their attributes.
        """
        if isinstance(value, ForeignError):
            value = value.peer
        if isinstance(value, Proxy):
            return {"t": "yours", "v": value.peer_index}
        if isinstance(value, type) and issubclass(value, ForeignError):
            return {"t": "yours", "v": value.peer_index}
        if (path := _library_path(value)) is not None:
            return {"t": "library", "v": path}
        if _is_own_class(type(value)):
            kind = type(value).__name__
            return {"t": "mine", "v": channel.export(value), "of": kind, "open": True}
        if isinstance(value, Iterator):
            return {"t": "mine", "v": channel.export(value), "of": "iterator", "open": True}
        if _is_callable_for_peer(value):
            return {"t": "mine", "v": channel.export(value), "of": type(value).__name__}
        raise CannotPassError(f"a {type(value).__name__} cannot be passed to the submission")

    def resolve(self, channel: Channel, wire: Mapping[str, Any]) -> Any:
        """Return the stand-in for an object of the submission."""
        index, kind = wire["v"], wire["of"]
        if type(index) is not int or index < 0 or not isinstance(kind, str):
            raise ValueError("no object")
        if wire["t"] == "error class":
            if index not in self.errors:
                self.errors[index] = _find_error(wire["path"]) or _stand_in(
                    index, kind, [_read_class(channel, base) for base in wire["bases"]]
                )
            return self.errors[index]
        if wire["t"] not in ("mine", "coroutine"):
            raise ValueError("no object")
        if len(self.proxies) > _MOST_PROXIES:
            raise ValueError("too many objects")
        proxy = self.proxies.setdefault(index, Proxy(index, kind))
        return _awaited(proxy) if wire["t"] == "coroutine" else proxy


def _find_error(path: Any) -> type[Exception] | None:
    """Return an exception class of Python's library, where the tests have loaded its module."""
    module, name = path
    if module not in sys.stdlib_module_names or module not in sys.modules:
        return None
    found = vars(sys.modules[module]).get(name)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _read_class(channel: Channel, wire: Any) -> type[Exception]:
    """Return an exception class on the wire, built in or of the submission."""
    found = decode(wire, channel._resolve, Shared())
    if not (isinstance(found, type) and issubclass(found, Exception)):
        raise ValueError("no class of exceptions")
    return found


def _stand_in(index: int, name: str, bases: Sequence[type[Exception]]) -> type[ForeignError]:
    namespace = {"peer_index": index, "__module__": "submission"}
    foreign = any(issubclass(base, ForeignError) for base in bases)
    others = (base for base in bases if base is not Exception)
    parents: tuple[type, ...] = tuple(bases) if foreign else (ForeignError, *others)
    return type(name, parents, namespace)


async def _awaited(proxy: Proxy) -> Any:
    """A coroutine of the submission as one of ours: it runs there, to its end."""
    return proxy.peer_channel.apply("await", proxy)


def _is_own_class(kind: object) -> bool:
    """Return whether the tests define this class; one that makes classes does not count."""
    if not isinstance(kind, type) or issubclass(kind, type):
        return False
    return kind.__module__ == _MODULE and type(kind) in _METACLASSES


def _is_callable_for_peer(value: Any) -> bool:
    if isinstance(value, type):
        return _is_own_class(value)
    if isinstance(value, types.MethodType):
        return _is_own_class(type(value.__self__)) or _is_own_class(value.__self__)
    if isinstance(value, types.BuiltinMethodType | types.MethodWrapperType):
        return type(value.__self__) in _PLAIN_OWNERS
    if isinstance(value, functools.partial):
        return _is_callable_for_peer(value.func)
    return isinstance(value, _FUNCTIONS)


def _library_path(value: Any) -> list[str] | None:
    """Return the module and name of a function, method, class or module of Python's own library."""
    if isinstance(value, types.ModuleType):
        module, name = value.__name__, ""
    elif isinstance(value, _NAMED_IN_LIBRARY):
        owner = getattr(value, "__objclass__", getattr(value, "__self__", None))
        module = getattr(owner if isinstance(owner, type) else value, "__module__", None) or ""
        name = getattr(value, "__qualname__", "")
    else:
        return None
    if module.partition(".")[0] not in sys.stdlib_module_names or module not in sys.modules:
        return None
    found = sys.modules[module]
    try:
        found = operator.attrgetter(name)(found) if name else found
    except AttributeError:
        return None
    return [module, name] if found == value else None


def _answer(channel: Channel, name: str, *args: Any) -> Any:
    """Answer a request of the submission: to use an object that a test gave to it, and no other.

    A function and a class of the tests may be called, an iterator advanced, and an instance of a
    class of the tests used by its public attributes and its operators.
    """
    if not args or not channel.is_exported(args[0]):
        raise TypeError("this was not handed over")
    target = args[0]
    if name == "call":
        _, positional, named = args
        return target(*positional, **named)
    if name in ("iter", "next") and isinstance(target, Iterator):
        return _OPERATIONS[name](target)
    if not _is_own_class(type(target)):
        raise TypeError("this can only be called")
    if name in ("getattr", "setattr", "delattr"):
        attribute = args[1]
        if not isinstance(attribute, str) or attribute.startswith("_"):
            raise AttributeError(f"{attribute!r:.80} is not public")
        if name != "getattr" and callable(getattr(type(target), attribute, None)):
            raise AttributeError(f"{attribute!r:.80} is a method")
    return _OPERATIONS[name](*args)


def _without_tests(setup: ast.Module) -> str:
    """Return the setup as the submission may see it: no statement that holds an assertion."""
    hidden = {s for s in setup.body if any(isinstance(n, ast.Assert) for n in ast.walk(s))}
    return "\n".join(ast.unparse(s) for s in setup.body if s not in hidden)


def _run_tests(
    channel: Channel,
    trees: Sequence[ast.Module],
    programs: Sequence[Any],
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    namespace = Namespace(channel, trees)
    Proxy.peer_tests, Proxy.peer_judging = namespace, _judging_lines(trees)
    setup, *tests = programs
    exec(setup, namespace)
    failure = None
    for index, test in enumerate(tests):
        channel.judged_wrong = False
        try:
            exec(test, namespace)
            if channel.ended:  # a test with a bare `except:` went on
                raise channel.ended
            if channel.judged_wrong:
                raise AssertionError("in a function that a test handed over")
        except Exception as error:
            failure = failure or _failure(channel, error)
            if failure["kind"] == RUNNER_ERROR:
                return failure
        else:
            report({"passed": index})
    return failure or {"kind": PASSED, "detail": ""}


def _judging_lines(trees: Sequence[ast.Module]) -> set[tuple[str, int]]:
    """File and line of all that stands in a `with` block that asserts, or calls what may."""
    own = {n.name for tree in trees for n in ast.walk(tree) if isinstance(n, FUNCTIONS)}

    def judges(node: ast.AST) -> bool:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return node.func.id in own
        return isinstance(node, ast.Assert)

    return {
        (f"<test {number}>", line)
        for number, tree in enumerate(trees)
        for block in ast.walk(tree)
        if isinstance(block, ast.With) and any(judges(n) for s in block.body for n in ast.walk(s))
        for line in range(block.lineno, (block.end_lineno or block.lineno) + 1)
    }


def _skips_assertion(trace: TracebackType | None) -> bool:
    if trace is None:
        return False
    return (trace.tb_frame.f_code.co_filename, trace.tb_lineno) in Proxy.peer_judging


def _failure(channel: Channel, error: Exception) -> dict[str, Any]:
    detail = f"{type(error).__name__}: {error}"[:_LONGEST_DETAIL]
    if channel.memory_exhausted:
        return {"kind": OUT_OF_MEMORY, "detail": detail}
    ours = isinstance(error, ImportError | CannotPassError) and not hasattr(error, "peer_error")
    return {"kind": RUNNER_ERROR if ours else FAILED, "detail": detail}
