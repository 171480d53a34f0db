"""The SFT baseline of `trajectory_t4a4.py`: imitation alone.

    gmma train experiments/trajectory_sft.py

Needs, hardware and figures: as there.
"""

from trajectory_t4a4 import experiment as t4a4

from gmma.config import ExperimentConfig
from gmma.run.variants import as_sft


def experiment() -> ExperimentConfig:
    """Everything else is as in T4A4."""
    return as_sft(t4a4())
