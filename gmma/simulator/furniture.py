"""Drawers, doors and lids: joints whose value grows as the part opens."""

import math

import numpy as np

from gmma.simulator.fixture import (
    WALL,
    Fixture,
    draw_colours,
    draw_handle,
    draw_neutral,
    name_parts,
    spread,
)
from gmma.simulator.mjcf import COLOURS, METAL, NEUTRALS, Vector, box, jointed_body


def drawer(rng: np.random.Generator) -> Fixture:
    """Return a chest of one to three drawers above each other, that slide out to −y."""
    count = int(rng.integers(1, 4))
    w, d, front = rng.uniform(0.4, 0.65), rng.uniform(0.35, 0.5), rng.uniform(0.13, 0.2)
    base, h, high = rng.uniform(0, 0.25), count * front + WALL, d * rng.uniform(0.5, 0.7)
    middle, colours = base + h / 2, draw_colours(rng, count)
    shelves = [middle + z for z in spread(count - 1, front)]
    mjcf = cabinet((w, d, h), base, shelves, draw_neutral(rng))
    for colour, z in zip(colours, spread(count, front), strict=True):
        geoms = tray((w - 0.01, d - 2 * WALL, front - 0.01), COLOURS[colour])
        geoms += draw_handle(rng, (0, -WALL, 0), w * 0.35, upright=False)
        at = (0.0, -d / 2, middle + z)
        mjcf += jointed_body(
            colour, joint="slide", axis=(0, -1, 0), at=at, high=high, arm=1.0, geoms=geoms
        )
    to = {"raised": "Open the {} drawer.", "lowered": "Close the {} drawer."}
    return Fixture(
        mjcf=mjcf,
        parts=name_parts(colours, high=high, arm=1.0, **to),
        centre=(0.0, -high / 2, middle),
        radius=math.hypot(w, d + high, h) / 2,
    )


def door(rng: np.random.Generator) -> Fixture:
    """Return a cupboard of one door, hung left or right, or of two that meet.

    They swing out to −y.
    """
    count = int(rng.integers(1, 3))
    w, d, h = rng.uniform(0.28, 0.42), rng.uniform(0.25, 0.4), rng.uniform(0.4, 0.65)
    base, high = rng.uniform(0, 0.25), math.radians(rng.uniform(90, 120))
    total, middle, colours = w * count, base + h / 2, draw_colours(rng, count)
    mjcf = cabinet((total, d, h), base, [base + h * rng.uniform(0.4, 0.6)], draw_neutral(rng))
    sides = (-1, 1) if count == 2 else (int(rng.choice((-1, 1))),)
    for colour, side in zip(colours, sides, strict=True):
        geoms = box((w - 0.008, WALL, h - 0.01), (-side * w / 2, -WALL / 2, 0), COLOURS[colour])
        geoms += draw_handle(rng, (-side * w * 0.86, -WALL, 0), h * 0.3, upright=True)
        at = (side * total / 2, -d / 2, middle)
        mjcf += jointed_body(
            colour, joint="hinge", axis=(0, 0, side), at=at, high=high, arm=w, geoms=geoms
        )
    to = {"raised": "Open the {} door.", "lowered": "Close the {} door."}
    return Fixture(
        mjcf=mjcf,
        parts=name_parts(colours, high=high, arm=w, **to),
        centre=(0.0, -w / 3, middle),
        radius=math.hypot(total, d + w, h) / 2,
    )


def lid(rng: np.random.Generator) -> Fixture:
    """Return one or two open-topped boxes side by side, their lids hinged at the back."""
    count = int(rng.integers(1, 3))
    w, d, h = rng.uniform(0.3, 0.45), rng.uniform(0.28, 0.4), rng.uniform(0.18, 0.4)
    high, gap = math.radians(rng.uniform(80, 110)), 0.08
    mjcf, colours, neutral = "", draw_colours(rng, count), draw_neutral(rng)
    for colour, x in zip(colours, spread(count, w + gap), strict=True):
        geoms = box((w, d, WALL), (0, -d / 2, 0), COLOURS[colour])
        geoms += box((w * 0.3, 0.03, WALL), (0, -d - 0.015, 0), METAL)
        at = (x, d / 2, h + WALL / 2)
        mjcf += tub((w, d, h), x, neutral) + jointed_body(
            colour, joint="hinge", axis=(-1, 0, 0), at=at, high=high, arm=d, geoms=geoms
        )
    to = {"raised": "Open the {} lid.", "lowered": "Close the {} lid."}
    return Fixture(
        mjcf=mjcf,
        parts=name_parts(colours, high=high, arm=d, **to),
        centre=(0.0, 0.0, (h + d) / 2),
        radius=math.hypot(count * (w + gap) - gap, d, h + d) / 2,
        elevation_degrees=(20.0, 50.0),
    )


def cabinet(size: Vector, base: float, shelves: list[float], colour: Vector) -> str:
    """Return a case open to −y on a plinth of height `base`.

    `shelves` are heights of boards inside.
    """
    w, d, h = size
    sides = "".join(box((WALL, d, h), (x, 0, base + h / 2), colour) for x in (-w / 2, w / 2))
    levels = [base + WALL / 2, base + h - WALL / 2, *shelves]
    boards = "".join(box((w - WALL, d, WALL), (0, 0, z), colour) for z in levels)
    back = box((w + WALL, WALL, h), (0, (d + WALL) / 2, base + h / 2), colour)
    return sides + boards + back + box((w * 0.94, d * 0.94, base + 0.01), (0, 0, base / 2), METAL)


def tray(size: Vector, colour: Vector) -> str:
    """Return a drawer without its handle: front panel at y = −WALL … 0, the box behind it."""
    w, d, h = size
    inner, wood = w - 3 * WALL, NEUTRALS[0]
    sides = [
        box((WALL / 2, d, h * 0.7), (x, d / 2, -h * 0.1), wood) for x in (-inner / 2, inner / 2)
    ]
    return (
        box((w, WALL, h), (0, -WALL / 2, 0), colour)
        + box((inner, d, WALL / 2), (0, d / 2, -h * 0.42), wood)
        + box((inner, WALL / 2, h * 0.7), (0, d, -h * 0.1), wood)
        + "".join(sides)
    )


def tub(size: Vector, x: float, colour: Vector) -> str:
    """Return a box open to the top, on the floor at `x`."""
    w, d, h = size
    sides = [box((WALL, d, h), (x + s * (w - WALL) / 2, 0, h / 2), colour) for s in (-1, 1)]
    inner = w - 2 * WALL  # boards meet but never overlap: faces in one plane would flicker
    ends = [box((inner, WALL, h), (x, s * (d - WALL) / 2, h / 2), colour) for s in (-1, 1)]
    return "".join(sides + ends) + box((inner, d - 2 * WALL, WALL), (x, 0, WALL / 2), colour)
