"""Layouts of records in use: where a record has its question, images, answer and the rest.

    plain          {"question", "image" or "images", "answer"}
    problem        {"problem", "images", "answer" or "solution"}
    prompt         {"prompt": text or turns, "images", "answer" …}
    messages       {"messages": turns, "images"}, the answer beside them or the assistant's turn
    conversations  {"conversations": turns, "image"}, the same
    refcoco        {"expression" or "sentences" …, "bbox", "image"}, one record an expression; where
                   boxes are asked for

Turns are `{"role", "content"}` or `{"from", "value"}`, in a list, a list a key, or the text of
these; a content may be a list of parts, text and images. The field `keys` names any part otherwise;
a dot leads into an object.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

from gmma.errors import UserError
from gmma.tasks.pictures import looks_like_picture
from gmma.tasks.records import refuse_unstorable, require_text, spell_value
from gmma.tasks.turns import (
    Found,
    as_turns,
    find_key,
    is_turns,
    last_reply,
    read_turns,
    split_response,
)
from gmma.text.prompt import IMAGE_MARK

LayoutName = Literal["auto", "plain", "problem", "prompt", "messages", "conversations", "refcoco"]


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys of the parts of a record, a dot leads into an object; "": the usual ones."""

    question: str = ""  # a text, or a list of turns
    images: str = ""  # a picture or a list: paths, or bytes in Parquet
    answer: str = ""  # the truth
    thought: str = ""  # a reasoning trace for SFT
    choices: str = ""  # texts of the options, a list or {"A": …}
    system: str = ""  # a system prompt
    id: str = ""


class Layout(NamedTuple):
    """The keys of a layout, the first that a record has counts."""

    question: tuple[str, ...]
    answer: tuple[str, ...]
    replies: bool = False  # whether a turn of the assistant may be the answer


ANSWERS = ("answer", "answers", "solution", "ground_truth", "reward_model.ground_truth", "label")
EXPRESSIONS = (
    *("expression", "expressions", "referring_expression", "sentence", "sentences", "sent"),
    *("caption", "captions", "phrase", "normal_caption", "ref"),
)
UNSEEN = {  # keys of what no model here takes, and what to do about it
    ("video", "videos"): "give frames of it as images",
    ("audio", "audios"): "give what is said in it as text",
}
IMAGES = ("images", "image", "image_path", "image_paths", "img_path", "img", "file_name")
THOUGHTS = ("thought", "reasoning", "rationale", "cot")
CHOICES = ("choices", "options")
LISTED = re.compile(r"(?m)(?:^|\s)\(?[Aa][.):]\s")  # a question that lists its choices itself
BARE_BOXES = ("bbox", "box")  # keys whose four numbers are corners here, corner and size there
LAYOUTS: dict[str, Layout] = {  # in the order in which they are tried
    "messages": Layout(("messages",), ANSWERS, replies=True),
    "conversations": Layout(("conversations", "conversation"), ANSWERS, replies=True),
    "prompt": Layout(("prompt",), (*ANSWERS, "completion"), replies=True),
    "problem": Layout(("problem",), ANSWERS),
    "refcoco": Layout(EXPRESSIONS, ("bbox", "box")),
    "plain": Layout(("question", "query"), ANSWERS),
}


@dataclass(frozen=True, kw_only=True)
class Laid:
    """The parts of one record as it has them."""

    question: str
    images: tuple[Any, ...]
    answer: Any
    solved: bool  # the answer may end a whole solution: a reply, or under `solution`
    thought: Any  # "" for none
    choices: Any  # None for none
    system: str
    id: Any  # None for none
    rest: Mapping[str, Any]  # keys that are no part
    own: Mapping[str, Any]  # parts under the record's own keys, images and turns left out
    answer_key: str  # "": a turn of the assistant
    keys: tuple[str, ...]  # of the whole row
    named: frozenset[str]  # which fields of `Keys` name something that the row has
    where: str  # names the record in a message


def lay_out(row: Any, where: str, layout: LayoutName, keys: Keys, kind: str) -> Iterator[Laid]:
    """Yield the records that a row of a file holds: one, or one for each of its expressions.

    `kind` is that of the answers. Raises UserError that names the record, what it has, and the
    nearest layout.
    """
    if not isinstance(row, Mapping):
        raise UserError(
            f"{where}, {spell_value(row)}, is of type {type(row).__name__}; give an object, with a "
            "question and an answer under keys"
        )
    if (named := find_id(row, keys)).key:
        where = f"{where} (id {spell_value(named.value).strip(chr(34))})"
    refuse_unstorable(row, where)
    name, asked, told = find_layout(row, where, layout, keys, kind)
    questions = [asked.value]
    if name == "refcoco" and (layout == "refcoco" or not keys.question):
        questions = list(read_expressions(asked, where))
    for number, question in enumerate(questions):
        suffix = f"/{number}" if len(questions) > 1 else ""
        yield read_parts(row, where, Found(asked.key, question), told, keys, kind, suffix)


def find_id(row: Mapping[str, Any], keys: Keys) -> Found:
    """Return what a record is called, if anything."""
    found = find_key(row, [keys.id] if keys.id else ["id", "question_id"])
    return found if str(found.value).strip() else Found("", None)


def find_layout(
    row: Mapping[str, Any], where: str, layout: LayoutName, keys: Keys, kind: str
) -> tuple[str, Found, Found]:
    """Return the layout of a record, its question, and its answer beside the question, if any.

    An answer that is null counts where there is no other: it is a wrong one.
    """
    tried: dict[str, Layout] = LAYOUTS if layout == "auto" else {layout: LAYOUTS[layout]}
    wanted = {n: known for n, known in tried.items() if n != "refcoco" or "box" in kind}
    for answered in (find_key, find_null):
        for name, known in wanted.items():
            asked = find_key(row, [keys.question] if keys.question else known.question)
            answers = (keys.answer,) if keys.answer else known.answer
            told = answered(row, [key for key in answers if key != asked.key])
            asked, told = (Found(key, as_turns(value, where)) for key, value in (asked, told))
            replies = known.replies and is_turns(asked.value) and not keys.answer
            if asked.key and (told.key or replies):
                return name, asked, told
    boxed = find_key(row, EXPRESSIONS).key and find_key(row, BARE_BOXES).key
    if boxed and "refcoco" in tried.keys() - wanted.keys():
        raise UserError(
            f"{where} has expressions and a box under {boxed}, and task.kind is {kind}; set "
            "task.kind = box, or name the answer by task.keys.answer and the question by "
            "task.keys.question"
        )
    raise UserError(f"{where} has the keys {', '.join(map(str, row))}; {nearest(row, tried, keys)}")


def find_null(row: Mapping[str, Any], names: Sequence[str]) -> Found:
    """Return the first of some keys that a record has at all."""
    return Found(next((name for name in names if name in row), ""), None)


def nearest(row: Mapping[str, Any], tried: Mapping[str, Layout], keys: Keys) -> str:
    """Say which layout a record is nearest to, what it lacks, and what may be meant by it."""

    def wanted(known: Layout) -> dict[str, tuple[str, ...]]:
        question = (keys.question,) if keys.question else known.question
        return {"question": question, "answer": (keys.answer,) if keys.answer else known.answer}

    filled = [str(key) for key, value in row.items() if value is not None]

    def near(names: Sequence[str]) -> list[str]:
        return [near for name in names for near in get_close_matches(name, filled, 1, 0.7)]

    def rank(name: str) -> tuple[int, int]:
        parts = wanted(tried[name]).values()
        has = sum(bool(find_key(row, names).key) for names in parts)
        return has, sum(bool(near(names)) for names in parts)

    best = max(reversed(list(tried)), key=rank)  # of equals the plainest
    lacking = {
        part: names for part, names in wanted(tried[best]).items() if not find_key(row, names).key
    }
    said = "; ".join(
        f"it has no {part} under {' or '.join(names)}"
        + ("".join(f", {name} is null" for name in names if name in row))
        + (
            f", is it {near(names)[0]!r}? then give --task.keys.{part} {near(names)[0]}"
            if near(names)
            else ""
        )
        for part, names in lacking.items()
    )
    fields = " and ".join(f"task.keys.{part}" for part in lacking)
    return f"the nearest layout is {best}: {said}; {fields} can name the key"


def read_parts(
    row: Mapping[str, Any],
    where: str,
    asked: Found,
    told: Found,
    keys: Keys,
    kind: str,
    suffix: str = "",
) -> Laid:
    """Return the parts of a record whose question and answer are found."""
    for names, advice in UNSEEN.items():
        if held := [key for key in names if row.get(key) not in (None, "", [], ())]:
            raise UserError(
                f"{where} has {' and '.join(held)}, and gmma's models take text and still images "
                f"alone; {advice}, or leave the record away"
            )
    system, pictures, reply = "", (), None
    question = asked.value
    if is_turns(question):
        system, question, pictures, reply = read_turns(question, f"{where}: {asked.key}")
    answer, solved = told.value, told.key == "solution"
    if not told.key:
        if reply is None:
            raise UserError(
                f"{where}: {asked.key} has no turn of the assistant, and there is no answer under "
                f"{' or '.join(ANSWERS)}; task.keys.answer can name the key"
            )
        answer, solved = reply, True
    elif is_turns(answer):
        answer, solved = last_reply(answer, f"{where}: {told.key}"), True
    shown, beside = find_images(row, where, keys)
    if pictures and beside and len(pictures) + len(beside) > question.count(IMAGE_MARK):
        raise UserError(f"{where} has images in its turns and under {shown}; keep one of them")
    thought = find_key(row, [keys.thought] if keys.thought else THOUGHTS)
    if not thought.key and not keys.thought and told.key != "solution":
        thought = find_key(row, ["solution"])
    if not thought.key and reply is not None and told.key:
        thought = Found("", split_response(reply)[0])  # the answer beside it counts
    options = find_choices(row, keys) if kind == "choice" else Found("", None)
    own, named = find_system(row, where, keys), find_id(row, keys)
    used = {asked.key, told.key, shown, thought.key, options.key, own.key, named.key}
    lettered = isinstance(options.value, Mapping) and options.key == "A"
    rest = {
        str(key): value
        for key, value in row.items()
        if key not in used and not (lettered and key in options.value)
    }
    if not (pictures or beside or shown):
        refuse_hidden_picture(rest, where)
    # A name for them that no record has is refused with all others.
    unnamed = kind == "choice" and not (options.key or keys.choices)
    if unnamed and not LISTED.search(str(question)):
        refuse_hidden_choices(rest, where)
    parts = (asked.key, told.key, thought.key, options.key, named.key)
    own_parts = {key: row[key] for key in parts if key in row and not is_turns(row[key])}
    return Laid(
        question=require_text(question, f"{where}: {asked.key}"),
        images=pictures or beside,
        answer=answer,
        solved=solved,
        thought="" if thought.value is None else thought.value,
        choices=options.value,
        system=own.value or system,
        id=None if named.value is None else f"{named.value}{suffix}",
        rest=rest,
        own=own_parts,
        answer_key=told.key,
        keys=tuple(map(str, row)),
        named=frozenset(name for name, key in vars(keys).items() if key and key in used),
        where=where + (f", expression {suffix[1:]}" if suffix else ""),
    )


def find_images(row: Mapping[str, Any], where: str, keys: Keys) -> tuple[str, tuple[Any, ...]]:
    """Return the key of a record's images, "" for none, and those that are not null.

    UserError where it lacks the key that the config names; with null there it has no image.
    """
    names = [keys.images] if keys.images else IMAGES
    shown = find_key(row, names)
    if keys.images and not shown.key:
        inner, _, last = keys.images.rpartition(".")
        around = find_key(row, [inner]).value if inner and keys.images not in row else row
        if not isinstance(around, Mapping) or (keys.images not in row and last not in around):
            raise UserError(
                f"{where} has no {keys.images}, which task.keys.images names, but the keys "
                f"{', '.join(map(str, row))}; give it there as null to a record without images"
            )
        return keys.images, ()
    listed = shown.value if isinstance(shown.value, list | tuple) else [shown.value]
    return shown.key, tuple(entry for entry in listed if not is_nothing(entry))


def is_nothing(image: Any) -> bool:
    """Return whether an entry of a list of images stands for none, as Parquet's null does."""
    if isinstance(image, Mapping):
        return bool(image) and all(value is None for value in image.values())
    return image is None or image == ""


def refuse_hidden_picture(rest: Mapping[str, Any], where: str) -> None:
    """Raise UserError where a key that nothing reads holds a picture, and nothing else does."""
    hidden = [key for key, value in rest.items() if looks_like_picture(value)]
    if hidden:
        raise UserError(
            f"{where} has no image under {' or '.join(IMAGES)}, but {hidden[0]} looks like one: "
            f"{spell_value(rest[hidden[0]])}; give --task.keys.images {hidden[0]}, or take that "
            "key away from records that are asked without images"
        )


def refuse_hidden_choices(rest: Mapping[str, Any], where: str) -> None:
    """Raise UserError where a key that nothing reads holds texts, and no other key has choices."""
    for key, value in rest.items():
        lettered = isinstance(value, Mapping) and all(len(str(name)) == 1 for name in value)
        texts = list(value.values()) if lettered else value
        if (
            isinstance(texts, list | tuple)
            and len(texts) > 1
            and all(isinstance(text, str) for text in texts)
        ):
            raise UserError(
                f"{where} has no choices under {' or '.join(CHOICES)}, but {key} looks like them: "
                f"{spell_value(value)}; give --task.keys.choices {key}, or take that key away from "
                "records whose question lists the choices"
            )


def find_system(row: Mapping[str, Any], where: str, keys: Keys) -> Found:
    """Return the system prompt of a record; a value that is no text is one only where named so."""
    found = find_key(row, [keys.system] if keys.system else ["system"])
    if isinstance(found.value, str):
        return found
    if keys.system and found.key:
        raise UserError(
            f"{where}: {found.key} is {spell_value(found.value)}; give the system prompt as a text"
        )
    return Found("", None)


def find_choices(row: Mapping[str, Any], keys: Keys) -> Found:
    """Return the options of a record: a list, an object, a text, or a column for each letter."""
    found = find_key(row, [keys.choices] if keys.choices else CHOICES)
    letters = [letter for letter in ascii_uppercase if row.get(letter) not in (None, "")]
    if not found.key and not keys.choices and letters[:2] == ["A", "B"]:
        return Found("A", {letter: row[letter] for letter in letters})
    return found


def read_expressions(asked: Found, where: str) -> Iterator[str]:
    """Yield the question for each expression: texts, or objects with `raw` or `sent`."""
    listed = asked.value if isinstance(asked.value, list) else [asked.value]
    if not listed:
        raise UserError(f"{where}: {asked.key} is an empty list; give it an expression, or drop it")
    for entry in listed:
        said = find_key(entry, ["raw", "sent"]).value if isinstance(entry, Mapping) else entry
        said = require_text(said, f"{where}: {asked.key}").strip()
        yield f"Find this object in the image: {said.rstrip('.')}."
