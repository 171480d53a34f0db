"""Demand prediction: the object in the image that meets a need."""

import re
from collections.abc import Mapping, Sequence

from gmma.answers.boxes import Box, parse_box, read_gold_box, says_boxes
from gmma.answers.points import parse_point
from gmma.answers.reading import Reading, Size, check_reading
from gmma.rewards.boxes import box_iou
from gmma.rewards.exact import exact_match

_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_HIT_IOU = 0.5


def demand_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    image_size: Sequence[Size] = (),
    reading: str = "lenient",
    **columns: Sequence,
) -> list[float | None]:
    """Return 1 if the answer hits an object that meets the need, else 0 (our choice).

    The column `answer` is `{"boxes": [[x1, y1, x2, y2], …], "names": [str, …]}`, either may be
    missing. An answer hits if it is a box with IoU ≥ 0.5 with an accepted one, a point `[x, y]`
    inside an accepted box, or an accepted name after folding case and space; several boxes or
    points hit nothing. Same frame on both sides; `image_size` is `[w, h]` in it, which is
    thousandths without it. None where the column has neither a box nor a name, or one that cannot
    be read.
    """
    how = check_reading(reading)
    return [
        None
        if (truth := _read_truth(gold)) is None
        else float(meets_demand(text, *truth, reading=how, image_size=size))
        for text, gold, size in zip(
            answers, answer, image_size or [None] * len(answers), strict=True
        )
    ]


def _read_truth(gold: object) -> tuple[list[Box], list[str]] | None:
    if not isinstance(gold, Mapping):
        return None
    boxes = [read_gold_box(box) for box in gold.get("boxes", ())]
    names = list(gold.get("names", ()))
    readable = None not in boxes and all(isinstance(name, str) for name in names)
    if not readable or not (boxes or names):
        return None
    return [box for box in boxes if box is not None], names


def meets_demand(
    text: str,
    boxes: Sequence[Box],
    names: Sequence[str],
    *,
    reading: Reading = "lenient",
    image_size: Size = None,
) -> bool:
    """Return whether a box, a point or a name hits one of the accepted boxes or names."""
    if says_boxes(text, reading, image_size):
        box = parse_box(text, reading, image_size)
        return box is not None and any(box_iou(box, a) >= _HIT_IOU for a in boxes)
    if (point := parse_point(text, reading)) is not None:
        x, y = point
        return any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in boxes)
    said = text if reading == "strict" else _plain_name(text)
    return bool(names) and bool(exact_match(said, names))


def _plain_name(text: str) -> str:
    """Return a name without quotes, Markdown, full stop and article.

    >>> _plain_name("**A vase**."), _plain_name('"mug"')
    ('vase', 'mug')
    """
    return _ARTICLE.sub("", text.strip(" \t\n.*`\"'"))
