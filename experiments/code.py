"""MBPP's short exercises, judged on HumanEval's, tiny family: GRPO-MA T4A4 and its baselines.

    gmma train experiments/code.py
    gmma train experiments/code.py --variant grpo
    gmma train experiments/code.py --sft.steps 5 --rl.steps 5   # 7 busy minutes

Records: `mbpp.jsonl` of github.com/google-research/google-research (mbpp) in `data/mbpp/` and
`HumanEval.jsonl` of github.com/openai/human-eval in `data/humaneval/`, or any that
`--task.train-path` and `--task.test-path` name. What the model writes runs in the sandbox, which
needs Linux with user namespaces. Hardware: two CPU cores. Run time and figure of the whole run: not
run yet. A network of this size that starts from nothing does not learn to program, so expect pass@1
near 0: this file shows the line; for figures take a ported backbone, which was not run on real
weights.
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
from gmma.tasks.code import CodeConfig


def experiment(variant: Variant = "t4a4") -> ExperimentConfig:
    """Exercises and solutions of up to 200 characters; a submission has two seconds."""
    t4a4 = ExperimentConfig(
        name=f"code_{variant}",
        task=CodeConfig(
            train_path=Path("data/mbpp/mbpp.jsonl"),
            test_path=Path("data/humaneval/HumanEval.jsonl"),
            longest_question=200,
            longest_solution=200,
            explain=False,
        ),
        model=TinyConfig(layers=3, width=128, heads=4, kv_heads=2, head_size=32, mlp=256, images=0),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=112, thought_tokens=28, answer_tokens=104
        ),
        rewards=RewardConfig(
            terms=(
                RewardTerm("code", weight=1.0, options=(("wall_seconds", 2),)),
                RewardTerm("format", weight=0.1),
            ),
            workers=2,
        ),
        sft=PhaseConfig(
            steps=1000,
            batch_prompts=32,
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50, schedule="cosine"),
        ),
        rl=RLConfig(
            steps=200,
            batch_prompts=16,
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=160, batch_prompts=16),
        checkpoint=CheckpointConfig(every_steps=50),
    )
    return as_variant(t4a4, variant)
