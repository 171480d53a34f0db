"""The SFT baseline of `qwen2_5_vl_3b_trajectory_t4a4_full.py`: imitation alone.

    gmma train experiments/qwen2_5_vl_3b_trajectory_sft_full.py

Needs, hardware and figures: as there.
"""

from qwen2_5_vl_3b_trajectory_t4a4_full import experiment as with_rl

from gmma.config import ExperimentConfig
from gmma.run.variants import as_sft


def experiment() -> ExperimentConfig:
    """As many steps as warm start and RL of T4A4 together."""
    return as_sft(with_rl())
