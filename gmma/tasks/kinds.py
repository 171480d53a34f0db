"""Kinds of answers that the task `vqa` takes: how a record's is read, moved, spelt and asked for.

text     "a cup", or a list of accepted texts, or of {"answer": …}
choice   "B", 1 (counted from 0), or the text of an option
number   72, "3/4", "2\\\\sqrt{3}": any expression that the reward `math` reads
box      [x1, y1, x2, y2], the text of one, or {"bbox_2d": […]}
boxes    a list of these
points   [[x, y], …], {"x", "y"} objects, or one point
"""

import ast
import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

from gmma.answers.boxes import parse_box, parse_boxes
from gmma.answers.choice import parse_choice
from gmma.answers.folding import fold_text
from gmma.answers.math_text import has_words
from gmma.answers.points import parse_points, read_gold_points
from gmma.answers.reading import Reading
from gmma.errors import UserError
from gmma.images.frames import AxisMap, spell_box, spell_point
from gmma.rewards.mathematics import read_answer
from gmma.tasks.records import (
    read_number,
    refuse_tags,
    require_text,
    spell_number,
    spell_value,
)

KindName = Literal["text", "choice", "number", "box", "boxes", "points"]
Order = Literal["xyxy", "xywh"]
_FENCE = re.compile(r"\s*```(?:json)?[^\S\n]*\n(.*?)```\s*", re.DOTALL)
_LETTERED = re.compile(r"\s*\(?([A-Za-z])[).:]\s+(.*)", re.DOTALL)
_BOX_KEYS = ("bbox_2d", "bbox", "box")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of answers; a truth is what its `read` returns."""

    read: Callable[[Any, Order, Sequence[str]], Any]  # (value, order, choices) → truth or UserError
    words: str  # how to answer, for the prompt
    think: Callable[[Any, Sequence[str]], str]  # (truth, choices) → a thought for SFT; ours
    spell: Callable[[Any, Sequence[float]], str]  # (truth, image's size in its frame) → an answer
    parsed: Callable[[str, Sequence[str], Reading], bool]  # whether an answer can be read
    # (truth, map) → the truth elsewhere, and its points; None: it is nowhere
    move: Callable[[Any, AxisMap], Any] | None = None
    corners: Callable[[Any], list[list[float]]] = lambda truth: []


def read_texts(value: Any, order: Order, choices: Sequence[str]) -> list[str]:
    """Read the accepted texts: one, a number, or a list."""
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise UserError("the answer is an empty list; give at least one accepted text")
    if len(listed) > 1 and not any(isinstance(entry, str | Mapping) for entry in listed):
        raise UserError(
            f"the answer {spell_value(value)} is a list without a text; if it is a box or points, "
            "set task.kind, and if these are accepted answers, write them as texts"
        )
    said = [entry.get("answer", entry) if isinstance(entry, Mapping) else entry for entry in listed]
    return [_read_word(entry, "the answer") for entry in said]


def _read_word(value: Any, what: str) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = spell_number(value if isinstance(value, int) else read_number(value, what))
    return refuse_tags(require_text(value, what), what)


def read_choices(value: Any) -> list[str]:
    """Read the options of a record, their letters cut off. UserError for other than 2 … 26.

    A list, {"A": …}, {"label": ["A", …], "text": […]}, or a text: a list in JSON or as Python has
    it, or an option a line.
    """
    value = split_choices(value) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        named = value
        if value.keys() == {"label", "text"} and isinstance(value["label"], list):
            named = dict(zip(value["label"], value["text"], strict=False))
        by_letter = {str(letter).strip().upper(): entry for letter, entry in named.items()}
        while by_letter and by_letter[last := max(by_letter)] is None:  # as Parquet fills objects
            del by_letter[last]
        wanted = ascii_uppercase[: len(by_letter)]
        if sorted(by_letter) != list(wanted):
            raise UserError(f"the choices {spell_value(value)} are not lettered A, B, C and so on")
        value = [by_letter[letter] for letter in wanted]
    if not isinstance(value, list) or not 2 <= len(value) <= len(ascii_uppercase):
        raise UserError(
            f"the choices {spell_value(value)} are no list of 2 to 26 texts, and no object of "
            'them; give ["cat", "dog"], or name their key by task.keys.choices'
        )
    texts = [_read_word(entry, f"choice {number}") for number, entry in enumerate(value)]
    cut = [_LETTERED.fullmatch(text) for text in texts]
    if all(c and c[1].upper() == letter for c, letter in zip(cut, ascii_uppercase, strict=False)):
        texts = [c[2] for c in cut if c]
    if twice := [text for text, count in Counter(map(fold_text, texts)).items() if count > 1]:
        raise UserError(
            f"of the choices {spell_value(value)} more than one reads {twice[0]!r}, without case "
            "and marks, so an answer that says it names none; leave one of them"
        )
    return texts


def split_choices(text: str) -> Any:
    """Split the text of several options: a list in JSON or Python's own spelling, or their lines.

    >>> split_choices("['cat', 'dog']"), split_choices("A. cat\\nB. dog")
    (['cat', 'dog'], ['A. cat', 'B. dog'])
    """
    if text.lstrip().startswith("["):
        found = plain_value(text)
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return ast.literal_eval(text.strip()) if isinstance(found, str) else found
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(lines) > 1 else text


def list_choices(question: str, choices: Sequence[str]) -> str:
    """Return a question with its options, a line each, unless it has each with its letter already.

    >>> list_choices("Which?", ["cat", "dog"])
    'Which?\\nA. cat\\nB. dog\\n'
    >>> list_choices("Which? (a) cat (b) dog", ["cat", "dog"])
    'Which? (a) cat (b) dog'
    """
    lettered = list(zip(ascii_uppercase, choices, strict=False))
    listed = [
        re.search(rf"(?<!\w)[{a}{a.lower()}]\s*[).:]\s*{re.escape(text)}(?!\w)", question)
        for a, text in lettered
    ]
    if all(listed):
        return question
    lines = [f"{letter}. {text}\n" for letter, text in lettered]
    return f"{question.rstrip()}\n{''.join(lines)}"


def read_letter(value: Any, order: Order, choices: Sequence[str]) -> str:
    """Read the letter of the true option: a letter, an option's text, or its place from 0 on.

    UserError where it is none of these, or two that name two options: 2 of ["1", "2", "3"].
    """
    by_text = [a for a, c in zip(ascii_uppercase, choices, strict=False) if c == str(value).strip()]
    letter = _letter_of(value, choices)
    if by_text and by_text != [letter]:
        raise UserError(
            f"the answer {spell_value(value)} is the text of option {by_text[0]} and also says "
            f"option {letter}; give the letter in brackets, as in ({by_text[0]})"
        )
    return letter


def _letter_of(value: Any, choices: Sequence[str]) -> str:
    if isinstance(value, float) and value.is_integer():  # a column of numbers that has nulls
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(choices):
            raise UserError(
                f"the answer {value} is no place of one of {len(choices)} choices, counted from 0; "
                "give the letter, or name the choices by task.keys.choices"
            )
        return ascii_uppercase[value]
    if (letter := parse_choice(require_text(value, "the answer"), choices)) is None:
        if not choices:
            raise UserError(
                f"the answer {spell_value(value)} is no letter, and the record has no choices; "
                "name their key by task.keys.choices"
            )
        raise UserError(
            f"the answer {spell_value(value)} is none of the choices {spell_value(list(choices))}; "
            "give a letter, an option's text, or its place counted from 0"
        )
    return letter


def read_result(value: Any, order: Order, choices: Sequence[str]) -> str:
    """Read a number or an expression as text."""
    text = _read_word(value, "the answer")
    found = read_answer(text) or ""
    if not (any(map(str.isdigit, found)) or (found and not has_words(text))):
        raise UserError(
            f"the answer {spell_value(text)} is no number and no expression; for words set "
            "task.kind = text"
        )
    return text


def plain_value(value: Any) -> Any:
    """Return what the text of JSON holds, in a fence or not; any other value as it is."""
    if not isinstance(value, str):
        return value
    fenced = _FENCE.fullmatch(value)
    try:
        return json.loads(fenced[1] if fenced else value)
    except (ValueError, RecursionError):
        return value


def read_box(value: Any, order: Order, choices: Sequence[str] = ()) -> list[float]:
    """Read the one box of a record as `[x1, y1, x2, y2]`; UserError where it is none."""
    found = plain_value(value)
    if isinstance(found, list) and len(found) == 1:
        (found,) = found
    if isinstance(found, Mapping):
        keys = [key for key in _BOX_KEYS if key in found]
        found = found[keys[0]] if len(keys) == 1 else None
    if isinstance(found, str) and order == "xyxy":
        found = parse_box(found)
    if not isinstance(found, list | tuple) or len(found) != 4:
        raise UserError(
            f"the answer {spell_value(value)} is no box of four numbers; give [x1, y1, x2, y2], "
            "or name the key of the box by task.keys.answer"
        )
    sides = [read_number(side, "a side of the box") for side in found]
    if order == "xywh":
        x, y, width, height = sides
        if not (width > 0 and height > 0):
            raise UserError(
                f"the box {spell_value(found)} is no [x, y, width, height] with a width and a "
                "height; if it is corners, set task.records.order = xyxy"
            )
        sides = [x, y, x + width, y + height]
    x1, y1, x2, y2 = sides
    if not (x1 < x2 and y1 < y2):
        raise UserError(
            f"the box {spell_value(found)} is no [x1, y1, x2, y2] with x1 < x2 and y1 < y2; if it "
            "is [x, y, width, height], set task.records.order = xywh"
        )
    return [float(side) for side in sides]


def read_boxes(value: Any, order: Order, choices: Sequence[str]) -> list[list[float]]:
    """Read a list of boxes; UserError where labels beside them differ, for nothing judges them."""
    found = plain_value(value)
    if not isinstance(found, list):
        raise UserError(
            f"the answer {spell_value(value)} is no list of boxes; give [[x1, y1, x2, y2], …]"
        )
    labels = {str(entry.get("label")) for entry in found if isinstance(entry, Mapping)}
    if len(labels) > 1:
        raise UserError(
            f"the boxes have the labels {spell_value(sorted(labels))}; vqa judges boxes "
            "alone: use task detection, or one record a label"
        )
    return [read_box(entry, order) for entry in found]


def read_points(value: Any, order: Order, choices: Sequence[str]) -> list[list[float]]:
    """Read a list of points, or one point."""
    found = plain_value(value)
    if isinstance(found, Mapping) or (
        isinstance(found, list) and found and not isinstance(found[0], list | Mapping)
    ):
        found = [found]
    if isinstance(found, list):
        found = [
            [entry.get("x"), entry.get("y")] if isinstance(entry, Mapping) else entry
            for entry in found
        ]
    points: Any = [] if found == [] else read_gold_points(found)
    if points is None or not all(map(_is_pair, found if isinstance(found, list) else [])):
        raise UserError(f"the answer {spell_value(value)} is no list of points; give [[x, y], …]")
    return [[float(x), float(y)] for x, y in points]


def _is_pair(point: Any) -> bool:
    return len(point) == 2 and not any(isinstance(side, bool | str) for side in point)


def _corners(boxes: Sequence[Sequence[float]]) -> list[list[float]]:
    return [list(corner) for box in boxes for corner in (box[:2], box[2:])]


def _think_box(box: Sequence[float], choices: Sequence[str]) -> str:
    x1, y1, x2, y2 = box
    return f"It is around [{round((x1 + x2) / 2)}, {round((y1 + y2) / 2)}]."


def _think_letter(letter: str, choices: Sequence[str]) -> str:
    said = choices[ascii_uppercase.index(letter)] if choices else letter
    return f"The answer is {said}."


KINDS: dict[str, Kind] = {
    "text": Kind(
        read=read_texts,
        words="Answer with the text alone.",
        think=lambda texts, choices: f"The answer is {texts[0]}.",
        spell=lambda texts, size: texts[0],
        parsed=lambda text, choices, reading: bool(text.strip()),
    ),
    "choice": Kind(
        read=read_letter,
        words="Answer with the letter of the right choice alone.",
        think=_think_letter,
        spell=lambda letter, size: letter,
        parsed=lambda text, choices, reading: parse_choice(text, choices, reading) is not None,
    ),
    "number": Kind(
        read=read_result,
        words="Answer with the final result alone.",
        think=lambda result, choices: f"The result is {result}.",
        spell=lambda result, size: result,
        parsed=lambda text, choices, reading: (
            read_answer(text, strict=reading == "strict") is not None
        ),
    ),
    "box": Kind(
        read=read_box,
        words="Answer with the box [x1, y1, x2, y2].",
        think=_think_box,
        spell=lambda box, size: str(spell_box(box, size)),
        parsed=lambda text, choices, reading: parse_box(text, reading) is not None,
        move=lambda box, units: list(units.box(box)),
        corners=lambda box: _corners([box]),
    ),
    "boxes": Kind(
        read=read_boxes,
        words="Answer with a list of boxes [[x1, y1, x2, y2], ...], one for each object.",
        think=lambda boxes, choices: f"There are {len(boxes)}.",
        spell=lambda boxes, size: str([spell_box(box, size) for box in boxes]),
        parsed=lambda text, choices, reading: parse_boxes(text, reading) is not None,
        move=lambda boxes, units: [list(units.box(box)) for box in boxes],
        corners=_corners,
    ),
    "points": Kind(
        read=read_points,
        words="Answer with a list of points [[x, y], ...], one for each object.",
        think=lambda points, choices: f"There are {len(points)}.",
        spell=lambda points, size: str([spell_point(point, size) for point in points]),
        parsed=lambda text, choices, reading: parse_points(text, reading) is not None,
        move=lambda points, units: units.points(points),
        corners=lambda points: points,
    ),
}
