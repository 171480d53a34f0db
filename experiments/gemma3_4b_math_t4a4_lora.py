"""GRPO-MA T4A4 on GSM8K: Gemma 3 4B, adapters alone trained.

    gmma train experiments/gemma3_4b_math_t4a4_lora.py

Needs google/gemma-3-4b-it in `models/gemma-3-4b-it`
and `train.jsonl` and `test.jsonl` of GSM8K in `data/gsm8k`.
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
from gmma.tasks.mathematics import MathConfig


def experiment() -> ExperimentConfig:
    """The records' own solutions are the thoughts of the warm start."""
    return ExperimentConfig(
        name="gemma3_4b_math_t4a4_lora",
        task=MathConfig(),
        model=PretrainedConfig(
            directory=Path("models/gemma-3-4b-it"), lora=LoraConfig(rank=16, alpha=32.0)
        ),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=512, thought_tokens=512, answer_tokens=64
        ),
        rewards=RewardConfig(
            terms=(RewardTerm("math", weight=1.0), RewardTerm("format", weight=0.1)), workers=8
        ),
        sft=PhaseConfig(
            steps=100,
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
