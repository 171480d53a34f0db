"""Points: read them from text, and the reward of points on a surface."""

import math
import re
from collections.abc import Sequence

import numpy as np

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_PAIR = rf"[\[(]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[\])]"
_POINT = re.compile(_PAIR, re.ASCII)
_POINTS = re.compile(rf"\s*\[\s*(?:{_PAIR}\s*(?:,\s*{_PAIR}\s*)*)?\]\s*", re.ASCII)
_LARGEST_COORDINATE = 1e9  # no image is that wide, and squares of such numbers stay finite


def parse_points(text: str) -> np.ndarray | None:
    """Read `[[x, y], …]` or `[(x, y), …]` as float64[N, 2]; None if it is not that; never raises.

    The whole text must be one list of pairs of numbers of magnitude up to 1e9; `[]` has N = 0.
    """
    if not _POINTS.fullmatch(text):
        return None
    points = np.array([[float(x), float(y)] for x, y in _POINT.findall(text)]).reshape(-1, 2)
    return points if np.all(np.abs(points) <= _LARGEST_COORDINATE) else None


def read_gold_points(gold: object) -> np.ndarray | None:
    """Reference points of a record, a list of pairs or the text of one; None if unreadable."""
    if isinstance(gold, str):
        return parse_points(gold)
    try:
        points = np.asarray(gold, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if points.ndim != 2 or points.shape[1] != 2:
        return None
    return points if np.all(np.abs(points) <= _LARGEST_COORDINATE) else None


def affordance_points_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    image_size: Sequence[Sequence[float]] = (),
    grid: float | int = 0,
    **columns: Sequence,
) -> list[float | None]:
    """Share of the predicted points that lie inside the true mask, in [0, 1].

    The column `answer` is a bool mask `[H, W]`; `(x, y)` are pixels of it, x to the right, y down,
    and fall into the pixel at column ⌊x⌋, row ⌊y⌋. With a column `image_size`, `[w, h]`, the points
    are on an image that wide and high instead, and with `grid=1000` on a 0-1000 grid over it. No
    points, or text that is not a list of points: 0. A mask that cannot be read, or has no true
    pixel to hit: None.
    """
    sizes: Sequence = image_size or [[grid, grid] if grid > 0 else None] * len(answers)
    return [
        None if (mask := read_mask(gold)) is None else _score_points(text, mask, size)
        for text, gold, size in zip(answers, answer, sizes, strict=True)
    ]


def read_mask(gold: object) -> np.ndarray | None:
    """A reference mask as bool[H, W] with at least one true pixel; None if it is not one."""
    try:
        mask = np.asarray(gold).astype(bool)
    except (TypeError, ValueError):
        return None
    return mask if mask.ndim == 2 and mask.any() else None


def _score_points(text: str, mask: np.ndarray, size: Sequence[float] | None) -> float:
    points = parse_points(text)
    if points is None:
        return 0.0
    if size is not None:
        points = points * (np.array(mask.shape[::-1]) / np.array(size))
    return share_inside(points, mask)


def share_inside(points: np.ndarray, mask: np.ndarray) -> float:
    """Share of float64[N, 2] pixel points `(x, y)` inside a bool[H, W] mask; 0 if N = 0."""
    if len(points) == 0:
        return 0.0
    height, width = mask.shape
    column, row = np.floor(points).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return float(np.sum(mask[row[inside], column[inside]]) / len(points))


def parse_point(text: str) -> tuple[float, float] | None:
    """Read `[x, y]`, `(x, y)`, or a list of one such point; None if it is not that."""
    points = parse_points(text)
    if points is None:
        points = parse_points(f"[{text}]")
    if points is None or len(points) != 1 or not math.isfinite(points[0, 0]):
        return None
    return float(points[0, 0]), float(points[0, 1])
