"""The object that meets a need: Qwen2.5-VL 3B, adapters alone trained.

    gmma train experiments/demand.py
    gmma train experiments/demand.py --variant grpo

Needs Qwen/Qwen2.5-VL-3B-Instruct in `models/Qwen2.5-VL-3B-Instruct`,
and in `data/demand` the file `demand_train.jsonl` and the images that it names
(`gmma.tasks.formats.demand_rows` says what it holds).
Hardware: planned for a slice of eight TPU v5e (`docs/tpu.md`); no run time is known. Not run on
real weights, so no figure is expected. The paper's settings are not known: every number is ours.
"""

from pathlib import Path

from gmma.config import ExperimentConfig
from gmma.run.variants import Variant, as_variant, ported_t4a4
from gmma.tasks.demand import DemandConfig
from gmma.tasks.manifest import RecordsConfig


def experiment(variant: Variant = "t4a4") -> ExperimentConfig:
    """Train as the field does; the paper is not confirmed to have this task."""
    task = DemandConfig(
        records=RecordsConfig(format="demand", train=Path("data/demand/demand_train.jsonl")),
    )
    t4a4 = ported_t4a4(
        "qwen2_5_vl_3b",
        "lora",
        f"demand_{variant}",
        task,
        "demand",
        prompt_tokens=1024,
        answer_tokens=64,
    )
    return as_variant(t4a4, variant)
