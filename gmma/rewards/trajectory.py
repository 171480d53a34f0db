"""Paths in the image plane: three distances between them, and the reward made of these."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gmma.answers.points import parse_path, read_gold_points
from gmma.answers.reading import check_reading

_WORST_SHARE = 0.25  # of the image's diagonal: a distance from there on earns nothing


class PathDistances(NamedTuple):
    """Distances between two paths, in the unit of their coordinates."""

    frechet: float
    hausdorff: float
    rmse: float
    end_point: float


def trajectory_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    image_size: Sequence[object],
    reading: str = "lenient",
    **columns: Sequence,
) -> list[float | None]:
    """Return the mean of four terms in [0, 1], one for each of DFD, HD, RMSE and the end point.

        reward = 1/4 Σ_d max(0, 1 − d / (0.25 · √(w² + h²)))

    The scale is our choice: linear, 1 for the true path, 0 from a quarter of the image's diagonal
    on. The column `answer` is a list of `[x, y]`, `image_size` is `[w, h]` in the same unit: pixels
    of the image the model saw, or `[1000, 1000]` for points on a 0-1000 grid. Text that says no
    path of one point or more (`gmma.answers.points.parse_path`): 0. A path without points or an
    unreadable size: None.
    """
    how = check_reading(reading)
    return [
        None
        if (path := _read_path(gold)) is None or (diagonal := _read_diagonal(size)) is None
        else _score_path(parse_path(text, how), path, diagonal)
        for text, gold, size in zip(answers, answer, image_size, strict=True)
    ]


def _read_path(gold: object) -> np.ndarray | None:
    path = read_gold_points(gold)
    return path if path is not None and len(path) else None


def _read_diagonal(size: object) -> float | None:
    try:
        width, height = (float(side) for side in size)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    diagonal = math.hypot(width, height)
    return diagonal if 0 < diagonal < math.inf and min(width, height) > 0 else None


def _score_path(predicted: np.ndarray | None, path: np.ndarray, diagonal: float) -> float:
    if predicted is None:
        return 0.0
    scale = _WORST_SHARE * diagonal
    return float(np.mean([max(0.0, 1.0 - d / scale) for d in path_distances(predicted, path)]))


def path_distances(predicted: np.ndarray, truth: np.ndarray) -> PathDistances:
    """Return DFD, HD, RMSE and end-point distance of two paths float64[N, 2], each with N ≥ 1."""
    return PathDistances(
        frechet=discrete_frechet(predicted, truth),
        hausdorff=hausdorff(predicted, truth),
        rmse=resampled_rmse(predicted, truth),
        end_point=float(np.hypot(*(predicted[-1] - truth[-1]))),
    )


def discrete_frechet(p: np.ndarray, g: np.ndarray) -> float:
    """Return the discrete Fréchet distance `c(m, n)`.

        c(1, 1) = d(p_1, g_1)
        c(i, j) = max(d(p_i, g_j), min(c(i−1, j), c(i, j−1), c(i−1, j−1)))

    with `d` Euclidean and the terms off the table left out of the minimum.
    """
    above = [0.0] + [math.inf] * len(g)  # row and column 0 stand off the table; (0, 0) is the start
    for distances in _pairwise(p, g).tolist():
        current = [math.inf]
        for j, distance in enumerate(distances):
            current.append(max(distance, min(above[j], above[j + 1], current[j])))
        above = current
    return above[-1]


def hausdorff(p: np.ndarray, g: np.ndarray) -> float:
    """Return `max(max_i min_j d(p_i, g_j), max_j min_i d(p_i, g_j))`, over the points as sets."""
    distances = _pairwise(p, g)
    return float(max(distances.min(axis=1).max(), distances.min(axis=0).max()))


def resampled_rmse(p: np.ndarray, g: np.ndarray) -> float:
    """Return `√(1/N Σ_k ‖p_k − g_k‖²)`, both paths resampled linearly to the longer length N.

    Resampled by index, not by arc length.
    """
    length = max(len(p), len(g))
    gaps = _resample(p, length) - _resample(g, length)
    return float(np.sqrt(np.mean(np.sum(gaps**2, axis=1))))


def _pairwise(p: np.ndarray, g: np.ndarray) -> np.ndarray:
    return np.hypot(*np.moveaxis(p[:, None] - g[None], -1, 0))


def _resample(path: np.ndarray, length: int) -> np.ndarray:
    at = np.linspace(0, len(path) - 1, length)
    index = np.arange(len(path))
    return np.stack([np.interp(at, index, axis) for axis in path.T], axis=1)
