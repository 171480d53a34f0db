"""A page of text below pictures: the question, the truth, the colours, and what was answered."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

PAGE_PIXELS = 720  # width
INK, SOFT, TRUTH = (20, 20, 20), (120, 120, 120), (0, 130, 60)
_MARGIN = 16
_SIZE = 16  # of the letters
_LINE = _SIZE + 6
_SMALL = 360  # pixels; a smaller picture is enlarged by a whole factor, its pixels kept crisp

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, kw_only=True)
class Block:
    """A text under a heading."""

    heading: str
    text: str
    colour: Colour = INK  # of the text
    swatch: Colour | None = None  # a square beside the heading: what has this colour in a picture
    most_lines: int = 40  # the last one says how many are left out


def draw_page(blocks: Sequence[Block]) -> Image.Image:
    """Return the blocks one below the other, each under its heading; long lines are wrapped."""
    font = ImageFont.load_default(_SIZE)
    lines = [line for block in blocks for line in _lines_of(block, font)]
    page = Image.new("RGB", (PAGE_PIXELS, 2 * _MARGIN + len(lines) * _LINE), "white")
    pen = ImageDraw.Draw(page)
    for row, (line, colour, indent, swatch) in enumerate(lines):
        top = _MARGIN + row * _LINE
        if swatch is not None:
            square = (_MARGIN, top + 3, _MARGIN + 12, top + 15)
            pen.rectangle(square, fill=swatch, outline=INK)
        pen.text((_MARGIN + indent, top), line, fill=colour, font=font)
    return page


def _lines_of(block: Block, font: Font) -> list[tuple[str, Colour, int, Colour | None]]:
    """Return text, colour, indent and swatch of each line."""
    heading = printable(block.heading)
    first = (heading, SOFT, 0 if block.swatch is None else _MARGIN + 4, block.swatch)
    text = wrap_text(block.text, font, block.most_lines)
    return [first, *((line, block.colour, _MARGIN, None) for line in text)]


def put_above(pictures: Sequence[Image.Image], page: Image.Image) -> Image.Image:
    """Return a page below pictures, each numbered where there are several."""
    shown = [fit_width(picture.convert("RGB"), page.width) for picture in pictures]
    if len(shown) > 1:
        labels = [f"image {number} of {len(shown)}" for number in range(1, len(shown) + 1)]
        shown = [part for pair in zip(map(_label, labels), shown, strict=True) for part in pair]
    parts = [*shown, page]
    whole = Image.new("RGB", (page.width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole


def _label(text: str) -> Image.Image:
    label = Image.new("RGB", (PAGE_PIXELS, _LINE + 6), "white")
    ImageDraw.Draw(label).text((_MARGIN, 4), text, fill=SOFT, font=ImageFont.load_default(_SIZE))
    return label


def fit_width(picture: Image.Image, width: int) -> Image.Image:
    """Return a picture no wider than this; a small one enlarged by a whole factor."""
    if picture.width > width:
        return picture.resize((width, max(1, round(picture.height * width / picture.width))))
    factor = max(1, _SMALL // max(picture.size))
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


def wrap_text(text: str, font: Font, most_lines: int) -> list[str]:
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
    if len(lines) > most_lines:
        lines[most_lines - 1 :] = [f"… and {len(lines) - most_lines + 1} lines more"]
    return lines


def _cut_words(line: str, font: Font, room: int) -> list[str]:
    """Split words with the spaces behind them; one too wide for a line is cut into letters."""
    words = [word for part in line.split(" ") for word in (part, " ")][:-1]
    cut: list[str] = []
    for word in words:
        cut += word if font.getlength(word) > room else [word]
    return cut


def printable(text: str) -> str:
    """Replace each control character by a sign."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
