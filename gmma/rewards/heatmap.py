"""Affordance heat maps: how text answers are rendered, and KLD, SIM and NSS between two maps."""

from collections.abc import Sequence

import numpy as np

from gmma.rewards.boxes import Number

_WIDTH_SHARE = 0.05  # of the image's diagonal: the standard deviation of a point's Gaussian
_SMALLEST = 1e-12
_POSITIVE_LEVEL = 0.1


def render_points(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Render points float64[N, 2], pixels `(x, y)`, as a heat map float64[H, W] of sum 1.

    One isotropic Gaussian per point, of standard deviation 5 % of the diagonal, evaluated at pixel
    centres (our choice: no peer states a rendering). No points give the uniform map.
    """
    sigma = _WIDTH_SHARE * float(np.hypot(height, width))
    return _render([(x, y, sigma, sigma) for x, y in points], height, width)


def render_box(box: Sequence[Number], height: int, width: int) -> np.ndarray:
    """Render a box as a heat map float64[H, W] of sum 1.

    One Gaussian at its centre whose standard deviations are a quarter of its sides, at least half a
    pixel (our choice).
    """
    x1, y1, x2, y2 = box
    deviations = max((x2 - x1) / 4, 0.5), max((y2 - y1) / 4, 0.5)
    return _render([((x1 + x2) / 2, (y1 + y2) / 2, *deviations)], height, width)


def _render(gaussians: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    x, y, sigma_x, sigma_y = np.asarray(gaussians, np.float64).reshape(-1, 4).T[..., None]
    across = np.exp(-0.5 * ((np.arange(width) + 0.5 - x) / sigma_x) ** 2)
    down = np.exp(-0.5 * ((np.arange(height) + 0.5 - y) / sigma_y) ** 2)
    return normalise_heat(down.T @ across)


def normalise_heat(heat: np.ndarray) -> np.ndarray:
    """Scale a non-negative map [H, W] to sum to 1; uniform if it has no mass."""
    total = float(np.sum(heat))
    return heat / total if total > 0 else np.full(heat.shape, 1 / heat.size)


def heat_kld(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return `Σ g·log(g / (p + ε) + ε)` in nats, both maps of sum 1, ε = 1e-12; lower is better.

    The form of the AGD20K protocol.
    """
    p, g = normalise_heat(predicted), normalise_heat(truth)
    return float(np.sum(g * np.log(g / (p + _SMALLEST) + _SMALLEST)))


def heat_sim(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the histogram intersection `Σ min(p, g)`, both maps summing to 1, in [0, 1]."""
    return float(np.sum(np.minimum(normalise_heat(predicted), normalise_heat(truth))))


def heat_nss(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the prediction's mean z-score over pixels where the truth exceeds 0.1 of its largest.

    0 for a constant prediction, which prefers no pixel.
    """
    positive = truth > _POSITIVE_LEVEL * np.max(truth)
    deviation = float(np.std(predicted))
    if deviation == 0 or not positive.any():
        return 0.0
    return float(np.mean((predicted[positive] - np.mean(predicted)) / deviation))


def worst_kld(truth: np.ndarray) -> float:
    """Return the limit of `heat_kld` for a prediction without mass where the truth has some."""
    g = normalise_heat(truth)
    return float(np.sum(g * np.log(g / _SMALLEST + _SMALLEST)))


def worst_nss(truth: np.ndarray) -> float:
    """Return the least `heat_nss` there is: `−√((1 − s) / s)`, s the share of positive pixels.

    It is that of a flat map that avoids all of them.
    """
    share = float(np.mean(truth > _POSITIVE_LEVEL * np.max(truth)))
    return -float(np.sqrt((1 - share) / share)) if share > 0 else 0.0
