"""Object detection: many labelled boxes in one answer."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from gmma.answers.boxes import Detection, parse_detections, read_gold_box
from gmma.answers.folding import fold_text
from gmma.answers.reading import Reading, Size, check_reading
from gmma.rewards.boxes import box_iou

_THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))


def read_gold_detections(gold: object) -> list[Detection] | None:
    """Reference boxes of a record, a list of dictionaries or its JSON text; None if unreadable."""
    if isinstance(gold, str):
        found = parse_detections(gold, "strict")
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
    image_size: Sequence[Size] = (),
    reading: str = "lenient",
    **columns: Sequence,
) -> list[float | None]:
    """Return the Hungarian-matched IoU with label agreement, in [0, 1].

        reward = max over one-to-one matchings Σ IoU(p, g)·[label p = label g] / max(n_pred, n_gold)

    A surplus box, a missing one and a wrong label each cost (our choice of form). Both lists empty:
    1; one of them empty: 0. The column `answer` is a list of `{"label", "box"}`, boxes in the frame
    of the prediction (the value does not depend on the scale). Text that says no list
    (`gmma.answers.boxes.parse_detections`): 0. `image_size` is `[w, h]` in the frame, which is
    thousandths without it.
    """
    return _score_all(answers, answer, matched_iou, image_size, check_reading(reading))


def detection_ap_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    image_size: Sequence[Size] = (),
    reading: str = "lenient",
    **columns: Sequence,
) -> list[float | None]:
    """Average precision of one image without confidences, in [0, 1].

        reward = mean over IoU thresholds t = 0.5, 0.55 … 0.95 and labels of precision · recall

    A set of boxes without confidences is one point of the precision-recall curve, and the area
    under the interpolated curve is the product of its coordinates (our choice: it depends on no
    order of output). Labels are those of truth or prediction, so that an unknown label costs.
    Columns, frame and empty lists as in `detection`.
    """
    rule = set_average_precision
    return _score_all(answers, answer, rule, image_size, check_reading(reading))


Rule = Callable[[Sequence[Detection], Sequence[Detection]], float]


def _score_all(
    answers: Sequence[str],
    golds: Sequence[object],
    rule: Rule,
    sizes: Sequence[Size],
    reading: Reading,
) -> list[float | None]:
    return [
        None
        if (truth := read_gold_detections(gold)) is None
        else _score_list(parse_detections(text, reading, size), truth, rule)
        for text, gold, size in zip(answers, golds, sizes or [None] * len(answers), strict=True)
    ]


def _score_list(
    predicted: Sequence[Detection] | None, truth: Sequence[Detection], rule: Rule
) -> float:
    if predicted is None:
        return 0.0
    if not predicted or not truth:
        return float(len(predicted) == len(truth))
    return rule(predicted, truth)


def matched_iou(predicted: Sequence[Detection], truth: Sequence[Detection]) -> float:
    """Return the formula of `detection_reward` for two lists that are not empty."""
    gain = _label_iou(predicted, truth)
    rows, columns = _assign(gain)
    return float(gain[rows, columns].sum() / max(gain.shape))


def set_average_precision(predicted: Sequence[Detection], truth: Sequence[Detection]) -> float:
    """Return the formula of `detection_ap_reward` for two lists that are not empty."""
    gain = _label_iou(predicted, truth)
    claims = Counter(d.label for d in predicted)
    facts = Counter(d.label for d in truth)
    areas = []
    for threshold in _THRESHOLDS:
        rows, _ = _matches(gain, threshold)
        hits = Counter(predicted[row].label for row in rows)
        areas += [
            hits[label] / claims[label] * hits[label] / facts[label]
            if claims[label] and facts[label]
            else 0.0
            for label in claims.keys() | facts.keys()
        ]
    return math.fsum(areas) / len(areas)


def _matches(gain: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest one-to-one matching of pairs with `gain >= threshold`."""
    rows, columns = _assign((gain >= threshold).astype(float))
    hit = gain[rows, columns] >= threshold
    return rows[hit], columns[hit]


def _label_iou(predicted: Sequence[Detection], truth: Sequence[Detection]) -> np.ndarray:
    """Return the IoU where the labels agree, 0 elsewhere: float64[n_pred, n_gold]."""
    gain = np.zeros((len(predicted), len(truth)))
    for i, (label, box) in enumerate(predicted):
        for j, (true_label, true_box) in enumerate(truth):
            if box is not None and true_box is not None and label == true_label:
                gain[i, j] = box_iou(box, true_box)
    return gain


def _assign(gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import linear_sum_assignment  # here: a slow import most workers never need

    return linear_sum_assignment(gain, maximize=True)
