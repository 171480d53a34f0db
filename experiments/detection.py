"""Object detection on COCO 2017: Qwen2.5-VL 3B, adapters alone trained.

    gmma train experiments/detection.py
    gmma train experiments/detection.py --variant grpo

Needs Qwen/Qwen2.5-VL-3B-Instruct in `models/Qwen2.5-VL-3B-Instruct`,
and in `data/coco` the files `annotations/instances_train2017.json`, `annotations/
instances_val2017.json` and `images/*.jpg` of both.
Hardware: planned for a slice of eight TPU v5e (`docs/tpu.md`); no run time is known. Not run on
real weights, so no figure is expected. The paper's settings are not known: every number is ours.
"""

from pathlib import Path

from gmma.config import ExperimentConfig
from gmma.run.variants import Variant, as_variant, ported_t4a4
from gmma.tasks.detection import DetectionConfig
from gmma.tasks.manifest import RecordsConfig


def experiment(variant: Variant = "t4a4") -> ExperimentConfig:
    """Images with more than 20 objects are left out: their answers would not fit."""
    task = DetectionConfig(
        most_objects=20,
        records=RecordsConfig(
            format="coco",
            train=Path("data/coco/annotations/instances_train2017.json"),
            test=Path("data/coco/annotations/instances_val2017.json"),
            images=Path("data/coco/images"),
            validation_share=0.02,
        ),
    )
    t4a4 = ported_t4a4(
        "qwen2_5_vl_3b",
        "lora",
        f"detection_{variant}",
        task,
        "detection",
        prompt_tokens=1024,
        answer_tokens=768,
    )
    return as_variant(t4a4, variant)
