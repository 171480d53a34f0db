"""One answer in all the ways that models write it: full credit in reward and metric, and beside
each way five wrong ones, which earn nothing in either."""

import time
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from written_forms import (
    BOX_FORMS,
    DETECTION_FORMS,
    PATH_FORMS,
    POINT_FORMS,
    TOUCH_FORMS,
    fill,
    spoil,
)

from gmma.answers.boxes import parse_box, parse_detections
from gmma.answers.notation import LONGEST_TEXT_CHARACTERS
from gmma.answers.points import parse_path, parse_point, parse_points, parse_touch
from gmma.errors import UserError
from gmma.rewards import REWARDS
from gmma.rewards.terms import RewardTerm
from gmma.simulator.attempt import Answer, parse_answer
from gmma.tasks import TASKS
from gmma.tasks.affordance import AffordanceConfig
from gmma.tasks.demand import DemandConfig
from gmma.tasks.detection import DetectionConfig
from gmma.tasks.digits import DigitsConfig
from gmma.tasks.mixture import MixtureConfig, MixturePart
from gmma.tasks.trajectory import TrajectoryConfig
from gmma.types import Example

SIZE, PIXELS = [1000, 1000], [100, 100]  # of the image in the frame, and as stored
BOX, FAR_BOX = (100, 200, 300, 400), (500, 610, 720, 830)
MASK = np.zeros(PIXELS, bool)
MASK[20:40, 10:30] = True
POINTS, FAR_POINTS = (110, 220, 290, 390), (510, 620, 790, 890)
PATH, FAR_PATH = (0, 0, 20, 50, 100, 100), (700, 900, 800, 850, 990, 990)
OTHER_BOX = "[500, 610, 720, 830]"
OTHER_LIST = "[[510, 620], [790, 890]]"
CUP_AND_DOG = (100, 200, 300, 400, 500, 600, 700, 800)
NEITHER = (310, 410, 480, 590, 710, 810, 900, 900)
TRUE_OBJECTS = [
    {"label": "cup", "box": list(CUP_AND_DOG[:4])},
    {"label": "dog", "box": list(CUP_AND_DOG[4:])},
]
PIECES = ["[", "]", "(1, 2)", "{", "}", '"', "'", ",", ":", "label", "bbox_2d", "box_2d", "point"]
PIECES += [
    "<box>",
    "</ref>",
    "<|box_end|>",
    "1",
    "2.5",
    "-",
    "nan",
    "not ",
    "\n",
    "\\",
    "```",
    "x1=",
]
EXAMPLES = {
    "digits": {"answer": list(BOX)},
    "affordance": {"answer": list(BOX), "box": list(BOX), "mask": MASK},
    "demand": {"answer": {"boxes": [list(BOX)], "names": ["vase"]}},
    "detection": {"answer": TRUE_OBJECTS, "crowd": []},
    "trajectory": {"answer": np.reshape(PATH, (-1, 2)).tolist(), "objects": []},
}
CONFIGS = {
    "digits": DigitsConfig(cells_per_side=10, cell_pixels=100),
    "affordance": AffordanceConfig(),
    "demand": DemandConfig(),
    "detection": DetectionConfig(),
    "trajectory": TrajectoryConfig(),
}


def measure(task, answer, name, config=None):
    columns = EXAMPLES[task] | {"image_size": SIZE, "pixels": PIXELS}
    example = Example(question="", images=(), columns=columns, id="0")
    metrics = TASKS[task].metrics(config or CONFIGS[task], [answer], [example])
    return metrics[name][0]


def reward(name, text, **columns):
    columns = {key: [value] for key, value in columns.items()}
    return REWARDS[name]([text], thoughts=[""], **columns)[0]


def check_forms(forms, right, wrong, other, score):
    """Every form, and five spoilt ones of each, with all that are scored otherwise."""
    misread = [answer for form in forms if score(answer := fill(form, right)) < 0.98]
    credited = [
        answer for form in forms for answer in spoil(form, right, wrong, other) if score(answer)
    ]
    assert not misread
    assert not credited


def test_there_are_as_many_forms_as_the_readers_promise():
    assert len(set(BOX_FORMS)) >= 40
    assert len(set(POINT_FORMS)) >= 30
    assert len(set(PATH_FORMS)) >= 25


@pytest.mark.parametrize(
    "score",
    [
        lambda text: reward("box_iou", text, answer=list(BOX)),
        lambda text: measure("digits", text, "iou"),
        lambda text: measure("affordance", text, "iou"),
        lambda text: reward("demand", text, answer={"boxes": [list(BOX)]}),
        lambda text: measure("demand", text, "accuracy"),
    ],
    ids=["box_iou", "digits", "affordance", "demand", "demand_metric"],
)
def test_a_box(score):
    check_forms(BOX_FORMS, BOX, FAR_BOX, OTHER_BOX, score)


@pytest.mark.parametrize(
    "score",
    [
        lambda text: reward("affordance_points", text, answer=MASK, image_size=SIZE),
        lambda text: measure("affordance", text, "point_accuracy", AffordanceConfig(form="points")),
    ],
    ids=["affordance_points", "affordance"],
)
def test_points(score):
    check_forms(POINT_FORMS, POINTS, FAR_POINTS, OTHER_LIST, score)


@pytest.mark.parametrize(
    "score",
    [
        lambda text: reward("trajectory", text, answer=np.reshape(PATH, (-1, 2)), image_size=SIZE),
        lambda text: measure("trajectory", text, "score"),
    ],
    ids=["trajectory", "trajectory_metric"],
)
def test_a_path(score):
    check_forms(PATH_FORMS, PATH, FAR_PATH, OTHER_LIST, score)


@pytest.mark.parametrize(
    "score",
    [
        lambda text: reward("detection", text, answer=TRUE_OBJECTS),
        lambda text: reward("detection_ap", text, answer=TRUE_OBJECTS),
        lambda text: measure("detection", text, "matched_iou"),
        lambda text: measure("detection", text, "image_ap"),
    ],
    ids=["detection", "detection_ap", "matched_iou", "image_ap"],
)
def test_labelled_boxes(score):
    """Of a list with one entry spoilt the other still counts, as in any list of detections."""
    for form in DETECTION_FORMS:
        assert score(fill(form, CUP_AND_DOG)) == pytest.approx(1), form
        for answer in [
            fill(form, NEITHER),
            fill(form, CUP_AND_DOG).lower().replace("cup", "cow").replace("dog", "hen"),
            fill(form, CUP_AND_DOG[4:] + CUP_AND_DOG[:4]),
            f'[{{"label": "cup", "box": {list(FAR_BOX)}}}]' + f" or [{fill(form, CUP_AND_DOG)}]",
            fill(form, ["1/2"] * 8),
        ]:
            assert score(answer) == 0, answer
        for spoilt in (["nan", 200], ["", 200], ["100, 100", 200]):
            assert score(fill(form, [*spoilt, *CUP_AND_DOG[2:]])) <= 0.5 + 1e-9, form


@pytest.mark.parametrize(
    "text",
    [
        '{"bbox": [100, 200, 50, 60], "format": "xywh"}',
        '{"format": "x, y, width, height", "boxes": [[100, 200, 50, 60]]}',
        '{"xywh": [100, 200, 50, 60]}',
        '[{"label": "cup", "bbox_xywh": [100, 200, 50, 60]}]',
        "[x, y, w, h] = [100, 200, 50, 60]",
        "The box (x, y, width, height) is [100, 200, 50, 60].",
        "[100, 200, 50, 60] in COCO format",
        "x, y, w, h: 100, 200, 50, 60",
        "(y, x): (200, 100), (260, 150)",
        '{"bbox": [200, 100, 260, 150], "format": "yxyx"}',
        '{"bbox": [100, 200, 150, 260], "format": "xyxy"}',
        "It has the form xy, where x is first: [100, 200, 150, 260]",
    ],
)
def test_a_box_that_says_its_order_is_read_in_it(text):
    assert parse_box(text) == (100, 200, 150, 260)


@pytest.mark.parametrize(
    "text",
    [
        '{"center": [125, 230], "size": [50, 60]}',
        "The center is (125, 230), the size (50, 60).",
        '{"bbox": [125, 230, 50, 60], "format": "cxcywh"}',
        "[center_x, center_y, width, height] = [125, 230, 50, 60]",
        '{"bbox": [100, 200, 50, 60], "format": "xywh", "order": "xyxy"}',
        '{"box_2d": [100, 200, 150, 260], "format": "xyxy"}',
        '{"x": [100, 150], "y": [200]}',
        '<points x1="100" y1="200" x2="150">',
    ],
)
def test_what_is_said_in_another_way_is_no_box(text):
    assert parse_box(text) is None
    assert parse_detections(text) in (None, []) or parse_detections(text)[0].box is None


def test_points_that_say_that_y_is_first():
    assert parse_points("As (row, col): (2, 1), (4, 3)").tolist() == [[1, 2], [3, 4]]


def test_columns_and_attributes_that_do_not_match_are_no_points():
    for text in (
        '{"x": [1, 2, 3], "y": [4, 5]}',
        '<points x1="1" y1="2" x2="3">a</points>',
        '<points x1="1" x2="2" y1="3" y2="4">a</points>',
    ):
        assert parse_points(text) is None
        assert parse_path(text) is None


def test_words_that_say_that_there_is_nothing():
    for text in ("There are no objects.", "No objects found", "I see nothing in this image.", "[]"):
        assert reward("detection", text, answer=[]) == 1
        assert reward("detection", text, answer=TRUE_OBJECTS) == 0
    for text in ("There are no dogs but a cup.", "", "no objects at [1, 2, 3, 4]", "a cup"):
        assert reward("detection", text, answer=[]) == 0


def test_where_a_box_lacks_its_words_none_has_a_label():
    text = "cup at [1, 2, 3, 4], [5, 6, 7, 8]"
    assert [entry.label for entry in parse_detections(text)] == [None, None]


def test_composed_and_decomposed_letters_are_one():
    composed, decomposed = "caf\u00e9", "Cafe\u0301"
    for name in ("exact", "anls"):
        assert reward(name, composed, answer=[decomposed]) == 1
        assert reward(name, decomposed, answer=[composed]) == 1
        assert reward(name, "cafes", answer=[decomposed]) < 1


def test_where_to_touch():
    for form in TOUCH_FORMS:
        assert parse_answer(fill(form, (12, 34))) == Answer(point=(12.0, 34.0), action="push"), form
        wrong = spoil(form, (12, 34), (99, 99), "(56, 78)")
        assert parse_answer(wrong[0]) == Answer(point=(99.0, 99.0), action="push")
        assert [parse_answer(text) for text in wrong[1:]] == [None] * 4, form
        assert parse_answer(fill(form, (12, 34)).lower().replace("push", "twist")) is None


FORM_EXAMPLES = {
    "box": ("[1, 2, 3, 4]", '{"bbox_2d": [1, 2, 3, 4]}'),
    "boxes": ("[[1, 2, 3, 4], [5, 6, 7, 8]]", "[1, 2, 3, 4]"),
    "choice": (" B ", "(B)"),
    "detections": (
        '[{"label": "cup", "box": [1, 2, 3, 4]}]',
        '{"label": "cup", "box": [1, 2, 3, 4]}',
    ),
    "number": ("72", "The answer is 72."),
    "object": ("a flower vase", "It is here: [1, 2, 3, 4]"),
    "points": ("[[1, 2], [3, 4]]", "(1, 2), (3, 4)"),
    "touch": ('{"point": [1, 2], "action": "push"}', "push at [1, 2]"),
}


@pytest.mark.parametrize("form", FORM_EXAMPLES)
def test_the_form_has_its_own_term(form):
    strict, loose = FORM_EXAMPLES[form]
    values = REWARDS["answer_form"]([strict, loose, "{"], thoughts=[""] * 3, form=form)
    assert values == [1.0, 0.0, 0.0]


def test_a_text_is_one_line():
    texts = ["a cup", "a\ncup", " "]
    assert REWARDS["answer_form"](texts, thoughts=[""] * 3, form="text") == [1.0, 0.0, 0.0]


def test_a_form_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="answer_form"):
        REWARDS["answer_form"]([""], thoughts=[""])
    with pytest.raises(UserError, match="lenient or strict"):
        REWARDS["box_iou"]([""], thoughts=[""], answer=[list(BOX)], reading="kind")


@pytest.mark.parametrize("task", CONFIGS)
def test_one_field_sets_the_reading_of_reward_and_metric(task):
    """And the form that the task asks for."""
    options = TASKS[task].term_options
    strict = replace(CONFIGS[task], reading="strict")
    for config, reading in ((CONFIGS[task], "lenient"), (strict, "strict")):
        assert options(config, RewardTerm("box_iou")) == (("reading", reading),)
        assert options(config, RewardTerm("format")) == ()
    ((name, form),) = options(strict, RewardTerm("answer_form"))
    assert (name, form in FORM_EXAMPLES) == ("form", True)
    loose = {"trajectory": "from (0, 0) to (20, 50), (100, 100)"}.get(task, f"Here: {list(BOX)}")
    if task == "detection":
        loose = fill(DETECTION_FORMS[8], CUP_AND_DOG)
    headline = TASKS[task].headline
    assert measure(task, loose, headline) == pytest.approx(1)
    assert measure(task, loose, headline, strict) == 0
    assert measure(task, loose, "parsed", strict) == (task == "demand")  # there are words


def test_terms_of_a_mixture_that_ask_for_different_forms_are_refused():
    parts = (MixturePart(task=CONFIGS["digits"]), MixturePart(task=CONFIGS["detection"]))
    config = MixtureConfig(parts=parts)
    with pytest.raises(UserError, match=r"'answer_form'.*box.*detections"):
        TASKS["mixture"].term_options(config, RewardTerm("answer_form"))
    own = RewardTerm("answer_form", task="digits")
    assert TASKS["mixture"].term_options(config, own) == (("form", "box"),)


@pytest.mark.parametrize("piece", ["[", '["1,2",', ",'x", "<box>", "x1=1,"])
def test_the_longest_text_is_read_in_time(piece):
    text = (piece * LONGEST_TEXT_CHARACTERS)[:LONGEST_TEXT_CHARACTERS]
    began = time.process_time()
    for read in (parse_box, parse_path, parse_detections, parse_touch):
        read(text)
    assert time.process_time() - began < 20  # a quadratic reader takes minutes
    assert parse_box(text + "[1, 2, 3, 4]") is None  # too long to be an answer


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join))
def test_no_text_breaks_a_reader(text):
    for read in (parse_box, parse_point, parse_points, parse_path, parse_detections, parse_touch):
        for reading in ("lenient", "strict"):
            read(text, reading)
    box = parse_box(text)
    assert box is None or (box[0] <= box[2] and box[1] <= box[3] and np.isfinite(box).all())
