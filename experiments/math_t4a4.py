"""GRPO-MA T4A4 on GSM8K's short problems, tiny family.

    gmma train experiments/math_t4a4.py
    gmma train experiments/math_t4a4.py --sft.steps 5 --rl.steps 5   # 3 busy minutes

Records: `train.jsonl` and `test.jsonl` of github.com/openai/grade-school-math in `data/gsm8k/`, or
any that `--task.train-path` and `--task.test-path` name. Hardware: two CPU cores. Run time and
figure of the whole run: not run yet. A network of this size that starts from nothing does not learn
to reckon, so expect an accuracy near 0: this file shows the line; for figures take a ported
backbone, which was not run on real weights.
"""

from pathlib import Path

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
from gmma.tasks.mathematics import MathConfig


def experiment() -> ExperimentConfig:
    """Problems of up to 150 characters, so that 64 prompt slots and 88 of a thought hold them."""
    return ExperimentConfig(
        name="math_t4a4",
        task=MathConfig(
            train_path=Path("data/gsm8k/train.jsonl"),
            test_path=Path("data/gsm8k/test.jsonl"),
            held_out=64,
            longest_question=150,
            longest_thought=150,
            explain=False,
        ),
        model=TinyConfig(layers=3, width=128, heads=4, kv_heads=2, head_size=32, mlp=256, images=0),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=64, thought_tokens=88, answer_tokens=12
        ),
        rewards=RewardConfig(
            terms=(RewardTerm("math", weight=1.0), RewardTerm("format", weight=0.1))
        ),
        sft=PhaseConfig(
            steps=1000,
            batch_prompts=32,
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50, schedule="cosine"),
        ),
        rl=PhaseConfig(
            steps=200,
            batch_prompts=16,
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=160, batch_prompts=32),
        checkpoint=CheckpointConfig(every_steps=50),
    )
