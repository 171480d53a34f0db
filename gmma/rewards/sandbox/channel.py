"""Two processes that apply functions to each other's objects, over two pipes.

A message is `{"apply": name, "args": […]}` or the reply to one, `{"value": …}` or `{"raise": [type,
text]}`. While one side waits for its reply it answers what the other asks meanwhile, so a test may
hand a callback to the submission.
"""

import builtins
import json
import os
import struct
from collections.abc import Callable, Sequence
from typing import Any

from .values import MUTABLE, decode, encode, overwrite

_LENGTH = struct.Struct("<Q")
_LARGEST_MESSAGE = 64 << 20
_LONGEST_TEXT = 500


class PeerEnded(BaseException):
    """The other process is gone, or speaks nonsense. No `except Exception` sees it."""


class PeerNonsense(PeerEnded):
    """The other process sent what is no message."""


class CannotPassError(TypeError):
    """A value of the tests that has no form in which it could go to the submission."""


class PeerError(Exception):
    """The other side raised an exception of a class that this side does not have."""


def _built_in_type(name: str) -> type:
    """A class such as `int` or `ValueError`. Raises AttributeError or TypeError if it is none."""
    kind = getattr(builtins, name)
    if not isinstance(kind, type):
        raise TypeError(f"{name} is not a type")
    return kind


class Channel:
    """One end. `answer` handles a request by name; `proxy` makes a stand-in for an object there."""

    def __init__(
        self,
        descriptors: tuple[int, int],
        answer: Callable[..., Any],
        proxy: Callable[[int], Any],
        may_export: Callable[[Any], bool],
    ) -> None:
        self.reading, self.writing = descriptors
        self.answer, self.proxy, self.may_export = answer, proxy, may_export
        self.exported: list[Any] = []  # kept alive, so that an index stays that object
        self.indices: dict[int, int] = {}
        self.memory_exhausted = False  # the other side ran out of memory at least once

    def apply(self, name: str, *args: Any) -> Any:
        """Apply a function there. Raises what it raised, or `PeerEnded`."""
        self._send({"apply": name, "args": [encode(arg, self._refer) for arg in args]})
        while "apply" in (message := self._receive()):
            self._reply(message)
        if "raise" in message:
            self._raise(*message["raise"])
        if name == "call":
            self._take_changes(message.get("changed", {}), args[1])
        return self._decode(message.get("value"))

    def serve(self) -> None:
        """Answer requests until the other side is gone."""
        while True:
            self._reply(self._receive())

    def _reply(self, message: dict[str, Any]) -> None:
        try:
            args = [self._decode(arg) for arg in message["args"]]
            reply = {"value": encode(self.answer(message["apply"], *args), self._refer)}
            if message["apply"] == "call":
                reply["changed"] = self._changes(message["args"][1], args[1])
        except Exception as error:
            reply = {"raise": [type(error).__name__, str(error)[:_LONGEST_TEXT]]}
        self._send(reply)

    def _changes(self, wires: Sequence[Any], args: Sequence[Any]) -> dict[str, Any]:
        """Arguments that the function has changed in place, for they were passed as copies."""
        changes = {}
        for index, (wire, arg) in enumerate(zip(wires, args, strict=True)):
            if isinstance(arg, MUTABLE) and (after := encode(arg, self._refer)) != wire:
                changes[str(index)] = after
        return changes

    def _take_changes(self, changes: dict[str, Any], args: Sequence[Any]) -> None:
        for index, wire in changes.items():
            overwrite(args[int(index)], self._decode(wire))

    def _raise(self, name: str, text: str) -> None:
        self.memory_exhausted |= name == "MemoryError"
        try:
            error = _built_in_type(name)(text)
        except (AttributeError, TypeError):  # not built in, or it wants more than a text
            error = PeerError(f"{name}: {text}")
        if not isinstance(error, Exception):
            error = PeerError(f"{name}: {text}")
        error.by_peer = True  # type: ignore[attr-defined]
        raise error

    def _refer(self, value: Any) -> Any:
        if getattr(type(value), "peer_channel", None) is self:
            return {"t": "yours", "v": value.peer_index}
        name = value.__name__ if isinstance(value, type) else ""
        if vars(builtins).get(name) is value:
            return {"t": "type", "v": name}
        if not self.may_export(value):
            raise CannotPassError(f"a {type(value).__name__} cannot be passed to the submission")
        index = self.indices.setdefault(id(value), len(self.exported))
        if index == len(self.exported):
            self.exported.append(value)
        return {"t": "mine", "v": index}

    def _decode(self, wire: Any) -> Any:
        return decode(wire, self._resolve)

    def _resolve(self, tag: str, payload: Any) -> Any:
        if tag == "type":
            return _built_in_type(payload)
        return self.proxy(payload) if tag == "mine" else self.exported[payload]

    def _send(self, message: dict[str, Any]) -> None:
        payload = json.dumps(message).encode()
        data = memoryview(_LENGTH.pack(len(payload)) + payload)
        try:
            while data:
                data = data[os.write(self.writing, data) :]
        except OSError as error:
            raise PeerEnded("its end of the pipe is closed") from error

    def _receive(self) -> dict[str, Any]:
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if length > _LARGEST_MESSAGE:
            raise PeerNonsense(f"it sent a message of {length} bytes")
        try:
            message = json.loads(self._read(length))
        except (ValueError, RecursionError) as error:
            raise PeerNonsense("it sent no message") from error
        if not isinstance(message, dict):
            raise PeerNonsense("it sent no message")
        return message

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self.reading, min(size, 1 << 20))
            if not part:
                raise PeerEnded("it ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
