"""The default job: GRPO-MA with K = 4 thoughts and M = 4 answers on scenes of handwritten digits.

    gmma train experiments/digits.py
    gmma train experiments/digits.py --variant grpo
    gmma train experiments/digits.py --scene crowded

Crowded: six to nine digits, every one named with its place, so that a thought is five times as long
as its answer; and a box is right or wrong, which answers to one thought are both.
`docs/results.md` has what came out.
"""

from dataclasses import replace
from typing import Annotated, Literal

import tyro

from gmma.config import (
    CheckpointConfig,
    EvalConfig,
    ExperimentConfig,
    OptimizerConfig,
    PhaseConfig,
    RewardConfig,
    RLConfig,
    TreeConfig,
)
from gmma.families.tiny.network import TinyConfig
from gmma.rewards.terms import RewardTerm
from gmma.run.variants import Variant, as_variant
from gmma.tasks.digits import DigitsConfig

Scene = Annotated[
    Literal["sparse", "crowded"],
    tyro.conf.arg(
        help="sparse: two or three digits, rewarded by overlap. crowded: six to nine, 0 or 1"
    ),
]


def experiment(variant: Variant = "t4a4", scene: Scene = "sparse") -> ExperimentConfig:
    """Sizes and rates tried on two CPU cores; see experiments/LOG.md."""
    t4a4 = ExperimentConfig(
        name=f"digits_{variant}",
        task=DigitsConfig(),
        model=TinyConfig(layers=3, width=128, heads=4, kv_heads=2, head_size=32, mlp=256),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=21, thought_tokens=13, answer_tokens=7
        ),
        rewards=RewardConfig(
            terms=(RewardTerm("box_iou", weight=1.0), RewardTerm("format", weight=0.1))
        ),
        sft=PhaseConfig(
            steps=600,
            batch_prompts=64,
            microbatches=2,
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, schedule="cosine"),
        ),
        rl=RLConfig(
            steps=250,
            batch_prompts=32,
            microbatches=4,  # whose rows fit a processor's cache: LOG.md
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=512),
        checkpoint=CheckpointConfig(every_steps=50),
    )
    return as_variant(crowd(t4a4, variant) if scene == "crowded" else t4a4, variant)


def crowd(sparse: ExperimentConfig, variant: Variant) -> ExperimentConfig:
    """Long thoughts and a rare reward: an overlap of 0.7 leaves a box one pixel to stray."""
    return replace(
        sparse,
        name=f"digits_crowded_{variant}",
        task=DigitsConfig(digits_min=6, digits_max=9, point_noise_pixels=0, thought_error_rate=0.0),
        tree=replace(sparse.tree, thought_tokens=48),
        rewards=RewardConfig(
            terms=(RewardTerm("box_iou", weight=1.0, options=(("at_least", 0.7),)),)
        ),
        rl=replace(sparse.rl, steps=100),
    )
