"""Task `vqa`: any records with a question, images and an answer.

    question  Which animal is it?       images  one, none or several, where the text says <image>
    thought   The answer is dog.        (the record's own where it brings one)
    answer    B

The field `kind` says what an answer is: a text, a choice, a number, a box, boxes or points. What a
file may look like is in `gmma.tasks.tables`, what a record may look like in `gmma.tasks.layouts`.
Columns beside those of `gmma.tasks.visual`, which without an image have no size:

    kind      the config's
    choices   texts of the options, [] where there are none
    …         every other key of the record that JSON can hold
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL.Image import Image

from gmma.answers.boxes import Box, parse_box, parse_boxes
from gmma.answers.points import parse_points
from gmma.images.frames import AxisMap
from gmma.rewards.anls import anls_reward
from gmma.rewards.terms import RewardTerm
from gmma.rewards.vqa import vqa_reward
from gmma.tasks.augment import Geometry
from gmma.tasks.drawing import TRUTH_COLOUR, Board, Colour, guess_colour
from gmma.tasks.judge import answer_columns, judge
from gmma.tasks.kinds import KINDS
from gmma.tasks.task import Demonstration, TermOptions, reading_options
from gmma.tasks.visual import Visual, bounds_of, traced, visual_task
from gmma.tasks.visual import draw as draw_on_image
from gmma.tasks.vqa_records import VqaConfig as VqaConfig
from gmma.tasks.vqa_records import VqaFiles as VqaFiles
from gmma.tasks.vqa_records import storage
from gmma.types import Example

HALF = 0.5  # IoU from which on a box is right, as RefCOCO counts


def read_truth(config: VqaConfig, answer: Any, mask: np.ndarray | None) -> dict[str, Any]:
    """Return the columns `answer`, `choices` and `kind`, and the other keys of the record."""
    own = {"answer": answer["answer"], "choices": answer["choices"], "kind": config.kind}
    return {**answer["rest"], **own}


def system_of(answer: Any) -> str:
    """Return the system prompt of a record."""
    found: str = answer["system"]
    return found


def place(answer: Mapping[str, Any], units: AxisMap) -> Mapping[str, Any]:
    """Return a stored record as it is: it is stored in pixels."""
    return answer


def move(columns: Mapping[str, Any], units: AxisMap) -> dict[str, Any]:
    """Move the truth to another frame, if it is on the image."""
    moved = KINDS[columns["kind"]].move
    return {} if moved is None else {"answer": moved(columns["answer"], units)}


def bounds(columns: Mapping[str, Any]) -> Box | None:
    """Return the box round the truth; None where it may be anywhere."""
    return bounds_of(KINDS[columns["kind"]].corners(columns["answer"]))


def instruct(config: VqaConfig) -> str:
    """Tell the model how to answer."""
    return KINDS[config.kind].words


@traced
def demonstrate(config: VqaConfig, example: Example, rng: np.random.Generator) -> Demonstration:
    """Demonstrate the truth after a sentence made from it; ours."""
    kind, columns = KINDS[config.kind], example.columns
    return Demonstration(
        thought=kind.think(columns["answer"], columns["choices"]),
        answer=kind.spell(columns["answer"], columns["image_size"] or ()),
    )


def metrics(
    config: VqaConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `score` and `parsed`; of a text `anls` too, of a box the share with IoU ≥ 0.5.

    `score` is what the reward `vqa` gives, or the reward that `metric` names.
    """
    columns = answer_columns(answers, examples)
    kind = KINDS[config.kind]
    told = list(zip(answers, examples, strict=True))
    found = {
        "score": score(config, answers, columns),
        "parsed": [
            float(kind.parsed(text, example.columns["choices"], config.reading))
            for text, example in told
        ],
    }
    if config.kind == "text" and answers:
        blank = [""] * len(answers)
        near = anls_reward(answers, thoughts=blank, answer=columns["answer"])
        found["anls"] = [value or 0.0 for value in near]
    if config.kind == "box" and not config.metric:
        found["right_at_half"] = [float(value >= HALF) for value in found["score"]]
    return found


def score(
    config: VqaConfig, answers: Sequence[str], columns: Mapping[str, Sequence[Any]]
) -> list[float]:
    """Return the value of each answer, 0 where it has none.

    A comparison that may hang, and a function of the user's, run in processes that can be killed.
    """
    if not answers:
        return []
    term = RewardTerm(config.metric or "vqa")
    term = replace(term, options=term_options(config, term))
    if config.metric or config.kind == "number":
        return judge(term, answers, columns)
    options: dict[str, Any] = dict(term.options)
    given: dict[str, Any] = {
        name: columns[name] for name in ("answer", "kind", "choices", "image_size")
    }
    values = vqa_reward(answers, thoughts=[""] * len(answers), **given, **options)
    return [value or 0.0 for value in values]


def term_options(config: VqaConfig, term: RewardTerm) -> TermOptions:
    """Return how a term of the reward reads an answer, and its tolerance or form."""
    if term.name in ("vqa", "math"):
        return ("reading", config.reading), ("relative_tolerance", config.relative_tolerance)
    return reading_options(config.reading, config.kind, term)


def draw(config: VqaConfig, example: Example, answers: Sequence[str]) -> Image | None:
    """Draw truth and answers on the image where they are places in one."""
    if not example.images or KINDS[config.kind].move is None:
        return None
    return draw_on_image(VISUAL, config, example, answers)


def draw_board(config: VqaConfig, example: Example, answers: Sequence[str], board: Board) -> None:
    """Draw true corners in green, and the places that answers say."""
    truth = example.columns["answer"]
    if config.kind == "points":
        board.points(truth, TRUTH_COLOUR)
    else:
        for box in [truth] if config.kind == "box" else truth:
            board.box(box, TRUTH_COLOUR, width=4)
    for number, answer in enumerate(answers):
        draw_answer(config, example, answer, board, guess_colour(number))


def draw_answer(
    config: VqaConfig, example: Example, answer: str, board: Board, colour: Colour
) -> None:
    """Draw the boxes or points that an answer says."""
    how, size = config.reading, example.columns["image_size"]
    if config.kind == "points" and (points := parse_points(answer, how)) is not None:
        board.points(points.tolist(), colour)
    elif config.kind == "box" and (box := parse_box(answer, how, size)) is not None:
        board.box(box, colour)
    elif config.kind == "boxes" and (boxes := parse_boxes(answer, how, size)) is not None:
        for found in filter(None, boxes):
            board.box(found, colour)


VISUAL = Visual(
    name="vqa",
    config=VqaConfig,
    read_truth=read_truth,
    place=place,
    geometry=Geometry(move=move, bounds=bounds, mirrors=False),
    instruct=instruct,
    speaks_coordinates=lambda config: KINDS[config.kind].move is not None,
    system=system_of,
    demonstrate=demonstrate,
    metrics=metrics,
    headline="score",
    draw=draw_board,
    storage=storage,
)
VQA = replace(visual_task(VISUAL), draw=draw, term_options=term_options)
