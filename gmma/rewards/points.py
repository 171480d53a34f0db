"""Points: the reward of points on a surface."""

from collections.abc import Sequence

import numpy as np

from gmma.answers.points import parse_points
from gmma.answers.reading import check_reading


def affordance_points_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    image_size: Sequence[Sequence[float]] = (),
    grid: float | int = 0,
    reading: str = "lenient",
    **columns: Sequence,
) -> list[float | None]:
    """Return the share of the predicted points that lie inside the true mask, in [0, 1].

    The column `answer` is a bool mask `[H, W]`; `(x, y)` are pixels of it, x to the right, y down,
    and fall into the pixel at column ⌊x⌋, row ⌊y⌋. With a column `image_size`, `[w, h]`, the points
    are on an image that wide and high instead, and with `grid=1000` on a 0-1000 grid over it. No
    points, or text that does not say any (`gmma.answers.points.parse_points`): 0. A mask that
    cannot be read, or has no true pixel to hit: None.
    """
    sizes: Sequence = image_size or [[grid, grid] if grid > 0 else None] * len(answers)
    how = check_reading(reading)
    return [
        None
        if (mask := read_mask(gold)) is None
        else _score_points(parse_points(text, how), mask, size)
        for text, gold, size in zip(answers, answer, sizes, strict=True)
    ]


def read_mask(gold: object) -> np.ndarray | None:
    """Return a reference mask as bool[H, W] with at least one true pixel; None if it is not one."""
    try:
        mask = np.asarray(gold).astype(bool)
    except (TypeError, ValueError):
        return None
    return mask if mask.ndim == 2 and mask.any() else None


def _score_points(
    points: np.ndarray | None, mask: np.ndarray, size: Sequence[float] | None
) -> float:
    if points is None:
        return 0.0
    if size is not None:
        points = points * (np.array(mask.shape[::-1]) / np.array(size))
    return share_inside(points, mask)


def share_inside(points: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of float64[N, 2] pixel points inside a bool[H, W] mask; 0 if N = 0."""
    if len(points) == 0:
        return 0.0
    height, width = mask.shape
    column, row = np.floor(points).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return float(np.sum(mask[row[inside], column[inside]]) / len(points))
