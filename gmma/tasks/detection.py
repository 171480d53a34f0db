"""Task `detection`: every object of the named kinds, with its box.

    question  Find every cup and spoon in the image.
    thought   I see 2 cup and 1 spoon.
    answer    [{"label": "cup", "box": [12, 30, 40, 61]}, …]

A record's answer is such a list, boxes `[x1, y1, x2, y2]` in pixels; `"crowd": true` marks a region
of many that is not asked for. In AP over a split it counts neither for nor against a box inside it,
as in COCO; the reward and the metrics of one image do not know it: a box on it is one too many.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gmma.answers.boxes import Box, Detection, parse_detections
from gmma.answers.folding import fold_text
from gmma.errors import UserError
from gmma.images.frames import AxisMap, near_box, spell_box
from gmma.rewards.average_precision import coco_dataset, coco_resampled, coco_results
from gmma.rewards.detection import (
    detection_ap_reward,
    detection_reward,
    read_gold_detections,
)
from gmma.tasks.augment import Geometry
from gmma.tasks.drawing import TRUTH_COLOUR, Board, guess_colour, note_unreadable
from gmma.tasks.formats import spell_list
from gmma.tasks.public import is_public
from gmma.tasks.records import refuse_tags, require_text, spell_value
from gmma.tasks.task import CorpusFigure, Demonstration
from gmma.tasks.truths import read_flag, read_true_box, require_keys
from gmma.tasks.visual import Visual, VisualConfig, bounds_of, to_pixels, traced, visual_task
from gmma.types import Example

SPLIT_FIGURES = ("AP", "AP50", "AP75")


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(VisualConfig):
    """Objects and boxes."""

    name: Literal["detection"] = "detection"  # which task this is
    most_objects: int | None = None  # leave out records with more; None: keep all

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most_objects is not None and is_public(self.records):
            raise UserError(
                f"most_objects = {self.most_objects} leaves nothing out of records.format = "
                f"{self.records.format}; unset it, or read COCO's own JSON with format coco"
            )


def read_truth(config: DetectionConfig, answer: Any, mask: np.ndarray | None) -> dict[str, Any]:
    """Read the columns `answer`, a list of `{"label", "box"}`, and `crowd`, its crowd regions."""
    if not isinstance(answer, list) or read_gold_detections(answer) is None:
        raise UserError(
            f'the answer {str(answer)[:80]} is no list of {{"label": …, "box": [x1, y1, x2, y2]}}'
        )
    kinds: dict[bool, list[dict]] = {True: [], False: []}
    for number, entry in enumerate(answer):
        what = f"entry {number} of the answer"
        if config.records.unknown_keys == "refuse":
            require_keys(entry, ("label", "box", "crowd"), what)
        label = refuse_tags(require_text(entry["label"], f"{what}: label"), f"{what}: label")
        if (box := read_true_box(entry["box"])) is None:
            raise UserError(f"{what}: {spell_value(entry['box'])} is no box [x1, y1, x2, y2]")
        kinds[read_flag(entry.get("crowd", False), f"{what}: crowd")].append(
            {"label": label, "box": list(box)}
        )
    return {"answer": kinds[False], "crowd": kinds[True]}


def place(answer: Sequence[Mapping[str, Any]], units: AxisMap) -> list[dict[str, Any]]:
    """Convert the boxes of a record to other units."""
    return [{**entry, "box": list(units.box(entry["box"]))} for entry in answer]


def takes(config: DetectionConfig, answer: Any) -> bool:
    """Return whether a record has few enough objects."""
    return config.most_objects is None or len(answer) <= config.most_objects


def move(columns: Mapping[str, Any], units: AxisMap) -> dict[str, Any]:
    """Move the boxes to another frame."""
    return {name: place(columns[name], units) for name in ("answer", "crowd")}


def bounds(columns: Mapping[str, Any]) -> Box | None:
    """Return the box round all boxes."""
    boxes = [entry["box"] for name in ("answer", "crowd") for entry in columns[name]]
    return bounds_of([corner for box in boxes for corner in (box[:2], box[2:])])


def instruct(config: DetectionConfig) -> str:
    """Tell the model how to answer."""
    return (
        'Answer with a JSON list of {"label": "...", "box": [x1, y1, x2, y2]}, one entry for each '
        "object."
    )


def spell_detections(entries: Sequence[Mapping[str, Any]], size: Sequence[float]) -> str:
    """Return an answer, boxes in whole numbers."""
    spelt = [{"label": e["label"], "box": spell_box(e["box"], size)} for e in entries]
    return json.dumps(spelt, ensure_ascii=False)


@traced
def demonstrate(
    config: DetectionConfig, example: Example, rng: np.random.Generator
) -> Demonstration:
    """Demonstrate the truth, after a count of what there is; ours."""
    entries = example.columns["answer"]
    counted = Counter(entry["label"] for entry in entries)
    seen = [f"{count} {label}" for label, count in counted.items()]
    thought = f"I see {spell_list(seen)}." if seen else "I see none."
    return Demonstration(
        thought=thought, answer=spell_detections(entries, example.columns["image_size"])
    )


def metrics(
    config: DetectionConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure each image by itself: `matched_iou` (the reward) and `image_ap`; `parsed`."""
    truths = [example.columns["answer"] for example in examples]
    shared: dict[str, Any] = {
        "thoughts": [""] * len(answers),
        "answer": truths,
        "image_size": [example.columns["image_size"] for example in examples],
        "reading": config.reading,
    }
    iou = detection_reward(answers, **shared)
    precision = detection_ap_reward(answers, **shared)
    return {
        "matched_iou": [value or 0.0 for value in iou],
        "image_ap": [value or 0.0 for value in precision],
        "parsed": [
            float(parse_detections(answer, config.reading) is not None) for answer in answers
        ],
    }


def corpus(
    config: DetectionConfig,
    answers: Sequence[str],
    examples: Sequence[Example],
    picks: np.ndarray,
) -> dict[str, CorpusFigure]:
    """Return COCO's AP, AP50 and AP75 over the split, by pycocotools, boxes in pixels.

    Text answers have no confidences: all scores are 1. Labels are those of the split's truth, case
    and space folded.
    """
    truths = [true_entries(example) for example in examples]
    labels = sorted({entry["label"] for entries in truths for entry in entries})
    guesses = [
        guessed_entries(config, answer, example)
        for answer, example in zip(answers, examples, strict=True)
    ]
    truth, found = coco_dataset(truths, labels), coco_results(guesses, labels)
    whole, resampled = coco_resampled(truth, found, picks)
    return {
        name: CorpusFigure(value=whole[name], resampled=resampled[name]) for name in SPLIT_FIGURES
    }


def true_entries(example: Example) -> list[dict[str, Any]]:
    """Return the truth in pixels, crowd regions marked."""
    place = to_pixels(example)
    return [
        {"label": fold_text(e["label"]), "box": place.box(e["box"]), "crowd": name == "crowd"}
        for name in ("answer", "crowd")
        for e in example.columns[name]
    ]


def guessed_entries(config: DetectionConfig, answer: str, example: Example) -> list[dict[str, Any]]:
    """Return the readable detections of an answer, in pixels."""
    place = to_pixels(example)
    return [
        {"label": label, "box": near_box(place.box(box))}
        for label, box in read_answer(config, answer, example) or []
        if label is not None and box is not None
    ]


def read_answer(config: DetectionConfig, answer: str, example: Example) -> list[Detection] | None:
    """Return the detections of an answer, in the example's coordinates."""
    return parse_detections(answer, config.reading, example.columns["image_size"])


def draw(config: DetectionConfig, example: Example, answers: Sequence[str], board: Board) -> None:
    """Draw true boxes in green, each answer's in a colour of its own, with labels."""
    for entry in example.columns["answer"]:
        board.box(entry["box"], TRUTH_COLOUR, entry["label"], width=4)
    read = [read_answer(config, answer, example) for answer in answers]
    for number, found in enumerate(read):
        for label, box in found or []:
            if box is not None:
                board.box(box, guess_colour(number), label or "?")
    note_unreadable(board, read.count(None))


DETECTION = visual_task(
    Visual(
        name="detection",
        config=DetectionConfig,
        read_truth=read_truth,
        place=place,
        takes=takes,
        geometry=Geometry(move=move, bounds=bounds),
        instruct=instruct,
        demonstrate=demonstrate,
        metrics=metrics,
        form=lambda config: "detections",
        headline="matched_iou",
        draw=draw,
        corpus=corpus,
        pieces=('{"label": "', '", "box": [', "]}", "}, "),
    )
)
