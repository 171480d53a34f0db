"""A tree and its mask in one picture, as SVG text.

    python -m gmma.tree.picture docs/tree.svg

wrote the picture of the README. A square is a token. On the left stands the tree, on the right who
sees whom: a row is a query, a column a key, and a key that is seen has its node's colour.
"""

import sys
from colorsys import hls_to_rgb
from pathlib import Path

from gmma.tree.layout import node_of_slot
from gmma.tree.mask import attention_mask
from gmma.types import TreeShape

README = TreeShape(prompt=3, thought=2, answer=2, thoughts=2, answers=2)
CELL, GAP, MARGIN, LINE = 18, 14, 24, 20  # pixels
WORDS = 280  # pixels of the longest line below the tree
INK, HIDDEN = "#334155", "#eef1f5"
FONT = 'font-family="system-ui, sans-serif" font-size="13"'


def draw_tree(shape: TreeShape) -> str:
    """Draw a tree whose slots are all full, and its mask; about 100 bytes for each of S² cells."""
    width = shape.thoughts * shape.answers * (shape.answer * CELL + GAP) - GAP
    left = MARGIN + max(width, shape.prompt * CELL, WORDS) + MARGIN
    side = (shape.packed + 2) * CELL
    tall = max(side, 9 * CELL + 4 * LINE)  # the tree has three levels, the words three lines
    size = (left + side + MARGIN, MARGIN + LINE + tall + MARGIN)
    paths = shape.thoughts * shape.answers
    words = [
        f"A prompt, {shape.thoughts} thoughts, {shape.answers} answers to each:",
        f"{shape.packed} tokens, every one computed once;",
        f"as {paths} rows of their own they would be {shape.flat}.",
    ]
    foot = size[1] - MARGIN - LINE * (len(words) - 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        f'viewBox="0 0 {size[0]} {size[1]}">',
        '<rect width="100%" height="100%" rx="8" fill="#ffffff"/>',
        *_tree(shape, MARGIN, MARGIN + LINE),
        *(_text(MARGIN, foot + LINE * i, line) for i, line in enumerate(words)),
        _text(left, MARGIN, "who sees whom: rows are queries, columns are keys"),
        *_mask(shape, left, MARGIN + LINE),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def node_colours(shape: TreeShape) -> list[str]:
    """Return a colour a node: grey for the prompt, a hue a thought, tints of it for its answers."""
    hues = [0.07 + i / shape.thoughts for i in range(shape.thoughts)]
    tints = [0.6 + 0.2 * j / max(shape.answers - 1, 1) for j in range(shape.answers)]
    thoughts = [_colour(hue, 0.45) for hue in hues]
    return ["#64748b", *thoughts, *(_colour(hue, tint) for hue in hues for tint in tints)]


def _colour(hue: float, lightness: float) -> str:
    rgb = hls_to_rgb(hue % 1, lightness, 0.7)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def _square(x: float, y: float, colour: str, kind: str) -> str:
    side = CELL - 2
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{side}" height="{side}" fill="{colour}"/>'


def _text(x: float, y: float, words: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{INK}" {FONT}>{words}</text>'


def _tree(shape: TreeShape, left: int, top: int) -> list[str]:
    """Draw each node as its tokens, and a line from it to its parent."""
    colours, leaf = node_colours(shape), shape.answer * CELL + GAP
    level = 4 * CELL  # from a level of the tree down to the next
    middle = [  # of each node along x
        left + leaf * (i * shape.answers + j) + (leaf - GAP) / 2
        for i in range(shape.thoughts)
        for j in range(shape.answers)
    ]
    of_thought = [
        (middle[i * shape.answers] + middle[(i + 1) * shape.answers - 1]) / 2
        for i in range(shape.thoughts)
    ]
    nodes = [((of_thought[0] + of_thought[-1]) / 2, 0, shape.prompt)]
    nodes += [(x, 1, shape.thought) for x in of_thought]
    nodes += [(x, 2, shape.answer) for x in middle]
    parents = [0] * (1 + shape.thoughts) + [1 + n // shape.answers for n in range(len(middle))]
    lines, squares = [], []
    for (x, depth, tokens), parent, colour in zip(nodes, parents, colours, strict=True):
        y = top + depth * level
        if depth:
            above = (nodes[parent][0], y - level + CELL)
            lines.append(
                f'<path d="M{above[0]} {above[1]}L{x} {y - 2}" stroke="{INK}" stroke-width="1.5"/>'
            )
        start = x - tokens * CELL / 2 + 1
        squares += [_square(start + t * CELL, y, colour, "token") for t in range(tokens)]
    return lines + squares


def _mask(shape: TreeShape, left: int, top: int) -> list[str]:
    """Draw the packed row along both axes, and a cell for each query and key."""
    colours = node_colours(shape)
    slots = [colours[node] for node in node_of_slot(shape)]
    begin = 2 * CELL - GAP // 2  # of the cells, behind the axis
    parts = []
    for slot, colour in enumerate(slots):
        parts.append(_square(left + begin + slot * CELL, top, colour, "axis"))
        parts.append(_square(left, top + begin + slot * CELL, colour, "axis"))
    for query, row in enumerate(attention_mask(shape)):
        for key, seen in enumerate(row):
            x, y = left + begin + key * CELL, top + begin + query * CELL
            colour, kind = (slots[key], "seen") if seen else (HIDDEN, "hidden")
            parts.append(_square(x, y, colour, kind))
    return parts


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw_tree(README), encoding="utf-8")
