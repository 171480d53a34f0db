"""Levers, buttons and rocker switches on a plate that faces −y; the plate's surface is y = 0."""

import math

import numpy as np

from gmma.simulator.fixture import (
    Fixture,
    draw_colours,
    draw_neutral,
    name_parts,
    spread,
)
from gmma.simulator.mjcf import COLOURS, METAL, Vector, ball, box, jointed_body, rod


def lever(rng: np.random.Generator) -> Fixture:
    """Return one to three levers that stick out of the plate.

    They swing up and down, or sideways.
    """
    count, upwards = int(rng.integers(1, 4)), rng.random() < 0.5
    length, high = rng.uniform(0.2, 0.3), math.radians(rng.uniform(60, 80))
    pitch = 0.15 if upwards else 0.34  # metres between levers, so that they never meet
    plate, base = (count * pitch + 0.06, 0.08, 0.4), rng.uniform(0.15, 0.5)
    colours, mjcf = draw_colours(rng, count), stand(plate, base, draw_neutral(rng))
    slot = (0.045, 0.01, 0.26) if upwards else (0.26, 0.01, 0.045)
    axis = (-1, 0, 0) if upwards else (0, 0, 1)
    for colour, x in zip(colours, spread(count, pitch), strict=True):
        at, geoms = (x, 0.0, base + 0.2), draw_arm(rng, length, COLOURS[colour])
        mjcf += box(slot, at, METAL) + jointed_body(
            colour,
            joint="hinge",
            axis=axis,
            at=at,
            high=high,
            arm=length,
            geoms=geoms,
            centred=True,
        )
    ways = ("up", "down") if upwards else ("to the right", "to the left")
    to = [f"Move the {{}} lever {way}." for way in ways]
    return Fixture(
        mjcf=mjcf,
        parts=name_parts(colours, high=high, arm=length, raised=to[0], lowered=to[1]),
        centre=(0.0, -length / 2, base + 0.2),
        radius=math.hypot(plate[0], length, 0.4) / 2,
        azimuth_degrees=(0.0, 35.0) if upwards else (15.0, 45.0),
        elevation_degrees=(20.0, 50.0) if upwards else (10.0, 40.0),
    )


def button(rng: np.random.Generator) -> Fixture:
    """Return one to four buttons in a row, round or square.

    The joint's value grows as one goes in.
    """
    count, is_round = int(rng.integers(1, 5)), rng.random() < 0.6
    radius, high = rng.uniform(0.035, 0.05), rng.uniform(0.04, 0.06)
    pitch, base = 2 * radius + rng.uniform(0.03, 0.06), rng.uniform(0.15, 0.5)
    plate = (count * pitch + 0.08, 0.08, rng.uniform(0.18, 0.3))
    middle = base + plate[2] / 2
    colours, mjcf = draw_colours(rng, count), stand(plate, base, draw_neutral(rng))
    for colour, x in zip(colours, spread(count, pitch), strict=True):
        at, out = (x, 0.0, middle), high + 0.02
        rim = peg(radius + 0.01, 0.008, METAL, is_round=is_round)
        cap = peg(radius, out, COLOURS[colour], is_round=is_round)
        mjcf += f'<body pos="{x:.5g} 0 {middle:.5g}">{rim}</body>' + jointed_body(
            colour, joint="slide", axis=(0, 1, 0), at=at, high=high, arm=1.0, geoms=cap
        )
    to = {"raised": "Press the {} button.", "lowered": "Pull the {} button out."}
    return Fixture(
        mjcf=mjcf,
        parts=name_parts(colours, high=high, arm=1.0, **to),
        centre=(0.0, 0.0, middle),
        radius=math.hypot(*plate) / 2 + 0.03,
    )


def switch(rng: np.random.Generator) -> Fixture:
    """Return one to three rockers hinged in the middle.

    The value grows as the right end goes in.
    """
    count, high = int(rng.integers(1, 4)), math.radians(rng.uniform(30, 45))
    w, h, base = rng.uniform(0.2, 0.3), rng.uniform(0.07, 0.1), rng.uniform(0.15, 0.5)
    pitch, depth = h + 0.05, 0.03 + w / 2 * math.sin(high / 2)
    plate = (w + 0.1, 0.08, count * pitch + 0.06)
    middle = base + plate[2] / 2
    colours, mjcf = draw_colours(rng, count), stand(plate, base, draw_neutral(rng))
    for colour, z in zip(colours, spread(count, pitch), strict=True):
        at, geoms = (0.0, -depth, middle + z), box((w, 0.03, h), (0, -0.015, 0), COLOURS[colour])
        mjcf += box((0.03, depth, h * 0.6), (0, -depth / 2, middle + z), METAL) + jointed_body(
            colour, joint="hinge", axis=(0, 0, 1), at=at, high=high, arm=w / 2, geoms=geoms,
            centred=True,
        )  # fmt: skip
    to = [f"Tip the {{}} switch so that its {end} end goes in." for end in ("right", "left")]
    return Fixture(
        mjcf=mjcf,
        parts=name_parts(colours, high=high, arm=w / 2, raised=to[0], lowered=to[1]),
        centre=(0.0, 0.0, middle),
        radius=math.hypot(*plate) / 2 + 0.05,
    )


def stand(size: Vector, base: float, colour: Vector) -> str:
    """Return the plate, `size` in full lengths, on a post of height `base`."""
    w, d, h = size
    post = rod(0.05, (0, d / 2, 0), (0, d / 2, base), METAL)
    foot = rod(0.16, (0, d / 2, 0), (0, d / 2, 0.025), METAL)
    return box((w, d, h), (0, d / 2, base + h / 2), colour) + post + foot


def draw_arm(rng: np.random.Generator, length: float, colour: Vector) -> str:
    """Return a square bar along −y that ends in a ball or a block."""
    thick, end = rng.uniform(0.03, 0.04), (0.0, -length, 0.0)
    bar = box((thick, length, thick), (0, -length / 2, 0), colour)
    return bar + (ball(thick, end, colour) if rng.random() < 0.5 else box((0.06,) * 3, end, colour))


def peg(radius: float, out: float, colour: Vector, *, is_round: bool) -> str:
    """Return a round or square peg from 0.03 m inside the plate to `out` metres before it."""
    if is_round:
        return rod(radius, (0, 0.03, 0), (0, -out, 0), colour)
    return box((2 * radius, out + 0.03, 2 * radius), (0, (0.03 - out) / 2, 0), colour)
