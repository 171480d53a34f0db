"""GRPO-MA T4A4 on generated scenes: a small model names where gripper and block are, then the path.

    gmma train experiments/trajectory_t4a4.py --task.scenes.backgrounds FOLDER_OF_PHOTOGRAPHS

Without the folder backgrounds are smooth noise. Hardware: two CPU cores. Run time and figures stand
in `LOG.md`. The teacher is imprecise on purpose: its points stray, and one thought in seven goes
to another block, so that RL has something to mend.
"""

from gmma.config import (
    CheckpointConfig,
    EvalConfig,
    ExperimentConfig,
    OptimizerConfig,
    PhaseConfig,
    RewardConfig,
    TreeConfig,
)
from gmma.families.tiny.network import TinyConfig
from gmma.rewards.terms import RewardTerm
from gmma.tasks.trajectory import TrajectoryConfig
from gmma.tasks.trajectory_scenes import SceneConfig


def experiment() -> ExperimentConfig:
    """Sizes and rates tried on two CPU cores."""
    return ExperimentConfig(
        name="trajectory_t4a4",
        task=TrajectoryConfig(
            scenes=SceneConfig(waypoints=3, blocks_max=2, scene_pixels=48, background_share=0.2),
            explain="nothing",
            end_noise=0.02,
            path_noise=0.08,
            thought_error_rate=0.15,
        ),
        model=TinyConfig(layers=3, width=128, heads=4, kv_heads=2, head_size=32, mlp=256),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=25, thought_tokens=9, answer_tokens=11
        ),
        rewards=RewardConfig(
            terms=(RewardTerm("trajectory", weight=1.0), RewardTerm("format", weight=0.1))
        ),
        sft=PhaseConfig(
            steps=800,
            batch_prompts=64,
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, schedule="cosine"),
        ),
        rl=PhaseConfig(
            steps=200,
            batch_prompts=32,
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=512),
        checkpoint=CheckpointConfig(every_steps=50),
    )
