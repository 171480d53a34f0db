"""GRPO-MA T4A4 on articulated objects in a simulator: Qwen2.5-VL 3B, adapters alone trained.

    gmma train experiments/manipulation_t4a4.py

Needs Qwen/Qwen2.5-VL-3B-Instruct in `models/Qwen2.5-VL-3B-Instruct`; the scenes are drawn
by MuJoCo, which wants an OpenGL (EGL or OSMesa). The reward is sparse: success or not.
Hardware: planned for a slice of eight TPU v5e (`docs/tpu.md`); no run time is known. Not run on
real weights, so no figure is expected. The paper's settings are not known: every number is ours.
"""

from gmma.config import ExperimentConfig
from gmma.run.variants import QWEN, lora_t4a4
from gmma.tasks.manipulation.dataset import ManipulationConfig


def experiment() -> ExperimentConfig:
    """The reward is success alone; `manipulation_contact` as a further term is a stage bonus."""
    task = ManipulationConfig()
    return lora_t4a4(
        QWEN, "manipulation_t4a4", task, "manipulation", prompt_tokens=320, answer_tokens=64
    )
