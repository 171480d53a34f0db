"""Rewards of a set of boxes or of points, without labels: the best one-to-one matching. Ours."""

from collections.abc import Sequence

import numpy as np

from gmma.answers.boxes import Box, parse_boxes, read_gold_box
from gmma.answers.points import parse_points, read_gold_points
from gmma.answers.reading import Number, Size, check_reading
from gmma.rewards.boxes import box_iou

REACH = 0.1  # of the image's diagonal: a point further off earns nothing
_THOUSANDTHS = (1000, 1000)


def boxes_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    image_size: Sequence[Size] = (),
    reading: str = "lenient",
    **columns: Sequence,
) -> list[float | None]:
    """Return the matched IoU of a set of boxes, in [0, 1].

        reward = max over one-to-one matchings Σ IoU(p, g) / max(n_pred, n_gold)

    Both sets empty: 1; one of them: 0. The column `answer` is a list of `[x1, y1, x2, y2]` in the
    frame of the prediction; None where it is none. Labels beside predicted boxes do not matter.
    Text that says no boxes (`gmma.answers.boxes.parse_boxes`): 0. `image_size` is `[w, h]` in the
    frame, which is thousandths without it.
    """
    how = check_reading(reading)
    sizes = image_size or [None] * len(answers)
    return [
        None
        if (truth := read_gold_boxes(gold)) is None
        else match_boxes(parse_boxes(text, how, size), truth)
        for text, gold, size in zip(answers, answer, sizes, strict=True)
    ]


def read_gold_boxes(gold: object) -> list[Box] | None:
    """Read a record's list of boxes; None where it is none."""
    if not isinstance(gold, Sequence | np.ndarray) or isinstance(gold, str):
        return None
    boxes = [box for entry in gold if (box := read_gold_box(entry)) is not None]
    return boxes if len(boxes) == len(gold) else None


def match_boxes(predicted: Sequence[Box | None] | None, truth: Sequence[Box]) -> float:
    """Return the formula of `boxes_reward`; 0 for no list. None among its entries is no box."""
    if predicted is None:
        return 0.0
    return _matched(
        [[0.0 if p is None else box_iou(p, g) for g in truth] for p in predicted], len(truth)
    )


def points_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    image_size: Sequence[Size] = (),
    reading: str = "lenient",
    **columns: Sequence,
) -> list[float | None]:
    """Return how near a set of points is to the true one, in [0, 1].

        reward = max over one-to-one matchings Σ max(0, 1 − d(p, g) / (REACH · diagonal))
                 / max(n_pred, n_gold)

    Both sets empty: 1; one of them: 0. The column `answer` is a list of `[x, y]` in the frame of
    the prediction; None where it is none. Text that says no points: 0. `image_size` is `[w, h]` in
    the frame, which is thousandths without it.
    """
    how = check_reading(reading)
    sizes = image_size or [None] * len(answers)
    return [
        None
        if (truth := read_gold_set(gold)) is None
        else match_points(parse_points(text, how), truth, size)
        for text, gold, size in zip(answers, answer, sizes, strict=True)
    ]


def read_gold_set(gold: object) -> np.ndarray | None:
    """Read a record's points as float64[N, 2], N ≥ 0; None where they are none."""
    if isinstance(gold, Sequence) and not len(gold):
        return np.zeros((0, 2))
    return read_gold_points(gold)


def match_points(predicted: np.ndarray | None, truth: np.ndarray, size: Size) -> float:
    """Return the formula of `points_reward`; 0 for no list."""
    if predicted is None:
        return 0.0
    width, height = size or _THOUSANDTHS
    reach = REACH * float(np.hypot(width, height))
    apart = np.linalg.norm(predicted[:, None] - truth[None], axis=-1)
    return _matched(np.maximum(0.0, 1.0 - apart / reach), len(truth))


def _matched(gain: Sequence[Sequence[Number]] | np.ndarray, true: int) -> float:
    """Return the gain of the best matching of predictions with truths, over the larger number."""
    from scipy.optimize import linear_sum_assignment  # here: a slow import most workers never need

    if not len(gain) or not true:
        return float(len(gain) == true)
    table = np.asarray(gain, np.float64)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / max(table.shape))
