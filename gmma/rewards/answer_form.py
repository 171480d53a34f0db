"""The form of an answer: whether it is written exactly as the prompt asks for it.

What is right is scored by the rewards, which read any common form; this term is for those who want
the model to keep to one.
"""

import re
from collections.abc import Callable, Sequence

from gmma.answers.boxes import parse_box, parse_boxes, parse_detections
from gmma.answers.choice import parse_choice
from gmma.answers.math_text import has_words
from gmma.answers.points import parse_path, parse_point, parse_touch
from gmma.errors import UserError
from gmma.rewards.mathematics import read_answer

_NOT_IN_A_NAME = re.compile(r"[\d\[\](){}<>`:\"\n]")
_LETTER = re.compile(r"[^\W\d]")


def _is_detections(text: str) -> bool:
    found = parse_detections(text, "strict")
    return found is not None and all(None not in entry for entry in found)


def _is_object(text: str) -> bool:
    """Return a box, a point, or a name."""
    geometric = parse_box(text, "strict") or parse_point(text, "strict")
    is_name = _LETTER.search(text) is not None and _NOT_IN_A_NAME.search(text) is None
    return geometric is not None or is_name


def _is_result(text: str) -> bool:
    """Return whether a text is a number or an expression, without words."""
    alone = "\n" not in text.strip() and not has_words(text)
    return alone and re.search(r"\w", text) is not None and read_answer(text) is not None


FORMS: dict[str, Callable[[str], bool]] = {
    "boxes": lambda text: parse_boxes(text, "strict") is not None,
    "box": lambda text: parse_box(text, "strict") is not None,
    "choice": lambda text: parse_choice(text, (), "strict") is not None,
    "detections": _is_detections,
    "number": _is_result,
    "object": _is_object,
    "points": lambda text: parse_path(text, "strict") is not None,
    "text": lambda text: bool(text.strip()) and "\n" not in text.strip(),
    "touch": lambda text: parse_touch(text, "strict") is not None,
}


def answer_form_reward(
    answers: Sequence[str], *, thoughts: Sequence[str], form: str = "", **columns: Sequence
) -> list[float | None]:
    """Return 1 where the answer is the strict form that `form` names (`FORMS`), else 0.

    A task sets `form` to what its prompt asks for. Raises UserError for a form that does not exist.
    """
    if form not in FORMS:
        raise UserError(
            f"reward 'answer_form' has form = {form!r}; it must be one of {', '.join(FORMS)}, and "
            "only a task that is answered so sets it: leave the term out, or give it the task"
        )
    return [float(FORMS[form](text)) for text in answers]
