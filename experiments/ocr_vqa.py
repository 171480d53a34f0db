"""Questions about text in images: Qwen2.5-VL 3B, adapters alone trained.

    gmma train experiments/ocr_vqa.py
    gmma train experiments/ocr_vqa.py --variant grpo

Needs Qwen/Qwen2.5-VL-3B-Instruct in `models/Qwen2.5-VL-3B-Instruct`,
and in `data/ocr_vqa` the file `ocr_vqa.jsonl` and the images that it names
(`gmma.tasks.formats.ocr_vqa_rows` says what it holds).
Hardware: planned for a slice of eight TPU v5e (`docs/tpu.md`); no run time is known. Not run on
real weights, so no figure is expected. The paper's settings are not known: every number is ours.
"""

from pathlib import Path

from gmma.config import ExperimentConfig
from gmma.run.variants import Variant, as_variant, ported_t4a4
from gmma.tasks.manifest import RecordsConfig
from gmma.tasks.ocr_vqa import OcrVqaConfig


def experiment(variant: Variant = "t4a4") -> ExperimentConfig:
    """Train as the field does; the paper is not confirmed to have this task."""
    task = OcrVqaConfig(
        records=RecordsConfig(format="ocr_vqa", train=Path("data/ocr_vqa/ocr_vqa.jsonl")),
    )
    t4a4 = ported_t4a4(
        "qwen2_5_vl_3b",
        "lora",
        f"ocr_vqa_{variant}",
        task,
        "anls",
        prompt_tokens=1536,
        answer_tokens=64,
    )
    return as_variant(t4a4, variant)
