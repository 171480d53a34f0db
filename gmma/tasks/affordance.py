"""Task `affordance`: the part of an object where an action takes hold.

    question  Find the part of the knife to cut with.
    thought   The part is around [132, 143].
    answer    [83, 138, 181, 148]            or points inside it, [[90, 142], [132, 143]]

A record's answer is the box of the part in pixels, or null beside a mask, whose box it then is. The
field `form` says whether an answer is a box (reward `box_iou`) or points (`affordance_points`,
which takes a mask). Heat maps are rendered as in `gmma.rewards.heatmap`, on pixels of the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gmma.answers.boxes import Box, parse_box, read_gold_box
from gmma.answers.points import parse_path
from gmma.errors import UserError
from gmma.images.frames import AxisMap, near_box, spell_box, spell_point
from gmma.rewards.boxes import box_iou
from gmma.rewards.heatmap import (
    heat_kld,
    heat_nss,
    heat_sim,
    render_box,
    render_points,
    worst_kld,
    worst_nss,
)
from gmma.rewards.points import share_inside
from gmma.tasks.augment import Geometry
from gmma.tasks.drawing import TRUTH_COLOUR, Board, guess_colour, note_unreadable
from gmma.tasks.task import Demonstration
from gmma.tasks.truths import read_true_box
from gmma.tasks.visual import Visual, VisualConfig, to_pixels, traced, visual_task
from gmma.types import Example

_POINTS_SHOWN = 4  # in a demonstration


@dataclass(frozen=True, kw_only=True)
class AffordanceConfig(VisualConfig):
    """Parts and what they are for."""

    name: Literal["affordance"] = "affordance"  # which task this is
    form: Literal["box", "points"] = "box"  # of an answer


def read_truth(config: AffordanceConfig, answer: Any, mask: np.ndarray | None) -> dict[str, Any]:
    """Read the columns `answer` (the box, or the mask where points are asked), `box`, `mask`."""
    box = mask_box(mask) if answer is None and mask is not None else read_true_box(answer)
    if box is None:
        raise UserError(f"the answer {str(answer)[:80]} is no box [x1, y1, x2, y2] and has no mask")
    if config.form == "points" and mask is None:
        raise UserError("form = points, but the record has no mask to judge points by")
    part = [float(side) for side in box]
    return {"answer": part if config.form == "box" else mask, "box": part, "mask": mask}


def place(answer: Any, units: AxisMap) -> list[float] | None:
    """Convert the box of a record to other units; a mask's box is in pixels already."""
    return None if answer is None else list(units.box(read_gold_box(answer) or ()))


def mask_box(mask: np.ndarray) -> Box:
    """Return the box round the true pixels of bool[H, W], which has some."""
    rows, columns = np.nonzero(mask)
    x1, y1 = columns.min(), rows.min()
    return float(x1), float(y1), float(columns.max()) + 1, float(rows.max()) + 1


def move(columns: Mapping[str, Any], place: AxisMap) -> dict[str, Any]:
    """Move the box to another frame; masks stay over their image."""
    box = list(place.box(columns["box"]))
    return {"box": box, "answer": box if isinstance(columns["answer"], list) else columns["answer"]}


def bounds(columns: Mapping[str, Any]) -> Box | None:
    """Return the box, and the mask if there is one."""
    box, mask = columns["box"], columns["mask"]
    boxes = [box] if mask is None else [box, mask_box(mask)]
    low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
    return float(low[0]), float(low[1]), float(high[2]), float(high[3])


def instruct(config: AffordanceConfig) -> str:
    """Tell the model how to answer."""
    if config.form == "box":
        return "Answer with the box [x1, y1, x2, y2] of that part."
    return "Answer with a list of points [[x, y], ...] on that part."


@traced
def demonstrate(
    config: AffordanceConfig, example: Example, rng: np.random.Generator
) -> Demonstration:
    """Demonstrate the box, or a few pixels of the mask drawn at random; ours."""
    size = example.columns["image_size"]
    x1, y1, x2, y2 = example.columns["box"]
    thought = f"The part is around {spell_point(((x1 + x2) / 2, (y1 + y2) / 2), size)}."
    if config.form == "box":
        return Demonstration(thought=thought, answer=str(spell_box((x1, y1, x2, y2), size)))
    points = pick_points(example, rng)
    return Demonstration(thought=thought, answer=str([spell_point(p, size) for p in points]))


def pick_points(example: Example, rng: np.random.Generator) -> list[list[float]]:
    """Return the middles of a few true pixels, in the example's coordinates."""
    rows, columns = np.nonzero(example.columns["mask"])
    drawn = rng.integers(0, len(rows), _POINTS_SHOWN)
    middles = np.stack([columns[drawn] + 0.5, rows[drawn] + 0.5], axis=1)
    return to_pixels(example).inverse().points(middles.tolist())


def metrics(
    config: AffordanceConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `iou`, `point_accuracy`, `score`, `kld`, `sim`, `nss` and `parsed`.

    `iou` is with the true box, 0 for points. `point_accuracy` is the share of points (of a box: its
    centre) on the part. `score` is that of the two that the form asks for. `kld`, `sim` and `nss`
    are of the rendered answer.

    The part is the mask, and where there is none the box. An answer that cannot be read has the
    worst value that any could have.
    """
    rows = [
        measure_answer(config, answer, example)
        for answer, example in zip(answers, examples, strict=True)
    ]
    wanted = {"box": "iou", "points": "point_accuracy"}[config.form]
    rows = [row | {"score": row[wanted]} for row in rows]
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def read_answer(
    config: AffordanceConfig, answer: str, example: Example
) -> tuple[Box | None, np.ndarray | None]:
    """Return the box or else the points of an answer; what the form asks for goes first."""
    box = parse_box(answer, config.reading, example.columns["image_size"])
    points = parse_path(answer, config.reading)
    return (box, None) if points is None or (config.form == "box" and box) else (None, points)


def measure_answer(config: AffordanceConfig, answer: str, example: Example) -> dict[str, float]:
    """Return the metrics of one answer, which may be a box or points."""
    place = to_pixels(example)
    width, height = example.columns["pixels"]
    true_box, mask = place.box(example.columns["box"]), example.columns["mask"]
    truth = render_box(true_box, height, width) if mask is None else mask.astype(float)
    on_part = mask if mask is not None else box_mask(true_box, height, width)
    box, points = read_answer(config, answer, example)
    if box is None and points is None:
        worst = {"kld": worst_kld(truth), "sim": 0.0, "nss": worst_nss(truth)}
        return {"iou": 0.0, "point_accuracy": 0.0, **worst, "parsed": 0.0}
    if box is not None:
        x1, y1, x2, y2 = guess = near_box(place.box(box))
        said, heat = [[(x1 + x2) / 2, (y1 + y2) / 2]], render_box(guess, height, width)
    else:
        assert points is not None
        said = place.points(points.tolist())
        heat = render_points(np.asarray(said), height, width)
    return {
        "iou": 0.0 if box is None else box_iou(near_box(place.box(box)), true_box),
        "point_accuracy": share_inside(np.asarray(said), on_part),
        "kld": heat_kld(heat, truth),
        "sim": heat_sim(heat, truth),
        "nss": heat_nss(heat, truth),
        "parsed": 1.0,
    }


def box_mask(box: Box, height: int, width: int) -> np.ndarray:
    """Return the pixels whose middle lies in a box."""
    x1, y1, x2, y2 = box
    across, down = np.arange(width) + 0.5, np.arange(height) + 0.5
    return np.outer((down >= y1) & (down <= y2), (across >= x1) & (across <= x2))


def draw(config: AffordanceConfig, example: Example, answers: Sequence[str], board: Board) -> None:
    """Draw the mask tinted and the true box in green; each answer's box or points."""
    if example.columns["mask"] is not None:
        board.tint(example.columns["mask"])
    board.box(example.columns["box"], TRUTH_COLOUR, width=4)
    unread = 0
    for number, answer in enumerate(answers):
        box, points = read_answer(config, answer, example)
        if box is not None:
            board.box(box, guess_colour(number))
        elif points is not None:
            board.points(points.tolist(), guess_colour(number))
        else:
            unread += 1
    note_unreadable(board, unread)


AFFORDANCE = visual_task(
    Visual(
        name="affordance",
        config=AffordanceConfig,
        read_truth=read_truth,
        place=place,
        geometry=Geometry(move=move, bounds=bounds),
        instruct=instruct,
        demonstrate=demonstrate,
        metrics=metrics,
        form=lambda config: config.form,
        headline="score",
        draw=draw,
    )
)
