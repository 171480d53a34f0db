"""Task `demand`: the object in the image that meets a need.

    question  I have picked flowers and need something to put them in.
    thought   A vase would meet the need.
    answer    [237, 155, 404, 351]

A record's answer is `{"boxes": [[x1, y1, x2, y2], …], "names": [str, …]}`, either may be missing;
any of them is right. A record with several right objects is demonstrated with one drawn at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gmma.answers.boxes import Box, parse_box
from gmma.answers.points import parse_point
from gmma.errors import UserError
from gmma.images.frames import AxisMap, spell_box
from gmma.rewards.demand import demand_reward
from gmma.tasks.augment import Geometry
from gmma.tasks.drawing import TRUTH_COLOUR, Board, guess_colour
from gmma.tasks.records import refuse_tags, require_text, spell_value
from gmma.tasks.task import Demonstration
from gmma.tasks.truths import read_true_box, require_keys
from gmma.tasks.visual import Visual, VisualConfig, bounds_of, traced, visual_task
from gmma.types import Example


@dataclass(frozen=True, kw_only=True)
class DemandConfig(VisualConfig):
    """Needs and what meets them."""

    name: Literal["demand"] = "demand"  # which task this is


def read_truth(config: DemandConfig, answer: Any, mask: np.ndarray | None) -> dict[str, Any]:
    """Read the column `answer`: `{"boxes", "names"}`, each a list."""
    if not isinstance(answer, Mapping) or not all(
        isinstance(entries, list) for entries in answer.values()
    ):
        raise UserError(
            f'the answer {str(answer)[:80]} is no {{"boxes": [[x1, y1, x2, y2], …], "names": […]}} '
            "with a list of boxes or of names"
        )
    require_keys(answer, ("boxes", "names"), "the answer")
    boxes = []
    for number, entry in enumerate(answer.get("boxes", ())):
        if (box := read_true_box(entry)) is None:
            raise UserError(f"box {number} of the answer, {spell_value(entry)}, is no box")
        boxes.append(list(box))
    names = [
        refuse_tags(require_text(name, f"name {number} of the answer"), f"name {number}")
        for number, name in enumerate(answer.get("names", ()))
    ]
    if not boxes and not names:
        raise UserError(f"the answer {spell_value(answer)} has neither a box nor a name")
    return {"answer": {"boxes": boxes, "names": names}}


def place(answer: Mapping[str, Any], units: AxisMap) -> dict[str, Any]:
    """Convert the boxes of a record to other units."""
    return {**answer, "boxes": [list(units.box(box)) for box in answer.get("boxes", ())]}


def move(columns: Mapping[str, Any], units: AxisMap) -> dict[str, Any]:
    """Move the boxes to another frame."""
    return {"answer": place(columns["answer"], units)}


def bounds(columns: Mapping[str, Any]) -> Box | None:
    """Return the box round all accepted boxes."""
    return bounds_of(
        [corner for box in columns["answer"]["boxes"] for corner in (box[:2], box[2:])]
    )


def instruct(config: DemandConfig) -> str:
    """Tell the model how to answer."""
    return "Answer with the box [x1, y1, x2, y2] of one object that meets the need."


@traced
def demonstrate(config: DemandConfig, example: Example, rng: np.random.Generator) -> Demonstration:
    """Demonstrate one of the right objects; ours."""
    boxes, names = example.columns["answer"]["boxes"], example.columns["answer"]["names"]
    thought = f"{names[0]} would meet the need." if names else "It is there."
    if not boxes:
        return Demonstration(thought=thought, answer=names[int(rng.integers(len(names)))])
    box = boxes[int(rng.integers(len(boxes)))]
    return Demonstration(thought=thought, answer=str(spell_box(box, example.columns["image_size"])))


def metrics(
    config: DemandConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `accuracy`: the hit of an accepted box or name; `parsed`: there are any words."""
    truths = [example.columns["answer"] for example in examples]
    hits = demand_reward(
        answers,
        thoughts=[""] * len(answers),
        answer=truths,
        image_size=[example.columns["image_size"] for example in examples],
        reading=config.reading,
    )
    return {
        "accuracy": [hit or 0.0 for hit in hits],
        "parsed": [float(bool(answer.strip())) for answer in answers],
    }


def draw(config: DemandConfig, example: Example, answers: Sequence[str], board: Board) -> None:
    """Draw accepted boxes in green; each answer that is a box or a point."""
    truth = example.columns["answer"]
    for box in truth["boxes"]:
        board.box(box, TRUTH_COLOUR, width=4)
    for number, answer in enumerate(answers):
        colour = guess_colour(number)
        size = example.columns["image_size"]
        if (found := parse_box(answer, config.reading, size)) is not None:
            board.box(found, colour)
        elif (point := parse_point(answer, config.reading)) is not None:
            board.points([point], colour)


DEMAND = visual_task(
    Visual(
        name="demand",
        config=DemandConfig,
        read_truth=read_truth,
        place=place,
        geometry=Geometry(move=move, bounds=bounds),
        instruct=instruct,
        demonstrate=demonstrate,
        metrics=metrics,
        form=lambda config: "object",
        headline="accuracy",
        draw=draw,
    )
)
