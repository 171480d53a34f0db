"""The picture of an example: all images, question, truth, whose colour is whose, rewards."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gmma.run.samples import said_of
from gmma.tasks import TASKS, defaults
from gmma.tasks.defaults import Said, draw_answers
from gmma.tasks.digits import DIGITS, DigitsConfig
from gmma.tasks.drawing import TRUTH_COLOUR, guess_colour
from gmma.tasks.mathematics import MathConfig
from gmma.tasks.page import PAGE_PIXELS, Block, draw_page, fit_width, put_above, wrap_text
from gmma.types import Example

RED, BLUE, TEAL = (200, 0, 0), (0, 0, 200), (0, 128, 128)
SAID = (
    Said(answer="[1, 2, 9, 10]", note="reward 1.10 (box_iou 1, format 0.1)"),
    Said(answer="", note="reward 0.00", written="<answer>[1, 2"),
)


def plain(colour, width=48, height=48):
    return np.full((height, width, 3), colour, np.uint8)


def example_with(*images):
    columns = {"answer": [1, 2, 9, 10], "image_size": [48, 48]}
    return Example(question="Where is the 7?", images=images, columns=columns, id="test/0")


def colours_of(picture):
    return {colour for _, colour in picture.getcolors(1 << 20)}


@pytest.fixture
def pages(monkeypatch):
    """The blocks of every page that is drawn."""
    seen = []

    def spy(blocks):
        seen.append({block.heading: block.text for block in blocks})
        return draw_page(blocks)

    monkeypatch.setattr(defaults, "draw_page", spy)
    return seen


def test_a_picture_carries_question_truth_colours_and_rewards(pages):
    picture = draw_answers(DIGITS, DigitsConfig(), example_with(plain(0)), SAID)
    (page,) = pages
    assert page["question"] == "Where is the 7?"
    assert page["truth"] == "[1, 2, 9, 10]"
    assert page["colours"].startswith("green: the truth; each answer in its own colour")
    assert page["answer 1: reward 1.10 (box_iou 1, format 0.1)"] == "[1, 2, 9, 10]"
    assert page["answer 2: reward 0.00; form broken, written:"] == "<answer>[1, 2"
    below = picture.crop((0, 384, *picture.size))  # the square beside each answer
    assert {guess_colour(0), guess_colour(1)} <= colours_of(below)
    assert TRUTH_COLOUR in colours_of(picture)


@pytest.mark.parametrize("task", [DIGITS, TASKS["math"]], ids=["drawn", "plain"])
def test_every_image_is_there(task, pages):
    """Also where the task draws on the first one alone."""
    config = DigitsConfig() if task is DIGITS else MathConfig()
    images = (plain(RED), plain(BLUE, 1000, 20), plain(TEAL, 20, 30))
    picture = draw_answers(task, config, example_with(*images))
    assert {RED, BLUE, TEAL} <= colours_of(picture)
    one = draw_answers(task, config, example_with(images[0]))
    assert picture.height > one.height + 300
    assert (picture.width, one.width) == (PAGE_PIXELS, PAGE_PIXELS)
    assert ("colours" in pages[0]) == (task is DIGITS)


def test_what_a_task_draws_nothing_on_is_shown_as_it_is(pages):
    shows_nothing = replace(DIGITS, draw=lambda config, example, answers: None)
    picture = draw_answers(shows_nothing, DigitsConfig(), example_with(plain(RED)), SAID)
    assert RED in colours_of(picture)
    assert guess_colour(0) not in colours_of(picture)
    assert "colours" not in pages[0]


def test_a_text_alone_is_a_page(pages):
    picture = draw_answers(TASKS["math"], MathConfig(), example_with(), [Said(answer=" ")])
    assert picture.width == PAGE_PIXELS
    assert pages[0]["answer 1"] == "(nothing)"


def test_an_answer_of_a_tree_is_said_with_its_terms():
    answer = {"answer": None, "written": "no tag", "reward": 0.05, "advantage": 0.0}
    said = said_of(answer | {"terms": {"box_iou": 0.0, "format": 0.5}})
    assert said == Said(answer="", note="reward 0.05 (box_iou 0, format 0.5)", written="no tag")


def test_long_and_odd_texts_stay_on_the_page():
    """Words wider than a line, control characters, more lines than there is room for."""
    from PIL import ImageFont

    font = ImageFont.load_default(16)
    lines = wrap_text("x\x00y " * 400 + "w" * 500 + "\n" * 90, font, 12)
    assert len(lines) == 12
    assert lines[-1].startswith("… and ")
    assert max(font.getlength(line) for line in lines) <= PAGE_PIXELS
    assert "\N{REPLACEMENT CHARACTER}" in lines[0]
    page = draw_page([Block(heading="h", text="a\nb", swatch=RED)])
    assert RED in colours_of(page)


def test_small_pictures_are_enlarged_and_wide_ones_made_narrower():
    assert fit_width(Image.new("RGB", (48, 20)), 720).size == (336, 140)  # seven times
    assert fit_width(Image.new("RGB", (1440, 100)), 720).size == (720, 50)
    assert fit_width(Image.new("RGB", (600, 600)), 720).size == (600, 600)
    page = draw_page([Block(heading="h", text="t")])
    assert put_above([], page).size == page.size
