"""The SFT baseline of `qwen2_5_vl_3b_trajectory_t4a4_full.py`: imitation alone.

    gmma train experiments/qwen2_5_vl_3b_trajectory_sft_full.py

Needs, hardware and figures: as there.
"""

from dataclasses import replace

from qwen2_5_vl_3b_trajectory_t4a4_full import experiment as with_rl

from gmma.config import ExperimentConfig


def experiment() -> ExperimentConfig:
    """As many steps as warm start and RL of T4A4 together."""
    base = with_rl()
    steps = base.sft.steps + base.rl.steps
    return replace(
        base,
        name="qwen2_5_vl_3b_trajectory_sft_full",
        sft=replace(base.sft, steps=steps),
        rl=replace(base.rl, steps=0),
    )
