"""A kind of object: its MJCF, its moving parts, and where to look at it from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gmma.simulator.mjcf import COLOURS, METAL, NEUTRALS, Real, Vector, ball, rod

WALL = 0.02  # thickness of boards, metres


@dataclass(frozen=True, kw_only=True)
class Part:
    """One moving part; its body and its joint are both named by `colour`."""

    colour: str
    high: float  # upper end of the joint's range, which starts at 0; metres or radians
    arm: float  # metres from the hinge to the far edge; 1 for a slide
    raised: str  # instruction that asks for a larger joint value
    lowered: str  # instruction that asks for a smaller one


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """An object on the floor around x = y = 0 that faces −y."""

    mjcf: str
    parts: tuple[Part, ...]  # in the order of their joints
    centre: Vector  # of the sphere that the object moves in
    radius: float
    azimuth_degrees: tuple[float, float] = (0.0, 40.0)  # how far aside the camera may stand
    elevation_degrees: tuple[float, float] = (15.0, 40.0)


def name_parts(
    colours: Sequence[str], *, high: float, arm: float, raised: str, lowered: str
) -> tuple[Part, ...]:
    """Return one part per colour; `{}` in the two instructions is its colour."""
    return tuple(
        Part(colour=c, high=high, arm=arm, raised=raised.format(c), lowered=lowered.format(c))
        for c in colours
    )


def draw_colours(rng: np.random.Generator, count: int) -> list[str]:
    """Draw `count` different names of `COLOURS`."""
    return [str(name) for name in rng.choice(list(COLOURS), count, replace=False)]


def draw_neutral(rng: np.random.Generator) -> Vector:
    """Return a colour for what does not move."""
    return NEUTRALS[rng.integers(len(NEUTRALS))]


def spread(count: int, pitch: float) -> list[float]:
    """Space `count` coordinates `pitch` apart around 0."""
    return [(i - (count - 1) / 2) * pitch for i in range(count)]


def draw_handle(rng: np.random.Generator, at: Vector, length: float, *, upright: bool) -> str:
    """Return a bar on two posts, or a knob, in front of (−y of) a panel's surface point `at`."""
    x, y, z = at
    if rng.random() < 0.4:
        end = (x, y - 0.03, z)
        return rod(0.008, at, end, METAL) + ball(0.022, end, METAL)
    reach = length / 2

    def along(share: Real, out: Real) -> Vector:
        step = share * reach
        return (x, y - out, z + step) if upright else (x + step, y - out, z)

    posts = "".join(rod(0.007, along(s, 0), along(s, 0.035), METAL) for s in (-0.9, 0.9))
    return posts + rod(0.011, along(-1, 0.035), along(1, 0.035), METAL)
