"""The smallest run that has every part: SFT, then RL, of a network that learns nothing.

gmma train tests/tiny_digits.py
"""

from gmma.config import (
    CheckpointConfig,
    EvalConfig,
    ExperimentConfig,
    PhaseConfig,
    RewardConfig,
    RLConfig,
    TreeConfig,
)
from gmma.families.tiny.network import TinyConfig
from gmma.rewards.terms import RewardTerm
from gmma.tasks.digits import DigitsConfig


def experiment() -> ExperimentConfig:
    """Seconds on one core, most of them compilation."""
    return ExperimentConfig(
        name="tiny",
        task=DigitsConfig(train_scenes=24, validation_scenes=8, test_scenes=8),
        # Layers are not computed again, as in the configs of older versions that tests read.
        model=TinyConfig(
            layers=1, width=16, heads=2, kv_heads=1, head_size=8, mlp=16, stem_steps=1, remat="none"
        ),
        tree=TreeConfig(
            thoughts=2, answers=2, prompt_tokens=21, thought_tokens=13, answer_tokens=7
        ),
        rewards=RewardConfig(terms=(RewardTerm("box_iou"), RewardTerm("format", weight=0.1))),
        sft=PhaseConfig(steps=5, batch_prompts=8),
        rl=RLConfig(steps=9, batch_prompts=8),
        evaluation=EvalConfig(examples=8, batch_prompts=8, samples=2, bootstrap=20),
        checkpoint=CheckpointConfig(every_steps=2),
        samples_every_steps=3,
    )
