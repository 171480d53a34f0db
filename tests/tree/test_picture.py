"""The picture of a tree and its mask."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from gmma.tree import TreeShape, attention_mask
from gmma.tree.layout import node_of_slot
from gmma.tree.picture import HIDDEN, README, draw_tree, node_colours

DOCS = Path(__file__).resolve().parents[2] / "docs"


def squares(picture: str, *kinds: str) -> list[dict[str, str]]:
    """The attributes of all squares of these kinds, in reading order."""
    found = ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}rect")
    return [one.attrib for one in found if one.get("class") in kinds]


def test_the_readme_shows_what_the_command_draws() -> None:
    committed = (DOCS / "tree.svg").read_text(encoding="utf-8")
    assert committed == draw_tree(README), "python -m gmma.tree.picture docs/tree.svg"
    assert len(committed.encode()) < 60_000


@pytest.mark.parametrize("sizes", [(3, 2, 2, 2, 2), (1, 1, 1, 1, 1), (2, 3, 1, 3, 4)])
def test_a_cell_has_the_colour_of_the_key_that_is_seen(sizes: tuple[int, ...]) -> None:
    shape = TreeShape(*sizes[:3], thoughts=sizes[3], answers=sizes[4])
    colours = node_colours(shape)
    assert len(set(colours)) == 1 + shape.thoughts * (1 + shape.answers)
    picture = draw_tree(shape)
    slots = np.array([colours[node] for node in node_of_slot(shape)])
    cells = [one["fill"] for one in squares(picture, "seen", "hidden")]
    expected = np.where(attention_mask(shape), slots[None, :], HIDDEN)
    assert cells == expected.ravel().tolist()
    assert len(squares(picture, "seen")) == attention_mask(shape).sum()
    assert sorted(one["fill"] for one in squares(picture, "token")) == sorted(slots.tolist())


def test_a_token_of_the_tree_stands_below_its_parent() -> None:
    shape = TreeShape(1, 1, 1, thoughts=3, answers=2)
    tokens = squares(draw_tree(shape), "token")
    x = [float(one["x"]) for one in tokens]
    y = [float(one["y"]) for one in tokens]
    for thought in range(3):
        answers = x[4 + 2 * thought : 6 + 2 * thought]
        assert x[1 + thought] == pytest.approx(sum(answers) / 2)
        assert y[0] < y[1 + thought] < y[4 + 2 * thought]
    assert x[0] == pytest.approx(sum(x[1:4]) / 3)
