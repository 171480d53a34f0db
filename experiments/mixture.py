"""GRPO-MA T4A4 on two tasks at once, digits on pictures and GSM8K's short problems, tiny family.

    gmma train experiments/mixture.py
    gmma train experiments/mixture.py --sft.steps 5 --rl.steps 5

One model, one tokenizer, one batch: rows with a picture beside rows without. SFT imitates what has
a reasoning trace, RL rewards each task by its own terms. Records: `train.jsonl` and `test.jsonl` of
github.com/openai/grade-school-math in `data/gsm8k/`, or any that `--task.parts.1.task.train-path`
and `--task.parts.1.task.test-path` name; the digits ship inside scikit-learn. Hardware: two CPU
cores. Run time and figure of the whole run: not run yet.
"""

from pathlib import Path

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
from gmma.tasks.mathematics import MathConfig
from gmma.tasks.mixture import MixtureConfig, MixturePart


def experiment(variant: Variant = "t4a4") -> ExperimentConfig:
    """Two prompts of three ask for a digit."""
    math = MathConfig(
        train_path=Path("data/gsm8k/train.jsonl"),
        test_path=Path("data/gsm8k/test.jsonl"),
        held_out=64,
        longest_question=150,
        longest_thought=150,
        explain=False,
    )
    t4a4 = ExperimentConfig(
        name=f"mixture_{variant}",
        task=MixtureConfig(
            parts=(MixturePart(task=DigitsConfig(), weight=2.0), MixturePart(task=math)),
            vocab_size=2048,
        ),
        model=TinyConfig(layers=3, width=128, heads=4, kv_heads=2, head_size=32, mlp=256),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=72, thought_tokens=96, answer_tokens=28
        ),
        rewards=RewardConfig(
            terms=(
                RewardTerm("box_iou", weight=1.0, task="digits"),
                RewardTerm("math", weight=1.0, task="math"),
                RewardTerm("format", weight=0.1),
            )
        ),
        sft=PhaseConfig(
            steps=1500,
            batch_prompts=48,
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50, schedule="cosine"),
        ),
        rl=RLConfig(
            steps=250,
            batch_prompts=24,
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=256, batch_prompts=32),
        checkpoint=CheckpointConfig(every_steps=50),
    )
    return as_variant(t4a4, variant)
