"""Lengths of nodes that are made up, for what is timed or planned without a run."""

import numpy as np
from jaxtyping import Int


def draw_lognormal(
    random: np.random.Generator, mean: float, slots: int, size: tuple[int, ...], spread: float
) -> Int[np.ndarray, "*size"]:
    """Draw lengths in tokens from a lognormal law of this mean, cut to 1 … `slots` behind it.

    length = min(slots, max(1, round(mean · exp(σ z − σ²/2)))), z standard normal, σ the spread.
    """
    drawn = random.lognormal(np.log(mean) - spread**2 / 2, spread, size)
    return np.clip(np.round(drawn), 1, slots).astype(np.int32)
