"""COCO average precision over a data set, by pycocotools: the field's own figures."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gmma.rewards.boxes import Number

FIGURES = ("AP", "AP50", "AP75")


def coco_resampled(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], picks: np.ndarray
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return AP, AP50 and AP75 of the images, and of each resampled split.

    `picks` are the splits, int[R, N] rows of the sorted ids. `truth` is a COCO data set (`images`,
    `annotations`, `categories`), `detections` COCO results (`image_id`, `category_id`, `bbox` as
    `[x, y, width, height]` in pixels, `score`). Matching is done once, image by image; only
    precision and recall are gathered again for each split. A split without any truth has 0.
    """
    evaluation = _matched(truth, detections)
    images = len(evaluation.params.imgIds)
    matched = np.asarray(evaluation.evalImgs, object).reshape(-1, images)
    found = [_gather(evaluation, matched, rows) for rows in [np.arange(images), *picks]]
    resampled = np.asarray(found[1:]).reshape(-1, len(FIGURES)).T
    return dict(zip(FIGURES, found[0], strict=True)), dict(zip(FIGURES, resampled, strict=True))


def _gather(evaluation: Any, matched: np.ndarray, rows: np.ndarray) -> list[float]:
    evaluation.evalImgs = matched[:, rows].ravel().tolist()
    evaluation.params.imgIds = evaluation._paramsEval.imgIds = list(range(len(rows)))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [threshold, recall, category]
    known = [precision, precision[:1], precision[5:6]]  # thresholds 0.5 … 0.95; 0.5; 0.75
    return [float(p[p > -1].mean()) if (p > -1).any() else 0.0 for p in known]


def _matched(truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> Any:
    """Return pycocotools' evaluation of boxes of any size, after its matching."""
    from pycocotools.coco import COCO  # here: a slow import that no reward needs
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {"info": {}, **truth}
        reference.createIndex()
        results = COCO()
        results.dataset = {**reference.dataset, "annotations": []}
        results.createIndex()
        if detections:  # `loadRes` cannot read an empty list
            results = reference.loadRes([dict(detection) for detection in detections])
        evaluation = COCOeval(reference, results, "bbox")
        anything = evaluation.params.areaRngLbl.index("all")
        evaluation.params.areaRng = [evaluation.params.areaRng[anything]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
    return evaluation


def coco_dataset(
    images: Sequence[Sequence[Mapping[str, Any]]], labels: Sequence[str]
) -> dict[str, Any]:
    """Make a COCO data set from one list of `{"label", "box"}` per image, as `[x1, y1, x2, y2]`.

    An entry with a true `crowd` is a region of many, which COCO counts neither way.
    """
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    annotations = [
        {
            "image_id": image,
            "category_id": numbers[o["label"]],
            "iscrowd": int(o.get("crowd", False)),
            **_extent(o["box"]),
        }
        for image, objects in enumerate(images)
        for o in objects
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    return {
        "images": [{"id": image} for image in range(len(images))],
        "categories": [{"id": number, "name": label} for label, number in numbers.items()],
        "annotations": annotations,
    }


def coco_results(
    images: Sequence[Sequence[Mapping[str, Any]]], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Make COCO results from one list of `{"label", "box", "score"}` per image.

    The score is 1 where missing. A label that the truth does not know becomes no result, for no
    figure of COCO could count it.
    """
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    return [
        {
            "image_id": image,
            "category_id": numbers[o["label"]],
            "bbox": _extent(o["box"])["bbox"],
            "score": o.get("score", 1.0),
        }
        for image, objects in enumerate(images)
        for o in objects
        if o["label"] in numbers
    ]


def _extent(box: Sequence[Number]) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
