"""Detection: matched IoU, its AP variant, and COCO's own figures."""

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gmma.answers.boxes import Detection, parse_detections
from gmma.rewards import REWARDS
from gmma.rewards.average_precision import (
    coco_dataset,
    coco_resampled,
    coco_results,
)

CAT = {"label": "cat", "box": [0, 0, 4, 4]}
HALF_CAT = {"label": "cat", "box": [0, 0, 4, 2]}
DOG = {"label": "dog", "box": [6, 6, 9, 9]}

side = st.integers(0, 20)
entries = st.fixed_dictionaries(
    {
        "label": st.sampled_from(["cat", "dog", "cow"]),
        "box": st.tuples(side, side, side, side).map(
            lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1]
        ),
    }
)
lists = st.lists(entries, max_size=5)


def score(predicted, gold, name="detection"):
    text = predicted if isinstance(predicted, str) else json.dumps(predicted)
    return REWARDS[name]([text], thoughts=[""], answer=[gold])[0]


@pytest.mark.parametrize(
    ("predicted", "gold", "iou", "ap"),
    [
        ([CAT, DOG], [DOG, CAT], 1, 1),
        ([CAT], [CAT, DOG], 1 / 2, 1 / 2),  # one is missing
        ([CAT, DOG], [CAT], 1 / 2, 1 / 2),  # one too many, of an unknown label
        ([CAT, CAT], [CAT], 1 / 2, 1 / 2),  # the same twice
        ([{**CAT, "label": "dog"}], [CAT], 0, 0),
        ([{**CAT, "label": " CAT "}], [CAT], 1, 1),
        ([HALF_CAT], [CAT], 1 / 2, 1 / 10),  # a hit at IoU 0.5, the first of ten thresholds
        ([], [], 1, 1),
        ([], [CAT], 0, 0),
        ([CAT], [], 0, 0),
        ([CAT, "what"], [CAT], 1 / 2, 1 / 2),
        ([CAT, {"label": "cat", "box": [1, 2]}], [CAT], 1 / 2, 1 / 2),
        ("a cat at [0, 0, 4, 4]", [CAT], 1, 1),
        ('{"label": "cat", "box": [0, 0, 4, 4]}', [CAT], 1, 1),
        ("[" * 100_000, [CAT], 0, 0),
        ("[" + "9" * 5000 + "]", [CAT], 0, 0),
    ],
)
def test_by_hand(predicted, gold, iou, ap):
    assert score(predicted, gold) == pytest.approx(iou)
    assert score(predicted, gold, "detection_ap") == pytest.approx(ap)


@pytest.mark.parametrize(
    "gold", [None, 3, "no list", [1], [{"label": "cat"}], [{**CAT, "box": [1, 2]}], [{"box": [1]}]]
)
def test_a_reference_that_cannot_be_read_is_none(gold):
    assert score([CAT], gold) is None
    assert score([CAT], gold, "detection_ap") is None


def test_fences_and_the_key_of_qwen():
    text = '```json\n[{"bbox_2d": [0, 0, 4, 4], "label": "Cat"}]\n```'
    assert parse_detections(text) == [Detection("cat", (0.0, 0.0, 4.0, 4.0))]
    assert score(text, json.dumps([CAT])) == 1.0


@given(lists, lists, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_laws_of_both_rewards(predicted, gold, random):
    for name in ("detection", "detection_ap"):
        value = score(predicted, gold, name)
        assert 0 <= value <= 1
        assert score(gold, gold, name) == 1.0
        assert score(gold, predicted, name) == pytest.approx(value)  # symmetric
        shuffled = random.sample(predicted, len(predicted))
        assert score(shuffled, gold, name) == pytest.approx(value)
        scaled = [[{**e, "box": [x * 3 for x in e["box"]]} for e in es] for es in (predicted, gold)]
        assert score(*scaled, name) == pytest.approx(value)


@given(lists.filter(bool), lists.filter(bool))
@settings(max_examples=100, deadline=None)
def test_a_box_of_an_unknown_label_always_costs(predicted, gold):
    value = score(predicted, gold)
    more = [*predicted, {"label": "ghost", "box": [0, 0, 1, 1]}]
    if len(predicted) >= len(gold):
        assert score(more, gold) < value or value == 0
    assert score(more, gold) <= value


def test_matching_is_best_not_greedy():
    near, far = {"label": "a", "box": [0, 0, 10, 10]}, {"label": "a", "box": [3, 0, 13, 10]}
    left, right = {"label": "a", "box": [2, 0, 12, 10]}, {"label": "a", "box": [9, 0, 19, 10]}
    # Greedy by IoU pairs `far` with `left` (9/11) and leaves `near` and `right` at 1/19.
    assert score([near, far], [left, right]) == pytest.approx((8 / 12 + 4 / 16) / 2)


def figures_of(truth, found):
    whole, _ = coco_resampled(truth, found, np.zeros((0, len(truth["images"])), int))
    return whole


def test_coco_figures_are_those_of_pycocotools(read_real):
    truth = read_real("coco_eval_golden/gts.json")
    figures = figures_of(truth, read_real("coco_eval_golden/dets_coco_results_format.json"))
    assert tuple(figures) == ("AP", "AP50", "AP75")
    # Printed by pycocotools 2.0 for these files, and by the tests they come from.
    assert figures["AP"] == pytest.approx(0.503647, abs=1e-6)
    assert figures["AP50"] == pytest.approx(0.696973, abs=1e-6)
    assert figures["AP75"] == pytest.approx(0.571667, abs=1e-6)


def test_coco_figures_are_those_that_pycocotools_computes(read_real, capsys):
    """Its own loaders, from its own file formats; then ours from labelled boxes and resampled."""
    truth = read_real("coco_eval_golden/gts.json")
    found = read_real("coco_eval_golden/dets_coco_results_format.json")
    reference = COCO()
    reference.dataset = truth
    reference.createIndex()
    theirs = COCOeval(reference, reference.loadRes(found), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    assert list(figures_of(truth, found).values()) == pytest.approx(theirs.stats[:3], abs=1e-6)
    # In the order of ids, in which pycocotools takes detections of one score.
    rows = {name: row for row, name in enumerate(sorted(i["id"] for i in truth["images"]))}
    names = {category["id"]: category["name"] for category in truth["categories"]}
    labels = list(names.values())
    images = {kind: [[] for _ in rows] for kind in ("truth", "found")}
    for kind, entries in (("truth", truth["annotations"]), ("found", found)):
        for entry in entries:
            x, y, width, height = entry["bbox"]
            labelled = {"label": names[entry["category_id"]], "box": [x, y, x + width, y + height]}
            extra = {"crowd": bool(entry.get("iscrowd", 0)), "score": entry.get("score", 1.0)}
            images[kind][rows[entry["image_id"]]].append(labelled | extra)
    ours = coco_dataset(images["truth"], labels), coco_results(images["found"], labels)
    whole, resampled = coco_resampled(*ours, np.stack([np.arange(100), np.arange(100)[::-1]]))
    assert list(whole.values()) == pytest.approx(theirs.stats[:3], abs=1e-6)
    for name, value in whole.items():
        assert resampled[name][0] == pytest.approx(value, abs=1e-9)
        assert resampled[name][1] == pytest.approx(value, abs=1e-3)  # ties in another order


def test_coco_from_labelled_boxes():
    images = [[CAT, DOG], [CAT]]
    truth = coco_dataset(images, ["cat", "dog"])
    assert figures_of(truth, coco_results(images, ["cat", "dog"]))["AP"] == pytest.approx(1)
    assert figures_of(truth, [])["AP"] == 0
    ghosts = [[{"label": "ghost", "box": [0, 0, 1, 1], "score": 0.3}], [CAT]]
    assert figures_of(truth, coco_results(ghosts, ["cat", "dog"]))["AP"] == pytest.approx(
        0.25, abs=0.01
    )
