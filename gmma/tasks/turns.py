"""Turns of a conversation, and the text of one: `{"role", "content"}` or `{"from", "value"}`."""

import ast
import contextlib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gmma.errors import UserError
from gmma.tasks.records import parse_json, require_text, spell_value
from gmma.text.prompt import ANSWER_CLOSE, ANSWER_OPEN, IMAGE_MARK, THINK_CLOSE, THINK_OPEN

_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
_IMAGE_PARTS = ("image", "image_url")
_RESPONSE = re.compile(
    rf"\s*(?:{THINK_OPEN}(?P<thought>.*?){THINK_CLOSE})?\s*"
    rf"(?:{ANSWER_OPEN}(?P<marked>.*?){ANSWER_CLOSE}|(?P<bare>.*))\s*",
    re.DOTALL,
)


class Found(NamedTuple):
    """A key that a record has, and what is there; "" and None where it has none."""

    key: str
    value: Any


def find_key(row: Mapping[str, Any], names: Sequence[str]) -> Found:
    """Return the first of some keys that a record has with a value that is not null."""
    for name in names:
        value: Any = row
        for part in [name] if name in row else name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return Found(name, value)
    return Found("", None)


def is_turns(value: Any) -> bool:
    """Return whether a value is a list of turns of a conversation: objects, one with a role."""
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        return False
    return any("role" in turn or "from" in turn for turn in value)


def as_turns(value: Any, where: str) -> Any:
    """Return the turns that a text of them holds, or an object of a list a key; else the value.

    Columns of tables hold turns so: JSON, Python's own spelling, and what `datasets` makes of a
    sequence of objects. Raises UserError for JSON that has a key twice.

    >>> as_turns("[{'role': 'user', 'content': 'Why?'}]", "record 0"), as_turns("[1]", "record 0")
    ([{'role': 'user', 'content': 'Why?'}], '[1]')
    >>> as_turns({"from": ["human"], "value": ["Why?"]}, "record 0")
    [{'from': 'human', 'value': 'Why?'}]
    """
    found = value
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        found = _read_listed(value.strip(), where)
    if isinstance(found, Mapping) and found.keys() & {"role", "from"}:
        columns = list(found.values())
        if all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
            found = [dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True)]
    return found if is_turns(found) else value


def _read_listed(text: str, where: str) -> Any:
    """Return what JSON, or Python's spelling of turns, says; else the text."""
    unreadable = (ValueError, SyntaxError, RecursionError, MemoryError)
    with contextlib.suppress(*unreadable):
        return parse_json(text, where)
    if "'role'" in text or "'from'" in text:
        with contextlib.suppress(*unreadable), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a backslash that Python does not know
            return ast.literal_eval(text)
    return text


def read_turns(turns: list[Any], what: str) -> tuple[str, str, tuple[Any, ...], str | None]:
    """Return the system prompt, question, images within it, and reply of a conversation.

    Raises UserError for more than one question: a tree grows from one.
    """
    said: dict[str, list[tuple[str, tuple[Any, ...]]]] = {"system": [], "user": [], "assistant": []}
    for number, turn in enumerate(turns):
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        role = _ROLES.get(str(role).lower(), str(role).lower())
        if role not in said or content is None:
            raise UserError(
                f"{what}: turn {number} has the keys {', '.join(map(str, turn))} and the role "
                f"{role}; write a turn as {{role, content}} or {{from, value}}, of system, user "
                "or assistant"
            )
        if role != "user" and shows_images(content):
            raise UserError(
                f"{what}: turn {number}, of the {role}, has an image; gmma shows images with the "
                "question alone: move it into the user's turn, or leave it away"
            )
        said[role].append(read_content(content, f"{what}: turn {number}"))
    if len(said["user"]) != 1 or len(said["assistant"]) > 1:
        raise UserError(
            f"{what} has {len(said['user'])} turns of the user and {len(said['assistant'])} of the "
            "assistant; gmma asks one question a record: make one of each exchange"
        )
    ((question, pictures),) = said["user"]
    system = "\n".join(text for text, _ in said["system"])
    return system, question, pictures, said["assistant"][0][0] if said["assistant"] else None


def last_reply(turns: list[Any], what: str) -> str:
    """Return the text of the one turn of a completion."""
    if len(turns) != 1:
        raise UserError(f"{what} has {len(turns)} turns; a completion is one turn of the assistant")
    content = turns[0].get("content", turns[0].get("value"))
    if shows_images(content):
        raise UserError(f"{what} has an image; gmma's models answer in text: leave the record away")
    return read_content(content, what)[0]


def shows_images(content: Any) -> bool:
    """Return whether a turn's content is a list of parts with an image among them."""
    parts = content if isinstance(content, list) else []
    return any(isinstance(part, Mapping) and part.get("type") in _IMAGE_PARTS for part in parts)


def read_content(content: Any, what: str) -> tuple[str, tuple[Any, ...]]:
    """Return a turn's text, with `<image>` where an image stands, and the images it brings."""
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, list):
        raise UserError(f"{what} is a {type(content).__name__}, neither a text nor a list of parts")
    words, pictures = "", []
    for part in content:
        if isinstance(part, str):
            words += part
        elif isinstance(part, Mapping) and part.get("type") == "text":
            words += require_text(part.get("text"), f"{what}: text")
        elif isinstance(part, Mapping) and part.get("type") in _IMAGE_PARTS:
            words += IMAGE_MARK
            found = find_key(part, ["image", "path", "url", "image_url.url", "image_url"])
            pictures += [found.value] if found.key else []
        else:
            raise UserError(
                f"{what} has the part {spell_value(part)}; gmma reads parts of type text and "
                "image, leave others away"
            )
    return words, tuple(pictures)


def split_response(text: str) -> tuple[str, str]:
    """Return thought and answer of a text with or without their tags.

    >>> split_response("<think> so </think><answer> B </answer>"), split_response("B")
    (('so', 'B'), ('', 'B'))
    """
    found = _RESPONSE.fullmatch(text)
    if found is None:
        return "", text
    answer = found["bare"] if found["marked"] is None else found["marked"]
    return (found["thought"] or "").strip(), answer.strip()
