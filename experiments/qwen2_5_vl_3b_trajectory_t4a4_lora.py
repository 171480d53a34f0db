"""GRPO-MA T4A4 on a manifest of trajectories: Qwen2.5-VL 3B, adapters alone trained.

    gmma train experiments/qwen2_5_vl_3b_trajectory_t4a4_lora.py

Needs Qwen/Qwen2.5-VL-3B-Instruct in `models/Qwen2.5-VL-3B-Instruct`
and the manifests of trajectories and their images in `data/ShareRobot`.
Hardware: planned for a slice of eight TPU v5e (`docs/tpu.md`). Not run on real weights, so no
figure is expected. The paper's settings are not known ([?]): every number here is our choice.
"""

from pathlib import Path

from gmma.config import (
    CheckpointConfig,
    EvalConfig,
    ExperimentConfig,
    MeshConfig,
    OptimizerConfig,
    PhaseConfig,
    RewardConfig,
    TreeConfig,
)
from gmma.models.lora import LoraConfig
from gmma.models.pretrained import PretrainedConfig
from gmma.rewards.terms import RewardTerm
from gmma.tasks.manifest import RecordsConfig
from gmma.tasks.trajectory import TrajectoryConfig


def experiment() -> ExperimentConfig:
    """A short warm start teaches the form of thought and answer; the paths come by RL."""
    return ExperimentConfig(
        name="qwen2_5_vl_3b_trajectory_t4a4_lora",
        task=TrajectoryConfig(
            source="records",
            records=RecordsConfig(
                train=Path("data/ShareRobot/grpo_sharerobot_trajectory_train.json"),
                test=Path("data/ShareRobot/grpo_sharerobot_trajectory_test.json"),
                images=Path("data/ShareRobot/trajectory/images"),
                question_type="trajectory-sharerobot",
            ),
        ),
        model=PretrainedConfig(
            directory=Path("models/Qwen2.5-VL-3B-Instruct"), lora=LoraConfig(rank=16, alpha=32.0)
        ),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=1024, thought_tokens=512, answer_tokens=128
        ),
        rewards=RewardConfig(
            terms=(RewardTerm("trajectory", weight=1.0), RewardTerm("format", weight=0.1)),
            workers=8,
        ),
        sft=PhaseConfig(
            steps=50,
            batch_prompts=32,
            microbatches=4,
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=10, schedule="cosine"),
        ),
        rl=PhaseConfig(
            steps=500,
            batch_prompts=32,
            microbatches=4,
            optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=256, batch_prompts=32, samples=4),
        checkpoint=CheckpointConfig(every_steps=50),
        mesh=MeshConfig(data=1, fsdp=-1),
        logprob_chunk_slots=512,
    )
