"""Boxes: compare two, and the reward of a single box."""

import math
from collections.abc import Sequence

from gmma.answers.boxes import Box, parse_box, read_gold_box
from gmma.answers.reading import Number, Size, check_reading
from gmma.errors import UserError


def box_iou(a: Sequence[Number], b: Sequence[Number]) -> float:
    """Return the intersection over union of two ordered boxes `[x1, y1, x2, y2]`, in [0, 1].

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
    image_size: Sequence[Size] = (),
    reading: str = "lenient",
    at_least: float = 0.0,
    **columns: Sequence,
) -> list[float | None]:
    """Return the IoU of the one predicted box with the one true box, in [0, 1].

    With `at_least` above 0 it is a success or none: 1 where the IoU is that large, else 0.
    UserError for a number outside 0 … 1.

    Both boxes are in the frame of the column `answer`: `[x1, y1, x2, y2]`. Text that is not one box
    (`gmma.answers.boxes.parse_box`, in the given reading) is 0, a wrong answer; a reference that
    cannot be read is None. `image_size` is `[w, h]` in that frame, which is thousandths without it.
    """
    how = check_reading(reading)
    if not 0 <= at_least <= 1:
        raise UserError(
            f"at_least = {at_least}; it must be an IoU within 0 … 1 (0: the IoU itself)"
        )
    sizes = image_size or [None] * len(answers)

    def judged(iou: float) -> float:
        return float(iou >= at_least) if at_least else iou

    return [
        None
        if (truth := read_gold_box(gold)) is None
        else judged(_score_box(parse_box(text, how, size), truth))
        for text, gold, size in zip(answers, answer, sizes, strict=True)
    ]


def _score_box(predicted: Box | None, truth: Box) -> float:
    return 0.0 if predicted is None else box_iou(predicted, truth)
