"""GRPO-MA T4A4 on a manifest of trajectories: Qwen2.5-VL 3B, adapters alone trained.

    gmma train experiments/qwen2_5_vl_3b_trajectory_t4a4_lora.py

Needs Qwen/Qwen2.5-VL-3B-Instruct in `models/Qwen2.5-VL-3B-Instruct`
and the manifests of trajectories and their images in `data/ShareRobot`.
Hardware: planned for a slice of eight TPU v5e (`docs/tpu.md`). Not run on real weights, so no
figure is expected. The paper's settings are not known ([?]): every number here is our choice.
"""

from pathlib import Path

from gmma.config import ExperimentConfig
from gmma.run.variants import QWEN, lora_t4a4
from gmma.tasks.manifest import RecordsConfig
from gmma.tasks.trajectory import TrajectoryConfig


def experiment() -> ExperimentConfig:
    """A short warm start teaches the form of thought and answer; the paths come by RL."""
    task = TrajectoryConfig(
        source="records",
        records=RecordsConfig(
            train=Path("data/ShareRobot/grpo_sharerobot_trajectory_train.json"),
            test=Path("data/ShareRobot/grpo_sharerobot_trajectory_test.json"),
            images=Path("data/ShareRobot/trajectory/images"),
            question_type="trajectory-sharerobot",
        ),
    )
    return lora_t4a4(
        QWEN,
        "qwen2_5_vl_3b_trajectory_t4a4_lora",
        task,
        "trajectory",
        prompt_tokens=1024,
        thought_tokens=512,
        answer_tokens=128,
    )
