"""Truth and answers on an image, whatever frame their coordinates are in."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from gmma.images.frames import AxisMap, between, near_box
from gmma.rewards.boxes import Number
from gmma.types import Example

TRUTH_COLOUR = (0, 220, 90)
GUESS_COLOURS = (
    *((255, 140, 0), (255, 0, 160), (0, 170, 255), (250, 230, 0), (170, 110, 255)),
    *((0, 215, 215), (165, 95, 40), (255, 175, 195)),
)
LEGEND = (
    "green: the truth; each answer in its own colour, the square beside it below; from the "
    f"{len(GUESS_COLOURS) + 1}th on colours come again"
)
_LONG_SIDE_PIXELS = 672
_LINE_PIXELS = 24  # height of a line of text below the picture
Colour = tuple[int, int, int]


class Board:
    """An example's first image enlarged, drawn on in the example's coordinates."""

    def __init__(self, example: Example) -> None:
        image = Image.fromarray(example.images[0])
        scale = _LONG_SIDE_PIXELS / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        self.picture = image.resize((width, height))
        self.place: AxisMap = between(example.columns["image_size"], (width, height))
        self.lines: list[tuple[str, Colour]] = []

    def tint(self, mask: np.ndarray, colour: Colour = TRUTH_COLOUR) -> None:
        """Colour a region, bool[H, W] over the whole image."""
        alpha = Image.fromarray(mask.astype(np.uint8) * 110).resize(self.picture.size)
        self.picture.paste(colour, (0, 0), alpha)

    def box(self, box: Sequence[Number], colour: Colour, label: str = "", width: int = 2) -> None:
        """Draw a rectangle, and a label inside its corner."""
        x1, y1, x2, y2 = near_box(self.place.box(near_box(box)))
        pen = ImageDraw.Draw(self.picture)
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=width)
        if label:
            corner = (x1 + 4, y1 + 2)
            pen.text(corner, label, colour, stroke_width=2, stroke_fill="black", font_size=16)

    def points(self, points: Sequence[Sequence[Number]], colour: Colour) -> None:
        """Draw a dot each."""
        pen = ImageDraw.Draw(self.picture)
        for x, y in self.place.points(points):
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour, outline="black")

    def path(self, points: Sequence[Sequence[Number]], colour: Colour, width: int = 3) -> None:
        """Draw a line through its waypoints, each a dot, and a ring round the last."""
        placed = [(x, y) for x, y in self.place.points(points)]
        pen = ImageDraw.Draw(self.picture)
        if len(placed) > 1:
            pen.line(placed, fill=colour, width=width, joint="curve")
        self.points(points, colour)
        x, y = placed[-1]
        pen.ellipse((x - 10, y - 10, x + 10, y + 10), outline=colour, width=2)

    def note(self, text: str, colour: Colour = (255, 255, 255)) -> None:
        """Add a line of text below the picture."""
        self.lines.append((text, colour))

    def finish(self) -> Image.Image:
        """Return the picture with its lines of text."""
        width, height = self.picture.size
        whole = Image.new("RGB", (width, height + _LINE_PIXELS * len(self.lines)))
        whole.paste(self.picture)
        pen = ImageDraw.Draw(whole)
        for number, (text, colour) in enumerate(self.lines):
            pen.text((6, height + _LINE_PIXELS * number + 3), text, fill=colour, font_size=15)
        return whole


def guess_colour(number: int) -> Colour:
    """Return the colour of the answer of that number."""
    return GUESS_COLOURS[number % len(GUESS_COLOURS)]


def note_unreadable(board: Board, count: int) -> None:
    """Say how many answers could not be drawn."""
    if count:
        board.note(f"unreadable answers: {count}", (255, 90, 90))
