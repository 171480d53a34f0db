"""COCO average precision over a data set, by pycocotools: the field's own figures."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gmma.rewards.boxes import Number

COCO_FIGURES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


def coco_figures(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The twelve figures of the COCO summary, each in [0, 1], or −1 where it has no ground truth.

    `truth` is a COCO data set (`images`, `annotations`, `categories`), `detections` COCO results
    (`image_id`, `category_id`, `bbox` as `[x, y, width, height]` in pixels, `score`).
    """
    evaluation = _matched(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):  # it narrates
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(COCO_FIGURES, map(float, evaluation.stats), strict=True))


def coco_resampled(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], picks: np.ndarray
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """AP, AP50 and AP75 of the images, and of resampled images, int[R, N] rows of the sorted ids.

    Matching is done once, image by image; only precision and recall are gathered again for each
    resampled split. A split without any truth has 0.
    """
    evaluation = _matched(truth, detections, areas=("all",))
    images = len(evaluation.params.imgIds)
    matched = np.asarray(evaluation.evalImgs, object).reshape(-1, images)
    found = [_gather(evaluation, matched, rows) for rows in [np.arange(images), *picks]]
    names = COCO_FIGURES[:3]
    resampled = np.asarray(found[1:]).reshape(-1, len(names)).T
    return dict(zip(names, found[0], strict=True)), dict(zip(names, resampled, strict=True))


def _gather(evaluation: Any, matched: np.ndarray, rows: np.ndarray) -> list[float]:
    evaluation.evalImgs = matched[:, rows].ravel().tolist()
    evaluation.params.imgIds = evaluation._paramsEval.imgIds = list(range(len(rows)))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [threshold, recall, category]
    known = [precision, precision[:1], precision[5:6]]  # thresholds 0.5 … 0.95; 0.5; 0.75
    return [float(p[p > -1].mean()) if (p > -1).any() else 0.0 for p in known]


def _matched(
    truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    areas: tuple[str, ...] | None = None,
) -> Any:
    """pycocotools' evaluation after its matching; `areas` limits it to some ranges of size."""
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
        if areas is not None:
            kept = [evaluation.params.areaRngLbl.index(name) for name in areas]
            evaluation.params.areaRng = [evaluation.params.areaRng[i] for i in kept]
            evaluation.params.areaRngLbl = list(areas)
        evaluation.evaluate()
    return evaluation


def coco_dataset(
    images: Sequence[Sequence[Mapping[str, Any]]], labels: Sequence[str]
) -> dict[str, Any]:
    """A COCO data set from one list of `{"label", "box"}` per image, boxes `[x1, y1, x2, y2]`.

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
    """COCO results from one list of `{"label", "box", "score"}` per image.

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
