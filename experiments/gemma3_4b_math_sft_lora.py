"""The SFT baseline of `gemma3_4b_math_t4a4_lora.py`: imitation alone.

    gmma train experiments/gemma3_4b_math_sft_lora.py

Needs, hardware and figures: as there.
"""

from gemma3_4b_math_t4a4_lora import experiment as with_rl

from gmma.config import ExperimentConfig
from gmma.run.variants import as_sft


def experiment() -> ExperimentConfig:
    """As many steps as warm start and RL of T4A4 together."""
    return as_sft(with_rl())
