"""Demand prediction: the object in the image that meets a need."""

from collections.abc import Mapping, Sequence

from gmma.rewards.boxes import Box, box_iou, parse_box, read_gold_box
from gmma.rewards.exact import exact_match
from gmma.rewards.points import parse_point

_HIT_IOU = 0.5


def demand_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    **columns: Sequence,
) -> list[float | None]:
    """1 if the answer hits an object that meets the need, else 0 (our choice: no peer has one).

    The column `answer` is `{"boxes": [[x1, y1, x2, y2], …], "names": [str, …]}`, either may be
    missing. An answer hits if it is a box with IoU ≥ 0.5 with an accepted one, a point `[x, y]`
    inside an accepted box, or an accepted name after folding case and space. Same frame on both
    sides. None where the column has neither a box nor a name, or one that cannot be read.
    """
    return [
        None if (truth := _read_truth(gold)) is None else float(meets_demand(text, *truth))
        for text, gold in zip(answers, answer, strict=True)
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


def meets_demand(text: str, boxes: Sequence[Box], names: Sequence[str]) -> bool:
    """Whether a box, a point or a name hits one of the accepted boxes or names."""
    if (box := parse_box(text)) is not None:
        return any(box_iou(box, accepted) >= _HIT_IOU for accepted in boxes)
    if (point := parse_point(text)) is not None:
        x, y = point
        return any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in boxes)
    return bool(names) and bool(exact_match(text, names))
