"""Object detection: many labelled boxes in one answer."""

import json
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gmma.rewards.boxes import Box, box_iou, read_gold_box
from gmma.rewards.exact import fold_text

_FENCE = re.compile(r"\s*```(?:json)?[^\S\n]*\n(.*?)```\s*", re.DOTALL)
_THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))


class Detection(NamedTuple):
    """One labelled box; the label is folded. Without a box or a label it matches nothing."""

    label: str | None
    box: Box | None


def parse_detections(text: str) -> list[Detection] | None:
    """Read a JSON list of `{"label": …, "box": [x1, y1, x2, y2]}`; None if it is not a JSON list.

    A ```json fence around it is accepted, and `bbox_2d` for `box` (the key of Qwen2.5-VL). An entry
    that is not such an object still counts as one detection, which matches nothing. Never raises.
    """
    fenced = _FENCE.fullmatch(text)
    try:
        entries = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None
    return [_read_entry(entry) for entry in entries] if isinstance(entries, list) else None


def _read_entry(entry: object) -> Detection:
    if not isinstance(entry, dict):
        return Detection(None, None)
    label, box = entry.get("label"), entry.get("box", entry.get("bbox_2d"))
    return Detection(
        fold_text(label) if isinstance(label, str) else None,
        read_gold_box(box) if isinstance(box, list) else None,
    )


def read_gold_detections(gold: object) -> list[Detection] | None:
    """Reference boxes of a record, a list of dictionaries or its JSON text; None if unreadable."""
    if isinstance(gold, str):
        found = parse_detections(gold)
    elif isinstance(gold, Sequence):
        found = [_read_gold_entry(entry) for entry in gold]
    else:
        return None
    complete = found is not None and all(None not in detection for detection in found)
    return found if complete else None


def _read_gold_entry(entry: object) -> Detection:
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        return Detection(None, None)
    return Detection(fold_text(entry["label"]), read_gold_box(entry.get("box")))


def detection_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    **columns: Sequence,
) -> list[float | None]:
    """Hungarian-matched IoU with label agreement, in [0, 1].

        reward = max over one-to-one matchings Σ IoU(p, g)·[label p = label g] / max(n_pred, n_gold)

    A surplus box, a missing one and a wrong label each cost (our choice of form). Both lists empty:
    1; one of them empty: 0. The column `answer` is a list of `{"label", "box"}`, boxes in the frame
    of the prediction (the value does not depend on the scale). Text that is not a JSON list: 0.
    """
    return _score_all(answers, answer, matched_iou)


def detection_ap_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    **columns: Sequence,
) -> list[float | None]:
    """Average precision of one image without confidences, in [0, 1].

        reward = mean over IoU thresholds t = 0.5, 0.55 … 0.95 and labels of precision · recall

    A set of boxes without confidences is one point of the precision-recall curve, and the area
    under the interpolated curve is the product of its coordinates (our choice: it depends on no
    order of output). Labels are those of truth or prediction, so that an unknown label costs.
    Columns, frame and empty lists as in `detection`.
    """
    return _score_all(answers, answer, set_average_precision)


Rule = Callable[[Sequence[Detection], Sequence[Detection]], float]


def _score_all(answers: Sequence[str], golds: Sequence[object], rule: Rule) -> list[float | None]:
    return [
        None if (truth := read_gold_detections(gold)) is None else _score_text(text, truth, rule)
        for text, gold in zip(answers, golds, strict=True)
    ]


def _score_text(text: str, truth: Sequence[Detection], rule: Rule) -> float:
    predicted = parse_detections(text)
    if predicted is None:
        return 0.0
    if not predicted or not truth:
        return float(len(predicted) == len(truth))
    return rule(predicted, truth)


def matched_iou(predicted: Sequence[Detection], truth: Sequence[Detection]) -> float:
    """The formula of `detection_reward` for two lists that are not empty."""
    gain = _label_iou(predicted, truth)
    rows, columns = _assign(gain)
    return float(gain[rows, columns].sum() / max(gain.shape))


def set_average_precision(predicted: Sequence[Detection], truth: Sequence[Detection]) -> float:
    """The formula of `detection_ap_reward` for two lists that are not empty."""
    gain = _label_iou(predicted, truth)
    labels_predicted = np.array([d.label or "" for d in predicted])
    labels_true = np.array([d.label for d in truth])
    labels = np.union1d(labels_predicted, labels_true)
    areas = []
    for threshold in _THRESHOLDS:
        rows, _ = _matches(gain, threshold)
        for label in labels:
            hits = np.sum(labels_predicted[rows] == label)
            claims, facts = np.sum(labels_predicted == label), np.sum(labels_true == label)
            areas.append(hits / claims * hits / facts if claims and facts else 0.0)
    return float(np.mean(areas))


def _matches(gain: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The largest one-to-one matching of pairs with `gain >= threshold`."""
    rows, columns = _assign((gain >= threshold).astype(float))
    hit = gain[rows, columns] >= threshold
    return rows[hit], columns[hit]


def _label_iou(predicted: Sequence[Detection], truth: Sequence[Detection]) -> np.ndarray:
    """float64[n_pred, n_gold]: IoU where the labels agree, 0 elsewhere."""
    gain = np.zeros((len(predicted), len(truth)))
    for i, (label, box) in enumerate(predicted):
        for j, (true_label, true_box) in enumerate(truth):
            if box is not None and true_box is not None and label == true_label:
                gain[i, j] = box_iou(box, true_box)
    return gain


def _assign(gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import linear_sum_assignment  # here: a slow import most workers never need

    return linear_sum_assignment(gain, maximize=True)
