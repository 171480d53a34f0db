"""Boxes: read one from text, compare two, and the reward of a single box."""

import math
import re
from collections.abc import Sequence

Box = tuple[float, float, float, float]
Number = float | int  # the tests check types at run time, where an int is no float

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_BOX = re.compile(
    r"\s*\[\s*" + r"\s*,\s*".join([f"({_NUMBER})"] * 4) + r"\s*\]\s*",
    re.ASCII,
)


def parse_box(text: str) -> Box | None:
    """Read `[x1, y1, x2, y2]`, or return None; never raises.

    The whole text must be one bracketed list of exactly four finite decimal numbers (several boxes,
    or a box inside a sentence, are not an answer of one box). Any two opposite corners are accepted
    and returned ordered, `x1 <= x2` and `y1 <= y2`. The frame of coordinates is the writer's.
    """
    matched = _BOX.fullmatch(text)
    return order_box([float(number) for number in matched.groups()]) if matched else None


def order_box(numbers: Sequence[float]) -> Box | None:
    """Four numbers as a box with `x1 <= x2` and `y1 <= y2`; None unless four finite numbers."""
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        return None
    x1, y1, x2, y2 = numbers
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def read_gold_box(gold: object) -> Box | None:
    """A reference box from a record: four numbers, or the text of them; None if it is neither."""
    if isinstance(gold, str):
        return parse_box(gold)
    try:
        return order_box([float(number) for number in gold])  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        return None


def box_iou(a: Sequence[Number], b: Sequence[Number]) -> float:
    """Intersection over union of two ordered boxes `[x1, y1, x2, y2]`, in [0, 1].

        IoU(a, b) = |a ∩ b| / |a ∪ b|

    Continuous coordinates: a box is `x2 - x1` wide (no added pixel), so the value is the same in
    pixels, in 0-1000 and in 0-1. Two boxes without area give 1 if equal, else 0 (our choice).
    """
    if tuple(a) == tuple(b):
        return 1.0
    # Lengths relative to the box around both, so that no area over- or underflows.
    frame_width = max(a[2], b[2]) - min(a[0], b[0])
    frame_height = max(a[3], b[3]) - min(a[1], b[1])
    if not (0 < frame_width < math.inf and 0 < frame_height < math.inf):
        return 0.0
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) / frame_width
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1])) / frame_height
    areas = [(x2 - x1) / frame_width * ((y2 - y1) / frame_height) for x1, y1, x2, y2 in (a, b)]
    union = sum(areas) - width * height
    return min(1.0, width * height / union) if union > 0 else 0.0


def box_iou_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    **columns: Sequence,
) -> list[float | None]:
    """IoU of the one predicted box with the one true box, in [0, 1].

    Both boxes are in the frame of the column `answer`: `[x1, y1, x2, y2]`. Text that is not one box
    is 0 (a wrong answer); a reference that cannot be read is None.
    """
    return [
        _score_box(text, read_gold_box(gold)) for text, gold in zip(answers, answer, strict=True)
    ]


def _score_box(text: str, gold: Box | None) -> float | None:
    if gold is None:
        return None
    predicted = parse_box(text)
    return 0.0 if predicted is None else box_iou(predicted, gold)
