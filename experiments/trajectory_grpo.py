"""The GRPO baseline of `trajectory_t4a4.py`: T16A1, one advantage for the whole response.

    gmma train experiments/trajectory_grpo.py

Needs, hardware and figures: as there.
"""

from trajectory_t4a4 import experiment as t4a4

from gmma.config import ExperimentConfig
from gmma.run.variants import as_grpo


def experiment() -> ExperimentConfig:
    """Everything else is as in T4A4."""
    return as_grpo(t4a4())
