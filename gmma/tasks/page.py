"""A picture of a task that has none: its question, its truth and the answers, as a page of text."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAGE_PIXELS = 720  # width
_MARGIN = 16
_SIZE = 16  # of the letters
_MOST_LINES = 40  # of one text
INK, TRUTH, RIGHT, WRONG = (20, 20, 20), (0, 130, 60), (0, 110, 190), (200, 40, 40)

Colour = tuple[int, int, int]
Block = tuple[str, str, Colour]  # heading, text, colour of the text


def draw_page(blocks: Sequence[Block]) -> Image.Image:
    """Return the blocks one below the other, each under its heading; long lines are wrapped."""
    font = ImageFont.load_default(_SIZE)
    lines: list[tuple[str, Colour, int]] = []  # text, colour, indent
    for heading, text, colour in blocks:
        lines.append((heading, (120, 120, 120), 0))
        lines += [(line, colour, _MARGIN) for line in wrap_text(text, font)]
    height = 2 * _MARGIN + len(lines) * (_SIZE + 6)
    page = Image.new("RGB", (PAGE_PIXELS, height), "white")
    pen = ImageDraw.Draw(page)
    for row, (line, colour, indent) in enumerate(lines):
        place = (_MARGIN + indent, _MARGIN + row * (_SIZE + 6))
        pen.text(place, line, fill=colour, font=font)
    return page


def put_above(pictures: Sequence[np.ndarray], page: Image.Image) -> Image.Image:
    """Return a page below pictures, each uint8[H, W, 3], which are made narrower where it is."""
    shown = []
    for pixels in pictures:
        picture = Image.fromarray(pixels)
        picture.thumbnail((page.width, page.width))
        shown.append(picture)
    whole = Image.new("RGB", (page.width, sum(part.height for part in (*shown, page))), "white")
    top = 0
    for part in (*shown, page):
        whole.paste(part, (0, top))
        top += part.height
    return whole


def wrap_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Wrap lines to the page, between words where possible; the last says what is left out."""
    room = PAGE_PIXELS - 3 * _MARGIN
    lines: list[str] = []
    for line in text.expandtabs(4).splitlines() or [""]:
        shown = ""
        for word in _cut_words(printable(line), font, room):
            if shown and font.getlength(shown + word) > room:
                lines.append(shown)
                shown = word.lstrip()
            else:
                shown += word
        lines.append(shown)
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES - 1 :] = [f"… and {len(lines) - _MOST_LINES + 1} lines more"]
    return lines


def _cut_words(
    line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int
) -> list[str]:
    """Split words with the spaces behind them; one too wide for a line is cut into letters."""
    words = [word for part in line.split(" ") for word in (part, " ")][:-1]
    cut: list[str] = []
    for word in words:
        cut += word if font.getlength(word) > room else [word]
    return cut


def printable(text: str) -> str:
    """Replace each control character by a sign."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def answer_blocks(answers: Sequence[str], right: Sequence[float]) -> list[Block]:
    """Return a block an answer, in the colour of its verdict; an empty one is named."""
    return [
        (
            f"answer {number}: {'right' if good else 'wrong'}",
            answer if answer.strip() else "(no answer that could be read)",
            RIGHT if good else WRONG,
        )
        for number, (answer, good) in enumerate(zip(answers, right, strict=True), 1)
    ]
