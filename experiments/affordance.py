"""Part affordances, answered by a box: Qwen2.5-VL 3B, adapters alone trained.

    gmma train experiments/affordance.py
    gmma train experiments/affordance.py --variant grpo

Needs Qwen/Qwen2.5-VL-3B-Instruct in `models/Qwen2.5-VL-3B-Instruct`,
and in `data/umd` the files `annotations.jsonl`, `classes.json`, `images/` and `masks/`
(`gmma.tasks.formats.umd_rows` says what they hold).
Hardware: planned for a slice of eight TPU v5e (`docs/tpu.md`); no run time is known. Not run on
real weights, so no figure is expected. The paper's settings are not known: every number is ours.
"""

from pathlib import Path

from gmma.config import ExperimentConfig
from gmma.run.variants import Variant, as_variant, ported_t4a4
from gmma.tasks.affordance import AffordanceConfig
from gmma.tasks.manifest import RecordsConfig


def experiment(variant: Variant = "t4a4") -> ExperimentConfig:
    """Points instead: `--task.form points --rewards.terms.0.name affordance_points`."""
    task = AffordanceConfig(
        records=RecordsConfig(format="umd", train=Path("data/umd/annotations.jsonl")),
    )
    t4a4 = ported_t4a4(
        "qwen2_5_vl_3b",
        "lora",
        f"affordance_{variant}",
        task,
        "box_iou",
        prompt_tokens=1024,
        answer_tokens=64,
    )
    return as_variant(t4a4, variant)
