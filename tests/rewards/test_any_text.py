"""Whatever a model writes, a scorer answers: in range, at once, with no exception.

10,000 strings for each scorer, Unicode and almost-right notation. Of the two that are slow, `math`
reads 1,000 and `code` runs 100 of them, and all of them with GMMA_SLOW=1.
"""

import functools
import time

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from gmma.errors import UserError
from gmma.rewards import REWARDS

COUNT = 10_000
MASK = np.eye(10, dtype=bool)
MANIPULATION = {"kind": "drawer", "seed": 0, "frame_size": [224, 224]}
COLUMNS = {
    "affordance_points": {"answer": MASK},
    "answer_form": {},
    "anls": {"answer": ["Genaxis Theatre", "carpark"]},
    "box_iou": {"answer": [1, 2, 30, 40]},
    "boxes": {"answer": [[1, 2, 30, 40], [5, 6, 7, 8]]},
    "choice": {"answer": "B", "choices": ["cup", "carpark"]},
    "code": {"tests": ["assert f(1) == 2"], "setup": ""},
    "code_all_passed": {"tests": ["assert f(1) == 2"], "setup": ""},
    "demand": {"answer": {"boxes": [[1, 2, 30, 40]], "names": ["cup"]}},
    "detection": {"answer": [{"label": "cup", "box": [1, 2, 30, 40]}]},
    "detection_ap": {"answer": [{"label": "cup", "box": [1, 2, 30, 40]}]},
    "exact": {"answer": "yes"},
    "format": {"closed": True, "finished": False},
    "manipulation": MANIPULATION,
    "manipulation_contact": MANIPULATION,
    "math": {"answer": "18"},
    "points": {"answer": [[1, 2], [3, 4]], "image_size": [30, 40]},
    "trajectory": {"answer": [[1, 2], [3, 4]], "image_size": [30, 40]},
    "vqa": {"answer": ["carpark"], "kind": "text"},
}
OPTIONS = {"answer_form": {"form": "box"}}  # of a term, not a value a record
EXAMPLES = ["[1, 2, 30, 40]", "[[1, 2], [3, 4]]", '[{"label": "cup", "box": [1, 2, 30, 40]}]']
EXAMPLES += [r"\boxed{\frac{36}{2}}", "def f(x):\n    return x + 1", "carpark", "yes", "cup"]
NOTATION = "0123456789.,+-eE[](){}\"':\\^_$%/ \n\tlabeboxfrcup=*#A"


@st.composite
def damaged(draw):
    """A right answer with one piece replaced."""
    text = draw(st.sampled_from(EXAMPLES))
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    return text[:start] + draw(st.text(alphabet=NOTATION, max_size=6)) + text[end:]


texts = st.text(max_size=40) | st.text(alphabet=NOTATION, max_size=60) | damaged()


@functools.cache
def draw_texts():
    found = []

    @given(st.lists(texts, min_size=500, max_size=500))
    @settings(
        max_examples=COUNT // 500 + 1,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def collect(drawn):
        found.extend(drawn)

    collect()
    return found


def check_any_text(name, count):
    answers = draw_texts()[:count]
    columns = {key: [value] for key, value in COLUMNS[name].items()}
    for answer in answers:
        began = time.monotonic()
        (value,) = REWARDS[name]([answer], thoughts=[""], **columns, **OPTIONS.get(name, {}))
        assert isinstance(value, float)
        assert 0 <= value <= 1, answer
        assert time.monotonic() - began < 10, answer
    assert len(answers) == count


@pytest.fixture(autouse=True)
def _skip_code_without_a_sandbox(request):
    try:
        if "code" in request.node.name:
            REWARDS["code"]([], thoughts=[], tests=[], setup=[])
    except UserError as error:
        pytest.skip(str(error))


SLOW = {"code": 100, "code_all_passed": 50, "math": 1000}


def test_every_scorer_is_here():
    assert set(COLUMNS) == set(REWARDS) - {"soft_overlong"}  # it reads no text


@pytest.mark.parametrize("name", sorted(set(COLUMNS) - set(SLOW)))
def test_any_text(name):
    check_any_text(name, COUNT)


@pytest.mark.parametrize(("name", "count"), SLOW.items())
def test_any_text_of_the_slow_ones(name, count):
    check_any_text(name, count)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_ten_thousand_texts_of_the_slow_ones(name):
    check_any_text(name, COUNT)
