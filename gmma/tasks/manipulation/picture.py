"""Truth and guesses on the picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from gmma.simulator.attempt import Answer, attempt, parse_answer
from gmma.simulator.scene import Scene
from gmma.simulator.sight import workable_grid
from gmma.tasks.manipulation.teacher import FrameSize, scene_of
from gmma.types import Example

_SIDE_PIXELS = 672
_PULL_TINT = (0, 220, 90)
_PUSH_TINT = (0, 200, 255)
_DONE, _NOT_DONE = (0, 255, 120), (255, 60, 60)
_STAGES = ("missed", "touched", "moved", "done")


LEGEND = (
    "tinted green: where a pull can work the part, blue: where a push can; a cross is an answer, "
    "green if the joint reached its goal, red if not, beside it what came of it"
)


def draw(config: Any, example: Example, answers: Sequence[str]) -> Image.Image:
    """Return the picture enlarged.

    Tinted where the part can be worked (green: by a pull, blue: a push).

    Each answer is a cross with its action and what came of it: green if the joint reached its goal,
    red if not. Answers that cannot be read are counted in the corner.
    """
    scene, frame = scene_of(example)
    large = Image.fromarray(example.images[0]).resize((_SIDE_PIXELS, _SIDE_PIXELS))
    tint = workable_tint(scene).resize(large.size, Image.Resampling.NEAREST)
    picture = Image.alpha_composite(large.convert("RGBA"), tint).convert("RGB")
    pen = ImageDraw.Draw(picture)
    parsed = [parse_answer(text, config.reading) for text in answers]
    for answer in parsed:
        if answer is not None:
            draw_guess(pen, scene, answer, frame)
    unread = sum(answer is None for answer in parsed)
    note = f"{scene.question}  unreadable answers: {unread}" if unread else scene.question
    pen.text((8, 8), note, fill="white", stroke_width=2, stroke_fill="black", font_size=20)
    return picture


def workable_tint(scene: Scene) -> Image.Image:
    """Return one pixel per cell of the grid of rays; transparent where nothing helps."""
    grid = workable_grid(scene)
    tint = np.zeros((*grid.shape, 4), np.uint8)
    tint[grid < 0] = (*_PULL_TINT, 110)
    tint[grid > 0] = (*_PUSH_TINT, 110)
    return Image.fromarray(tint)


def draw_guess(pen: ImageDraw.ImageDraw, scene: Scene, answer: Answer, frame: FrameSize) -> None:
    """Draw a cross at the point, beside it the action and the stage that the attempt reached."""
    came = attempt(scene, answer, frame)
    x, y = (
        min(max(coordinate / side, -0.01), 1.01) * _SIDE_PIXELS
        for coordinate, side in zip(answer.point, frame, strict=True)
    )
    colour = _DONE if came.success else _NOT_DONE
    for dx, dy in ((9, 9), (9, -9)):
        pen.line((x - dx, y - dy, x + dx, y + dy), fill="black", width=6)
        pen.line((x - dx, y - dy, x + dx, y + dy), fill=colour, width=3)
    words = f"{answer.action}: {_STAGES[came.stage]}"
    pen.text(
        (x + 12, y - 10), words, fill=colour, stroke_width=2, stroke_fill="black", font_size=18
    )
