"""Layouts of records in use: where a record has its question, images, answer and the rest.

    plain          {"question", "image" or "images", "answer"}
    problem        {"problem", "images", "answer" or "solution"}
    prompt         {"prompt": text or turns, "images", "answer" …}
    messages       {"messages": turns, "images"}, the answer beside them or the assistant's turn
    conversations  {"conversations": turns, "image"}, the same
    refcoco        {"expression" or "sentences" …, "bbox", "image"}, one record an expression

Turns are `{"role", "content"}` or `{"from", "value"}`; a content may be a list of parts, text and
images. The field `keys` names any part otherwise; a dot leads into an object.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

from gmma.errors import UserError
from gmma.tasks.records import require_text, spell_value
from gmma.tasks.turns import Found, find_key, is_turns, last_reply, read_turns
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
VIDEOS = ("video", "videos")
IMAGES = ("images", "image", "image_path", "image_paths", "img_path", "img", "file_name")
THOUGHTS = ("thought", "reasoning", "rationale", "cot")
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
    layout: str
    where: str  # names the record in a message


def lay_out(row: Any, where: str, layout: LayoutName, keys: Keys) -> Iterator[Laid]:
    """Yield the records that a row of a file holds: one, or one for each of its expressions.

    Raises UserError that names the record, what it has, and the nearest layout.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{where} is a {type(row).__name__}, not an object")
    if (named := find_key(row, [keys.id] if keys.id else ["id", "question_id"])).key:
        where = f"{where} (id {spell_value(named.value).strip(chr(34))})"
    name, asked, told = find_layout(row, where, layout, keys)
    if name == "refcoco" and not keys.question:
        questions = list(read_expressions(asked, where))
    else:
        questions = [asked.value]
    for number, question in enumerate(questions):
        suffix = f"/{number}" if len(questions) > 1 else ""
        yield read_parts(row, where, name, Found(asked.key, question), told, keys, suffix)


def find_layout(
    row: Mapping[str, Any], where: str, layout: LayoutName, keys: Keys
) -> tuple[str, Found, Found]:
    """Return the layout of a record, its question, and its answer beside the question, if any."""
    tried: dict[str, Layout] = LAYOUTS if layout == "auto" else {layout: LAYOUTS[layout]}
    for name, known in tried.items():
        asked = find_key(row, [keys.question] if keys.question else known.question)
        told = find_key(row, [keys.answer] if keys.answer else known.answer)
        replies = known.replies and isinstance(asked.value, Sequence | str)
        if asked.key and (told.key or (replies and is_turns(asked.value) and not keys.answer)):
            return name, asked, told
    raise UserError(f"{where} has the keys {', '.join(map(str, row))}; {nearest(row, tried, keys)}")


def nearest(row: Mapping[str, Any], tried: Mapping[str, Layout], keys: Keys) -> str:
    """Say which layout a record is nearest to, what it lacks, and what may be meant by it."""

    def wanted(known: Layout) -> dict[str, tuple[str, ...]]:
        question = (keys.question,) if keys.question else known.question
        return {"question": question, "answer": (keys.answer,) if keys.answer else known.answer}

    def near(names: Sequence[str]) -> list[str]:
        plain = [str(key) for key in row]
        return [near for name in names for near in get_close_matches(name, plain, 1, 0.7)]

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
        + (
            f", is it {near(names)[0]!r}? then set task.keys.{part} = {near(names)[0]}"
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
    layout: str,
    asked: Found,
    told: Found,
    keys: Keys,
    suffix: str = "",
) -> Laid:
    """Return the parts of a record whose layout is known."""
    videos = [key for key in VIDEOS if row.get(key) not in (None, "", [], ())]
    if videos:
        raise UserError(
            f"{where} has {' and '.join(videos)}, and gmma's models see still images alone; give "
            "frames of it as images, or leave the record away"
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
    shown = find_key(row, [keys.images] if keys.images else IMAGES)
    if keys.images and not shown.key and keys.images not in row:
        raise UserError(f"{where} has no {keys.images}, which task.keys.images names")
    listed = shown.value if isinstance(shown.value, list | tuple) else [shown.value]
    beside = tuple(entry for entry in listed if entry not in (None, ""))
    if pictures and beside and len(pictures) + len(beside) > question.count(IMAGE_MARK):
        raise UserError(f"{where} has images in its turns and under {shown.key}; keep one of them")
    thought = find_key(row, [keys.thought] if keys.thought else THOUGHTS)
    if not thought.key and not keys.thought and told.key != "solution":
        thought = find_key(row, ["solution"])
    options = find_choices(row, keys)
    own = find_key(row, [keys.system] if keys.system else ["system"])
    named = find_key(row, [keys.id] if keys.id else ["id", "question_id"])
    used = {asked.key, told.key, shown.key, thought.key, options.key, own.key, named.key}
    return Laid(
        question=require_text(question, f"{where}: {asked.key}"),
        images=pictures or beside,
        answer=answer,
        solved=solved,
        thought=thought.value if thought.key else "",
        choices=options.value,
        system=own.value if isinstance(own.value, str) else system,
        id=None if named.value is None else f"{named.value}{suffix}",
        rest={str(key): value for key, value in row.items() if key not in used},
        layout=layout,
        where=where + (f", expression {suffix[1:]}" if suffix else ""),
    )


def find_choices(row: Mapping[str, Any], keys: Keys) -> Found:
    """Return the options of a record: a list, an object, or a column for each letter."""
    found = find_key(row, [keys.choices] if keys.choices else ["choices", "options"])
    letters = [letter for letter in ascii_uppercase if row.get(letter) not in (None, "")]
    if not found.key and not keys.choices and letters[:2] == ["A", "B"]:
        return Found("A", {letter: row[letter] for letter in letters})
    return found


def read_expressions(asked: Found, where: str) -> Iterator[str]:
    """Yield the question for each expression: texts, or objects with `raw` or `sent`."""
    listed = asked.value if isinstance(asked.value, list) else [asked.value]
    for entry in listed:
        said = find_key(entry, ["raw", "sent"]).value if isinstance(entry, Mapping) else entry
        said = require_text(said, f"{where}: {asked.key}").strip()
        yield f"Find this object in the image: {said.rstrip('.')}."
