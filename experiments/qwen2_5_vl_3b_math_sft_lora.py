"""The SFT baseline of `qwen2_5_vl_3b_math_t4a4_lora.py`: imitation alone.

    gmma train experiments/qwen2_5_vl_3b_math_sft_lora.py

Needs, hardware and figures: as there.
"""

from dataclasses import replace

from qwen2_5_vl_3b_math_t4a4_lora import experiment as with_rl

from gmma.config import ExperimentConfig


def experiment() -> ExperimentConfig:
    """As many steps as warm start and RL of T4A4 together."""
    base = with_rl()
    steps = base.sft.steps + base.rl.steps
    return replace(
        base,
        name="qwen2_5_vl_3b_math_sft_lora",
        sft=replace(base.sft, steps=steps),
        rl=replace(base.rl, steps=0),
    )
