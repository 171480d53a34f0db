"""Small records of every visual task: drawn ones that any clone can make, and the real ones."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmma.tasks.affordance import AffordanceConfig
from gmma.tasks.demand import DemandConfig
from gmma.tasks.detection import DetectionConfig
from gmma.tasks.manifest import RecordsConfig
from gmma.tasks.ocr_vqa import OcrVqaConfig
from gmma.tasks.trajectory import TrajectoryConfig
from gmma.tasks.trajectory_scenes import SceneConfig

REAL = Path(os.environ["GMMA_REAL_DATA"])
SHARES = {"validation_share": 0.2, "test_share": 0.2}


def real(name):
    """A real file, or a skip that says which one is absent."""
    path = REAL / name
    if not path.exists():
        pytest.skip(f"no real data at {path}; point GMMA_REAL_DATA at it")
    return path


def real_config(name):
    """A task's config over the real records."""
    if name == "detection":
        file = real("coco_permissive52/instances_train.json")
        return DetectionConfig(records=RecordsConfig(format="coco", train=file, **SHARES))
    if name in ("affordance", "affordance_points"):
        file = real("umd_affordance30/annotations.jsonl")
        form = "points" if name == "affordance_points" else "box"
        records = RecordsConfig(format="umd", train=file, **SHARES)
        return AffordanceConfig(form=form, records=records)
    if name == "demand":
        file, images = real("demand_seed/demand_train.jsonl"), real("coco_permissive52")
        records = RecordsConfig(format="demand", train=file, images=images, **SHARES)
        return DemandConfig(records=records)
    if name == "ocr_vqa":
        file = real("mmocr_toy/ocr_vqa.jsonl")
        return OcrVqaConfig(records=RecordsConfig(format="ocr_vqa", train=file, **SHARES))
    assert name == "trajectory"
    photographs = real("coco_permissive52/train")
    counts = {"train_scenes": 8, "validation_scenes": 4, "test_scenes": 4}
    return TrajectoryConfig(scenes=SceneConfig(backgrounds=photographs, **counts))


TASKS_WITH_RECORDS = (
    "detection",
    "affordance",
    "affordance_points",
    "demand",
    "ocr_vqa",
    "trajectory",
)
ANSWERS = {
    "detection": [
        {"label": "cup", "box": [4, 6, 24, 30]},
        {"label": "left shoe", "box": [30, 8, 44, 20]},
    ],
    "affordance": [4, 6, 24, 30],
    "affordance_points": None,
    "demand": {"boxes": [[4, 6, 24, 30], [30, 8, 44, 20]], "names": ["cup"]},
    "ocr_vqa": ["EXIT", "Way out"],
    "trajectory": [[4, 6], [20, 12], [44, 30]],
}
CONFIGS = {
    "detection": DetectionConfig,
    "affordance": AffordanceConfig,
    "affordance_points": lambda **fields: AffordanceConfig(form="points", **fields),
    "demand": DemandConfig,
    "ocr_vqa": OcrVqaConfig,
    "trajectory": lambda **fields: TrajectoryConfig(source="records", **fields),
}


def write_manifest(folder, name, count=12):
    """A manifest of drawn records, image 60 × 40; the path of its file."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        picture = rng.integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.png")
        row = {
            "id": number,
            "question": f"Where is it, left of number {number}?",
            "answer": ANSWERS[name],
            "question_type": name,
            "image": f"{number}.png",
        }
        if name == "affordance_points":
            mask = np.zeros((40, 60), np.uint8)
            mask[6:30, 4:24] = 3
            Image.fromarray(mask).save(folder / "mask.png")
            row |= {"mask": "mask.png", "mask_value": 3}
        rows.append(row)
    path = folder / "train.json"
    path.write_text(json.dumps(rows))
    return path


def drawn_config(folder, name, **fields):
    """A task's config over drawn records, the same for all splits."""
    path = write_manifest(folder, name)
    records = RecordsConfig(train=path, validation=path, test=path, validation_share=0)
    return CONFIGS[name](records=records, **fields)
