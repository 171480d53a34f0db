"""Two processes that apply functions to each other's objects, over two pipes.

A message is `{"apply": name, "args": …}` or the reply to one, `{"value": …}` or `{"raise": …}`.
While one side waits for its reply it answers what the other asks meanwhile, so a test may hand a
callback to the submission. Either side names the other's objects by the numbers under which they
were handed over, and nothing else: `is_exported` is how a side knows that an object was.
"""

import builtins
import json
import os
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

from .values import Shared, decode, encode, encode_parts, is_changed, overwrite, snapshot

_LENGTH = struct.Struct("<Q")
_LARGEST_MESSAGE = 64 << 20
_LONGEST_TEXT = 500
_MOST_OBJECTS = 1 << 20

# Classes that travel by name: of data, and of errors. To call one makes nothing but those. `type`,
# `property` and the like stay where they are.
_DATA = (int, float, complex, bool, str, bytes, bytearray, list, tuple, dict, set, frozenset)
NAMED_TYPES: dict[str, type] = {
    **{kind.__name__: kind for kind in (*_DATA, range, slice, object)},
    **{
        name: kind
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, BaseException)
    },
}


class PeerEnded(BaseException):
    """The other process is gone, or speaks nonsense. No `except Exception` sees it."""


class PeerNonsense(PeerEnded):
    """The other process sent what is no message."""


class CannotPassError(TypeError):
    """A value of the tests that has no form in which it could go to the submission."""


class PeerError(Exception):
    """The other side raised an exception that this side cannot make."""


class Channel:
    """One end. `answer` handles a request by name; `describe` and `resolve` stand for objects.

    `describe(channel, value)` gives the wire of what is no plain data, `resolve(channel, wire)`
    reads that of the other side. Of threads that apply at once all but one wait.
    """

    def __init__(
        self,
        descriptors: tuple[int, int],
        answer: Callable[..., Any],
        describe: Callable[["Channel", Any], dict[str, Any]],
        resolve: Callable[["Channel", Mapping[str, Any]], Any],
    ) -> None:
        self.reading, self.writing = descriptors
        self.answer = answer
        self.describe, self.resolve = describe, resolve
        self.exported: list[Any] = []  # kept alive, so that an index stays that object
        self.indices: dict[int, int] = {}
        self.raised: list[BaseException] = []  # what left here, and may come back
        self.lock = threading.RLock()
        self.memory_exhausted = False  # the other side ran out of memory at least once
        self.ended: PeerEnded | None = None  # from then on nothing more is asked
        self.judged_wrong = False  # an assertion failed here while the other side waited

    def apply(self, name: str, *args: Any) -> Any:
        """Apply a function there. Raises what it raised, or `PeerEnded`."""
        with self.lock:
            shared = Shared()
            wires = [encode(arg, self._refer, shared) for arg in args]
            self._send({"apply": name, "args": wires})
            while "apply" in (message := self._receive()):
                self._reply(message)
            return self._read_reply(message, shared)

    def serve(self) -> None:
        """Answer requests until the other side is gone."""
        while True:
            with self.lock:
                message = self._receive()
            self._reply(message)

    def export(self, value: Any) -> int:
        """Return the number under which the other side may name an object from now on."""
        index = self.indices.setdefault(id(value), len(self.exported))
        if index == len(self.exported):
            if index == _MOST_OBJECTS:
                raise MemoryError("too many objects have been handed over")
            self.exported.append(value)
        return index

    def is_exported(self, value: Any) -> bool:
        """Return whether this very object was handed over as one that the other side may use."""
        return id(value) in self.indices

    def _reply(self, message: dict[str, Any]) -> None:
        shared = Shared()
        name, args = self._checked(lambda: self._read_request(message, shared))
        before = [snapshot(container) for container in shared.objects]
        try:
            value = self.answer(name, *args)
            reply = {"value": encode(value, self._refer, shared)}
            changed = {
                number: encode_parts(container, self._refer, shared)
                for number, held in enumerate(before)
                if is_changed(container := shared.objects[number], held)
            }
            if changed:
                reply["changed"] = changed
        except Exception as error:
            reply = {"raise": self._describe_error(error)}
        with self.lock:
            self._send(reply)

    def _read_request(self, message: dict[str, Any], shared: Shared) -> tuple[str, list[Any]]:
        return message["apply"], [decode(arg, self._resolve, shared) for arg in message["args"]]

    def _read_reply(self, message: dict[str, Any], shared: Shared) -> Any:
        if "raise" in message:
            raise self._checked(lambda: self._read_error(message["raise"]))
        sent = len(shared.objects)

        def read() -> Any:
            value = decode(message["value"], self._resolve, shared)
            for number, wire in message.get("changed", {}).items():
                if int(number) >= sent:
                    raise ValueError("a change of what was not sent")
                overwrite(shared.objects[int(number)], wire, self._resolve, shared)
            return value

        return self._checked(read)

    def _checked(self, read: Callable[[], Any]) -> Any:
        """Return the message; raise `PeerNonsense` where it has not the form that we write."""
        try:
            return read()
        except PeerEnded:
            raise
        except Exception as error:
            raise self._end(PeerNonsense(f"it sent no message ({type(error).__name__})")) from error

    def _describe_error(self, error: Exception) -> dict[str, Any]:
        """Return an exception on the wire.

        If it came from the other side, only its number there.
        """
        if (index := getattr(error, "peer_error", None)) is not None:
            return {"again": index}
        judged = isinstance(error, AssertionError)  # its text may hold what was expected
        self.judged_wrong |= judged
        if len(self.raised) < _MOST_OBJECTS:
            self.raised.append(error)
        described = {
            "number": len(self.raised) - 1,
            "kinds": [kind.__name__ for kind in type(error).__mro__],
            "text": "" if judged else _text_of(error),
        }
        try:
            args = [] if judged else list(error.args)
            described["args"] = encode(args, self._refer, Shared())
            if NAMED_TYPES.get(type(error).__name__) is not type(error):
                described["kind"] = encode(type(error), self._refer, Shared())
                described["error"] = encode(error, self._refer, Shared())
        except Exception:
            described.pop("args", None)
        return described

    def _read_error(self, wire: Mapping[str, Any]) -> BaseException:
        if "again" in wire:
            return self.raised[_natural(wire["again"])]
        kinds = [str(kind)[:_LONGEST_TEXT] for kind in wire["kinds"]]
        text = str(wire["text"])[:_LONGEST_TEXT]
        self.memory_exhausted |= "MemoryError" in kinds
        args = decode(wire["args"], self._resolve, Shared()) if "args" in wire else [text]
        kind = decode(wire.get("kind"), self._resolve, Shared())
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = next((k for n in kinds if (k := _error_type(n)) not in (None, Exception)), None)
        peer = decode(wire.get("error"), self._resolve, Shared())
        error = _make_error(kind, args, peer, text, kinds[0])
        error.peer_error = _natural(wire["number"])  # type: ignore[attr-defined]
        return error

    def _refer(self, value: Any) -> Any:
        if isinstance(value, type) and NAMED_TYPES.get(value.__name__) is value:
            return {"t": "type", "v": value.__name__}
        if isinstance(value, Exception) and NAMED_TYPES.get(type(value).__name__) is type(value):
            args = [] if isinstance(value, AssertionError) else list(value.args)
            return {
                "t": "exception",
                "v": type(value).__name__,
                "args": encode(args, self._refer, Shared()),
            }
        return self.describe(self, value)

    def _resolve(self, wire: Mapping[str, Any]) -> Any:
        if wire["t"] == "type":
            return NAMED_TYPES[wire["v"]]
        if wire["t"] == "exception" and (kind := _error_type(wire["v"])) is not None:
            return _make_error(kind, decode(wire["args"], self._resolve, Shared()), None, "", "")
        if wire["t"] == "yours":
            return self.exported[_natural(wire["v"])]
        return self.resolve(self, wire)

    def _end(self, why: PeerEnded) -> PeerEnded:
        self.ended = self.ended or why
        return self.ended

    def _send(self, message: dict[str, Any]) -> None:
        if self.ended:
            raise self.ended
        payload = json.dumps(message).encode()
        data = memoryview(_LENGTH.pack(len(payload)) + payload)
        try:
            while data:
                data = data[os.write(self.writing, data) :]
        except OSError as error:
            raise self._end(PeerEnded("its end of the pipe is closed")) from error

    def _receive(self) -> dict[str, Any]:
        if self.ended:
            raise self.ended
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if length > _LARGEST_MESSAGE:
            raise self._end(PeerNonsense(f"it sent a message of {length} bytes"))
        data = self._read(length)
        message = self._checked(lambda: json.loads(data))
        if not isinstance(message, dict):
            raise self._end(PeerNonsense("it sent no message"))
        return message

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self.reading, min(size, 1 << 20))
            if not part:
                raise self._end(PeerEnded("it ended"))
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _natural(number: Any) -> int:
    """Return a number that names something; Python's negative ones name nothing."""
    if type(number) is not int or number < 0:
        raise ValueError(f"{number!r:.80} names nothing")
    return number


def _error_type(name: str) -> type[Exception] | None:
    kind = NAMED_TYPES.get(name)
    return kind if kind is not None and issubclass(kind, Exception) else None


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:_LONGEST_TEXT]
    except Exception:
        return ""


def _make_error(
    kind: type[Exception] | None, args: Any, peer: Any, text: str, name: str
) -> Exception:
    """Return an exception as it was raised there, or a `PeerError` that says what it was."""
    if kind is None or not isinstance(args, list):
        return PeerError(f"{name}: {text}")
    try:
        error = kind.__new__(kind, *args)
        if hasattr(kind, "peer_index"):  # a stand-in, whose own __init__ would ask the other side
            error.peer, error.text = peer, text  # type: ignore[attr-defined]
        elif NAMED_TYPES.get(kind.__name__) is kind:
            error.__init__(*args)  # type: ignore[misc]
    except Exception:
        return PeerError(f"{name}: {text}")
    return error
