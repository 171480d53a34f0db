"""The readings of an answer, and the rules that all readers of boxes, points and paths follow.

Rewards, metrics and pictures all read through `boxes.py` and `points.py`, so an answer that earns
is an answer that counts and is drawn. Every reader takes the text and one of two readings:

    strict    the whole text is the form that the prompt asks for
    lenient   any common way of writing it, in prose, a fence or a list (`gmma.answers.notation`)

Coordinates are the frame's of the prompt, x first, whatever they are called. A `box_2d` alone is y
first and in thousandths of the image, as its families write it, and `image_size` takes it into the
frame. An answer that names another order, as `xywh` or `[y1, x1, y2, x2]`, is read in that one.
Repetitions count once. What "not" stands before does not count. Two different answers where one was
asked for are none. If a list breaks off within an entry, its whole entries count. No reader raises,
and each takes time at most proportional to the length of the text.
"""

from collections.abc import Sequence
from typing import Literal

from gmma.errors import UserError

Reading = Literal["lenient", "strict"]
Number = float | int  # the tests check types at run time, where an int is no float
Size = Sequence[Number] | None  # width and height of the image in the frame of the answer
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"


def check_reading(reading: str) -> Reading:
    """Return the reading of that name. Raises UserError where there is none."""
    if reading not in ("lenient", "strict"):
        raise UserError(f"reading = {reading!r}; it must be lenient or strict")
    return reading  # type: ignore[return-value]
