"""`qwen2_5_vl_3b_trajectory_t4a4_lora.py` with every parameter trained but the image tower's.

    gmma train experiments/qwen2_5_vl_3b_trajectory_t4a4_full.py

Needs and figures: as there. Hardware: `gmma plan` tells which slices hold it (`docs/tpu.md`).
"""

from dataclasses import replace
from pathlib import Path

from qwen2_5_vl_3b_trajectory_t4a4_lora import experiment as with_adapters

from gmma.config import ExperimentConfig, OptimizerConfig
from gmma.families.pretrained import PretrainedConfig


def experiment() -> ExperimentConfig:
    """Full fine-tuning takes smaller steps than adapters do."""
    base = with_adapters()
    slow = OptimizerConfig(learning_rate=1e-5, warmup_steps=10, schedule="cosine")
    slower = OptimizerConfig(learning_rate=1e-6, warmup_steps=10)
    return replace(
        base,
        name="qwen2_5_vl_3b_trajectory_t4a4_full",
        model=PretrainedConfig(directory=Path("models/Qwen2.5-VL-3B-Instruct")),
        sft=replace(base.sft, optimizer=slow),
        rl=replace(base.rl, optimizer=slower),
    )
