"""Articulated objects in a simulator: Qwen2.5-VL 3B, adapters alone trained.

    gmma train experiments/manipulation.py
    gmma train experiments/manipulation.py --variant grpo

Needs Qwen/Qwen2.5-VL-3B-Instruct in `models/Qwen2.5-VL-3B-Instruct`; the scenes are drawn
by MuJoCo, which wants an OpenGL (EGL or OSMesa). The reward is sparse: success or not.
Hardware: planned for a slice of eight TPU v5e (`docs/tpu.md`); no run time is known. Not run on
real weights, so no figure is expected. The paper's settings are not known: every number is ours.
"""

from gmma.config import ExperimentConfig
from gmma.run.variants import Variant, as_variant, ported_t4a4
from gmma.tasks.manipulation.dataset import ManipulationConfig


def experiment(variant: Variant = "t4a4") -> ExperimentConfig:
    """The reward is success alone; `manipulation_contact` as a further term is a stage bonus."""
    task = ManipulationConfig()
    t4a4 = ported_t4a4(
        "qwen2_5_vl_3b",
        "lora",
        f"manipulation_{variant}",
        task,
        "manipulation",
        prompt_tokens=320,
        answer_tokens=64,
    )
    return as_variant(t4a4, variant)
